// What a person said. The mark comes first, the server's disk follows; what is not there yet waits here and is sent
// again. The same fold as the server's: of each image, the last act that is not undone.

import { json, Refused } from "./api.js";
import { app, facet, idOf, idOfSet, LABELS, members, NONE, NOTHING, names, rows, several, SKIP } from "./state.js";

const AGAIN = 3000; // ms until the server is tried once more

function wordOf(id) {
  if (id === NOTHING) return null;
  if (id === SKIP) return { answer: "skip" };
  if (several()) return { labels: members[id].map((label) => names[label]) };
  return id === NONE ? { answer: "none" } : { label: names[id] };
}
const idOfWord = (word) => (!word ? NOTHING : word.labels ? idOfSet(word.labels) : word.label !== undefined ? idOf(word.label)
  : word.answer === "skip" ? SKIP : NONE);
const fresh = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");

export const journal = {
  entries: [], queue: [], lines: 0, // lines: how many of the server's are here
  byId: new Map(), of: new Map(), seen: new Set(), sending: false,
  changed: () => {}, takenChanged: () => {},

  /** Adds a line, the server's or our own. Returns the entry that it changes. */
  fold(line) {
    if (this.seen.has(line.id)) {
      const known = this.byId.get(line.id);
      if (known) Object.assign(known, { at: line.at ?? known.at, by: line.by ?? known.by, was: line.was?.map(idOfWord) ?? known.was });
      return null;
    }
    this.seen.add(line.id);
    const target = this.byId.get(line.undo ?? line.redo);
    if (line.undo !== undefined || line.redo !== undefined) {
      if (!target) return null;
      target.undone = line.undo !== undefined;
      this.settle(target);
      return target;
    }
    const kind = "take" in line ? "take" : "note" in line ? "note" : "sample" in line ? "audit" : "say";
    const entry = { id: line.id, kind, at: line.at ?? Date.now() / 1000, by: line.by ?? "you", audit: !!line.audit,
      digests: line.digests ?? [], now: kind === "say" ? idOfWord(line.now) : NOTHING, each: line.each?.map(idOfWord), text: line.note ?? line.take ?? "",
      facet: line.facet ?? LABELS, was: kind === "say" ? (line.was ?? []).map(idOfWord) : [], undone: false, past: false };
    const place = entry.each && new Map(entry.digests.map((digest, k) => [digest, k])); // images that were not alike
    entry.nowOf = (digest) => (place ? entry.each[place.get(digest)] : entry.now);
    if (kind === "audit") return entry; // the sample is asked for by itself
    for (const each of this.entries) if (each.undone) each.past = true; // the log keeps it, but it is not redone
    this.entries.push(entry);
    this.byId.set(entry.id, entry);
    for (const digest of kind === "take" ? [] : entry.digests) {
      if (this.of.has(digest)) this.of.get(digest).push(entry); else this.of.set(digest, [entry]);
    }
    this.settle(entry);
    return entry;
  },
  settle(entry) {
    if (entry.kind === "note") for (const digest of entry.digests) app.notes.set(digest, this.last(digest, "note")?.text ?? "");
    if (entry.kind !== "say" || entry.facet !== facet().name) return;
    for (const digest of entry.digests) {
      const row = rows.of.get(digest);
      if (row === undefined) continue;
      rows.said[row] = this.saidOf(digest);
      if (this.last(digest, "say", true)) app.audited.add(row); else app.audited.delete(row);
    }
  },
  /** Every row anew: another facet is looked at, or the journal was read again. */
  settleAll() {
    rows.said.fill(NOTHING);
    app.audited.clear();
    for (const digest of this.of.keys()) {
      const row = rows.of.get(digest);
      if (row === undefined) continue;
      rows.said[row] = this.saidOf(digest);
      if (this.last(digest, "say", true)) app.audited.add(row);
    }
  },
  /** The last act on an image that holds; what is said is said of a facet, a note is of the image. */
  last(digest, kind, audit, of = facet().name) {
    return this.of.get(digest)?.findLast((e) => e.kind === kind && !e.undone && (!audit || e.audit) && (kind === "note" || e.facet === of));
  },
  saidOf(digest) { return this.last(digest, "say")?.nowOf(digest) ?? NOTHING; },

  act(line) {
    const whole = { id: fresh(), ...line };
    const was = whole.digests && ("now" in whole || "each" in whole) ? whole.digests.map((digest) => this.saidOf(digest)) : [];
    const entry = this.fold({ ...whole, was: was.map(wordOf) });
    this.queue.push(whole);
    this.send();
    return entry;
  },
  /** Says one thing of some images, or a thing of each. Of several labels, those that could be said are told too. */
  say(list, ids, audit) {
    const { name } = facet(), about = name === LABELS ? {} : { facet: name };
    const now = Array.isArray(ids) ? { each: ids.map(wordOf) } : { now: wordOf(ids) }, [first] = [ids].flat();
    if (several() && first > SKIP) about.asked = [...new Set([...app.labels.map(({ label }) => label), ...[ids].flat().flatMap((id) => members[id]).map((id) => names[id])])];
    return this.act({ digests: list.map((row) => rows.digests[row]), ...now, ...about, ...(audit ? { audit: true } : {}) });
  },
  note(row, text) { return this.act({ digests: [rows.digests[row]], note: text }); },
  undoable() { return this.entries.findLast((e) => !e.undone); },
  redoable() { return this.entries.find((e) => e.undone && !e.past); },
  undo() { const entry = this.undoable(); return entry && this.act({ undo: entry.id }); },
  redo() { const entry = this.redoable(); return entry && this.act({ redo: entry.id }); },

  /** Sends what waits, in order; what is acknowledged is on disk. */
  async send() {
    if (this.sending || !this.queue.length) return;
    this.sending = true;
    clearTimeout(this.later);
    const part = this.queue.slice(0, 200);
    try {
      await json("/api/acts", { acts: part });
      this.queue.splice(0, part.length);
      const taken = part.some((line) => this.byId.get(line.undo ?? line.redo)?.kind === "take");
      if (app.trouble) app.trouble = this.queue.length ? app.trouble : "";
      if (taken) this.takenChanged();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status === 507) app.trouble = "disk";
      else if (error.status === 401) app.trouble = "token";
      else if (error.status && error.status < 500) await this.settleWithServer(part, error);
      else app.trouble = "gone";
      if (app.trouble) this.later = setTimeout(() => this.send(), AGAIN);
    } finally {
      this.sending = false;
    }
    this.changed();
    if (!app.trouble && this.queue.length) this.send();
  },

  /** The server refuses an act, since another window was first: its journal counts. */
  async settleWithServer(part, error) {
    if (part.length > 1) { // find out which one
      for (const line of part) {
        try { await json("/api/acts", { acts: [line] }); } catch (one) { if (!one.status || one.status === 401 || one.status >= 500) throw one; }
      }
    }
    this.queue.splice(0, part.length);
    app.said = error.message;
    await this.reload();
  },
  async reload() {
    const lines = await json("/api/journal");
    this.entries = [];
    this.lines = 0;
    for (const held of [this.byId, this.of, this.seen, app.notes, app.audited]) held.clear();
    rows.said.fill(NOTHING);
    this.receive(lines);
    for (const line of this.queue) this.fold({ ...line, was: [] });
  },
  /** Lines of the server from the one on that is not here yet. */
  receive(lines) {
    let taken = false, sample = false;
    for (const line of lines) {
      const known = this.seen.has(line.id), entry = this.fold(line);
      taken ||= !known && entry?.kind === "take";
      sample ||= !known && entry?.kind === "audit";
    }
    this.lines += lines.length;
    if (taken) this.takenChanged();
    if (sample) app.audit = null;
    if (lines.length) this.changed();
  },
};
