// The nodes: what each is marked with everywhere on the page (a letter, a colour, a pattern), and the table of them.

import { attribute, byId, h, keep, say, table } from "./dom.js";
import { UNKNOWN, bytes, count, duration, isNumber, list, many, percent, rate, span, text } from "./words.js";

const COLOURS = 8;
// More than these share the last mark.
const MARKS_MAX = 200;
// A node that was not seen for so long is gone, and its mark goes to the next new one, ms. Nothing shown is older.
const GONE_MS = 5 * 60_000;

// Marks, given in the order of names at the first sight: each node's number, and when it was last seen by the page's clock.
const marks = new Map();

export function meet(names) {
  const now = performance.now();
  const met = [...new Set(names)].filter(Boolean);
  for (const name of met) if (marks.has(name)) marks.get(name).seen = now;
  for (const [name, { seen }] of marks) if (now - seen > GONE_MS) marks.delete(name);
  const taken = new Set([...marks.values()].map(({ number }) => number));
  for (const name of met.sort((a, b) => a.localeCompare(b, "en", { numeric: true }))) {
    if (marks.has(name) || taken.size >= MARKS_MAX) continue;
    let number = 0;
    while (taken.has(number)) number += 1;
    taken.add(number);
    marks.set(name, { number, seen: now });
  }
}

function letters(number) {
  const letter = String.fromCharCode(65 + (number % 26));
  return number < 26 ? letter : letters(Math.floor(number / 26) - 1) + letter;
}

// `{ number, colour, letter }` of a node; without a name, of nobody.
export function markOf(name) {
  const number = marks.get(name)?.number ?? MARKS_MAX;
  return { number, colour: number % COLOURS, letter: name ? (marks.has(name) ? letters(number) : "+") : "" };
}

// A node's name with its mark.
export function badge(name) {
  const { colour, letter } = markOf(name);
  return h(
    "span",
    { class: "badge" },
    h("i", { class: `node n${colour}`, "aria-hidden": "true" }, letter),
    h("bdi", { title: name }, name || "nobody"),
  );
}

// Puts the badge there, where another one stands.
export function rebadge(element, name) {
  const said = `${markOf(name).letter} ${name}`;
  if (element.dataset.badge === said) return;
  element.dataset.badge = said;
  element.replaceChildren(badge(name));
}

const STATES = {
  up: ["good", "up"],
  stopping: ["warn", "stopping"],
  unknown: ["bad", "does not answer"],
};

function stateOf(node) {
  if (node.state === "stopping" && isNumber(node.shards_left))
    return [node.paused ? "bad" : "warn", `stopping, ${many(node.shards_left, "shard", "shards")} to go`];
  if (node.paused) return ["bad", "paused"];
  if (node.local) return ["warn", "from memory"];
  return STATES[node.state] ?? ["", text(node.state) || "not said"];
}

function pill(cell, kind, said) {
  if (!cell.firstElementChild) cell.append(h("span", { class: "pill" }));
  attribute(cell.firstElementChild, "class", `pill ${kind}`);
  say(cell.firstElementChild, said);
}

// A number, with more weight above what is worth a look.
function weigh(cell, value, said, limit) {
  say(cell, said);
  attribute(cell, "data-heavy", isNumber(value) && value > limit);
}

function breakers(cell, node) {
  const all = list(node.breakers);
  const troubled = all.filter((breaker) => breaker?.state !== "closed");
  if (all.length === 0 && !text(node.version)) pill(cell, "plain", UNKNOWN);
  else if (all.length === 0) pill(cell, "plain", "none");
  else if (troubled.length === 0) pill(cell, "plain", all.length === 1 ? "closed" : `${all.length} closed`);
  else pill(cell, "bad", `${troubled.length} of ${all.length} in trouble`);
}

const figure = (name, show) => ({ name, number: true, show });

export class Nodes {
  constructor() {
    this.table = table("Nodes, their load and their lag", [
      { name: "Node", show: (cell, node) => rebadge(cell, text(node.node)) },
      { name: "State", show: (cell, node) => pill(cell, ...stateOf(node)) },
      figure("Shards", (cell, node) => say(cell, count(node.shards))),
      figure("Sessions", (cell, node) => say(cell, count(node.sessions))),
      figure("Links", (cell, node) => say(cell, count(node.links))),
      figure("Records", (cell, node) => say(cell, count(node.records))),
      figure("Not stored", (cell, node) => say(cell, count(node.dirty))),
      figure("Flush lag", (cell, node) => weigh(cell, node.flush_lag_ms, span(node.flush_lag_ms), 1_000)),
      figure("Mail lag", (cell, node) => weigh(cell, node.mail_lag_ms, span(node.mail_lag_ms), 1_000)),
      figure("Acks", (cell, node) => say(cell, isNumber(node.acks) ? `${rate(node.acks)}/s` : rate(node.acks))),
      figure("p99", (cell, node) => weigh(cell, node.applied_p99_ms, span(node.applied_p99_ms), 1_000)),
      figure("CPU", (cell, node) => say(cell, percent(node.cpu_percent))),
      figure("Memory", (cell, node) => say(cell, bytes(node.memory_bytes))),
      { name: "Breakers", show: breakers },
      figure("Up for", (cell, node) =>
        say(cell, isNumber(node.started_at) ? duration(this.now - node.started_at) : duration(null)),
      ),
      { name: "Version", show: (cell, node) => say(cell, text(node.version)) },
    ]);
    this.shortfalls = h("ul", { class: "shortfalls" });
    byId("nodes").append(this.table.element);
    byId("nodes").after(this.shortfalls);
  }

