// One player: where she is and on what, how large her state is, and how she came and went. Kicks her, if asked twice.

import { Refusal, ask } from "./api.js";
import { aName, attribute, byId, h, keep, say, sayLines, table, tell } from "./dom.js";
import { meet, rebadge } from "./nodes.js";
import { UNKNOWN, clock, count, duration, happened, isNumber, list, many, packed, text } from "./words.js";

const STATE_BYTES_MAX = 4096;
const REASON_BYTES_MAX = 256;
const NAME_BYTES_MAX = 64;
const PAST_MAX = 12;
// Of an id that nobody can have.
const TITLE_MAX = 80;

const sized = (value) => new TextEncoder().encode(value).length;
const line = (name) => h("div", {}, h("dt", {}, name), h("dd"));
const attached = (session) =>
  session.pending ? "waits for its client" : session.attached ? "linked" : "without a link";

export class Player {
  constructor() {
    this.name = null;
    // Whom the dialog asks about.
    this.asked = null;
    this.turn = 0;
    this.looked = [];
    this.facts = h("dl", { class: "facts" });
    this.state = h("pre", { tabindex: "0", "aria-label": "State" });
    this.size = h("summary");
    this.kickButton = h("button", { type: "button", class: "danger", onclick: () => this.confirm() }, "Kick…");
    this.sessions = table("Her sessions", [
      { name: "Device", show: (cell, one) => say(cell, text(one.device)) },
      { name: "Status", show: (cell, one) => say(cell, text(one.status)) },
      { name: "Link", show: (cell, one) => say(cell, attached(one)) },
      { name: "Ends in", number: true, show: (cell, one) => say(cell, duration(one.expires_in_ms)) },
      { name: "Session", show: (cell, one) => say(cell, text(one.session)) },
    ]);
    this.none = h("p", { class: "aside", id: "no-sessions" }, "She has none: there is nothing to kick. Only a ban keeps her out.");
    this.timeline = h("ol", { class: "timeline" });
    this.body = byId("player-body");
    this.body.append(
      this.facts,
      h("div", { class: "row" }, this.kickButton),
      h("h3", {}, "Sessions"),
      this.sessions.element,
      this.none,
      h("h3", {}, "State"),
      h("details", {}, this.size, this.state),
      h("h3", {}, "How she came and went"),
      this.timeline,
    );
    byId("player-close").addEventListener("click", () => this.close());
    byId("kick-form").addEventListener("submit", (event) => this.kick(event));
    byId("kick-no").addEventListener("click", () => byId("kick").close());
    byId("kick").addEventListener("close", () => this.kickButton.focus());
    matchMedia("(max-width: 1100px)").addEventListener("change", () => this.cover());
  }

  // Shows a player; `from` gets the focus back.
  open(name, from) {
    byId("kick").close();
    this.from = from ?? document.activeElement;
    this.name = name;
    this.turn += 1;
    this.isTooLong = sized(name) > NAME_BYTES_MAX;
    if (!this.isTooLong) {
      this.remember(name);
      history.replaceState(null, "", `#${new URLSearchParams({ player: name })}`);
    }
    say(byId("player-title"), name.length > TITLE_MAX ? `${name.slice(0, TITLE_MAX)}…` : name);
    say(byId("player-fault"), "Looking…");
    this.body.hidden = true;
    byId("player").hidden = false;
    this.cover();
    byId("player-title").focus();
    this.look();
  }

  close() {
    if (this.name === null) return;
    byId("kick").close();
    this.name = null;
    this.turn += 1;
    byId("player").hidden = true;
    this.cover();
    history.replaceState(null, "", location.pathname + location.search);
    (this.from?.isConnected ? this.from : byId("find-name")).focus();
  }

  // Where she is shown over all else, all else cannot be reached.
  cover() {
    const covers = this.name !== null && matchMedia("(max-width: 1100px)").matches;
    byId("main").inert = covers;
    attribute(document.body, "data-covered", covers);
  }

  remember(name) {
    this.looked = [name, ...this.looked.filter((one) => one !== name)].slice(0, PAST_MAX);
    byId("find-past").replaceChildren(...this.looked.map((one) => h("option", { value: one, label: one })));
  }

  path(name, rest = "") {
    return `players/${encodeURIComponent(name)}${rest}`;
  }

  // Asks for her anew; what comes when somebody else is shown is dropped.
  async look() {
    const turn = this.turn;
    if (this.name === null || this.isLooking === turn) return;
    if (this.isTooLong) {
      const bytes = many(sized(this.name), "byte", "bytes");
      return say(byId("player-fault"), `Nobody has this id: it is too long, ${bytes} where ${NAME_BYTES_MAX} may be.`);
    }
    if (/^\.{1,2}$/.test(this.name)) {
      return say(byId("player-fault"), "No browser can ask for a player of this name.");
    }
    this.isLooking = turn;
    const told = await Promise.allSettled([ask(this.path(this.name)), ask(this.path(this.name, "/timeline"))]);
    if (turn !== this.turn) return;
    this.isLooking = null;
    const [player, timeline] = told;
    if (player.status === "rejected") return this.refused(player.reason);
    say(byId("player-fault"), "");
    this.body.hidden = false;
    this.fill(player.value ?? {});
    this.tell(timeline);
  }

