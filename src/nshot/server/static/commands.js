// One table makes the keys, the buttons and the list of keys, so that they cannot drift apart.

import { json, request, Refused } from "./api.js";
import { ask, unlabel } from "./ask.js";
import * as facets from "./facets.js";
import { grid } from "./grid.js";
import { $, button, html, many, put } from "./html.js";
import { journal } from "./journal.js";
import { nothing, rank, sort } from "./orders.js";
import { changeOf, commandLine, drawPage, drawSample, isTogether, labelsFile } from "./panels.js";
import * as dupes from "./duplicates.js";
import { drawFind, search } from "./search.js";
import { answerOf, app, facet, failed, finalOf, idOf, idOfSet, isHidden, members, nameOf, NONE, NOTHING, names, question, questions,
  rows, seenOf, selection, several, SKIP } from "./state.js";

let changed = () => {};
export const onChange = (act) => { changed = act; };

export function tell(words) {
  app.said = words;
  $("live").textContent = words;
  changed();
}

/** Runs a request of a button; what goes wrong is told, not lost. */
async function trying(act) {
  try {
    return await act();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (!error.status) app.trouble = "gone";
    tell(`! ${error.message}`);
    return null;
  }
}

// ---- Saying -----------------------------------------------------------------------------------------------------

/** What is spoken about: the selection, or the image under the cursor. */
function spoken() {
  const cursor = grid.row();
  return (selection.size ? selection.rows() : cursor === undefined ? [] : [cursor]).filter((row) => !failed(row));
}

/** Says something of the selection, or of the image under the cursor, which then moves on. A selection is one act. */
function say(now, words, stay = false) {
  if (app.view === "duplicates") return;
  const all = spoken(), audit = app.show === "audit";
  const said = all.map((row) => [row, typeof now === "function" ? now(row) : now]).filter(([, id]) => id !== null);
  if (!said.length) return;
  const list = said.map(([row]) => row), ids = said.map(([, id]) => id);
  journal.say(list, ids.every((id) => id === ids[0]) ? ids[0] : ids, audit && list.every((row) => app.inAudit.has(row)));
  if (selection.size && !stay) selection.clear();
  else if (now !== NOTHING && !stay) grid.go(grid.cursor + 1);
  if (audit) later(() => drawSample());
  tell(`${all.length > 1 ? many(all.length) : nameOf(all[0])}: ${words}.${app.trouble ? " Not saved yet." : ""}`);
}

let waiting = 0;
/** After the last word is on disk. */
function later(act) {
  clearTimeout(waiting);
  waiting = setTimeout(() => (journal.queue.length && !app.trouble ? later(act) : trying(act).then(changed)), 300);
}

/** Of several labels: one more, or one fewer where all images have it; the images stay at hand for the next label. */
function toggle(label) {
  const id = idOf(label), all = spoken(), on = all.some((row) => !members[seenOf(row)].includes(id));
  const order = new Map(app.labels.map((each, k) => [idOf(each.label), k])), at = (each) => order.get(each) ?? order.size;
  say((row) => {
    const own = members[seenOf(row)].filter((each) => each !== id);
    return idOfSet((on ? [...own, id] : own).sort((a, b) => at(a) - at(b)).map((each) => names[each]));
  }, `${on ? "+" : "−"} ${label}`, true);
}

/** A label's key: of one label per image it is the whole answer. */
const giveLabel = (label) => (several() ? toggle(label) : say(idOf(label), label));

function right() {
  if (several()) {
    const all = spoken();
    if (all.every((row) => isHidden(row) && app.audited.has(row))) { selection.clear(); return grid.go(grid.cursor + 1); }
    if (all.some((row) => isHidden(row) && !app.audited.has(row))) {
      return tell("In an audit, say what you see: the answer is hidden. 0 where the image shows none of the labels.");
    }
    return say((row) => finalOf(row) || null, "right");
  }
  if ((selection.size ? selection.rows() : [grid.row()]).some((row) => row !== undefined && isHidden(row))) {
    return tell("In an audit, say what you see: the answer is hidden.");
  }
  return say((row) => (answerOf(row) === NOTHING ? null : answerOf(row)), "right");
}

