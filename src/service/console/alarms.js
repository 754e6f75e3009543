// What is wrong, first and large: the server's alarms, and what this page sees by itself in the same answer. Says aloud
// when one begins and when one ends.

import { attribute, byId, h, keep, s, say } from "./dom.js";
import { badge } from "./nodes.js";
import { clock, count, duration, isNumber, list, many, measure, named, text } from "./words.js";

const ENDED_TOLD_MS = 5 * 60_000;
const ENDED_MAX = 5;
const CARDS_MAX = 40;

// Nodes of one alarm that are named.
const NODES_MAX = 8;
// What the page sees by itself counts once it has lasted, ms: shards that change hands are nobody's for a moment.
const LASTS_MS = 3_000;

const isCritical = (alarm) => alarm.severity === "critical";
// What it is about holds no more, and it ends in a moment.
const isOver = (alarm) => alarm.ending === true;
const titleOf = (alarm) => alarm.title ?? named(alarm.name);

// Which of two is worse: what goes on before what is over, then by grade, then by how far it is beyond its limit.
function worse(a, b) {
  const beyond = ({ value, limit }) => (isNumber(value) && isNumber(limit) && limit > 0 ? value / limit : 0);
  return isOver(b) - isOver(a) || isCritical(a) - isCritical(b) || beyond(a) - beyond(b);
}

// One alarm of each name, with all the nodes that it is on at, as at the one where it is worst.
function grouped(alarms) {
  const groups = new Map();
  for (const alarm of alarms) {
    const name = text(alarm?.name);
    if (!name) continue;
    const before = groups.get(name);
    const nodes = [...(before?.nodes ?? []), text(alarm.node)].filter(Boolean);
    const since = Math.min(before?.since ?? Infinity, isNumber(alarm.since) ? alarm.since : Infinity);
    groups.set(name, {
      ...(before && worse(before, alarm) >= 0 ? before : alarm),
      nodes: [...new Set(nodes)],
      since,
    });
  }
  return [...groups.values()]
    .sort((a, b) => isOver(a) - isOver(b) || isCritical(b) - isCritical(a) || a.since - b.since || 0)
    .slice(0, CARDS_MAX);
}

// What the answer says without an alarm's name.
function seen(overview, homeless) {
  const found = [];
  const alarmed = new Set(list(overview.alarms).map((alarm) => alarm?.name));
  const silent = new Set(list(overview.unknown_nodes).map(text));
  for (const node of list(overview.nodes)) {
    if (node?.state === "unknown") silent.add(text(node.node));
    // Nobody is surprised by that.
    if (node?.state === "stopping") silent.delete(text(node.node));
  }
  for (const node of silent) {
    found.push({
      name: "node_silent",
      title: "A node does not answer",
      node,
      severity: "warning",
      text: "It is a member of the cluster, and has not answered in time: what it holds is not in these figures.",
      do: "See whether its process lives and its peer address can be reached. If it died, its shards are taken when its leases end.",
    });
  }
  if (overview.store?.state === "down" && !alarmed.has("store_down")) {
    found.push({
      name: "store_silent",
      title: named("store_down"),
      severity: "critical",
      text: "Players are served from memory; what they are acked is provisional until it is back.",
      do: "See to the store first: do not stop nodes meanwhile, they hold what it does not have.",
    });
  }
  if (homeless > 0) {
    found.push({
      name: "shards_homeless",
      title: `${many(homeless, "shard has", "shards have")} no home`,
      severity: "warning",
      text: "Players of these shards are not served now.",
      do: "Leases of a node that died run out by themselves, in a few seconds. If it lasts, look at the logs of the nodes for why they do not take them.",
    });
  }
  return found;
}

function gauge() {
  return h("div", { class: "gauge", "aria-hidden": "true" }, h("i"), h("b"));
}

function card(alarm) {
  const sign = s("svg", { class: "sign", viewBox: "0 0 24 24", "aria-hidden": "true" });
  sign.append(s("path", { d: "M12 2.500 23 21.500H1z" }), s("path", { class: "bang", d: "M12 9v6M12 18v.1" }));
  return h(
    "article",
    { class: "alarm" },
    sign,
    h(
      "div",
      {},
      h("p", { class: "grade" }),
      h("h3", {}),
      h("p", { class: "where" }, h("span"), h("span", { class: "since" })),
      h("p", { class: "over" }, "This is over: the alarm ends in a moment, unless it comes back. It said:"),
      h("p", { class: "what" }),
      h("div", { class: "against" }, h("p"), gauge()),
      h("p", { class: "do" }, h("b", {}, "What to do: "), h("span")),
    ),
    ...(alarm.title ? [] : [h("code", { class: "name" }, text(alarm.name))]),
  );
}

export class Alarms {
  constructor() {
    this.before = new Map();
    this.ended = [];
    this.firstSeen = new Map();
  }

  // `now`: by the server's clock; `at`: by the page's own. Tells how many of each there are, how many of them are over but
  // for their end, and at how many nodes none can ring (`isBlind`: at any of them).
  show(overview, homeless, now, at) {
    const lasting = this.lasting(seen(overview, homeless), now, at);
    const all = grouped([...list(overview.alarms), ...lasting]);
    this.announce(all, at);
    keep(
      byId("alarm-cards"),
      all,
      (alarm) => alarm.name,
      card,
      (element, alarm) => this.fill(element, alarm, now),
    );
    attribute(byId("alarm-cards"), "data-many", all.length > 1);
    const blind = list(overview.nodes).filter((node) => node?.counts === false);
    const isBlind = blind.length > 0 && blind.length === list(overview.nodes).length;
    this.calm(all.length, at, isBlind ? null : blind.map((node) => text(node.node)));
    const critical = all.filter(isCritical).length;
    return { critical, warning: all.length - critical, over: all.filter(isOver).length, blind: blind.length, isBlind };
  }

