// Small charts of the last minutes, drawn as SVG paths: areas that stand on one another, or lines. A chart knows
// nothing of what it shows. Pointing at one tells `looks` how long ago that is, for all of them at once.

import { attribute, h, s, say } from "./dom.js";
import { GAP_MS } from "./past.js";
import { duration } from "./words.js";

const WIDTH = 300;
const HEIGHT = 100;

// Where somebody points: ms ago, or null. Listeners hear of changes.
export const looks = {
  ago: null,
  listeners: [],
  at(ago) {
    if (this.ago === ago) return;
    this.ago = ago;
    for (const listener of this.listeners) listener();
  },
};

const round = (value) => Math.round(value * 10) / 10;

// The next round number above.
function ceiling(value) {
  if (value <= 1) return 1;
  const ten = 10 ** Math.floor(Math.log10(value));
  return ten * ([1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((step) => step * ten >= value) ?? 10);
}

// Runs of samples without a gap between them, and in which all that is asked for is known.
function runs(samples, names) {
  const found = [];
  let run = null;
  let last = null;
  for (const sample of samples) {
    const isKnown = names.every((name) => sample[name] !== null);
    if (isKnown && run !== null && sample.at - last.at < GAP_MS) run.push(sample);
    else if (isKnown) found.push((run = [sample]));
    else run = null;
    last = sample;
  }
  return found;
}

class Chart {
  constructor(label, kind) {
    this.drawing = s("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": label,
    });
    this.pin = s("line", { class: "pin", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.top = h("span", { class: "chart-top", "aria-hidden": "true" });
    this.since = h("span", { class: "chart-since", "aria-hidden": "true" });
    this.element = h("div", { class: `chart ${kind}` }, this.drawing, this.top, this.since);
    this.window = 1;
    const point = (event) => {
      const box = this.drawing.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      looks.at(Math.round((1 - share) * this.window));
    };
    this.drawing.addEventListener("pointermove", point);
    this.drawing.addEventListener("pointerdown", point);
    this.drawing.addEventListener("pointerleave", () => looks.at(null));
  }

  // Where a moment stands.
  across(at, now) {
    return round(WIDTH * (1 - (now - at) / this.window));
  }

  pointed() {
    attribute(this.pin, "visibility", looks.ago === null ? "hidden" : null);
    const x = round(WIDTH * (1 - (looks.ago ?? 0) / this.window));
    attribute(this.pin, "x1", x);
    attribute(this.pin, "x2", x);
  }
}

// Areas that stand on one another, the first one at the bottom.
export class Areas extends Chart {
  constructor(label, names) {
    super(label, "areas");
    this.names = names;
    this.paths = names.map((name) => s("path", { class: `band band-${name}` }));
    this.drawing.append(...this.paths, this.pin);
  }

  draw({ samples, window }, now) {
    this.window = window;
    const all = runs(samples, this.names);
    const sum = (sample, upTo) => this.names.slice(0, upTo).reduce((total, name) => total + sample[name], 0);
    const most = ceiling(Math.max(0, ...all.flat().map((sample) => sum(sample, this.names.length))) * 1.05);
    const up = (value) => round(HEIGHT * (1 - value / most));
    this.paths.forEach((path, at) => {
      const areas = all.map((run) => {
        const over = run.map((sample) => `${this.across(sample.at, now)},${up(sum(sample, at + 1))}`);
        const under = run.map((sample) => `${this.across(sample.at, now)},${up(sum(sample, at))}`).reverse();
        return `M${over.join("L")}L${under.join("L")}Z`;
      });
      attribute(path, "d", areas.join(""));
    });
    say(this.top, most.toLocaleString("en"));
    say(this.since, `last ${duration(window)}`);
    this.pointed();
  }
}

// Lines over a logarithmic scale, from `least` to `most`, the same for all who compare them.
export class Lines extends Chart {
  constructor(label, names, least, most) {
    super(label, "lines");
    this.names = names;
    [this.low, this.high] = [Math.log10(least), Math.log10(most)];
    const steps = [];
    for (let ten = Math.ceil(this.low); ten <= this.high; ten += 1) steps.push(this.up(10 ** ten));
    this.paths = names.map((name) => s("path", { class: `line line-${name.split("_").pop()}` }));
    const grid = steps.map((y) => s("line", { class: "grid", x1: 0, x2: WIDTH, y1: y, y2: y }));
    this.drawing.append(...grid, ...this.paths, this.pin);
  }

  up(value) {
    const share = (Math.log10(Math.max(value, 1e-9)) - this.low) / (this.high - this.low);
    return round((HEIGHT - 6) * (1 - Math.min(1, Math.max(0, share))) + 3);
  }

  draw({ samples, window }, now) {
    this.window = window;
    this.names.forEach((name, at) => {
      const lines = runs(samples, [name]).map((run) => {
        const points = run.map((sample) => `${this.across(sample.at, now)},${this.up(sample[name])}`);
        // One alone is seen as a dot.
        return `M${points.join("L")}${points.length === 1 ? "h0.1" : ""}`;
      });
      attribute(this.paths[at], "d", lines.join(""));
    });
    this.pointed();
  }
}
