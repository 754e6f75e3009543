// The map of shards: a cell for each, marked as the node that serves it. What changes hands is seen to do so, what has
// just changed hands glows for a moment, and all of it is told as text, too.

import { attribute, byId, h, keep, s, say, table } from "./dom.js";
import { badge, markOf, rebadge } from "./nodes.js";
import { count, duration, isNumber, list, many, text } from "./words.js";

const SHARDS_MAX = 4096;
const CELL_MAX = 34;
// How high the map may become, about; with many shards it needs more room.
const [HEIGHT, HEIGHT_OF_MANY, MANY] = [320, 480, 1024];
// Below it a letter cannot be read.
const LETTER_MIN = 13;
const PATTERNS = 8;
const MOVES_MAX = 5;
const MOVE_TOLD_MS = 60_000;
const GLOWS_MS = 4_000;

const CHANGES = {
  taking: "is being taken",
  handing_over: "is being handed over",
  repairing: "is being written again",
};

// Where each shard is: `{ home, change, to, isKnown }` by number. `before` is what was told of it last.
export function placed(overview, before) {
  const total = Math.min(
    SHARDS_MAX,
    Math.max(0, isNumber(overview.shards_total) ? Math.floor(overview.shards_total) : 0),
  );
  const isPartial =
    list(overview.unknown_nodes).length > 0 || list(overview.nodes).some((node) => node?.state === "unknown");
  const found = Array.from({ length: total }, () => ({ home: null, change: null, to: null, isKnown: true }));
  const nodes = list(overview.shards);
  for (const { node, serving } of nodes) {
    for (const shard of list(serving)) if (found[shard]) found[shard].home = text(node);
  }
  for (const { node, changing } of nodes) {
    for (const { shard, state, to } of list(changing)) {
      const cell = found[shard];
      if (!cell) continue;
      const takes = state === "taking";
      // Who gives knows more than who takes.
      if (cell.change !== null && takes) continue;
      cell.change = text(state) || "changing";
      cell.to = text(to) || text(node);
      if (!takes) cell.home = text(node);
      else if (cell.home === null) cell.home = before?.[shard]?.home ?? null;
    }
  }
  found.forEach((cell, shard) => {
    if (cell.home !== null || cell.change !== null || !isPartial) return;
    cell.isKnown = false;
    cell.home = before?.[shard]?.home ?? null;
  });
  return found;
}

function ranges(numbers) {
  const parts = [];
  for (let at = 0; at < numbers.length; at += 1) {
    const from = numbers[at];
    while (numbers[at + 1] === numbers[at] + 1) at += 1;
    parts.push(from === numbers[at] ? `${from}` : `${from}–${numbers[at]}`);
  }
  return parts.join(", ");
}

function sentence(shard, cell) {
  const home = cell.home ? `at ${cell.home}` : "at nobody";
  if (!cell.isKnown) return `Shard ${shard}: nobody can tell${cell.home ? `, last seen ${home}` : ""}.`;
  if (cell.change === null) return cell.home ? `Shard ${shard} is served ${home}.` : `Shard ${shard} has no home.`;
  const said = CHANGES[cell.change] ?? `is changing (${cell.change.replaceAll("_", " ")})`;
  const to = cell.to && cell.to !== cell.home ? `, to ${cell.to}` : "";
  return `Shard ${shard} ${said}, ${home}${to}.`;
}

// Textures over the colours, for cells that are too small for a letter; the first node has none.
function patterns() {
  const shapes = [
    "",
    "M0 6L6 0",
    "M3 2v2M3 3h.1",
    "M3 0v6",
    "M0 0L6 6",
    "M0 3h6",
    "M3 0v6M0 3h6",
    "M0 0L6 6M0 6L6 0",
  ];
  const made = shapes.map((d, at) =>
    s(
      "pattern",
      { id: `pattern-${at}`, width: 6, height: 6, patternUnits: "userSpaceOnUse" },
      s("path", { class: "texture", d }),
    ),
  );
  return s("defs", {}, ...made);
}

