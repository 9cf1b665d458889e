// The parts around the grid. Each draws itself from the state; put() writes only what changed.

import { drawAsk } from "./ask.js";
import { drawTools } from "./duplicates.js";
import { drawFacets } from "./facets.js";
import { grid } from "./grid.js";
import { $, bar, button, choices, count, html, many, put } from "./html.js";
import { journal } from "./journal.js";
import { nothing } from "./orders.js";
import { app, asked, finalOf, idOf, isUnsure, keyOf, members, names, NONE, rows, scoreWord, seenOf, selection, several, SKIP } from "./state.js";

const panelsNow = () => [["image", "Image"], ["learn", "Learn"], ...(several() ? [["together", "Pairs"]] : []), ["journal", "Journal"],
  ["export", "Export"]];

/** Of several labels: what is counted per combination, counted per label. */
function spread(...tallies) {
  for (const tally of tallies) {
    for (let id = NONE + 1; id < tally.length; id++) {
      if (members[id].length > 1) for (const label of members[id]) tally[label] += tally[id];
    }
  }
}

/** Labels with their counts; each is a filter. */
export function drawRail() {
  const tally = new Uint32Array(names.length), yours = new Uint32Array(names.length);
  const also = { unsure: 0, yours: 0, skipped: 0, failed: 0 };
  for (let row = 0; row < rows.n; row++) {
    const said = rows.said[row];
    tally[finalOf(row)]++;
    if (said > SKIP) { yours[said]++; also.yours++; } else if (said === SKIP) also.skipped++;
    if (!rows.read[row]) also.failed++; else if (!said && isUnsure(row)) also.unsure++;
  }
  if (several()) spread(tally, yours);
  const line = (key, words, n, filter, id, unsettled) => html`<li><button type="button" data-do="filter" data-arg="${filter}"
    aria-current="${app.filter === filter && !app.show}"><span class="k">${key && html`<kbd>${key}</kbd>`}</span><span
    class="name">${words}</span><span class="n">${yours[id] > 0 && html`<small>✓${count(yours[id])}</small> `}${unsettled ? html`<small title="ranked, not decided: too few images have shown it">ranked</small>` : count(n)}</span>${
    id && bar(rows.n ? n / rows.n : 0, id === NONE)}</button></li>`;
  const undecided = (text) => several() && app.answer?.decided?.[app.answer.labels.indexOf(text)] === false;
  const label = ({ label: text }, k) => line(keyOf(k), text, tally[idOf(text)] ?? 0, `=${text}`, idOf(text), undecided(text));
  $("rail").toggleAttribute("aria-busy", app.asking);
  put($("rail"), html`<ul>${line("", "All images", rows.n, "")}${app.answer && [
    ...asked().map(label),
    app.none && line("0", "none of these", tally[NONE], "none", NONE),
    line("?", "Unsure", also.unsure, "unsure"),
  ]}${line("✓", "Said by you", also.yours, "yours")}${line("»", "Skipped", also.skipped, "skipped")}${
    line("!", "Not read", also.failed, "failed")}</ul>`);
}