  // `now`: by the server's clock.
  show(overview, now) {
    this.now = now;
    const nodes = list(overview.nodes).filter((node) => text(node?.node));
    const told = new Set(nodes.map((node) => node.node));
    const silent = list(overview.unknown_nodes).filter((name) => text(name) && !told.has(name));
    const all = [...nodes, ...silent.map((node) => ({ node, state: "unknown" }))];
    all.sort((a, b) => markOf(a.node).number - markOf(b.node).number);
    this.table.show(all, (node) => node.node);
    for (const row of this.table.element.tBodies[0].rows) {
      attribute(row, "data-silent", all.find((node) => node.node === row.hearthKey)?.state === "unknown");
    }
    fallShort(this.shortfalls, shortfallsOf(all).filter(({ name }) => name !== STORE));
    say(byId("nodes-said"), many(all.length, "node", "nodes"));
  }
}

const SHORTFALLS_MAX = 40;
// What a node says of the store stands with the store.
const STORE = "store";

// Where nodes fall short, as each of them says.
function shortfallsOf(nodes) {
  return nodes.flatMap((node) =>
    list(node?.shortfalls).map((one) => ({ node: text(node.node), name: text(one?.name), said: text(one?.text) })),
  );
}

// Puts them there: whose, what, and what of it.
function fallShort(element, all) {
  const shown = all.slice(0, SHORTFALLS_MAX);
  if (all.length > shown.length) shown.push({ node: "", name: "", said: `and ${count(all.length - shown.length)} more` });
  keep(
    element,
    shown,
    (one) => JSON.stringify([one.node, one.name, shown.filter((other) => other.name === one.name && other.node === one.node).indexOf(one)]),
    (one) => h("li", {}, one.node ? badge(one.node) : null, h("code"), h("span")),
    (item, one) => {
      say(item.querySelector("code"), one.name === STORE ? "" : one.name);
      say(item.lastChild, one.said);
    },
  );
}

// The store, and how each of its servers answers each node.
export class Store {
  constructor() {
    this.kind = h("p", { class: "aside" });
    this.state = h("p", { class: "store-state" });
    this.servers = h("ul", { class: "servers" });
    this.shortfalls = h("ul", { class: "shortfalls" });
    byId("store").firstElementChild.append(this.kind);
    this.found = h("ul", { class: "shortfalls" });
    byId("store").append(this.state, this.servers, this.found, this.shortfalls);
  }

  show(overview) {
    const store = overview.store ?? {};
    const [kind, said] = { ok: ["good", "answers"], slow: ["warn", "is slow"], down: ["bad", "does not answer"] }[
      store.state
    ] ?? ["", text(store.state) || "nobody can say how it is"];
    say(this.kind, text(store.kind));
    pill(this.state, kind, said);
    this.showServers(overview);
    fallShort(
      this.found,
      shortfallsOf(list(overview.nodes)).filter(({ name }) => name === STORE),
    );
    const none = { none: true };
    const shortfalls = list(store.shortfalls);
    const item = (one) =>
      one.none
        ? h("li", { class: "aside" }, "Its settings fall short of nothing.")
        : h("li", {}, h("code"), h("span"));
    keep(
      this.shortfalls,
      shortfalls.length ? shortfalls.slice(0, 20) : [none],
      (one) => (one.none ? "" : `${text(one.name ?? one.setting)} ${text(one.text ?? one.message)}`),
      item,
      (element, one) => {
        if (one.none) return;
        say(element.firstChild, text(one.name ?? one.setting));
        say(element.lastChild, ` ${text(one.text ?? one.message)}`);
      },
    );
  }

  showServers(overview) {
    const servers = new Map();
    for (const node of list(overview.nodes)) {
      for (const breaker of list(node?.breakers)) {
        const endpoint = text(breaker?.endpoint);
        if (!servers.has(endpoint)) servers.set(endpoint, []);
        servers.get(endpoint).push({ node: text(node.node), state: text(breaker?.state) });
      }
    }
    const item = () => h("li", {}, h("code"), h("span", { class: "seen-by" }));
    keep(
      this.servers,
      [...servers].slice(0, 40),
      ([endpoint]) => endpoint,
      item,
      (element, [endpoint, seen]) => {
        say(element.firstChild, endpoint);
        keep(
          element.lastChild,
          seen,
          (one) => one.node,
          () => h("span", { class: "pill" }),
          (chip, one) => {
            const kind = { closed: "plain", ramp: "warn", half_open: "warn", open: "bad" }[one.state] ?? "";
            attribute(chip, "class", `pill ${kind}`);
            attribute(chip, "title", `the breaker of ${one.node}`);
            say(chip, `${markOf(one.node).letter} ${one.state.replaceAll("_", " ") || "not said"}`);
          },
        );
      },
    );
  }
}
