// Facets: several questions about each image, each with its own labels, prompt and answers. One is looked at; what is
// said, learnt and counted belongs to it.

import { bytes, Refused } from "./api.js";
import { ask, drawNumber, drawPrompts, received } from "./ask.js";
import { $, button, choices, html, put } from "./html.js";
import { journal } from "./journal.js";
import { nothing, sort } from "./orders.js";
import { answerOf, app, facet, idOf, members, names, NOTHING, promptsOf, questionOf, rows, SKIP } from "./state.js";

let changed = () => {}, remembered = "";
export const onChange = (act) => { changed = act; };

/** A facet as the page holds it, from what the server or the library tells. */
function made({ name, labels, templates = [], ...rest }) {
  const usual = templates.length > 1 ? `mean of ${templates.length} templates` : templates[0] ?? "a photo of a {}";
  labels.forEach(({ label }) => idOf(label));
  return { name, labels, templates: templates.length ? templates : [usual], usual, prompt: usual, none: true, answer: null, ...rest };
}

const kept = () => `nshot ${app.start.journal}`;

/** The facets to begin with: those that were typed here before, as long as the command line gives the same. */
export function begin() {
  app.facets = app.start.facets.map(made);
  try {
    const held = JSON.parse(localStorage[kept()] ?? "null");
    if (held?.given === JSON.stringify(app.start.facets)) app.facets = held.facets.map(made);
  } catch { /* nothing that can be read: the command line's */ }
  load(0);
}

/** Remembers what was typed, for when the page is opened again. */
export function remember() {
  if (!app.facets.length) return;
  save();
  const facets = app.facets.map(({ answer, asking, ...rest }) => rest), text = JSON.stringify({ given: JSON.stringify(app.start.facets), facets });
  if (text === remembered) return;
  remembered = text;
  try {
    localStorage[kept()] = text;
  } catch { /* no room: it is only a convenience */ }
}

function save() {
  const { labels, prompt, none, answer } = app;
  Object.assign(facet(), { labels, prompt, none, answer });
}

function load(place) {
  app.facet = place;
  const { labels, prompt, none, answer } = facet();
  Object.assign(app, { labels, prompt, none, answer, draft: "", proposal: null, audit: null, hint: "", notice: "", plan: null });
  $("none").checked = none;
  drawNumber();
  drawPrompts();
}

/** Looks at another facet: the same images, another question. */
export async function look(place) {
  if (place === app.facet || !app.facets[place]) return;
  save();
  load(place);
  journal.settleAll();
  if (app.show !== "audit") app.show = "";
  app.filter = "";
  changed();
  await ask();
  if (app.view !== "images") return;
  nothing();
  sort(true);
}

export const next = () => look((app.facet + 1) % app.facets.length);

/** Looks at the facet that an act was about; false where it is not asked now. */
export function lookAt(name) {
  const place = app.facets.findIndex((each) => each.name === name);
  if (place >= 0) look(place);
  return place >= 0;
}

export function add(given) {
  const name = given.name.trim();
  if (!name) return;
  if ($("pick").open) $("pick").close();
  if (lookAt(name)) { app.notice = `“${name}” is there already.`; return changed(); }
  // what was said of it before is known again
  const ids = journal.entries.filter((e) => e.kind === "say" && e.facet === name && !e.undone).flatMap((e) => e.each ?? [e.now]);
  const said = ids.flatMap((id) => members[id]).map((id) => names[id]);
  const labels = given.labels ?? [...new Set(said)].map((label) => ({ label, synonyms: [] }));
  app.facets.push(made({ ...given, name, labels }));
  look(app.facets.length - 1);
  if (!labels.length) $("words").focus();
}

export function drop() {
  if (app.facets.length < 2) return;
  const { name } = facet(), n = journal.entries.filter((e) => e.kind === "say" && e.facet === name && !e.undone).length;
  const left = app.facet;
  look(left ? left - 1 : 1);
  app.facets.splice(left, 1);
  if (!left) app.facet = 0;
  app.notice = `“${name}” is removed.${n ? ` What you said of it is kept; add it again to see it.` : ""}`;
  remember();
  changed();
}

/** Asks for a name, or offers the ready ones. */
export function choose() {
  const dialog = $("pick"), there = new Set(app.facets.map(({ name }) => name));
  const ready = app.start.ready.map((each, k) => [each, k]).filter(([{ name }]) => !there.has(name));
  put(dialog, html`<form method="dialog"><h2>One more question about each image</h2><p>A facet has labels of its own: beside the subject,
    perhaps the time of day. Each image is answered for each facet, and what you say belongs to the facet that you look at.</p><label
    for="letters">Its name</label> <input class="field" id="letters" autocomplete="off"><p><label><input type="checkbox" id="any">
    an image may show any number of its labels</label></p><p class="row"><button class="main">Add</button>${
    button("close", "Cancel")}</p>${ready.length > 0 && html`<h3>Ready ones</h3><p class="soft">How well they are answered has not been measured: look
    at the answers before you rely on them.</p><ul>${ready.map(([{ name, labels }, k]) => html`<li>${button("readyFacet", html`<b>${name}</b> <span
    class="soft">${labels.map(({ label }) => label).join(", ")}</span>`, k)}</li>`)}</ul>`}</form>`);
  dialog.showModal();
  $("letters").focus();
  dialog.querySelector("form").addEventListener("submit", () => add({ name: $("letters").value, multi: $("any").checked }), { once: true });
}

export const ready = (place) => add(app.start.ready[place]);

export function drawFacets() {
  const several = app.facets.length > 1;
  put($("facets"), html`${several && choices("facet", app.facets.map(({ name }, k) => [k, name]), app.facet)}${
    several && button("dropFacet", "✕", "", `aria-label="Remove this facet" title="Remove this facet"`)}${
    button("addFacet", several ? "Add" : "Add a facet", "", 'aria-label="Add a facet"')}`);
}

/** Asks a facet that is not looked at, once for all images that are there. */
async function askAside(each) {
  const wanted = `${rows.n} ${JSON.stringify([each.labels, each.prompt, each.none, each.multi])}`;
  if (each.asking === wanted || app.state.phase === "model") return;
  each.asking = wanted;
  try {
    const answer = received(await bytes("/api/ask", questionOf(each)));
    if (each === facet() || each.asking !== wanted) return;
    each.answer = answer;
    changed();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
  }
}

/** What the other facets say of an image. */
export function others(row) {
  const told = app.facets.filter((each) => each !== facet() && each.labels.length).map((each) => {
    if ((each.answer?.rows ?? 0) < rows.n) askAside(each);
    const digest = rows.digests[row], said = journal.last(digest, "say", false, each.name)?.nowOf(digest) ?? NOTHING;
    const answer = said > SKIP ? said : answerOf(row, each.answer);
    return html`<dt>${each.name}</dt><dd>${names[answer] || "…"}${said > SKIP && " ✓"}</dd>`;
  });
  return told.length > 0 && html`<h2 class="sub">Other facets</h2><dl>${told}</dl>`;
}

/** What a file of facets holds, for the command line. */
export const asFile = () => Object.fromEntries(app.facets.map(({ name, labels, templates, usual, prompt, multi }, k) => {
  const now = k === app.facet ? app : { labels, prompt };
  return [name, { labels: Object.fromEntries(now.labels.map(({ label, synonyms }) => [label, synonyms])),
    templates: promptsOf(now.prompt, { templates, usual }), ...(multi ? { multi } : {}) }];
}));