const minutes = (seconds) => (seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`);

function indexLine() {
  const { phase, rows: n, failed: lost, total, rate, left, files } = app.state;
  if (app.trouble === "gone") return html`<b class="bad">! No answer</b>`;
  if (app.trouble) return html`<b class="bad">! Not saved</b>`;
  if (phase === "model") return html`<progress aria-label="Model"></progress><span class="n">${
    app.state.fetched ? `Model: ${count(Math.round(app.state.fetched / 1e6))} MB fetched` : "Loading the model …"}</span>`;
  if (phase === "error") return html`<b class="bad">! Stopped</b>`;
  if (phase === "empty") return html`<span>No image</span>`;
  if (phase === "failed") return html`<b class="bad">! 0 of ${count(n)} read</b>`;
  const saved = journal.queue.length ? html`<b class="bad">! ${many(journal.queue.length, "act")} not saved yet.</b>` : "All saved.";
  if (phase === "ready") {
    return html`<span>${many(n - lost)} read${lost > 0 && html`, ${count(lost)} not`}. ${saved}</span>`;
  }
  const paused = phase === "paused", speed = rate >= 10 ? Math.round(rate) : rate?.toFixed(1);
  return html`<progress ${total && html`max="${total}" value="${files}"`} aria-label="Images read"></progress><span class="n">${count(files)}${
    total && ` of ${count(total)}`}${paused ? ", paused" : html`${rate && `, ${speed}/s`}${left !== null && `, ${minutes(left)} left`}`}</span>${
    button("pause", paused ? "Go on" : "Pause", paused ? "" : "1")}`;
}

function banner() {
  const { phase, error } = app.state;
  if (app.trouble === "disk") {
    return html`<p><b>! The disk is full. What you say is kept in this page, but not saved.</b> Free some space and try again. Do not
      close the page.</p>${button("retry", "Try again")}${button("unsaved", "Download what is not saved")}`;
  }
  if (app.trouble === "gone") {
    return html`<p><b>! nshot does not answer.</b> Go on: what you say waits here and is sent when it is back. The page tries every
      3 s. If you stopped it: <b class="n">nshot serve ${app.start.sources.join(" ")}</b></p>${button("retry", "Try now")}${
      journal.queue.length > 0 && button("unsaved", "Download what is not saved")}`;
  }
  if (app.trouble === "token") {
    return html`<p><b>! nshot asks for its token again.</b> What you say waits here. <a href="/" target="_blank">Give it in another tab</a>, then
      come back.</p>${button("retry", "Try again")}`;
  }
  if (phase === "model") {
    return html`<p>nshot is loading its model; the first time it is fetched from the Hugging Face Hub, once. You can type labels
      meanwhile; the answers come when it is here.</p>`;
  }
  if (phase === "error") return html`<p><b>! Reading stopped:</b> ${error}</p>${button("again", "Try again")}`;
  return html``;
}

const HELP = {
  UnreadableImage: "let your user read them, or copy them again",
  UndecodableImage: "copy them again from where they come from",
  ImageTooLarge: "make smaller copies",
};

function drawStates() {
  const { phase, looked, failures, rows: n } = app.state;
  if (phase === "empty") {
    const kinds = (looked?.kinds ?? []).map(([kind, files]) => `${count(files)} ${kind}`).join(", ");
    nothing(html`<h2>There is no image in ${app.start.title}</h2><p>nshot looked at ${many(looked?.files ?? 0, "file")} in ${
      many(looked?.folders ?? 1, "folder")}${kinds && `: ${kinds}`}. It reads JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF and others, also in
      zip and tar archives.</p><pre>nshot serve another/folder/ --labels "circle, square"</pre>`);
  } else if (phase === "failed") {
    nothing(html`<h2>None of ${many(n)} could be read</h2><div class="sideways"><table><tr><th>why</th><th class="r">files</th><th>what helps</th><th>such as</th></tr>${
      (failures ?? []).map((each) => html`<tr><td>${each.message}</td><td class="r n">${count(each.files)}</td><td>${
        HELP[each.type] ?? ""}</td><td>${each.such_as}</td></tr>`)}</table></div><p>${button("again", "Read again", "", 'class="main"')}</p>`);
  } else return false;
  return true;
}

const VIEWS = [["images", "Images"], ["search", "Search"], ["duplicates", "Duplicates"]];
const ORDERS = () => [["label", "By label"], ["score", `By ${scoreWord()}`], ["margin", "Least sure"], ["folder", "Folder"]];

export function drawShell() {
  const none = drawStates(), v = app.view;
  document.body.classList.toggle("lifeless", none);
  put($("views"), html`${VIEWS.map(([a, words]) => button("view", words, a, `role="tab" aria-selected="${v === a}"`))}`);
  put($("index"), indexLine());
  put($("banner"), banner());
  put($("topics"), html`${panelsNow().slice(1).map(([p, words]) => button("panel", words, p, `aria-pressed="${app.panel === p}"`))}${
    button("help", html`Keys <kbd>?</kbd>`)}`);
  put($("tabs"), html`${choices("tab", panelsNow(), app.panel)}${button("panel", "✕", "", 'class="close" aria-label="Close the panel"')}`);
  $("panel").hidden = !app.panel || none;
  $("ask").hidden = $("rail").hidden = v !== "images";
  $("find").hidden = v !== "search";
  $("tools").hidden = v === "search" || none;
  for (const id of ["rail", "ask", "tools", "actions"]) $(id).inert = none;
  drawFacets();
  drawAsk();
  if (v === "duplicates") return void drawTools();
  const stages = app.answer?.stages;
  const by = app.answer?.learnt && html`<span class="soft wide">by ${stages ? `${stages[0]}, then ${stages[1]}` : "what you taught"}</span>`;
  put($("tools"), html`${choices("order", ORDERS(), app.show ? "" : app.order, "radio", "checked")}<label class="row wide">Size
    <input type="range" id="size" min="64" max="256" step="8" value="${grid.want}"></label><span class="soft n wide">${
    app.answer ? `${many(app.answer.rows)} asked in ${Math.ceil(app.took)} ms` : "no answers yet"}</span>${by}`);
}

/** Of several labels: whether the images that are spoken about show one: "true", "false" or "mixed". */
export function pressed(label) {
  const all = selection.size ? selection.rows() : [grid.row()].filter((row) => row !== undefined), id = idOf(label);
  const seen = all.map((row) => members[seenOf(row)].includes(id));
  return seen.length && seen.every(Boolean) ? "true" : seen.some(Boolean) ? "mixed" : "false";
}

export const sayButtons = () => html`${app.labels.slice(0, 9).map(({ label }, k) => button("label", html`<kbd>${k + 1}</kbd> ${label}`, k,
  several() ? `aria-pressed="${pressed(label)}"` : ""))}${app.labels.length > 9 && button("pick", html`<kbd>L</kbd> Other label`)}${button("right", html`<kbd>Space</kbd> Right`)}${
  button("noneOf", html`<kbd>0</kbd> None of these`)}${button("skip", html`<kbd>S</kbd> Skip`)}`;

export function drawActions() {
  put($("actions"), html`<b class="say ${selection.size ? "" : "one"}">${selection.size ? `${many(selection.size)} selected` : "This image"}</b>${
    button("undo", html`<kbd>U</kbd> Undo`, "", `aria-disabled="${!journal.undoable()}"`)}${
    button("redo", html`<kbd>Y</kbd> Redo`, "", `aria-disabled="${!journal.redoable()}"`)}${
    app.view === "duplicates" ? html`${button("stay", html`<kbd>K</kbd> Move or stay`)}${button("best", html`<kbd>B</kbd> The best`)}` : sayButtons()}${
    button("like", html`<kbd>M</kbd> More like this`)}<span id="said" class="soft">${app.said}</span>`);
}