export class Shards {
  constructor() {
    this.cells = null;
    this.moves = [];
    this.glowing = new Map();
    this.only = null;
    this.drawing = s("svg", { role: "img", "aria-labelledby": "shards-title shards-said" });
    byId("map").append(this.drawing);
    this.drawing.addEventListener("pointermove", (event) => this.point(event.target));
    this.drawing.addEventListener("pointerdown", (event) => this.point(event.target));
    new ResizeObserver(() => this.cells && this.draw()).observe(byId("map"));
    this.text = table("Shards of each node", [
      { name: "Node", show: (cell, row) => rebadge(cell, row.node ?? "") },
      { name: "Serves", number: true, show: (cell, row) => say(cell, count(row.serving.length)) },
      { name: "Which", show: (cell, row) => say(cell, ranges(row.serving) || "none") },
      { name: "Changing", show: (cell, row) => say(cell, row.changing.join(" ") || "none") },
    ]);
    byId("map-text").lastElementChild.append(this.text.element);
    byId("map-text").addEventListener("toggle", () => this.cells && this.tell());
  }

  // `at`: by the page's own clock.
  show(overview, at) {
    const before = this.cells;
    this.cells = placed(overview, before);
    if (before?.length === this.cells.length) this.compare(before, at);
    this.draw();
    this.legend(overview);
    this.headline();
    this.log(at);
    this.tell();
  }

  // Who has changed hands since the last look.
  compare(before, at) {
    const moved = new Map();
    this.cells.forEach((cell, shard) => {
      const was = before[shard];
      if (!cell.isKnown || !cell.home || cell.home === was.home) return;
      this.glowing.set(shard, at + GLOWS_MS);
      const key = JSON.stringify([was.home, cell.home]);
      moved.set(key, (moved.get(key) ?? 0) + 1);
    });
    for (const [key, shards] of moved) {
      const [from, to] = JSON.parse(key);
      const same = this.moves.find((move) => move.key === key && at - move.at < 5_000);
      if (same) Object.assign(same, { shards: same.shards + shards, at });
      else this.moves.unshift({ key, from, to, shards, at, id: `${key}${at}` });
    }
    for (const [shard, until] of this.glowing) if (until < at) this.glowing.delete(shard);
  }

  grid() {
    const width = Math.max(120, byId("map").clientWidth);
    const total = this.cells.length;
    const height = total > MANY ? HEIGHT_OF_MANY : HEIGHT;
    const wished = Math.min(CELL_MAX, Math.sqrt((width * height) / Math.max(1, total)));
    const columns = Math.min(Math.max(1, total), Math.max(8, Math.ceil(width / wished / 8) * 8));
    return { columns, size: Math.min(CELL_MAX, Math.floor(width / columns)), rows: Math.ceil(total / columns) };
  }

  draw() {
    const { columns, size, rows } = this.grid();
    const layout = `${columns} ${size} ${this.cells.length}`;
    if (layout !== this.layout) {
      this.layout = layout;
      attribute(this.drawing, "width", columns * size);
      attribute(this.drawing, "height", rows * size);
      attribute(this.drawing, "viewBox", `0 0 ${columns * size} ${rows * size}`);
      this.drawn = this.cells.map((_, shard) => {
        const place = `translate(${(shard % columns) * size} ${Math.floor(shard / columns) * size})`;
        return { group: s("g", { transform: place, "data-shard": shard }), said: "" };
      });
      this.drawing.replaceChildren(patterns(), ...this.drawn.map(({ group }) => group));
    }
    this.cells.forEach((cell, shard) => this.drawCell(this.drawn[shard], cell, size, this.glowing.has(shard)));
  }

  drawCell(drawn, cell, size, glows) {
    const isDim = this.only !== null && cell.home !== this.only && cell.to !== this.only;
    const said = JSON.stringify([cell, glows, isDim]);
    if (drawn.said === said) return;
    drawn.said = said;
    const side = size - (size < LETTER_MIN ? 1 : 2);
    const box = { width: side, height: side, rx: size > 20 ? 4 : size < LETTER_MIN ? 1 : 2 };
    const whole = (kind, more) => s("rect", { class: kind, ...box, ...more });
    const home = markOf(cell.home);
    const goesTo = cell.change !== null && cell.to !== cell.home ? markOf(cell.to) : null;
    const hasLetters = size >= LETTER_MIN;
    const texture = (mark) =>
      hasLetters && mark.number < PATTERNS
        ? null
        : whole("over", { fill: `url(#pattern-${mark.number % PATTERNS})` });
    const letter = !cell.isKnown ? "?" : (goesTo ?? home).letter;
    attribute(
      drawn.group,
      "class",
      ["cell", cell.change && "changing", glows && "glows", isDim && "dim", !cell.isKnown && "unsure"]
        .filter(Boolean)
        .join(" "),
    );
    drawn.group.replaceChildren(
      whole(cell.home ? `base n${home.colour}` : "base nobody"),
      ...[cell.home ? texture(home) : null].filter(Boolean),
      ...(goesTo
        ? [s("g", { class: "comes" }, whole(`base n${goesTo.colour}`), ...[texture(goesTo)].filter(Boolean))]
        : []),
      ...(hasLetters && letter
        ? [s("text", { x: side / 2, y: side / 2, "font-size": Math.min(13, size * 0.48) }, letter)]
        : []),
      ...(cell.change !== null || glows ? [whole("ring")] : []),
    );
  }

