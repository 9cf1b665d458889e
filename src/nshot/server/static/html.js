// Markup from templates that escape their values, and small words that every part of the page needs.

export const $ = (id) => document.getElementById(id);

class Markup {
  constructor(text) { this.text = text; }
}

const escape = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const shown = (value) => (value instanceof Markup ? value.text : value == null || value === false ? "" : escape(value));

/** A template whose values are escaped, so that a file's name never becomes markup. Only html passes inside html. */
export function html(parts, ...values) {
  let out = parts[0];
  values.forEach((value, k) => { out += [value].flat(9).map(shown).join("") + parts[k + 1]; });
  return new Markup(out);
}

/** Attributes that the page's own code writes. */
export const raw = (text) => new Markup(text);

/** Writes only what changed, and keeps the focus on the same control. */
export function put(box, markup) {
  if (box.markup === markup.text) return false;
  const held = box.contains(document.activeElement) ? document.activeElement.dataset : null;
  box.markup = markup.text;
  box.innerHTML = markup.text;
  if (held?.do) {
    const same = `[data-do="${CSS.escape(held.do)}"][data-arg="${CSS.escape(held.arg ?? "")}"]`;
    (box.querySelector(same) ?? box.querySelector("button"))?.focus({ preventScroll: true });
  }
  return true;
}

const numbers = new Intl.NumberFormat("en-US");
export const count = (n) => numbers.format(n);
export const many = (n, one = "image") => `${count(n)} ${one}${n === 1 ? "" : "s"}`;
export const fixed = (x, digits = 2) => x.toFixed(digits).replace("-", "−");
export const percent = (x) => `${Math.round(100 * x)} %`;

export const button = (name, words, arg = "", more = "") =>
  html`<button type="button" data-do="${name}" data-arg="${arg}" ${raw(more)}>${words}</button>`;

export const bar = (share, quiet) => html`<svg class="bar ${quiet ? "quiet" : ""}" viewBox="0 0 100 1"
  preserveAspectRatio="none" aria-hidden="true"><rect width="${(100 * share).toFixed(1)}" height="1"/></svg>`;

/** A row of buttons of which one is on. */
export const choices = (name, list, now, role = "tab", attribute = "selected") => {
  const on = (arg) => String(now) === String(arg);
  const group = role === "tab" ? "tablist" : "radiogroup";
  return html`<div class="seg" role="${group}" aria-label="${name}">${list.map(([arg, words]) =>
    button(name, words, arg, `role="${role}" aria-${attribute}="${on(arg)}"`))}</div>`;
};
