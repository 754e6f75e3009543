// The page's own composition root: it has the key, asks for the overview once a second, and hands what comes to those who
// show it. Goes on trying whatever happens, and says how old what it shows is.

import { Refusal, ask, hasKey, isKey, keyFromAddress, setKey } from "./api.js";
import { Alarms } from "./alarms.js";
import { attribute, byId, say } from "./dom.js";
import { Figures } from "./figures.js";
import { Rooms, SlowConsumers } from "./lists.js";
import { Nodes, Store, meet } from "./nodes.js";
import { Past } from "./past.js";
import { Player } from "./player.js";
import { Shards } from "./shards.js";
import { count, duration, isNumber, list, many, text } from "./words.js";

const EVERY_MS = 1_000;
// Between two tries when nobody answers, one after the other.
const TRIES_MS = [1_000, 1_000, 2_000, 3_000, 5_000];
// What only a change at the server mends is not asked for every second.
const REFUSED_MS = 10_000;
const OLD_MS = 3_500;

const past = new Past();
const player = new Player();
const parts = {
  alarms: new Alarms(),
  figures: new Figures(past),
  shards: new Shards(),
  nodes: new Nodes(),
  store: new Store(),
  rooms: new Rooms(),
  slow: new SlowConsumers((name) => player.open(name)),
};

// What came last, and when, by the page's own clock; what went wrong since.
const now = { overview: null, at: 0, failures: 0, refusal: null, nextAt: 0, timer: 0, asked: 0, counts: null };

function show(overview, at) {
  const serverNow = isNumber(overview.as_of) ? overview.as_of : Date.now();
  meet([
    ...list(overview.nodes).map((node) => text(node?.node)),
    ...list(overview.unknown_nodes).map(text),
    ...list(overview.shards).map((one) => text(one?.node)),
    ...list(overview.alarms).map((alarm) => text(alarm?.node)),
  ]);
  past.add(overview, at);
  byId("gate").hidden = true;
  byId("all").hidden = false;
  parts.shards.show(overview, at);
  now.counts = parts.alarms.show(overview, parts.shards.homeless, serverNow, at);
  parts.figures.show(overview);
  parts.nodes.show(overview, serverNow);
  parts.store.show(overview);
  parts.rooms.show(overview);
  parts.slow.show(overview);
  const version = text(overview.version);
  say(
    byId("foot"),
    `Told by ${text(overview.node) || "a node"}${version ? `, Hearth ${version}` : ""}. Figures of the last five minutes live in this page alone.`,
  );
}

// How it is, in the bar and in the title.
function mood() {
  const { critical = 0, warning = 0, over = 0, blind = 0, isBlind = false } = now.counts ?? {};
  const isOld = now.overview === null || performance.now() - now.at > OLD_MS;
  let [kind, said] = ["good", "All is well"];
  if (blind > 0) [kind, said] = ["old", isBlind ? "Nothing is counted" : "Not all is counted"];
  if (critical || warning) {
    kind = critical ? "bad" : "warn";
    said = [critical && `${count(critical)} critical`, warning && many(warning, "warning", "warnings")]
      .filter(Boolean)
      .join(", ");
    // What is over but for its alarm's end is nothing to run for.
    if (over === critical + warning) [kind, said] = ["warn", `${said}, ending`];
  }
  if (isOld) [kind, said] = ["old", now.overview === null ? "Not connected" : "Not live"];
  attribute(byId("mood"), "data-kind", kind);
  say(byId("mood-text"), said);
  attribute(document.body, "data-old", now.overview !== null && isOld);
  const alarms = critical + warning;
  const online = now.overview?.players?.online;
  document.title = `${isOld ? "○ " : alarms ? `▲${alarms} ` : ""}Hearth${!isOld && isNumber(online) ? ` · ${count(online)} online` : ""}`;
}

// How old it is, and what is in the way.
function freshness() {
  const age = performance.now() - now.at;
  say(byId("fresh"), now.overview === null ? "" : age < OLD_MS ? "live" : `${duration(age)} old`);
  const { refusal } = now;
  const isTold = refusal !== null && hasKey();
  byId("trouble").hidden = !isTold;
  if (isTold) {
    const shown = now.overview === null ? "" : ` What you see is ${duration(age)} old.`;
    const left = Math.ceil((now.nextAt - performance.now()) / 1000);
    const next = left > 0 ? ` Trying again in ${left} s.` : " Trying again…";
    // The countdown is for eyes alone: what is said aloud does not change every second.
    say(byId("trouble-text"), `${refusal.message}${shown}${next}`);
    attribute(byId("trouble"), "aria-live", "off");
    if (now.told !== refusal.message) {
      now.told = refusal.message;
      say(byId("heard"), refusal.message);
    }
  }
  mood();
}

