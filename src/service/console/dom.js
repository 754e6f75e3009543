// How elements are made and kept. Every text that is shown goes through `textContent` or an attribute here, so that
// whatever players and services call themselves stays text, and all of it is seen.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

// What is not seen, or changes how its neighbours are seen: controls, marks of writing direction, what has no width, tags,
// lone surrogates; not what makes an emoji of a sign.
const HIDDEN =
  /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\ufff9-\ufffb]|(?<!\p{Extended_Pictographic})\ufe0f|(?!\ufe0f)\p{Default_Ignorable_Code_Point}/gu;

// The text with all that shown as escapes, `\u202e`: a name must look like no other.
export function visible(text) {
  return text.replace(HIDDEN, (sign) => {
    const code = sign.codePointAt(0).toString(16);
    return code.length > 4 ? `\\u{${code}}` : `\\u${code.padStart(4, "0")}`;
  });
}

// Attributes that people read.
const SHOWN = ["title", "aria-label", "label", "placeholder"];
const shown = (attribute, value) => (SHOWN.includes(attribute) ? visible(String(value)) : String(value));

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : shown(name, value));
  }
  const there = children.filter((child) => child !== null && child !== undefined);
  element.append(...there.map((child) => (child instanceof Node ? child : visible(String(child)))));
  return element;
}

// An element; children are elements or texts.
export const h = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);

// The same of a drawing.
export const s = (tag, attributes, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

// Says it, if it is not said already: what somebody has marked stays marked.
export function say(element, text) {
  const seen = visible(text);
  if (element.textContent !== seen) element.textContent = seen;
}

// The same of lines.
export function sayLines(element, text) {
  const seen = text.split("\n").map(visible).join("\n");
  if (element.textContent !== seen) element.textContent = seen;
}

// A name from outside among words: whichever way it is written, they stay where they are.
export const aName = (text) => ({ name: text });

// Says texts and names one after the other.
export function tell(element, parts) {
  const said = JSON.stringify(parts);
  if (element.hearthSaid === said) return;
  element.hearthSaid = said;
  element.replaceChildren(
    ...parts.filter(Boolean).map((part) => (typeof part === "string" ? visible(part) : h("bdi", {}, part.name))),
  );
}

export function attribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== shown(name, value)) element.setAttribute(name, shown(name, value));
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