function back(entry, words) {
  if (!entry) return tell("Nothing more.");
  if (entry.kind !== "note" && entry.facet !== facet().name) facets.lookAt(entry.facet);
  const target = entry, at = target.digests.map((digest) => grid.where[rows.of.get(digest)] ?? -1).filter((place) => place >= 0);
  selection.clear();
  if (target.digests.length > 1) for (const digest of target.digests) if (rows.of.has(digest)) selection.put(rows.of.get(digest), true);
  if (at.length) grid.go(Math.min(...at), { keep: true });
  const said = target.kind === "take" ? "the classifier" : target.kind === "note" ? "the note" : changeOf(target) || "taken back";
  if (app.show === "audit") later(() => drawSample());
  const about = app.facets.length > 1 && target.kind !== "note" ? ` (${target.facet})` : "";
  return tell(`${words}: ${said}${about}, ${target.kind === "take" ? "all images" : many(target.digests.length)}.`);
}

// ---- Moving about -----------------------------------------------------------------------------------------------

export function open(view) {
  if (app.view === view) return;
  Object.assign(app, { view, show: "" });
  if (innerWidth < 700) app.panel = "";
  selection.clear();
  nothing();
  changed();
  if (view === "search") search(); else if (view === "duplicates") dupes.duplicates(); else sort(true);
}

function panel(name) {
  app.panel = app.panel === name ? "" : name;
  changed();
  if (app.panel && innerWidth < 700) $("page").focus();
}

function select(list) {
  for (const row of list) selection.put(row, true);
  tell(`${many(selection.size)} selected.`);
}

function jump(by) {
  const next = grid.groups[grid.groups.indexOf(grid.groupOf(grid.cursor)) + by];
  if (next) grid.go(next.first);
}

function escape() {
  if (selection.size) selection.clear();
  else if (app.show || app.filter) {
    app.show = app.filter = "";
    nothing();
    sort(true);
  }
  grid.list.focus({ preventScroll: true });
  changed();
}

const resort = async () => { await rank(); nothing(); return app.view === "search" ? search() : app.view === "duplicates" ? dupes.duplicates(true) : sort(true); };
const extend = (place) => grid.go(place, { extend: true });

function show(what) {
  open("images");
  app.show = what;
  app.filter = "";
  nothing();
  sort();
  const first = [...grid.ids].findIndex((row) => !(what === "audit" ? app.audited.has(row) : rows.said[row]));
  grid.go(Math.max(0, first));
  if (innerWidth < 700) app.panel = "";
  grid.list.focus({ preventScroll: true });
  changed();
}

function openLarge() {
  const dialog = $("large");
  if (dialog.open) dialog.close();
  else if (grid.ids.length) {
    dialog.showModal();
    dialog.focus();
    changed();
  }
}

function writeNote() {
  if (!$("large").open && app.panel !== "image") panel("image");
  setTimeout(() => document.querySelector("dialog[open] #note, #page #note")?.focus(), 60);
}

/** Gives a label by its first letters: for sets of more than nine. */
function pick() {
  if (!app.labels.length) return;
  const dialog = $("pick");
  put(dialog, html`<form method="dialog"><label for="letters">Label</label> <input class="field" id="letters" autocomplete="off"><ul id="found"></ul></form>`);
  const list = () => {
    const typed = $("letters").value.trim().toLowerCase(), at = (label) => label.toLowerCase().indexOf(typed);
    const fits = app.labels.map(({ label }, k) => [label, k]).filter(([label]) => at(label) >= 0).sort((a, b) => at(a[0]) - at(b[0]));
    put($("found"), html`${fits.slice(0, 12).map(([label, k], place) => html`<li>${button("give", label, k, place ? "" : 'class="main"')}</li>`)}`);
    return fits[0];
  };
  dialog.showModal();
  $("letters").focus();
  list();
  $("letters").addEventListener("input", list);
  dialog.querySelector("form").addEventListener("submit", () => { const first = list(); if (first) give(first[1]); }, { once: true });
}

function give(place) {
  const { label } = app.labels[place];
  if ($("pick").open) $("pick").close();
  ($("large").open ? $("large") : grid.list).focus();
  giveLabel(label);
}

// ---- Learning, taking away --------------------------------------------------------------------------------------

async function take() {
  const p = app.proposal;
  if (app.panel !== "learn" || !p?.token) return;
  const total = p.changed, id = crypto.randomUUID();
  const taken = await trying(() => json("/api/take", { token: p.token, id }));
  if (!taken) return;
  journal.fold({ id, take: "a new classifier", facet: facet().name });
  app.show = "";
  await ask();
  nothing();
  sort(true);
  tell(`Taken: ${many(total)} changed. U undoes it.`);
}