function schedule(delay) {
  clearTimeout(now.timer);
  now.nextAt = performance.now() + delay;
  now.timer = setTimeout(look, delay);
}

function failed(refusal) {
  now.refusal = refusal;
  now.failures += 1;
  const isRefused = refusal.kind === "key" || refusal.kind === "scope" || refusal.kind === "missing";
  if (refusal.kind === "missing")
    refusal.message = "This node has no overview: it is older than this page, or no Hearth node.";
  if (refusal.kind === "key" || refusal.kind === "scope") {
    byId("gate").hidden = false;
    // A key that never was good is asked for again, and not tried again.
    if (now.overview === null) {
      setKey("");
      keyed();
      say(byId("gate-fault"), refusal.message);
      byId("gate-key").focus();
      return freshness();
    }
  }
  const tries = TRIES_MS[Math.min(now.failures, TRIES_MS.length) - 1];
  schedule(Math.max(refusal.retryMs ?? 0, isRefused ? REFUSED_MS : tries));
  freshness();
}

async function look() {
  if (!hasKey()) return;
  clearTimeout(now.timer);
  const asked = (now.asked += 1);
  const began = performance.now();
  try {
    const overview = (await ask("overview")) ?? {};
    if (asked !== now.asked) return;
    const at = performance.now();
    Object.assign(now, { overview, at, failures: 0, refusal: null, told: "" });
    say(byId("gate-fault"), "");
    show(overview, at);
    // Every other time: she is two calls.
    if (asked % 2 === 0) player.look();
    schedule(Math.max(100, EVERY_MS - (at - began)));
    freshness();
  } catch (refusal) {
    if (asked !== now.asked) return;
    if (refusal instanceof Refusal) return failed(refusal);
    schedule(REFUSED_MS);
    throw refusal;
  }
}

// What is of use with a key alone.
function keyed() {
  byId("find").hidden = !hasKey();
  byId("forget").hidden = !hasKey();
}

function begin() {
  byId("gate").hidden = hasKey();
  keyed();
  Object.assign(now, { failures: 0, refusal: null });
  if (hasKey()) look();
  else byId("gate-key").focus();
  freshness();
}

// Whether it is one that can be sent.
function use(key) {
  const fault = setKey(key);
  say(byId("gate-fault"), fault);
  return fault === "";
}

// The key of a link that waits for a word, since there is another one.
let offered = "";

// Takes the key that the address brings, if it does, and says whether. Whoever made the link may not be who looks: a key
// that is here goes only if she says so.
function useAddress() {
  const key = keyFromAddress();
  if (!key) return false;
  if (!hasKey() || isKey(key)) return use(key);
  offered = key;
  if (!byId("swap").open) byId("swap").showModal();
  return false;
}

// What the address asks for, beside a key.
function follow() {
  const name = new URLSearchParams(location.hash.slice(1)).get("player");
  if (name && name !== player.name) player.open(name, byId("find-name"));
}

// === Theme ===

const THEMES = ["auto", "light", "dark"];
const THEME_KEPT = "hearth.theme";

function theme(next) {
  const chosen = THEMES.includes(next) ? next : "auto";
  attribute(document.documentElement, "data-theme", chosen);
  say(byId("theme"), `Theme: ${chosen}`);
  try {
    localStorage.setItem(THEME_KEPT, chosen);
  } catch {
    // Without storage it lasts as long as the page.
  }
}

function themeBefore() {
  try {
    return localStorage.getItem(THEME_KEPT);
  } catch {
    return null;
  }
}

// === What people do ===

byId("gate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = byId("gate-key").value;
  byId("gate-key").value = "";
  if (use(key)) begin();
});
byId("swap-yes").addEventListener("click", () => {
  const isUsed = use(offered);
  byId("swap").close();
  if (isUsed) begin();
});
byId("swap-no").addEventListener("click", () => byId("swap").close());
byId("swap").addEventListener("close", () => {
  offered = "";
});
byId("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = byId("find-name").value.trim();
  if (name && hasKey()) player.open(name, byId("find-name"));
});
byId("forget").addEventListener("click", () => {
  setKey("");
  // Nothing of what was shown stays.
  history.replaceState(null, "", location.pathname + location.search);
  location.reload();
});
byId("trouble-now").addEventListener("click", () => look());
byId("theme").addEventListener("click", () => {
  theme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
});
document.addEventListener("keydown", (event) => {
  const isTyped = event.target.matches?.("input, textarea, select");
  if (event.key === "/" && !isTyped && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    byId("find-name").focus();
    byId("find-name").select();
  }
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) player.close();
});
addEventListener("hashchange", () => {
  if (useAddress()) begin();
  follow();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && hasKey()) look();
});

theme(themeBefore());
useAddress();
begin();
follow();
setInterval(freshness, 500);
