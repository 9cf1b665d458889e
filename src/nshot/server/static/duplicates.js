// Duplicates: the same grid; a number ties a group, the best one stays.

import { json, Refused } from "./api.js";
import { grid } from "./grid.js";
import { $, button, choices, count, html, many, put } from "./html.js";
import { nothing } from "./orders.js";
import { app, rows } from "./state.js";

const KINDS = { same: "Same file", copy: "Same picture", scene: "Same scene" };

let changed = () => {};
export const onChange = (act) => { changed = act; };

export const found = { groups: null, measured: null, kind: "copy", of: new Map(), moving: new Set(), plan: null, looking: false };

const ofThousand = (share) => (share < 0.0005 ? "Fewer than 1" : `About ${count(Math.round(1000 * share))}`);

/** What is said of a kind: how sure it is. */
function about() {
  if (found.kind === "same") return "The same bytes: certain.";
  if (found.kind === "scene") return "Alike, but taken apart. A hint: nothing is marked to move.";
  return `Resized, recompressed or cropped a little. ${ofThousand(found.measured.false_rate)} of 1,000 pairs are wrong, measured on copies of
    your own images.`;
}

/** The files that would move: all but the best of each group, unless they were told to stay. */
function files() {
  const list = [];
  for (const group of found.groups.filter((each) => each.kind === found.kind)) {
    if (group.kind === "same") {
      if (found.moving.has(group.rows[0])) list.push(...group.files.slice(1).map((name) => [name, group.kind]));
    } else for (const row of group.rows) if (found.moving.has(row)) list.push([rows.names[row], group.kind]);
  }
  return list;
}

function arrange() {
  const groups = found.groups.filter((each) => each.kind === found.kind);
  found.of = new Map();
  groups.forEach((group, k) => group.rows.forEach((row, place) => found.of.set(row, { number: k + 1, best: place === 0, group })));
  found.moving = new Set(found.kind === "scene" ? [] : groups.flatMap((group) => (group.kind === "same" ? group.rows : group.rows.slice(1))));
  found.plan = null;
}

export async function duplicates(keep) {
  if (!found.groups && !found.looking) {
    found.looking = true;
    grid.show([]);
    nothing(html`<h2>Looking for duplicates …</h2><p>How alike copies of your own images are is measured first. The images stay as they are.</p>`);
    changed();
    try {
      Object.assign(found, await json("/api/duplicates", {}));
      found.kind = ["copy", "same", "scene"].find((kind) => found.groups.some((each) => each.kind === kind)) ?? "copy";
      arrange();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      nothing(html`<h2>No answer</h2><p>${error.message}</p>`);
    } finally {
      found.looking = false;
    }
  }
  if (app.view !== "duplicates" || !found.groups) return changed();
  const ids = found.groups.filter((each) => each.kind === found.kind).flatMap((each) => each.rows);
  nothing(ids.length ? undefined : html`<h2>None found</h2><p>${KINDS[found.kind]}: among ${many(rows.n)} there are none.</p>`);
  grid.show([{ ids }], keep);
  return changed();
}

export function kind(name) {
  found.kind = name;
  arrange();
  return duplicates();
}

/** Whether an image moves or stays; the best of a group always stays. */
export function toggle(list) {
  for (const row of list) {
    const here = found.of.get(row);
    if (!here || (here.best && here.group.kind !== "same")) continue;
    if (found.moving.has(row)) found.moving.delete(row); else found.moving.add(row);
  }
  found.plan = null;
  changed();
}

/** Another image of a group is the best one: it stays, and the one that was may move. Places keep still. */
export function best(row) {
  const here = found.of.get(row);
  if (!here || here.best || here.group.kind === "same") return false;
  const was = here.group.rows.find((each) => found.of.get(each).best);
  here.group.rows = [row, ...here.group.rows.filter((each) => each !== row)];
  found.of.get(was).best = false;
  here.best = true;
  if (found.moving.delete(row)) found.moving.add(was);
  found.plan = null;
  changed();
  return true;
}

/** Shows what would move; pressed again, moves it. */
export async function move(token) {
  found.plan = await json("/api/duplicates", { move: files(), token });
  changed();
  return found.plan.said;
}

export async function takeBack(target) {
  const { said } = await json("/api/duplicates", { undo: target });
  found.plan = null;
  changed();
  return said;
}

export function captionOf(row) {
  const here = found.of.get(row);
  if (!here) return { words: "" };
  const moves = found.moving.has(row);
  if (here.group.kind === "same") {
    const files = here.group.files.length;
    return { key: here.number, words: moves ? `${files - 1} of ${files} move` : `${files} files stay`, mark: moves ? "→" : "" };
  }
  const words = here.best ? "best" : moves ? "moves" : "stays";
  return { key: here.number, words, mark: here.best ? "★" : moves ? "→" : "", spoken: `group ${here.number}, ${words}` };
}

export function drawTools() {
  if (!found.groups) return put($("tools"), html`<span class="soft">Looking …</span>`);
  const tally = (name) => found.groups.filter((each) => each.kind === name).length;
  const kinds = Object.entries(KINDS).map(([name, words]) => [name, `${words} ${count(tally(name))}`]);
  const n = files().length, { plan } = found;
  const main = plan?.token ? button("moveAway", `Move ${many(plan.files, "file")} to trash/`, plan.token, 'class="main"')
    : button("moveAway", `Move ${many(n, "file")} to trash/ …`, "", n ? 'class="main"' : 'aria-disabled="true"');
  return put($("tools"), html`${choices("dupes", kinds, found.kind, "radio", "checked")}${plan?.undo ? button("moveBack", "Take it back", plan.undo) : main}<span
    class="soft">${plan?.said ?? html`${about()} The number tells the group.`}</span>`);
}
