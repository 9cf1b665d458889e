// Which images are shown, in which groups. A request makes an order; nothing else moves an image under a person's hands.

import { bytes, Refused } from "./api.js";
import { captionOf } from "./duplicates.js";
import { grid } from "./grid.js";
import { $, button, count, fixed, html, many, put } from "./html.js";
import { answerOf, app, failed, FILTERS, finalOf, headOf, idOf, isHidden, isUnsure, keyOf, names, NONE, NOTHING, ranked, rows,
  scoreWord, several, shows, SKIP } from "./state.js";

let placed = new Int32Array(0); // what each image's label was when it was placed
let made = { rows: 0, answer: null };

/** The labels that the filter asks for: "=cat", or two of them: '&["cat","dog"]'. */
const wanted = () => (app.filter[0] === "=" ? [idOf(app.filter.slice(1))] : app.filter[0] === "&" ? JSON.parse(app.filter.slice(1)).map(idOf) : []);

/** Of several labels: asks for the order of all images by what speaks for the label that is looked at. */
export async function rank() {
  app.ranking = null;
  const label = app.filter.slice(1), place = app.answer?.labels.indexOf(label) ?? -1;
  if (!several() || app.filter[0] !== "=" || place < 0) return;
  const { key } = app.answer;
  try {
    const list = new Uint32Array(await bytes("/api/ranked", { key, place }));
    if (app.filter === `=${label}`) app.ranking = { key, label, place, list: [...list].filter((row) => row < rows.n) };
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
  }
}

function kept() {
  const all = wanted();
  const passes = FILTERS[app.filter] ?? (all.length ? (row) => all.every((id) => shows(row, id)) : () => true);
  const list = [];
  for (let row = 0; row < rows.n; row++) if (passes(row)) list.push(row);
  return list;
}

const REST = 2000; // images that do not show a label, the closest of them, shown beside those that do
const CUTS = [0.95, 0.8, 0.6, 0.4, 0];

function groups() {
  const a = app.answer;
  if (app.show === "next") return [{ name: "Next images", note: "each stands for many others", ids: app.next }];
  if (app.show === "audit") {
    return [{ name: "Audit", note: several() ? "drawn at random. Say all that you see: answers are hidden until the last" : "drawn at random. Say what you see: the answer is hidden until you have.", ids: app.sample }];
  }
  if (app.show) {
    const move = app.proposal?.moves.find(([from, to]) => `${from}:${to}` === app.show);
    if (app.show === "left") return [{ name: "Not told of every label", note: "Space: what is shown is all", ids: app.proposal?.left ?? [] }];
    return [{ name: move ? move.words.join(several() ? ": " : " → ") : "Would change", note: "would change", ids: move?.[2] ?? [] }];
  }
  if (a && app.ranking?.key === a.key && app.filter === `=${app.ranking.label}`) {
    const { label, place, list } = app.ranking, id = idOf(label), own = list.filter((row) => shows(row, id));
    const rest = list.filter((row) => !shows(row, id)).slice(0, REST);
    const decided = a.decided[place];
    return [{ name: label, note: many(own.length) + (decided ? "" : ", said by you"), ids: own },
      { name: decided ? "Not answered with it" : "Ranked, not decided", note: decided ? "closest first"
        : `closest first; ${count(a.positives[place])} of the ${a.least} images that are needed showed it`, ids: rest }];
  }
  const list = kept();
  if (app.order === "folder" || !a) return [{ ids: list }];
  if (app.order === "margin") {
    const open = list.filter((row) => !rows.said[row] && rows.read[row]);
    return [{ ids: [...ranked(open, a.marginCodes, false), ...list.filter((row) => rows.said[row] || !rows.read[row])] }];
  }
  if (app.order === "score") {
    const best = ranked(list, a.scoreCodes, true);
    return CUTS.map((low, k) => ({
      name: `${scoreWord()} ${low} ${k ? `to ${CUTS[k - 1]}` : "and over"}`,
      ids: best.filter((row) => (a.score[row] ?? 0) >= low && !(a.score[row] >= (CUTS[k - 1] ?? 9))),
    }));
  }
  const per = new Map([...a.ids, NONE].map((id) => [id, []])), lists = [...per].reduce((all, [id, list]) => { all[id] = list; return all; }, []);
  // the clearest first: scores of a few labels are soon 1.00, and say nothing of "none of these"
  for (const row of ranked(list, a.marginCodes, true)) {
    const id = headOf(row);
    if (lists[id] === undefined) per.set(id, (lists[id] = []));
    lists[id].push(row);
  }
  const lost = per.get(NOTHING);
  per.delete(NOTHING);
  return [...[...per].map(([id, ids]) => ({ name: names[id], ids })), { name: "Not read, or not asked yet", ids: lost ?? [] }];
}

