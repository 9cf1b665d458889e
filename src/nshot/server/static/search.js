// Search: the same grid, the same keys, other groups.

import { json, Refused } from "./api.js";
import { grid } from "./grid.js";
import { $, button, count, fixed, html, many, put } from "./html.js";
import { nothing } from "./orders.js";
import { app, rows } from "./state.js";

let changed = () => {};
export const onChange = (act) => { changed = act; };

export function drawFind(found = "") {
  put($("find"), html`<input class="field" id="query" aria-label="Search" placeholder="words, -not these, or drop an image" value="${app.query}"
    autocomplete="off">${app.like.length > 0 && html`<span class="chip">like ${many(app.like.length)}${
    button("unlike", "✕", "", 'aria-label="By words only"')}</span>`}${app.dropped && html`<span class="chip">like the dropped image${
    button("unlike", "✕", "", 'aria-label="By words only"')}</span>`}<button class="main">Search</button><span class="soft" role="status">${found}</span>`);
}

export async function search(anyway = false) {
  drawFind();
  if (!app.query && !app.like.length && !app.dropped) {
    app.hits = null;
    grid.show([]);
    return nothing(html`<h2>Search ${many(rows.n)}</h2><p>Say what can be seen: “red star -dark”, “a street in the rain”. Or select images and
      press <kbd>M</kbd> for more like them, or drop an image here.</p>`);
  }
  let found;
  try {
    const like = app.like.map((row) => rows.digests[row]);
    found = app.dropped ? await json("/api/search/image", app.dropped)
      : await json("/api/search", { words: app.query, like });
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    grid.show([]);
    nothing(html`<h2>No answer</h2><p>${error.message}</p>`);
    return changed();
  }
  if (app.view !== "search") return;
  const here = found.rows.map((row, k) => ({ row, rank: k + 1, cosine: found.cosines[k], fits: found.fits?.[k] })).filter((hit) => hit.row < rows.n);
  app.hits = { of: new Map(here.map((hit) => [hit.row, hit])) };
  const fit = here.filter((hit) => found.line === null || hit.fits >= found.line);
  const rest = here.filter((hit) => found.line !== null && hit.fits < found.line).slice(0, 120);
  drawFind(fit.length && found.line !== null ? `${count(fit.length)}${rest.length ? "" : " or more"} fit` : "");
  if (!fit.length && !anyway) {
    const best = rest[0]?.fits ?? 0;
    grid.show([]);
    nothing(html`<h2>Nothing here fits “${app.query}”</h2><p>The closest of ${many(rows.n)} is hardly closer to these words than to words picked
      at random (fits ${fixed(best, 1)}; ${fixed(found.line ?? 0, 1)} is needed). Name what can be seen, not what it means.</p>${
      button("anyway", "Show the nearest anyway")}`);
    return changed();
  }
  nothing();
  grid.show(found.line === null ? [{ name: "Closest first", note: many(fit.length), ids: fit.map((hit) => hit.row) }] : [
    { name: "Fits", note: `${count(fit.length)}, closest first`, ids: fit.map((hit) => hit.row) },
    { name: "Does not fit", note: "the nearest of the others", ids: rest.map((hit) => hit.row) },
  ]);
}

export function listenToSearch(open) {
  $("find").addEventListener("submit", (e) => {
    e.preventDefault();
    app.query = $("query").value.trim();
    app.dropped = null;
    search().then(() => grid.list.focus({ preventScroll: true }));
  });
  addEventListener("dragover", (e) => { if (e.dataTransfer?.types.includes("Files")) e.preventDefault(); });
  addEventListener("drop", (e) => {
    const file = e.dataTransfer?.files[0];
    if (!file) return;
    e.preventDefault();
    Object.assign(app, { dropped: file, like: [], query: "" });
    if (app.view === "search") search(); else open("search");
  });
}