  point(target) {
    const shard = Number(target.closest?.("[data-shard]")?.dataset.shard ?? NaN);
    if (this.cells?.[shard]) say(byId("map-told"), sentence(shard, this.cells[shard]));
  }

  legend(overview) {
    const names = new Set(
      list(overview.nodes)
        .map((node) => text(node?.node))
        .filter(Boolean),
    );
    for (const cell of this.cells) if (cell.home) names.add(cell.home);
    if (!names.has(this.only)) this.only = null;
    const serves = new Map();
    for (const cell of this.cells) if (cell.isKnown) serves.set(cell.home, (serves.get(cell.home) ?? 0) + 1);
    const stopping = new Set(
      list(overview.nodes)
        .filter((node) => node?.state === "stopping")
        .map((node) => text(node.node)),
    );
    const sorted = [...names].sort((a, b) => markOf(a).number - markOf(b).number);
    const item = (name) =>
      h("button", { type: "button", class: "quiet chip", onclick: () => this.look(name) }, badge(name), h("b"));
    keep(
      byId("map-key"),
      sorted,
      (name) => name,
      item,
      (element, name) => {
        say(element.lastChild, ` ${count(serves.get(name) ?? 0)}${stopping.has(name) ? ", stopping" : ""}`);
        attribute(element, "aria-pressed", String(this.only === name));
      },
    );
  }

  // Shows the shards of one node alone, or all again.
  look(name) {
    this.only = this.only === name ? null : name;
    for (const chip of byId("map-key").children)
      attribute(chip, "aria-pressed", String(chip.hearthKey === this.only));
    this.draw();
  }

  headline() {
    const of = (is) => this.cells.filter(is).length;
    const [changing, homeless, unsure] = [
      of((cell) => cell.change !== null),
      of((cell) => cell.isKnown && !cell.home && cell.change === null),
      of((cell) => !cell.isKnown),
    ];
    const parts = [many(this.cells.length, "shard", "shards")];
    parts.push(changing ? `${count(changing)} changing` : "none changing");
    if (homeless) parts.push(`${count(homeless)} without a home`);
    if (unsure) parts.push(`${count(unsure)} that nobody can tell of`);
    say(byId("shards-said"), parts.join(" · "));
    this.homeless = homeless;
  }

  log(at) {
    this.moves = this.moves.filter((move) => at - move.at < MOVE_TOLD_MS).slice(0, MOVES_MAX);
    const item = ({ from, to }) =>
      h(
        "li",
        {},
        h("b"),
        badge(from ?? ""),
        h("span", { "aria-hidden": "true" }, "→"),
        h("span", { class: "hidden" }, "to"),
        badge(to),
        h("span", { class: "aside" }),
      );
    keep(
      byId("moves"),
      this.moves,
      (move) => move.id,
      item,
      (element, move) => {
        say(element.firstChild, many(move.shards, "shard", "shards"));
        say(element.lastChild, `${duration(at - move.at)} ago`);
      },
    );
  }

  // The map as text, while somebody reads it.
  tell() {
    if (!byId("map-text").open) return;
    const rows = new Map();
    const row = (node) => {
      if (!rows.has(node)) rows.set(node, { node, serving: [], changing: [] });
      return rows.get(node);
    };
    this.cells.forEach((cell, shard) => {
      if (cell.change !== null) row(cell.home ?? cell.to).changing.push(sentence(shard, cell));
      else row(cell.isKnown ? cell.home : null).serving.push(shard);
    });
    const sorted = [...rows.values()].sort((a, b) => markOf(a.node).number - markOf(b.node).number);
    this.text.show(sorted, (one) => one.node ?? "");
  }
}