/** Places every image anew, as the order says. keep: the cursor stays on its image. */
export function sort(keep) {
  placed = new Int32Array(rows.n);
  for (let row = 0; row < rows.n; row++) placed[row] = headOf(row);
  made = { rows: rows.n, answer: app.answer };
  const all = groups();
  grid.show(all, keep);
  drawNothing();
}

/** What stands in the grid's place where a filter holds no image. */
function drawNothing() {
  const none = app.view === "images" && rows.n > 0 && !grid.ids.length && (app.filter || app.show);
  if (!none) return;
  nothing(html`<h2>No image here</h2><p>${app.show ? "Nothing is left to look at in this list." : "No image is in this group now."}</p>
    ${button("back", html`<kbd>Esc</kbd> All images`)}`);
}

export function nothing(markup) {
  $("nothing").hidden = !markup;
  grid.box.hidden = !!markup;
  if (markup) put($("nothing"), markup);
}

/** What has changed since the images were placed. */
export function drawTell() {
  let moved = 0;
  if (app.order === "label" && !app.filter && made.answer) {
    for (let row = 0; row < made.rows; row++) if (placed[row] !== headOf(row)) moved++;
  }
  const more = rows.n - made.rows, stale = /score|margin/.test(app.order) && made.answer !== app.answer;
  const words = [
    moved > 0 && `${many(moved)} with another label now; nothing moves until you sort.`,
    more > 0 && `${many(more)} more ready.`,
    stale && "The answers changed since this order was made.",
  ].filter(Boolean);
  $("tell").hidden = app.view !== "images" || !$("nothing").hidden || (!app.show && !words.length);
  put($("tell"), app.show ? html`${button("back", html`<kbd>Esc</kbd> Back to all images`)}`
    : html`${words.join(" ")} ${button("resort", html`<kbd>R</kbd> Sort again`)}`);
}

/** What a cell says. Each mark is a shape and a word, never a colour alone. */
export function caption(row) {
  const said = rows.said[row], final = finalOf(row), a = app.answer, mine = said > SKIP;
  if (failed(row)) return { words: "not read", mark: "!" };
  if (isHidden(row)) {
    return mine && app.audited.has(row) ? { words: names[final], mark: "✓", spoken: `${names[final]}, said by you` }
      : { words: several() ? "which of these?" : "what is it?", spoken: "say what you see; the answer is hidden" };
  }
  if (app.view === "duplicates") return captionOf(row);
  if (app.view === "search") {
    const hit = app.hits?.of.get(row);
    return { words: hit ? `${hit.rank}` : "", number: hit ? fixed(hit.cosine, 3) : "", mark: mine ? "✓" : "" };
  }
  if (final === NOTHING) return { words: "", mark: said ? "»" : "", spoken: "no answer yet" };
  const right = said === answerOf(row), head = headOf(row, final), score = a && row < a.rows && final !== NONE ? fixed(a.score[row]) : "";
  const number = mine ? (right ? "right" : "yours") : score;
  const mark = mine ? "✓" : said ? "»" : isUnsure(row) ? "?" : "";
  const how = mine ? (right ? "you said it is right" : `said by you, the model says ${names[answerOf(row)] || "nothing"}`)
    : final === NONE ? "" : `${scoreWord()} ${number}`;
  const also = mark === "?" ? ", unsure" : mark === "»" ? ", skipped" : "";
  // several labels need the room: the key of one of them would say little
  if (several() && final > NONE) return { words: names[final], number: mine ? number : "", mark, spoken: `${names[final]}${how && `, ${how}`}${also}` };
  return { key: a ? (final === NONE ? "0" : keyOf(a.ids.indexOf(head))) : "", words: names[final], number, mark,
    spoken: `${names[final]}${how && `, ${how}`}${also}` };
}
