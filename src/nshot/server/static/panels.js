// The panel beside the grid, and the large view.

import { json, Refused } from "./api.js";
import { asFile, others } from "./facets.js";
import { grid } from "./grid.js";
import { $, bar, button, count, fixed, html, many, percent, put } from "./html.js";
import { journal } from "./journal.js";
import { answerOf, app, asked, facet, failed, finalOf, idOf, isHidden, isUnsure, keyOf, LABELS, members, nameOf, names, NONE,
  NOTHING, question, rows, scoreWord, seenOf, selection, several, SKIP } from "./state.js";
import { sayButtons } from "./views.js";

let changed = () => {}, later = 0;
export const onChange = (act) => { changed = act; };

// ---- One image --------------------------------------------------------------------------------------------------

let asking = "";

/** Asks for what is known of an image; what comes is drawn if the cursor is still there. */
async function learnAbout(row) {
  const digest = rows.digests[row], want = `${digest} ${app.answer?.key ?? ""}`;
  if (asking === want || app.about?.want === want) return;
  asking = want;
  try {
    const about = await json("/api/about", { digest, key: app.answer?.key });
    if (asking === want) app.about = { ...about, want, row };
    changed();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
  } finally {
    if (asking === want) asking = "";
  }
}

const size = (bytes) => (bytes > 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.ceil(bytes / 1000)} kB`);
const thumbnail = (row, kind = "") => html`<img class="${kind}" src="/thumbnails/${rows.digests[row]}.webp" alt="" decoding="async">`;

/** Whether the evidence for a label is laid over the large image: while the label is pointed at, or by a key. */
const heated = (row) => app.heat !== null && app.answer !== null && row < app.answer.rows && app.heat < app.answer.labels.length
  && !isHidden(row);

const picture = (row) => `/images/${rows.digests[row]}${heated(row) ? `/${app.answer.key}/${app.heat}` : ""}.webp`;

/** Of several labels: each with its score and the score from which it is shown; pressed, it is shown or not. */
function labelTable(row, about) {
  const a = app.answer, hidden = isHidden(row), final = seenOf(row);
  const on = (label) => members[final].includes(idOf(label)), all = about?.scores ?? [];
  const places = hidden || !all.length ? app.labels.map(({ label }, k) => ({ label, place: k })) : all;
  const line = ({ label, place, score }) => html`<tr class="${on(label) ? "best" : ""}" ${!hidden && html`data-heat="${place}"`}><td class="r">${keyOf(place)
    && html`<kbd>${keyOf(place)}</kbd>`}</td><td>${
    button("toggleLabel", label, label, `aria-pressed="${on(label)}"`)}</td>${
    score !== undefined && html`<td class="r n">${fixed(score)}</td><td class="meter">${bar(score, !on(label))}</td><td class="r n soft">${
      a.decided[place] ? `from ${fixed(a.thresholds[place])}` : "ranked"}</td>`}</tr>`;
  const ranked = a && a.decided.some((yes) => !yes);
  return html`<table>${!hidden && all.length > 0 && html`<tr><th></th><th>label</th><th class="r">score</th><th></th><th class="r">shown</th></tr>`}${places.map(line)}</table>${!hidden && a && row < a.rows && html`<dl><dt>margin</dt><dd>${fixed(a.margin[row], 3)}${
    isUnsure(row) && ": unsure"}</dd>${ranked && html`<dt>ranked</dt><dd class="soft">Not decided: fewer than ${a.least} images showed the label
    when this was learnt.</dd>`}<dt>score</dt><dd class="soft">No probability: each label against everything else.</dd></dl>`}`;
}

function scores(row, about) {
  const a = app.answer;
  if (!a || row >= a.rows) return html`<p class="soft">No answer yet.</p>`;
  if (!about?.scores) return html`<p class="soft">…</p>`;
  if (several()) return labelTable(row, about);
  const best = about.scores[0], final = answerOf(row);
  return html`<table><tr><th></th><th>label</th><th class="r">${scoreWord()}</th><th></th><th class="r">cosine</th></tr>${
    about.scores.map((each, k) => html`<tr class="${k ? "" : "best"}" data-heat="${each.place}"><td><kbd>${keyOf(each.place)}</kbd></td><td>${each.label}</td><td
      class="r n">${fixed(each.score)}</td><td class="meter">${bar(each.score, k > 0)}</td><td class="r n">${fixed(each.cosine, 3)}</td></tr>`)}</table>
  <dl>${about.stage && html`<dt>answered by</dt><dd>${about.stage}</dd>`}<dt>margin</dt><dd>${fixed(a.margin[row], 3)}${isUnsure(row) && ": unsure"}</dd><dt>fits</dt><dd>${
    final === NONE ? "no: none of these" : a.fits[row] > 2 ? "yes" : "hardly"}, ${fixed(a.fits[row], 1)} deviations above everyday words</dd>${
    a.calibrated && html`<dt>probability</dt><dd class="soft">Calibrated when the classifier was made; it holds for images like those.</dd>`}${
    !a.calibrated && best && html`<dt>score</dt><dd class="soft">${a.learnt && facet().calibrated
      ? "The calibration no longer holds: it was made before these corrections." : "No probability until it is calibrated."}</dd>`}</dl>`;
}

function about(row) {
  const known = app.about?.row === row ? app.about : null, said = rows.said[row];
  learnAbout(row);
  if (failed(row)) {
    return html`<p class="bad">! ${known?.failure?.message ?? "This file could not be read."}</p><p>Mend it, then read again.</p>${
      button("again", "Read again")}<h2 class="sub">File</h2><dl><dt>name</dt><dd>${nameOf(row)}</dd></dl>`;
  }
  const hidden = isHidden(row);
  const spoken = said > 0 && !hidden && html`<p>${said === SKIP ? "» Skipped." : html`✓ <b>${names[said]}</b>, said by you. The model says ${
    names[answerOf(row)] || "nothing"}.`} ${button("forget", html`<kbd>⌫</kbd> Take back`)}</p>`;
  const near = (known?.near ?? []).filter(([k]) => k < rows.n);
  const when = known?.taken?.replace(/^(\d+):(\d+):(\d+)/, "$1-$2-$3");
  return html`${spoken}${hidden ? html`<p><b>${several() ? "Which of these?" : "What is it?"}</b> The answer is hidden until you have said yours: who sees it first agrees
    with it too often.</p>${several() && labelTable(row)}` : scores(row, known)}
  ${others(row)}<h2 class="sub"><label for="note">Note</label> <kbd>N</kbd></h2><textarea class="field" id="note" data-do="note" data-arg="${row}" rows="2">${
    app.notes.get(rows.digests[row]) ?? ""}</textarea>
  <h2 class="sub">Nearest images</h2><div class="near">${near.map(([k, cosine]) => button("goto", thumbnail(k), k,
    `aria-label="Image ${k + 1}, cosine ${fixed(cosine, 2)}" title="cosine ${fixed(cosine, 2)}"`))}</div>
  <h2 class="sub">File</h2><dl><dt>name</dt><dd>${nameOf(row)}</dd>${known?.others?.length > 0 && html`<dt>also</dt><dd>${known.others.join(", ")}</dd>`}${
    when && html`<dt>taken</dt><dd>${when}</dd>`}${known?.size && html`<dt>size</dt><dd>${known.size[0]} × ${known.size[1]}, ${size(known.bytes)}</dd>`}${
    known?.notes?.length > 0 && html`<dt>decoded</dt><dd>${known.notes.join(" ")}</dd>`}<dt>digest</dt><dd>${rows.digests[row]}</dd></dl>`;
}

// ---- Learn ------------------------------------------------------------------------------------------------------

let fitted = "", tried = 0;

/** A new classifier from what was said, some time after the last word; nothing changes until it is taken. */
export function fitLater() {
  clearTimeout(tried);
  if (app.panel !== "learn" || app.trouble) return;
  tried = setTimeout(async () => {
    const said = journal.entries.filter((e) => e.kind !== "note" && !e.undone).map((e) => e.id).join();
    const state = `${app.answer?.key} ${said}`;
    if (state === fitted || !app.answer || journal.queue.length || app.fitting) return;
    fitted = state;
    app.fitting = true;
    changed();
    try {
      const [proposal, audit] = await Promise.all([json("/api/fit", question()), auditIfThere()]);
      const word = (place) => (place === 0xffff ? names[NONE] : app.answer?.labels[place] ?? "not read");
      for (const move of proposal.moves ?? []) {
        move.words = [word(move[0]), several() ? (move[1] ? "shown only now" : "not shown any more") : word(move[1])];
      }
      app.proposal = proposal.token ? proposal : null;
      app.audit = audit;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      app.proposal = { error: error.message };
    } finally {
      app.fitting = false;
      changed();
    }
  }, 250);
}

export async function drawSample(anew = false) {
  const audit = await json("/api/audit", { ...question(), anew });
  Object.assign(app, { audit, sample: audit.rows, inAudit: new Set(audit.rows) });
  fitted = "";
  return audit;
}

/** The audit's figures, if somebody has begun one: asking for it would draw a sample. */
async function auditIfThere() {
  if (!app.sample.length && !app.audited.size) return null;
  return drawSample();
}

function card(words, body) { return html`<div class="card"><h2 class="sub">${words}</h2>${body}</div>`; }

function newClassifier() {
  const p = app.proposal;
  if (app.fitting && !p) return html`<p class="soft">Learning …</p>`;
  if (p?.error) return html`<p class="bad">! ${p.error}</p>`;
  if (!p) return html`<p>Nothing to learn from yet. Two corrections per label already help.</p>`;
  const total = p.changed;
  const change = (move) => html`<tr><td>${move.words[0]}</td><td>→ ${move.words[1]}</td><td class="r">${
    button("show", count(move[2].length), `${move[0]}:${move[1]}`)}</td></tr>`;
  const audit = app.audit?.asked > 0 && p.audit && html`<p>Audit: ${app.audit.right} of ${app.audit.asked} right now,
    <b>${p.audit.right} of ${p.audit.asked}</b> then.</p>`;
  if (several()) return newThresholds(p);
  return html`<p>From the words and <b>${many(p.examples, "correction")}</b>, in ${Math.ceil(1000 * p.seconds)} ms. Nothing changes until
    you take it.</p><p class="figure">${count(total)}</p><p>${total === 1 ? "image" : "images"} would change label. What you said stays.</p>${
    total > 0 && html`<table>${p.moves.slice(0, 6).map(change)}</table>`}${audit}<p class="soft">${p.reason}</p>${total > 0
    && button("take", html`Take it <kbd>T</kbd>`, "", 'class="main"')}`;
}

/** Of several labels: what is learnt of each, and which can be decided. */
function newThresholds(p) {
  const a = app.answer, moved = (place, now) => p.moves.find((move) => move[0] === place && move[1] === now)?.[2].length ?? 0;
  const show = (place, now, sign) => moved(place, now) > 0 && button("show", `${sign}${count(moved(place, now))}`, `${place}:${now}`,
    `aria-label="${moved(place, now)} images: ${now ? "shown only now" : "not shown any more"}"`);
  const few = p.labels.filter((each) => !each.decided).length, least = a?.least ?? 20;
  const audit = app.audit?.asked > 0 && p.audit && html`<p>Audit, F1 of all labels: ${figure(app.audit.micro.f1)} now,
    <b>${figure(p.audit.micro.f1)}</b> then.</p>`;
  return html`<p>From the words and <b>${many(p.examples, "correction")}</b>, in ${Math.ceil(1000 * p.seconds)} ms. Nothing changes until
    you take it.</p><p class="figure">${count(p.changed)}</p><p>${p.changed === 1 ? "image" : "images"} would change. What you said stays.</p>
    <table class="learnt"><tr><th>label</th><th class="r">images</th><th class="r">F1</th><th class="r">changes</th></tr>${p.labels.map((each, k) => html`<tr><td>${
      a?.labels[k]}${!each.decided && html`<br><small>ranked, not decided</small>`}</td><td class="r n">${count(each.images)}${
      !each.decided && ` of ${least}`}</td><td class="r n" title="${span(each.f1_interval)}, held out">${figure(each.f1)}</td><td class="r changes">${show(k, 1, "+")} ${
      show(k, 0, "−")}</td></tr>`)}</table>${few > 0 && html`<p>${few === 1 ? "A label" : `${few} labels`} with fewer than ${least} images cannot be decided: taken now,
    no image is answered with ${few === 1 ? "it" : "them"}, and ${few === 1 ? "it is" : "they are"} only ranked.</p>`}${p.left.length > 0
    && html`<p>${many(p.left.length, "correction")} not learnt from, since a label came later. ${button("show", "Look again", "left")}</p>`}${audit}<p class="soft">${
    p.reason}</p>${button("take", html`Take it <kbd>T</kbd>`, "", few ? "" : 'class="main"')}`;
}

const figure = (value) => (value === null || value === undefined ? "–" : fixed(value));
const span = ([low, high]) => `between ${fixed(low)} and ${fixed(high)} (95 %)`;

/** Of several labels: how right each is on the audit's images. */
const perLabel = (u) => html`<p>All labels together: F1 <b>${figure(u.micro.f1)}</b>, ${span(u.micro.f1_interval)}; precision ${figure(u.micro.precision)},
  recall ${figure(u.micro.recall)}.</p><table class="learnt"><tr><th>label</th><th class="r">images</th><th class="r">F1</th><th class="r">95 %</th></tr>${
    u.each.map((each) => html`<tr title="${many(each.answered)} answered with it"><td>${each.label}</td><td class="r n">${count(each.images)}</td><td class="r n">${figure(each.f1)}</td><td class="r n">${fixed(each.f1_interval[0])} to ${fixed(each.f1_interval[1])}</td></tr>`)}</table>`;

function auditCard() {
  const u = app.audit, x = (p) => (10 + 280 * p).toFixed(1);
  if (!u) {
    const ready = app.state.phase === "ready";
    return html`<p>How often is it right? Only images drawn at random can tell.</p>${ready
      ? button("audit", "Begin an audit of 100 images") : html`<p class="soft">When all images are read.</p>`}`;
  }
  const share = u.asked ? u.right / u.asked : 0, left = u.rows.length - u.rows.filter((row) => app.audited.has(row)).length;
  const now = app.state.rows - app.state.failed;
  return html`${u.asked > 0 ? html`<p class="figure">${percent(share)}</p><p>${several() ? "of images with all labels right" : "right"}, of ${many(u.asked)} drawn at random. The true share lies
    between <b>${percent(u.low)}</b> and <b>${percent(u.high)}</b> (95 %).</p><svg class="scale" viewBox="0 0 300 26" aria-hidden="true"><line
    x1="10" x2="290" y1="8" y2="8"/><line class="span" x1="${x(u.low)}" x2="${x(u.high)}" y1="8" y2="8"/><circle cx="${x(share)}" cy="8"
    r="4.5"/><text x="4" y="24">0 %</text><text x="268" y="24">100 %</text></svg>` : html`<p>Say what each image shows; the answers are
    hidden until you have.</p>`}${u.micro && u.asked > 0 && perLabel(u)}<p class="soft">Kept apart: nothing is learnt from these.</p>${u.total < now && html`<p class="soft">Drawn
    from ${count(u.total)} images; there are ${count(now)} now. ${button("audit", "Draw anew", "anew")}</p>`}${
    left ? button("audit", `Go on, ${left} left`) : button("audit", "Look at it")}`;
}

// ---- Several labels together ------------------------------------------------------------------------------------

const PAIRS = 40;

/** Which labels are on the same images: what was said where somebody has, else the answers. */
function together() {
  const labels = asked().map(({ label }) => label), place = new Map(labels.map((label, k) => [idOf(label), k]));
  const perSet = new Uint32Array(names.length), own = new Uint32Array(labels.length), pairs = new Map();
  for (let row = 0; row < rows.n; row++) perSet[finalOf(row)]++;
  perSet.forEach((n, id) => {
    const all = n ? members[id].map((label) => place.get(label)).filter((k) => k !== undefined).sort((a, b) => a - b) : [];
    all.forEach((a, k) => {
      own[a] += n;
      for (const b of all.slice(k + 1)) pairs.set(a * labels.length + b, (pairs.get(a * labels.length + b) ?? 0) + n);
    });
  });
  const total = rows.n - app.state.failed, list = [...pairs].sort((x, y) => y[1] - x[1]).slice(0, PAIRS);
  if (!app.answer) return html`<p>Which labels are on the same images is shown once they are answered.</p>`;
  if (!list.length) return html`<p>No image shows two labels.</p>`;
  return html`<p>Labels on the same images, as answered, or as you said.</p><table><tr><th>labels</th><th class="r">images</th><th
    class="r" title="How often they are together, against what chance alone would make of it">chance</th></tr>${list.map(([key, n]) => {
    const a = Math.floor(key / labels.length), b = key % labels.length;
    return html`<tr><td>${button("filter", html`${labels[a]} <span class="soft">+</span> ${labels[b]}`, `&${JSON.stringify([labels[a], labels[b]])}`)}<br><small>${
      percent(n / own[a])} of ${labels[a]}, ${percent(n / own[b])} of ${labels[b]}</small></td><td class="r n">${count(n)}</td><td class="r n">${
      fixed(n * total / (own[a] * own[b]), 1)}×</td></tr>`;
  })}</table>`;
}

// ---- Journal ----------------------------------------------------------------------------------------------------

const clock = new Intl.DateTimeFormat("en-GB", { dateStyle: "short", timeStyle: "medium" });

function what(entry) {
  const about = app.facets.length > 1 && html` <small>${entry.facet},</small>`;
  if (entry.kind === "take") return html`all images: <b>a new classifier</b>${about}`;
  const which = entry.digests.length === 1 ? (rows.of.has(entry.digests[0]) ? nameOf(rows.of.get(entry.digests[0])) : "an image that is not here") : many(entry.digests.length);
  if (entry.kind === "note") return html`${which}: <b>note</b> ${entry.text}`;
  const was = [...new Set(entry.was)].map((id) => names[id] || "model’s answer").slice(0, 3).join("; ");
  return html`${which}: ${was || "model’s answer"} → <b>${changeOf(entry) || "taken back"}</b>${about}`;
}

/** What an act said, in words. */
export function changeOf(entry) {
  const ids = [...new Set(entry.each ?? [entry.now])].filter((id) => id !== NOTHING);
  return ids.slice(0, 3).map((id) => names[id]).join("; ") + (ids.length > 3 ? ` and ${ids.length - 3} more` : "");
}

// ---- Export -----------------------------------------------------------------------------------------------------

const FORMATS = [["csv", "CSV"], ["jsonl", "JSON lines, every score"], ["parquet", "Parquet"], ["coco", "COCO"],
  ["labelstudio", "Label Studio JSON"], ["nshot", "A classifier (.nshot)"], ["sort", "Files sorted into a folder per label"], ["xmp", "Keywords in sidecar files"]];
const word = (text) => (/^[\w./:@%+,=-]+$/.test(text) ? text : `"${text.replace(/(["\\$`])/g, "\\$1")}"`);

