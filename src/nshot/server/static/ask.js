// The question: labels are asked as they are typed.

import { bytes, columns, Refused } from "./api.js";
import { grid } from "./grid.js";
import { $, button, html, put } from "./html.js";
import { sort } from "./orders.js";
import { app, asked, facet, idOf, idOfSet, keyOf, MEAN, question, rows, several } from "./state.js";

const TYPING = 90; // ms of rest after which the word being typed is asked

let changed = () => {}, running = null, slow = 0, typing = 0;
export const onChange = (act) => { changed = act; };

/** An answer as the page holds it: labels, and combinations of them, as numbers. */
export function received(buffer) {
  const answer = columns(buffer), { labels, sets } = answer;
  return Object.assign(answer, { ids: labels.map(idOf), setIds: sets?.map((places) => idOfSet(places.map((k) => labels[k]))) });
}

/** Asks every image. A newer question cancels an older one; the old answers stay until the new ones are here. */
export async function ask() {
  running?.abort();
  app.proposal = null;
  if (!asked().length) {
    Object.assign(app, { answer: null, asking: false, hint: "" });
    return changed();
  }
  if (app.state.phase === "model" || app.state.phase === "error") return changed();
  const mine = (running = new AbortController()), began = performance.now();
  app.asking = true;
  clearTimeout(slow);
  slow = setTimeout(() => {
    app.hint = "Encoding the words … The counts are still those of the labels before.";
    changed();
  }, 400);
  try {
    const answer = received(await bytes("/api/ask", question(), { signal: mine.signal }));
    if (running !== mine) return;
    const first = app.answer === null;
    app.answer = answer;
    app.took = performance.now() - began;
    app.hint = app.state.remark ? answer.notes.join(" ") : answer.notes[0] ?? "";
    if (first && app.view === "images" && !app.show) sort(grid.cursor > 0);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Refused)) throw error;
    app.hint = error.status ? error.message : "";
    if (!error.status) app.trouble = "gone";
  } finally {
    if (running === mine) {
      clearTimeout(slow);
      app.asking = false;
      changed();
    }
  }
}

/** "cat = kitten | tabby" is the label cat with synonyms. */
function parsed(text) {
  const [label, also = ""] = text.split("=", 2).map((part) => part.trim());
  const words = also.split("|").map((word) => word.trim()).filter(Boolean);
  return { label, synonyms: words.length ? [...new Set([label, ...words])] : [] };
}

export function addLabel(text) {
  const added = parsed(text);
  if (!added.label) return;
  const known = app.labels.find(({ label }) => label === added.label);
  if (known && added.synonyms.length) known.synonyms = added.synonyms;
  else if (known) app.notice = `“${added.label}” is there already.`;
  else app.labels.push(added);
}

export function unlabel(place) {
  const [{ label }] = app.labels.splice(place, 1), id = idOf(label);
  let n = 0;
  for (let row = 0; row < rows.n; row++) n += rows.said[row] === id;
  ask();
  app.notice = `“${label}” is removed.${n ? ` ${n} correction${n === 1 ? "" : "s"} with it are kept; type it again to see them.` : ""}`;
  $("words").focus();
}

export function drawAsk() {
  put($("chips"), html`${app.labels.map(({ label, synonyms }, k) => html`<li class="chip"><kbd>${keyOf(k)}</kbd>${label}${
    synonyms.length > 0 && html`<small> = ${synonyms.join(" | ")}</small>`}${
    button("unlabel", "✕", k, `aria-label="Remove label ${k + 1}"`)}</li>`)}`);
  const help = "Comma adds a label. Enter adds it and sorts. Synonyms: cat = kitten | tabby.";
  put($("hint"), html`${app.notice || app.hint ? html`<b>${app.notice || app.hint}</b>` : help}`);
}

/** How many labels an image may have: with any number, none is an answer like another. */
export function drawNumber() {
  $("multi").checked = several();
  $("none").parentElement.hidden = several();
}

export function drawPrompts() {
  const prompts = [...new Set([facet().usual, app.prompt, "a photo of a {}", "a drawing of a {}", "{}", MEAN])];
  put($("prompt"), html`${prompts.map((text) => html`<option>${text}</option>`)}<option value="">another …</option>`);
  $("prompt").value = app.prompt;
}

export function listenToAsk() {
  const words = $("words"), prompt = $("prompt");
  words.addEventListener("input", () => {
    app.notice = "";
    const parts = words.value.split(/[,\n]/);
    words.value = parts.pop().trimStart();
    parts.forEach(addLabel);
    clearTimeout(typing);
    typing = setTimeout(() => {
      const { label } = parsed(words.value);
      app.draft = app.labels.some((known) => known.label === label) ? "" : label;
      ask();
    }, TYPING);
    if (parts.length) changed();
  });
  words.addEventListener("keydown", (e) => {
    if (e.key === "Backspace" && !words.value && app.labels.length) { e.preventDefault(); unlabel(app.labels.length - 1); }
  });
  $("ask").addEventListener("submit", async (e) => {
    e.preventDefault();
    clearTimeout(typing);
    app.draft = app.notice = "";
    addLabel(words.value);
    words.value = "";
    app.show = "";
    await ask();
    sort();
  });
  $("none").addEventListener("change", () => { app.none = $("none").checked; ask(); });
  $("multi").addEventListener("change", async () => {
    facet().multi = $("multi").checked;
    drawNumber();
    await ask();
    if (app.view === "images" && app.answer) sort(true);
  });
  prompt.addEventListener("change", () => {
    if (!prompt.value) {
      const own = document.createElement("input");
      own.className = "field";
      own.value = app.prompt === MEAN ? "a photo of a {}" : app.prompt;
      own.setAttribute("aria-label", "Prompt, {} where the label goes");
      prompt.hidden = true;
      prompt.after(own);
      own.focus();
      own.addEventListener("change", () => {
        app.prompt = own.value.trim();
        own.remove();
        prompt.hidden = false;
        drawPrompts();
        ask();
      });
      return;
    }
    app.prompt = prompt.value;
    ask();
  });
}