  // What the page sees by itself, as far as it has lasted.
  lasting(found, now, at) {
    const key = (one) => JSON.stringify([one.name, one.node ?? ""]);
    const before = this.firstSeen;
    this.firstSeen = new Map(found.map((one) => [key(one), before.get(key(one)) ?? { now, at }]));
    return found
      .map((one) => ({ ...one, since: this.firstSeen.get(key(one)).now }))
      .filter((one) => at - this.firstSeen.get(key(one)).at >= LASTS_MS);
  }

  fill(element, alarm, now) {
    attribute(element, "data-grade", isCritical(alarm) ? "critical" : "warning");
    const [grade, title, where, over, what, against, todo] = element.children[1].children;
    attribute(element, "data-over", isOver(alarm));
    attribute(over, "hidden", !isOver(alarm));
    say(grade, `${isCritical(alarm) ? "Critical" : "Warning"}${isOver(alarm) ? ", ending" : ""}`);
    say(title, titleOf(alarm));
    const nodes = alarm.nodes.slice(0, NODES_MAX);
    if (alarm.nodes.length > NODES_MAX) nodes.push("");
    keep(
      where.firstChild,
      nodes,
      (node) => node,
      (node) => (node ? badge(node) : h("span")),
      (element, node) => {
        if (!node) say(element, `and ${count(alarm.nodes.length - NODES_MAX)} more`);
      },
    );
    attribute(where.firstChild, "hidden", nodes.length === 0);
    say(
      where.lastChild,
      isNumber(alarm.since) ? `since ${clock(alarm.since, now)}, for ${duration(now - alarm.since)}` : "now",
    );
    say(what, text(alarm.text));
    attribute(what, "hidden", !text(alarm.text));
    attribute(against, "hidden", !isNumber(alarm.value));
    // Where a single one is too much there is nothing to hold it against.
    const hasLimit = isNumber(alarm.limit) && alarm.limit > 0;
    const limit = hasLimit ? `, limit ${measure(alarm.limit, alarm.unit)}` : "";
    say(against.firstChild, `${measure(alarm.value, alarm.unit)}${limit}`);
    const [fill, tick] = against.lastChild.children;
    attribute(against.lastChild, "hidden", !hasLimit);
    const most = Math.max(alarm.value ?? 0, alarm.limit ?? 0, Number.MIN_VALUE) * 1.08;
    fill.style.width = `${Math.max(0, Math.min(100, ((alarm.value ?? 0) / most) * 100))}%`;
    tick.style.left = `${Math.max(0, Math.min(100, ((alarm.limit ?? 0) / most) * 100))}%`;
    attribute(todo, "hidden", !text(alarm.do));
    say(todo.lastChild, text(alarm.do));
  }

  announce(alarms, at) {
    const now = new Map(alarms.map((alarm) => [alarm.name, alarm]));
    const told = (alarm) =>
      `${titleOf(alarm)}${alarm.nodes.length > 0 ? ` at ${alarm.nodes.slice(0, NODES_MAX).join(", ")}` : ""}`;
    const said = [];
    for (const [name, alarm] of now) {
      if (!this.before.has(name))
        said.push(`${isCritical(alarm) ? "Critical alarm" : "Warning"}: ${told(alarm)}. ${text(alarm.do)}`);
    }
    // The worst of those that end together is told first.
    for (const [name, alarm] of [...this.before].reverse()) {
      if (now.has(name)) continue;
      said.push(`Over: ${told(alarm)}.`);
      this.ended.unshift({ said: told(alarm), at });
    }
    this.before = now;
    this.ended.splice(ENDED_MAX);
    if (said.length > 0) say(byId("heard"), said.slice(0, 5).join(" "));
  }

  // `blind`: the nodes at which nothing is counted; null: all of them.
  calm(alarms, at, blind) {
    this.ended = this.ended.filter((one) => at - one.at < ENDED_TOLD_MS);
    const [last] = this.ended;
    const before = last
      ? ` Over for ${duration(at - last.at)}: ${last.said}${this.ended.length > 1 ? `, and ${count(this.ended.length - 1)} before` : ""}.`
      : "";
    // None that is on is no sign where none can be.
    const uncounted =
      blind === null
        ? "Nothing is counted (metrics.record=false): no alarm can ring."
        : blind.length > 0
          ? `Nothing is counted at ${blind.slice(0, NODES_MAX).join(", ")}${blind.length > NODES_MAX ? ` and ${count(blind.length - NODES_MAX)} more` : ""} (metrics.record=false): no alarm can ring there.`
          : "";
    const well = alarms > 0 || blind === null ? "" : blind.length > 0 ? "Nothing is wrong at the others." : "Nothing is wrong.";
    const said = [uncounted, well, before.trim()].filter(Boolean).join(" ");
    say(byId("calm"), said);
    attribute(byId("calm"), "hidden", said === "");
  }
}