  refused(reason) {
    if (!(reason instanceof Refusal)) throw reason;
    const isShown = !this.body.hidden && reason.kind !== "missing";
    const said = reason.kind === "missing" ? "Nothing is known of her." : reason.message;
    say(byId("player-fault"), isShown ? `${said} What stands below is older.` : said);
    this.body.hidden = !isShown;
  }

  fill(player) {
    const now = Date.now();
    const presence = player.presence ?? {};
    const activity = Object.entries(presence.activity ?? {}).map(
      ([name, value]) => `${name} ${JSON.stringify(value)}`,
    );
    const ban = player.ban;
    meet([text(player.home?.node)]);
    const facts = [
      ["Seen as", text(presence.status) || UNKNOWN],
      ["Activity", activity.join(", ") || null],
      ["Devices", list(presence.devices).map(text).join(", ") || null],
      [
        "Last seen",
        isNumber(player.last_seen)
          ? `${clock(player.last_seen, now)}, ${duration(now - player.last_seen)} ago`
          : null,
      ],
      ["Home", text(player.home?.node)],
      ["Shard", count(player.home?.shard)],
      [
        "Banned",
        ban
          ? `since ${clock(ban.since, now)}, ${isNumber(ban.until) ? `until ${clock(ban.until, now)}` : "for good"}: ${text(ban.reason)}`
          : null,
      ],
      [
        "Tokens",
        isNumber(player.revoked_before) ? `refused if older than ${clock(player.revoked_before, now)}` : null,
      ],
    ];
    keep(
      this.facts,
      facts.filter(([, said]) => said),
      ([name]) => name,
      ([name]) => line(name),
      (element, [name, said]) => {
        if (name === "Home") rebadge(element.lastChild, said);
        else say(element.lastChild, said);
      },
    );
    const sessions = list(player.sessions);
    this.sessionCount = sessions.length;
    this.sessions.show(sessions, (one) => text(one.session));
    this.sessions.element.hidden = sessions.length === 0;
    this.none.hidden = sessions.length > 0;
    // Who stands on it must not fall out of the page.
    if (sessions.length === 0 && document.activeElement === this.kickButton) byId("player-title").focus();
    this.kickButton.disabled = sessions.length === 0;
    attribute(this.kickButton, "aria-describedby", sessions.length === 0 ? "no-sessions" : null);
    const state = player.state ?? {};
    say(
      this.size,
      `${many(packed(state), "byte", "bytes")} of ${count(STATE_BYTES_MAX)}, ${many(Object.keys(state).length, "key", "keys")}`,
    );
    sayLines(this.state, JSON.stringify(state, null, 2));
  }

  tell(timeline) {
    if (timeline.status === "rejected") {
      const said = { key: "", said: `Her timeline cannot be told: ${timeline.reason.message}` };
      return keep(
        this.timeline,
        [said],
        (one) => one.key,
        () => h("li"),
        (element, one) => say(element, one.said),
      );
    }
    const now = Date.now();
    const entries = list(timeline.value?.entries).map((entry, at) => ({
      entry,
      key: `${at} ${entry.epoch} ${entry.version} ${entry.kind} ${entry.at}`,
    }));
    const item = () => h("li", {}, h("time"), h("span"), h("small"));
    keep(
      this.timeline,
      entries.reverse(),
      (one) => one.key,
      item,
      (element, { entry }) => {
        say(element.children[0], clock(entry.at, now));
        say(element.children[1], happened(entry));
        say(element.children[2], [text(entry.node), text(entry.session).slice(-6)].filter(Boolean).join(" · "));
        attribute(
          element,
          "data-kind",
          ["opened", "resumed", "link_lost", "moved", "ended"].includes(entry.kind) ? entry.kind : "other",
        );
      },
    );
  }

  confirm() {
    this.asked = this.name;
    tell(byId("kick-title"), ["Kick ", aName(this.asked), "?"]);
    say(
      byId("kick-about"),
      `This ends ${this.sessionCount === 1 ? "her session" : `all her sessions (${count(this.sessionCount)})`} for good. She may log in again: only a ban keeps her out.`,
    );
    say(byId("kick-fault"), "");
    byId("kick-reason").value = "";
    byId("kick-yes").disabled = false;
    byId("kick").showModal();
    byId("kick-reason").focus();
  }

  async kick(event) {
    event.preventDefault();
    const reason = byId("kick-reason").value.trim();
    if (!reason) return say(byId("kick-fault"), "Please say why: her client shows it.");
    if (sized(reason) > REASON_BYTES_MAX)
      return say(byId("kick-fault"), `The reason is too long: ${REASON_BYTES_MAX} bytes at most.`);
    byId("kick-yes").disabled = true;
    const { asked: name, turn } = this;
    try {
      const kicked = await ask(this.path(name, "/kick"), { method: "POST", body: { reason } });
      const said = `Kicked: ${many(kicked?.sessions, "session", "sessions")} ended.`;
      say(byId("heard"), said);
      // Somebody else may be shown by now, and the dialog be about her.
      if (turn !== this.turn) return;
      byId("kick").close();
      await this.look();
      if (turn === this.turn) say(byId("player-fault"), said);
    } catch (refusal) {
      if (!(refusal instanceof Refusal)) throw refusal;
      const unstored = refusal.applied ? " Her sessions are cut, but the store does not have it yet." : "";
      const said = `${refusal.message}${unstored}`;
      if (turn !== this.turn) return say(byId("heard"), `Kick of ${name}: ${said}`);
      byId("kick-yes").disabled = false;
      say(byId("kick-fault"), said);
    }
  }
}
