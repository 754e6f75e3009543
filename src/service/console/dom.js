// How elements are made and kept. Every text that is shown goes through `textContent` or an attribute here, so that
// whatever players and services call themselves stays text.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// An element; children are elements or texts.
export const h = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);

// The same of a drawing.
export const s = (tag, attributes, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

// Says it, if it is not said already: what somebody has marked stays marked.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function attribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

// Keeps the children of `parent` as the items are, each element under its item's key, so that focus and motion outlive a
// redraw. Of items with the same key the first counts.
export function keep(parent, items, keyOf, make, update) {
  const old = new Map();
  for (const child of parent.children) old.set(child.hearthKey, child);
  const kept = new Set();
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    if (kept.has(key)) continue;
    kept.add(key);
    let element = old.get(key);
    if (!element) {
      element = make(item);
      element.hearthKey = key;
    }
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
    update(element, item);
  }
  // Those that are kept stand first.
  for (const gone of [...parent.children].slice(kept.size)) gone.remove();
}

// A table with a caption. Roles are named because the style makes cards of rows on a phone, which would take them away.
// A column is `{ name, number, show(cell, item) }`.
export function table(caption, columns) {
  const head = columns.map((column) =>
    h("th", { scope: "col", role: "columnheader", class: column.number ? "number" : null }, column.name),
  );
  const body = h("tbody", { role: "rowgroup" });
  const element = h(
    "table",
    { role: "table" },
    h("caption", { class: "hidden" }, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...head)),
    body,
  );
  const row = () =>
    h(
      "tr",
      { role: "row" },
      ...columns.map((column, at) =>
        at === 0
          ? h("th", { scope: "row", role: "rowheader" })
          : h("td", { role: "cell", "data-name": column.name, class: column.number ? "number" : null }),
      ),
    );
  const show = (items, keyOf) =>
    keep(body, items, keyOf, row, (element, item) => {
      columns.forEach((column, at) => column.show(element.children[at], item));
    });
  return { element, show };
}
