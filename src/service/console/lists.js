// The rooms that make most pushes, and the sessions that read too slowly.

import { byId, h, keep, say, table } from "./dom.js";
import { rebadge } from "./nodes.js";
import { count, list, rate, text } from "./words.js";

const ROWS_MAX = 20;

class List {
  constructor(id, none, built) {
    this.table = built;
    this.none = h("p", { class: "aside" }, none);
    byId(id).append(this.table.element, this.none);
  }

  fill(rows, keyOf) {
    this.table.show(rows, keyOf);
    this.table.element.hidden = rows.length === 0;
    this.none.hidden = rows.length > 0;
  }
}

const name = (cell, said) => {
  if (!cell.firstElementChild) cell.append(h("bdi"));
  say(cell.firstElementChild, said);
};

export class Rooms extends List {
  constructor() {
    const bar = (cell, room) => {
      if (!cell.firstElementChild) cell.append(h("i", { class: "share", "aria-hidden": "true" }), h("span"));
      cell.firstElementChild.style.setProperty("--share", Math.min(1, (room.pushes ?? 0) / this.most));
      say(cell.lastElementChild, `${rate(room.pushes)}/s`);
    };
    super(
      "rooms",
      "Nothing is said in any room.",
      table("The busiest rooms", [
        { name: "Room", show: (cell, room) => name(cell, text(room.room)) },
        { name: "Pushes", number: true, show: bar },
        { name: "Members", number: true, show: (cell, room) => say(cell, count(room.members)) },
      ]),
    );
  }

  show(overview) {
    const rooms = list(overview.top_rooms)
      .filter((room) => text(room?.room))
      .slice(0, ROWS_MAX);
    this.most = Math.max(1e-9, ...rooms.map((room) => room.pushes ?? 0));
    this.fill(rooms, (room) => room.room);
  }
}

export class SlowConsumers extends List {
  // `open` is called with the player whose name was pressed.
  constructor(open) {
    const player = (cell, slow) => {
      keep(
        cell,
        [text(slow.player)],
        (key) => key,
        (key) => h("button", { type: "button", class: "link", onclick: () => open(key) }, h("bdi", {}, key)),
        () => {},
      );
    };
    super(
      "slow",
      "Everybody reads as fast as she is told.",
      table("Sessions that read too slowly", [
        { name: "Player", show: player },
        { name: "Node", show: (cell, slow) => rebadge(cell, text(slow.node)) },
        { name: "Waiting", number: true, show: (cell, slow) => say(cell, count(slow.waiting)) },
        { name: "Link", show: (cell, slow) => say(cell, slow.closed ? "closed" : "open") },
      ]),
    );
  }

  show(overview) {
    const slow = list(overview.slow_consumers)
      .filter((one) => text(one?.player))
      .slice(0, ROWS_MAX);
    this.fill(slow, (one) => `${text(one.session)} ${text(one.player)}`);
  }
}
