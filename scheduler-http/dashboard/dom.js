// Makes elements. Whatever is shown becomes text, never markup: names and outputs are other people's.

/** What is shown of nested lists in which some things are left out. */
export const flat = (nodes) => [nodes].flat(Infinity).filter((node) => node !== null && node !== undefined && node !== false);

/** An element with properties (`on…` listens, others are attributes) and children, of which those that are nothing are left out. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...flat(children));
  return element;
}

export const link = (to, text) => el("a", { href: `#/${to.map(encodeURIComponent).join("/")}` }, text);

/** A table; a column is `[its head, what to show of a row, whether that is a number]`. */
export function table(columns, rows, empty) {
  if (rows.length === 0) return el("p", { class: "faint" }, empty);
  const kind = (number) => ({ class: number ? "number" : undefined });
  return el(
    "table",
    {},
    el("thead", {}, el("tr", {}, columns.map(([head, , number]) => el("th", kind(number), head)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, columns.map(([, show, number]) => el("td", kind(number), show(row)))))),
  );
}

export const count = (number) => Number(number).toLocaleString("en");
export const state = (name) => el("span", { class: name }, name);
export const card = (name, value, kind) => el("div", { class: "card" }, el("b", { class: kind }, value), name);

/** A moment as the reader's clock has it, with the text of the API to hover over. */
export function moment(text) {
  if (!text) return "";
  return el("time", { datetime: text, title: text }, new Date(text).toLocaleString());
}

/** What came from a task: text as it is, anything else as JSON. */
export const opaque = (value) => el("pre", {}, typeof value === "string" ? value : JSON.stringify(value, null, 2));

export const button = (text, action) => el("button", { type: "button", onclick: action }, text);
