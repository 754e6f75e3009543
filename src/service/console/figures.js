// The three tiles of figures: who is here, what is done a second, how long it takes. Each shows now, or the moment at
// which somebody points in a chart.

import { Areas, Lines, looks } from "./charts.js";
import { aName, byId, h, keep, say, tell } from "./dom.js";
import { STATUSES, WAITS } from "./past.js";
import { count, duration, isNumber, rate, span } from "./words.js";

const WAITS_SAID = {
  applied: "applied acks",
  durable: "durable acks",
  commit: "commits to the store",
  service: "service calls",
};
const RATES = [
  ["logins", "logins"],
  ["resumes", "resumes"],
  ["pushes", "pushes"],
  ["service_calls", "service calls"],
  ["refused", "refused as too much"],
  ["failed", "failed at the server"],
];
// What is counted there, for whoever points at it.
const RATES_MEAN = {
  refused: "Requests that were refused because their client was too fast, or because there was too much to do",
  failed: "Commands, logins, resumes and service calls that failed by the server's own fault: what error_rate rings of",
};
// What a chart of times reaches from and to, ms: those of all rows are compared by eye.
const [LEAST_MS, MOST_MS] = [0.05, 10_000];

const big = () => h("p", { class: "big" });

class Players {
  constructor() {
    this.now = big();
    this.of = h("p", { class: "aside" });
    this.chart = new Areas("Players by status over the last minutes", STATUSES);
    this.legend = h("ul", { class: "legend" });
    this.devices = h("p", { class: "aside devices" });
    byId("players").append(
      h("div", { class: "head" }, h("h3", {}, "Players online"), this.of),
      this.now,
      this.chart.element,
      this.legend,
      this.devices,
    );
  }

  show(overview, shown) {
    say(this.now, count(shown.all));
    say(
      this.of,
      `${count(overview.sessions)} sessions · ${count(overview.links)} links · ${count(overview.rooms)} rooms`,
    );
    const item = (status) => h("li", {}, h("i", { class: `swatch band-${status}` }), h("span", {}, status), h("b"));
    keep(
      this.legend,
      STATUSES,
      (status) => status,
      item,
      (element, status) => say(element.lastChild, count(shown[status])),
    );
    // Devices are called what clients say: each is put for itself, whichever way it is written.
    const devices = Object.entries(overview.players?.by_device ?? {}).filter(([, players]) => isNumber(players));
    devices.sort(([, a], [, b]) => b - a);
    const parts = devices.slice(0, 6).flatMap(([device, players], at) => [at > 0 ? " · " : "", aName(device), ` ${count(players)}`]);
    tell(this.devices, parts);
  }
}

class Work {
  constructor() {
    this.now = big();
    this.chart = new Areas("Acks a second over the last minutes", ["acks"]);
    this.rates = h("dl", { class: "rates" });
    byId("work").append(
      h("div", { class: "head" }, h("h3", {}, "Acks a second")),
      this.now,
      this.chart.element,
      this.rates,
    );
  }

  show(overview, shown) {
    say(this.now, rate(shown.acks));
    const item = ([name, said]) => h("div", { title: RATES_MEAN[name] }, h("dt", {}, said), h("dd"));
    keep(
      this.rates,
      RATES,
      ([name]) => name,
      item,
      (element, [name]) => {
        const told = overview.rates?.[name];
        say(element.lastChild, told === undefined ? rate(told) : `${rate(told)}/s`);
      },
    );
  }
}

class Waits {
  constructor() {
    this.rows = WAITS.map((wait) => ({
      wait,
      half: h("td"),
      most: h("td"),
      chart: new Lines(
        `${WAITS_SAID[wait]}, p50 and p99 over the last minutes`,
        [`${wait}_p50`, `${wait}_p99`],
        LEAST_MS,
        MOST_MS,
      ),
    }));
    const unseen = (name) => h("th", { scope: "col" }, h("span", { class: "hidden" }, name));
    const head = [
      unseen("of what"),
      ...["p50", "p99"].map((name) => h("th", { scope: "col" }, name)),
      unseen("over the last minutes"),
    ];
    byId("waits").append(
      h(
        "div",
        { class: "head" },
        h("h3", {}, "How long it takes"),
        h("p", { class: "aside" }, "last 10 s · lines from 0.05 ms to 10 s"),
      ),
      h(
        "table",
        { class: "waits" },
        h("caption", { class: "hidden" }, "Half of all are faster than p50, 99 in 100 faster than p99"),
        h("thead", {}, h("tr", {}, ...head)),
        h(
          "tbody",
          {},
          ...this.rows.map(({ wait, half, most, chart }) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, WAITS_SAID[wait]),
              half,
              most,
              h("td", { class: "spark" }, chart.element),
            ),
          ),
        ),
      ),
    );
  }

  show(shown) {
    for (const { wait, half, most } of this.rows) {
      say(half, span(shown[`${wait}_p50`]));
      say(most, span(shown[`${wait}_p99`]));
    }
  }
}

export class Figures {
  constructor(past) {
    this.past = past;
    this.players = new Players();
    this.work = new Work();
    this.waits = new Waits();
    this.charts = [this.players.chart, this.work.chart, ...this.waits.rows.map((row) => row.chart)];
    this.note = h("p", { class: "then", "aria-hidden": "true" });
    byId("players").append(this.note);
    looks.listeners.push(() => this.latest && this.show(this.latest));
  }

  show(overview) {
    this.latest = overview;
    const samples = this.past.samples;
    const now = samples.at(-1)?.at ?? 0;
    const then = looks.ago === null ? null : this.past.at(looks.ago, now);
    const shown = then ?? samples.at(-1) ?? {};
    say(this.note, then ? `${duration(now - then.at)} ago` : "");
    this.players.show(overview, shown);
    this.work.show(overview, shown);
    this.waits.show(shown);
    for (const chart of this.charts) chart.draw(this.past, now);
  }
}
