// What the page knows: rows, the answers to the question, and what is shown. Nothing here touches the document.

export const NOTHING = 0, SKIP = 1, NONE = 2; // what may be said of an image, beside labels
export const names = ["", "skipped", "none of these"]; // labels as numbers that outlive the list of labels
export const members = [[], [], []]; // of each number: the labels that it stands for; of several, all that an image shows
const places = new Map(names.map((name, k) => [name, k]));
export function idOf(label) {
  const key = `=${label}`; // a label may be called "skipped"
  if (!places.has(key)) {
    places.set(key, names.push(label) - 1);
    members.push([names.length - 1]);
  }
  return places.get(key);
}

/** A number for what an image shows, where it may show any number of labels: none, one, or a set of them. */
export function idOfSet(labels) {
  if (labels.length < 2) return labels.length ? idOf(labels[0]) : NONE;
  const ids = labels.map(idOf), key = `+${ids.toSorted((a, b) => a - b)}`;
  if (!places.has(key)) {
    places.set(key, names.push(labels.join(", ")) - 1);
    members.push(ids);
  }
  return places.get(key);
}

const COLUMN_NONE = 0xffff, COLUMN_UNREAD = 0xfffe;

/** A file's name as the page shows it: without the one folder that all lie in. */
export function nameOf(row) {
  const name = rows.names[row] ?? "", { folder } = app.start;
  return folder && name.startsWith(folder) ? name.slice(folder.length) : name;
}

/** One row per content, in the order in which the images were found. Rows are only ever added. */
export const rows = {
  session: "", n: 0, digests: [], names: [], read: new Uint8Array(0), said: new Int32Array(0), of: new Map(),
  clear(session) {
    Object.assign(this, { session, n: 0, digests: [], names: [], read: new Uint8Array(0), said: new Int32Array(0) });
    this.of.clear();
  },
  add({ digests, read, names: called }, saidOf) {
    const n = this.n + digests.length;
    if (n > this.said.length) {
      const size = Math.max(4096, 2 * n), wider = new Uint8Array(size), longer = new Int32Array(size);
      wider.set(this.read);
      longer.set(this.said);
      Object.assign(this, { read: wider, said: longer });
    }
    digests.forEach((digest, k) => {
      const row = this.n + k;
      this.digests.push(digest);
      this.names.push(called[k]);
      this.read[row] = read[k];
      this.said[row] = saidOf(digest);
      this.of.set(digest, row);
    });
    this.n = n;
  },
};

export const app = {
  start: {}, state: { phase: "model", rows: 0, failed: 0 }, trouble: "", // "", "gone", "disk" or "token"
  view: "images", panel: "", order: "label", show: "", filter: "", hint: "", notice: "", said: "", keysOn: true,
  facets: [], facet: 0, // all questions, and the one that is looked at: its parts are the next line's
  labels: [], draft: "", prompt: "", none: true, // the question; a label is {label, synonyms}
  answer: null, asking: false, took: 0,
  sample: [], audit: null, inAudit: new Set(), audited: new Set(), next: [], proposal: null, fitting: false,
  query: "", like: [], dropped: null, hits: null, anyway: false,
  what: "all", as: "csv", together: "", plan: null, notes: new Map(), about: null,
  ranking: null, // of several labels: every row in the order of what speaks for the label that is looked at
  heat: null, // in the large view: the place of the label whose evidence is laid over the image
};

export const failed = (row) => !rows.read[row];

/** What the answers say of a row, as an id. */
export function answerOf(row, answer = app.answer) {
  if (!answer || row >= answer.rows) return NOTHING;
  const place = answer.label[row];
  return place === COLUMN_NONE ? NONE : place === COLUMN_UNREAD ? NOTHING : answer.set ? answer.setIds[answer.set[row]] : answer.ids[place];
}

/** What holds: a person's word counts before the model's. */
export const finalOf = (row) => (rows.said[row] > SKIP ? rows.said[row] : answerOf(row));

/** The one label that an image is placed under: of several, the first that was said, or the one with most evidence. */
export function headOf(row, final = finalOf(row)) {
  if (!several() || final <= NONE) return final;
  return rows.said[row] > SKIP ? members[final][0] : app.answer.ids[app.answer.label[row]];
}

export const shows = (row, id) => members[finalOf(row)].includes(id);

export const isUnsure = (row) => app.answer !== null && row < app.answer.rows && !rows.said[row] && rows.read[row] === 1
  && app.answer.margin[row] < app.answer.unsure;

/** In an audit, the answer of an image that nobody has spoken about yet. */
export const isHidden = (row) => app.show === "audit" && app.inAudit.has(row) && (!app.audited.has(row) || (several() && auditLeft() > 0));
/** What an image shows as far as it may be seen: in an audit, only what was said in it. */
export const seenOf = (row) => (isHidden(row) && !app.audited.has(row) ? NONE : finalOf(row) || NONE);
/** Images of the audit that nobody has spoken about. Of several labels, answers stay hidden until there is none. */
export const auditLeft = () => [...app.inAudit].filter((row) => !app.audited.has(row)).length;

export const FILTERS = {
  unsure: isUnsure, yours: (row) => rows.said[row] > SKIP, skipped: (row) => rows.said[row] === SKIP,
  none: (row) => finalOf(row) === NONE, failed,
};

/** The one place that may say probability. */
export const scoreWord = () => (app.answer?.calibrated ? "probability" : "score");

export const asked = () => (app.draft ? [...app.labels, { label: app.draft, synonyms: [] }] : app.labels);
export const keyOf = (place) => (place < 0 ? "" : place < 9 ? `${place + 1}` : "·");

export const SEVEN = ["a photo of a {}", "a close-up photo of a {}", "a bright photo of a {}", "a dark photo of a {}",
  "a photo of the {}", "a drawing of a {}", "a picture of a {}"];
export const MEAN = "mean of 7 prompts";
export const LABELS = "labels"; // the facet of labels that are asked alone
/** Whether an image may show any number of the labels. */
export const several = () => facet().multi === true;
export const facet = () => app.facets[app.facet] ?? { name: LABELS, templates: [], usual: "" };
export const promptsOf = (prompt, of) => (prompt === MEAN ? SEVEN : prompt === of.usual ? of.templates : [prompt]);
export const templates = () => promptsOf(app.prompt, facet());
export const question = () => ({ labels: asked(), templates: templates(), none: app.none, facet: facet().name, multi: several() });
export const questionOf = (each) => ({ labels: each.labels, templates: promptsOf(each.prompt, each), none: each.none, facet: each.name, multi: !!each.multi });
/** Every facet's question. */
export const questions = () => app.facets.map((each, k) => (k === app.facet ? question() : questionOf(each))).filter(({ labels }) => labels.length);

/** Selected rows: by image, not by place, so that they outlive every new order. */
export const selection = {
  set: new Set(),
  get size() { return this.set.size; },
  has(row) { return this.set.has(row); },
  put(row, on) { if (on) this.set.add(row); else this.set.delete(row); },
  clear() { this.set.clear(); },
  rows() { return [...this.set].sort((a, b) => a - b); },
};

/** Rows sorted by 16-bit keys in two passes of counting: 40,000 in about a millisecond. */
export function ranked(list, codes, descending) {
  const counts = new Uint32Array(65537), out = new Uint32Array(list.length);
  const key = descending ? (row) => 65535 - (codes[row] ?? 0) : (row) => codes[row] ?? 65535;
  for (const row of list) counts[key(row) + 1]++;
  for (let k = 0; k < 65536; k++) counts[k + 1] += counts[k];
  for (const row of list) out[counts[key(row)]++] = row;
  return out;
}