/** Whether all facets go into one file: where there are several, and the form can hold them. */
export const isTogether = () => app.together === "all" && app.facets.length > 1 && ["csv", "jsonl", "parquet", "coco", "labelstudio", "nshot"].includes(app.as);

/** The file of labels that the command line names, where they cannot stand in the line itself. */
export function labelsFile() {
  if (isTogether()) {
    const now = app.facets.map(({ name, labels }, k) => ({ name, labels: k === app.facet ? app.labels : labels }));
    const given = app.start.facets.map(({ name, labels }) => ({ name, labels }));
    const same = app.start.asked && JSON.stringify(now) === JSON.stringify(given);
    return same ? { name: app.start.asked } : { name: "facets.json", content: asFile() };
  }
  if (!app.labels.some((each) => each.synonyms.length)) return {};
  return { name: "labels.json", content: Object.fromEntries(app.labels.map(({ label, synonyms }) => [label, synonyms])) };
}

/** The command that does the same. What it reads is what the page has saved. */
export function commandLine() {
  const { as, what: which } = app, sources = app.start.sources.map(word).join(" "), { name } = facet(), together = isTogether();
  const label = (text) => (/[,"]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const held = labelsFile().name;
  const labels = together ? `--facets ${word(held)}` : held ? `--labels-file ${held}`
    : `--labels ${word(app.labels.map((each) => label(each.label)).join(", "))}`, multi = several() && !together ? " --multi" : "";
  const templates = together ? "" : question().templates.map((each) => ` --template ${word(each)}`).join("");
  const model = `${app.start.model ? ` --model ${word(app.start.model)}` : ""}${app.start.first ? ` --first ${word(app.start.first)}` : ""}`;
  const learnt = together ? app.facets.some((each, k) => (k === app.facet ? app : each).answer?.learnt) : app.answer?.learnt;
  const taken = app.state.taken?.[name];
  // what answers, where it is more than words
  const file = !learnt ? null : together ? "photos.nshot" : taken ?? app.start.classifier;
  const none = app.none && !several() && !(file && (together || taken || facet().rejects)) ? " --reject background" : "";
  const by = file ? `--classifier ${word(file)}` : `${labels}${multi}${templates}${model}`;
  const of = together || name === LABELS ? "" : ` --facet ${word(name)}`;
  const journalled = ` --journal ${word(app.start.journal)}${of}`, only = which === "yours" ? " --corrected" : "";
  const fit = `nshot fit${journalled} ${sources} ${labels}${multi}${templates}${model} -o photos.nshot`;
  if (as === "nshot") return app.answer?.stages ? "# a cascade of two models: this page saves it" : fit;
  if (as === "xmp") return `nshot tag ${sources} ${by}${none}${journalled}${only} --write`;
  if (as === "sort") return `nshot sort ${sources} ${word(app.target || "sorted")}/ ${by}${none}${journalled}${only} --copy`;
  const classify = `nshot classify ${sources} ${by}${none}${journalled}${only} --format ${as} -o answers.${
    as === "coco" || as === "labelstudio" ? "json" : as}`;
  return together && file ? `${fit}\n${classify}` : classify;
}

function exportPanel() {
  const n = { all: rows.n, yours: 0, selection: selection.size, shown: grid.ids.length };
  for (let row = 0; row < rows.n; row++) n.yours += rows.said[row] > SKIP;
  const pick = (name, all) => html`${all.map(([value, words]) => html`<label><input type="radio" name="${name}" value="${value}" data-do="" data-arg="${value}"
    ${app[name] === value && html`checked`}> ${words}</label>`)}`;
  const acts = app.as === "sort" || app.as === "xmp", forms = FORMATS.filter(([name]) => name !== "sort" || !several()), plan = app.plan, able = app.answer || app.what === "yours";
  const faceted = app.facets.length > 1 && ["csv", "jsonl", "parquet", "coco", "labelstudio", "nshot"].includes(app.as), { name, content } = labelsFile();
  const partial = app.what === "selection" || app.what === "shown";
  const main = acts ? (plan?.token ? `${app.as === "xmp" ? "Write" : "Copy"} ${many(plan.files, "file")}` : "Show what would happen") : app.as === "nshot" ? "Save the classifier"
    : `Save ${many(n[app.what], "answer")}`;
  return html`<fieldset><legend>Which images</legend>${pick("what", [["all", `All, ${count(n.all)}`], ["yours", `Those you corrected, ${count(n.yours)}`],
    ["selection", `The selection, ${count(n.selection)}`], ["shown", `What is shown, ${count(n.shown)}`]])}</fieldset><fieldset><legend>As</legend>${
    pick("as", forms)}</fieldset>${faceted && html`<fieldset><legend>Of which facet</legend>${pick("together", [["", `This one, ${facet().name}`],
      ["all", `All ${app.facets.length} in one file`]])}</fieldset>`}${app.as === "sort" && html`<p><label for="target">Into the folder</label> <input class="field" id="target" value="${app.target ?? ""}" placeholder="sorted"></p>`}${
    button("export", main, plan?.token ?? "", `class="main" aria-disabled="${!able || !n[app.what]}"`)}${
    acts && html`<p class="soft">Nothing is touched before you have seen it, and it can be taken back.</p>`}${
    plan?.lines && html`<ul class="plan">${plan.lines.map((each) => html`<li>${each}</li>`)}</ul>`}${
    plan?.undo && button("unsort", "Take it back", plan.undo)}
    <h2 class="sub">The same on the command line</h2><pre>${commandLine()}</pre>${partial && html`<p class="soft">The command answers for all of these
    sources: only the page knows what is ${app.what === "shown" ? "shown" : "selected"}.</p>`}<div class="row">${button("copy", "Copy the line")}${
    content && button("saveLabels", `Save ${name}`)}</div>${content && html`<p class="soft">The line reads ${name}: save it where you run the line.</p>`}`;
}

const PAGES = {
  image: () => {
    const row = grid.row();
    if (row === undefined) return html`<p class="soft">No image under the cursor.</p>`;
    return html`${failed(row) ? "" : html`<img class="big" src="/thumbnails/${rows.digests[row]}.webp" alt="">`}${about(row)}`;
  },
  together,
  learn: () => html`${card("New classifier", newClassifier())}${card("Next images", html`<p>Ones that stand for many others, unsure ones first: they
    teach the most. They cannot tell how often the model is right, since they were not drawn at random.</p>${
    button("next", "Show them", "", `aria-disabled="${!app.answer}"`)}`)}${card("Audit", auditCard())}`,
  journal: () => html`<p>Newest first. Nothing is erased: an undone entry stays. ${journal.queue.length > 0
    && html`<b class="bad">! ${journal.queue.length} not saved yet.</b>`}</p><ol class="log">${journal.entries.slice(-150).reverse().map((e) => html`<li><time
    class="n soft">${clock.format(1000 * e.at)}</time><span class="${e.undone ? "undone" : ""}">${what(e)} <small>${e.by}${e.audit && ", in the audit"}</small></span>${
    e.undone ? "undone" : button("undoTo", "Undo to here", e.id)}</li>`)}</ol>`,
  export: exportPanel,
};

/** Draws the panel and the large view. moving: an arrow key may be held, so wait until the cursor rests. */
export function drawPage(moving) {
  clearTimeout(later);
  if (moving) { later = setTimeout(drawPage, 90); return; }
  if (["note", "target"].includes(document.activeElement?.id)) return;
  if (app.panel) put($("page"), PAGES[app.panel]());
  fitLater();
  const row = grid.row();
  if (!$("large").open || row === undefined) return;
  const g = grid.groupOf(grid.cursor);
  put($("large"), html`<div class="row top"><b>${nameOf(row)}</b><span class="soft">${count(grid.cursor - g.first + 1)} of ${
    count(g.ids.length)} ${g.name}</span>${button("by", "◀", -1, 'aria-label="Previous"')}${button("by", "▶", 1, 'aria-label="Next"')}${
    button("close", html`<kbd>Esc</kbd> Close`)}</div><div class="stage">${failed(row) ? html`<p>not read</p>`
    : html`<img src="${picture(row)}" alt="${nameOf(row)}${heated(row) && `: where the evidence for ${app.answer.labels[app.heat]} is`}">`}</div><div class="side"><div class="row">${sayButtons()}${
    button("undo", html`<kbd>U</kbd> Undo`)}</div>${about(row)}</div>`);
}

