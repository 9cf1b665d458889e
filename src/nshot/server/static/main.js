// Start: the parts are put together, and news from the server is listened to.

import { bytes, json, Refused, unpacked } from "./api.js";
import * as asking from "./ask.js";
import * as commands from "./commands.js";
import * as dupes from "./duplicates.js";
import * as facets from "./facets.js";
import { grid, pointer } from "./grid.js";
import { $, put, html } from "./html.js";
import { journal } from "./journal.js";
import { caption, drawTell, nothing, sort } from "./orders.js";
import * as panels from "./panels.js";
import * as searching from "./search.js";
import { app, question, rows } from "./state.js";
import { drawActions, drawRail, drawShell } from "./views.js";

const AGAIN = 2500; // ms until new rows are asked about once more

let due = false, askedAt = 0, returnTo = ""; // the digest under the cursor before nshot was started again

/** Draws what is about the images at once, the rest in the next frame. */
function changed() {
  grid.refresh();
  drawActions();
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    drawShell();
    drawRail();
    drawTell();
    setTimeout(() => { // once the images and their counts are to be seen
      panels.drawPage();
      facets.remember();
    });
  });
}

for (const part of [asking, commands, dupes, facets, panels, searching]) part.onChange(changed);
journal.changed = changed;
journal.takenChanged = () => asking.ask();
Object.assign(grid, { caption, changed, moved: () => { drawActions(); panels.drawPage(true); } });

let loading = false;

/** Fetches the rows that came since; what is shown stays where it is. */
async function loadRows() {
  if (loading) return;
  loading = true;
  try {
    const first = rows.n === 0;
    while (rows.n < app.state.rows) {
      const part = unpacked(await bytes(`/api/rows?from=${rows.n}`));
      if (!part.digests.length) break;
      rows.add(part, (digest) => journal.saidOf(digest));
      for (const digest of part.digests) if (journal.last(digest, "say", true)) app.audited.add(rows.of.get(digest));
    }
    const back = rows.of.get(returnTo);
    if (app.view === "images" && ((first && rows.n) || back !== undefined)) sort();
    if (back !== undefined) {
      grid.go(grid.where[back]);
      returnTo = "";
    }
    if (rows.n && app.labels.length && (app.answer?.rows ?? 0) < rows.n && performance.now() - askedAt > AGAIN) {
      askedAt = performance.now();
      asking.ask();
    }
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
  } finally {
    loading = false;
  }
  changed();
}

async function onState(state) {
  const before = app.state.phase, another = rows.session && rows.session !== state.session;
  app.state = state;
  if (another) returnTo = rows.digests[grid.row()] ?? returnTo;
  if (another || !rows.session) rows.clear(state.session);
  if (another) { // nshot was started again: the same images may be other rows
    Object.assign(app, { answer: null, about: null, proposal: null, sample: [], audit: null, show: "", plan: null });
    dupes.found.groups = null;
    grid.show([]);
    await journal.reload().catch(() => {});
  }
  if (app.trouble === "gone") { app.trouble = ""; journal.send(); commands.tell("All saved again."); }
  if (before !== state.phase && (before === "empty" || before === "failed")) nothing();
  if (state.phase === "ready" && before !== "ready") askedAt = 0;
  await loadRows();
  if (before === "model" && state.phase !== "model") asking.ask();
}

function listen() {
  const events = new EventSource(`/api/events?acts=${journal.lines}`);
  let queue = Promise.resolve();
  events.addEventListener("state", (e) => { queue = queue.then(() => onState(JSON.parse(e.data))).catch(console.error); });
  events.addEventListener("acts", (e) => journal.receive(JSON.parse(e.data)));
  events.addEventListener("error", () => {
    events.close();
    app.trouble ||= "gone";
    changed();
    setTimeout(listen, 3000);
  });
}

async function begin() {
  const start = JSON.parse($("start").dataset.start);
  app.start = start;
  facets.begin();
  app.panel = innerWidth >= 1400 ? "image" : "";
  app.keysOn = localStorage.nshotKeys !== "off";
  asking.listenToAsk();
  searching.listenToSearch(commands.open);
  commands.listenToKeys();
  pointer({ tell: commands.tell, open: () => commands.act("open"), drawActions });
  addEventListener("beforeunload", (e) => { if (journal.queue.length) e.preventDefault(); });
  put($("here"), html``);
  changed();
  grid.list.focus({ preventScroll: true });
  try {
    journal.receive(await json("/api/journal"));
    await onState(await json("/api/state"));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    app.trouble = "gone";
  }
  listen();
  changed();
}

begin();
globalThis.nshotPage = { app, dupes: dupes.found, grid, journal, rows, question, act: commands.act, ask: asking.ask, sort }; // for tests that drive the page