async function save(token) {
  const wanted = {
    ...question(), what: app.what, as: app.as, token, target: app.target || "sorted",
    facets: isTogether() ? questions() : [],
    rows: app.what === "selection" ? selection.rows() : app.what === "shown" ? [...grid.ids] : [],
  };
  if (app.as === "sort" || app.as === "xmp") {
    const plan = await trying(() => json("/api/export", wanted));
    if (plan) { app.plan = plan; tell(plan.said); }
    return;
  }
  const response = await trying(() => request("/api/export", wanted));
  if (!response) return;
  const name = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition"))?.[1] ?? "answers";
  download(await response.blob(), name);
  tell(`Saved as ${name} in your downloads.`);
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// ---- The table --------------------------------------------------------------------------------------------------

// [name, keys, words, act]; a name that starts with * acts only while the images have the focus
/** Lays the evidence for a label over the large image; null: the image alone. */
function heat(place) {
  if (app.heat === place) return;
  app.heat = place;
  drawPage();
}

export const COMMANDS = {
  Correct: [
    ["label", "1 2 3 4 5 6 7 8 9", "give this label; of several, one more or one fewer", (k) => app.labels[k] && giveLabel(app.labels[k].label)],
    ["pick", "L", "give a label by its first letters", pick],
    ["*right", "Space", "the answer is right", right],
    ["noneOf", "0", "none of these", () => say(NONE, names[NONE])],
    ["skip", "S", "skip for now", () => say(SKIP, "skipped")],
    ["*forget", "Backspace Delete", "take back what was said", () => say(NOTHING, "taken back")],
    ["undo", "U Ctrl+Z", "undo, also after a restart", () => back(journal.undo(), "Undone")],
    ["redo", "Y Ctrl+Y Ctrl+Shift+Z", "redo", () => back(journal.redo(), "Redone")],
  ],
  Move: [
    ["*", "ArrowLeft", "previous image", () => grid.go(grid.cursor - 1)],
    ["*", "ArrowRight", "next image", () => grid.go(grid.cursor + 1)],
    ["*", "ArrowUp", "a row up", () => grid.go(grid.step(-1))],
    ["*", "ArrowDown", "a row down", () => grid.go(grid.step(1))],
    ["*", "PageUp", "a screen up", () => grid.go(grid.step(-grid.screen()))],
    ["*", "PageDown", "a screen down", () => grid.go(grid.step(grid.screen()))],
    ["*", "Home", "first", () => grid.go(0)],
    ["*", "End", "last", () => grid.go(grid.ids.length)],
    ["", "P", "previous group", () => jump(-1)],
    ["", "G", "next group", () => jump(1)],
    ["*open", "Enter", "large view, and back", openLarge],
  ],
  Select: [
    ["toggle", "X", "this image, or not", () => { const row = grid.row(); if (row !== undefined) { selection.put(row, !selection.has(row)); changed(); } }],
    ["*", "Shift+ArrowLeft", "extend", () => extend(grid.cursor - 1)],
    ["*", "Shift+ArrowRight", "extend", () => extend(grid.cursor + 1)],
    ["*", "Shift+ArrowUp", "extend by a row", () => extend(grid.step(-1))],
    ["*", "Shift+ArrowDown", "extend by a row", () => extend(grid.step(1))],
    ["group", "A", "the group", () => grid.ids.length && select(grid.groupOf(grid.cursor).ids)],
    ["*", "Ctrl+A", "all that is shown", () => select(grid.ids)],
    ["back", "Escape", "end the selection, then back to all", escape],
  ],
  Look: [
    ["resort", "R", "sort again", resort],
    ["like", "M", "more like this", () => {
      const like = selection.size ? selection.rows() : [grid.row()].filter((row) => row !== undefined);
      if (!like.length) return;
      Object.assign(app, { like, query: "", dropped: null });
      if (app.view === "search") search(); else open("search");
    }],
    ["find", "/", "search", () => { Object.assign(app, { like: [], dropped: null }); open("search"); setTimeout(() => { drawFind(); $("query").focus(); }, 30); }],
    ["", "Q", "next facet", () => (app.facets.length > 1 ? facets.next() : undefined)],
    ["", "E", "edit the labels", () => { open("images"); setTimeout(() => $("words").focus(), 30); }],
    ["", "N", "write a note", writeNote],
    ["", "W", "large view: where the evidence is", () => {
      if ($("large").open) heat(app.heat === null ? app.about?.scores?.[0]?.place ?? null : null);
    }],
    ["", "+", "larger", () => grid.resize(grid.want + 24)],
    ["", "-", "smaller", () => grid.resize(grid.want - 24)],
    ["", "I", "image panel", () => panel("image")],
    ["", "F", "learn panel", () => panel("learn")],
    ["", "J", "journal", () => panel("journal")],
    ["", "O", "export", () => panel("export")],
    ["stay", "K", "duplicates: move or stay", () => {
      if (app.view !== "duplicates") return;
      dupes.toggle(selection.size ? selection.rows() : [grid.row()]);
      tell(`${many(dupes.found.moving.size)} marked to move.`);
    }],
    ["best", "B", "duplicates: this is the best of its group", () => {
      if (app.view === "duplicates" && dupes.best(grid.row())) tell("This one stays.");
    }],
    ["take", "T", "take the new classifier", take],
    ["help", "?", "this list", help],
  ],
};

const acts = { // what only a button does
  view: open,
  panel,
  tab: (name) => { app.panel = name; changed(); },
  filter: async (name) => { Object.assign(app, { filter: name, show: "" }); await rank(); nothing(); sort(); },
  order: (name) => { Object.assign(app, { order: name, show: "" }); nothing(); sort(); },
  toggleLabel: giveLabel,
  show,
  next: () => trying(async () => { app.next = (await json("/api/next", question())).rows; show("next"); }),
  audit: (anew) => trying(async () => { await drawSample(anew === "anew"); show("audit"); }),
  dupes: dupes.kind,
  moveAway: (token) => trying(async () => tell(await dupes.move(token))),
  moveBack: (target) => trying(async () => tell(await dupes.takeBack(target))),
  anyway: () => search(true),
  facet: (place) => facets.look(Number(place)),
  addFacet: facets.choose,
  readyFacet: (place) => facets.ready(Number(place)),
  dropFacet: facets.drop,
  unlike: () => { Object.assign(app, { like: [], dropped: null }); search(); },
  by: (step) => grid.go(grid.cursor + Number(step)),
  close: () => document.querySelector("dialog[open]")?.close(),
  give: (place) => give(Number(place)),
  goto: (row) => {
    if ((grid.where[row] ?? -1) < 0) { Object.assign(app, { filter: "", show: "", view: "images" }); nothing(); sort(); }
    grid.go(grid.where[row]);
  },
  undoTo: (id) => {
    const from = journal.entries.findIndex((e) => e.id === id);
    while (journal.entries.slice(from).some((e) => !e.undone)) journal.undo();
    tell("Undone to there. Y brings it back, one by one.");
  },
  saveLabels: () => {
    const { name, content } = labelsFile();
    download(new Blob([`${JSON.stringify(content, null, 1)}\n`]), name);
    tell(`Saved as ${name} in your downloads.`);
  },
  copy: () => { navigator.clipboard?.writeText(commandLine()).then(() => tell("Copied.")); },
  keysOn: () => { app.keysOn = !app.keysOn; localStorage.nshotKeys = app.keysOn ? "" : "off"; help(); },
  unlabel: (place) => { unlabel(Number(place)); changed(); },
  retry: () => { app.trouble = ""; journal.send(); if (!journal.queue.length) ask(); changed(); },
  unsaved: () => download(new Blob(journal.queue.map((line) => `${JSON.stringify(line)}\n`)), "corrections.jsonl"),
  pause: (on) => trying(async () => { app.state = await json("/api/pause", { on: on === "1" }); changed(); }),
  again: () => trying(async () => { app.state = await json("/api/again", {}); nothing(); changed(); }),
  export: (token) => save(token),
  unsort: (target) => trying(async () => {
    const undone = await json("/api/export", { as: app.as, undo: target });
    app.plan = null;
    tell(undone.said);
  }),
};

const byKey = new Map();
for (const [name, keys, , run] of Object.values(COMMANDS).flat()) {
  acts[name.replace("*", "")] ??= run;
  keys.split(" ").forEach((key, k) => byKey.set(key, { run: () => run(k), focused: name[0] === "*" }));
}
delete acts[""];
export const act = (name, arg) => acts[name]?.(arg);

export function help() {
  const arrow = { Left: "←", Right: "→", Up: "↑", Down: "↓" };
  const shown = (key) => key.replace(/Arrow(\w+)/, (_, way) => arrow[way]);
  const keysOf = (keys) => (keys.startsWith("1 2") ? ["1 to 9"] : keys.split(" ")).map((key) => html`<kbd>${shown(key)}</kbd> `);
  put($("help"), html`<div class="row"><h2>Keys</h2>${button("keysOn", app.keysOn ? "Turn single keys off" : "Turn single keys on")}${
    button("close", html`<kbd>Esc</kbd> Close`)}</div><p class="soft">The same in every view. On a Mac, Ctrl is ⌘. Pointer: a click moves,
    Ctrl or the corner selects, Shift extends, a drag draws a frame, a double click opens.</p><div class="keys">${
    Object.entries(COMMANDS).map(([title, list]) => html`<div><h3>${title}</h3><ul>${list.map(([, keys, words]) => html`<li><span>${words}</span><span>${
      keysOf(keys)}</span></li>`)}</ul></div>`)}</div>`);
  if (!$("help").open) $("help").showModal();
}

/** A key's name. Digits by their place on the keyboard, so that they work where typing them needs Shift. */
function keyName(e) {
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(e.code)?.[1], ctrl = e.ctrlKey || e.metaKey;
  const key = digit && !ctrl && !"/?+-".includes(e.key) ? digit : e.key === " " ? "Space" : e.key.length === 1 ? e.key.toUpperCase() : e.key;
  return (ctrl ? "Ctrl+" : "") + (e.shiftKey && (key.length > 1 || ctrl) ? "Shift+" : "") + key;
}

const TEXT = "textarea, select, input:not([type=checkbox], [type=radio], [type=range])";

export function listenToKeys() {
  addEventListener("keydown", (e) => {
    const large = $("large").open, on = e.target;
    if (e.isComposing || e.altKey || $("help").open || $("pick").open) return;
    if (on.matches?.(TEXT)) { // no key acts in a text field
      if (e.key === "Escape") { e.preventDefault(); (large ? $("large") : grid.list).focus({ preventScroll: true }); }
      return;
    }
    const name = keyName(e), found = byKey.get(name), segment = on.closest?.(".seg"), by = { ArrowRight: 1, ArrowLeft: -1 }[name];
    if (segment && by) {
      const all = [...segment.children];
      all.at((all.indexOf(on) + by) % all.length).focus();
      return;
    }
    const focused = on === grid.list || on === document.body || on === $("large");
    if (!found || (large && name === "Escape") || (!app.keysOn && name.length === 1) || (found.focused && !focused)) return;
    e.preventDefault();
    if (!e.repeat || /Arrow|Page|^[GP+-]$/.test(name)) found.run(); // a held key never labels a hundred images
  });
  addEventListener("click", (e) => {
    const pressed = e.target.closest("[data-do]");
    if (!pressed || pressed.matches("input, textarea") || pressed.getAttribute("aria-disabled") === "true") return;
    act(pressed.dataset.do, pressed.dataset.arg);
    if (pressed.closest("#actions, #here")) grid.list.focus({ preventScroll: true });
  });
  addEventListener("input", (e) => { if (e.target.id === "size") grid.resize(Number(e.target.value)); });
  addEventListener("change", (e) => {
    const { id, name, value } = e.target;
    if (id === "note") {
      const row = Number(e.target.dataset.arg);
      if ((app.notes.get(rows.digests[row]) ?? "") !== value) journal.note(row, value);
      changed();
    } else if (id === "target") {
      Object.assign(app, { target: value.trim(), plan: null });
      changed();
    } else if (["what", "as", "together"].includes(name)) {
      Object.assign(app, { [name]: value, plan: null });
      changed();
    }
  });
  $("large").addEventListener("close", () => { app.heat = null; grid.list.focus({ preventScroll: true }); });
  $("large").addEventListener("pointerover", (e) => {
    const label = e.target.closest("[data-heat]");
    if (label) heat(Number(label.dataset.heat));
  });
  $("large").addEventListener("pointerout", (e) => {
    const label = e.target.closest("[data-heat]");
    if (label && !label.contains(e.relatedTarget)) heat(null);
  });
}

