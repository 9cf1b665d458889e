// The grid: square cells of one size, so that a row's place is arithmetic: no estimate, no jump. A pool of cells for
// what is seen and two rows more, whatever there is.

import { $, button, count, html, many, put } from "./html.js";
import { nameOf, rows, selection } from "./state.js";

const GAP = 4, HEAD = 32, PAD = 12, AHEAD = 2;

export const grid = {
  box: $("scroll"), list: $("grid"), groups: [], ids: new Uint32Array(0), where: new Int32Array(0),
  cursor: 0, anchor: 0, want: 112, live: new Map(), free: new Set(), heads: new Map(), queue: [],
  caption: () => ({ words: "" }), moved: () => {}, changed: () => {}, // what main.js puts here

  /** Shows groups: [{name, note, ids}]. keep: the cursor stays on its image, if that is still here. */
  show(groups, keep) {
    const held = this.ids[this.cursor];
    this.groups = groups.filter((g) => g.ids.length);
    let at = 0;
    for (const g of this.groups) { g.first = at; at += g.ids.length; }
    this.ids = new Uint32Array(at);
    for (const g of this.groups) this.ids.set(g.ids, g.first);
    this.where = new Int32Array(rows.n).fill(-1);
    this.ids.forEach((row, place) => { this.where[row] = place; });
    this.cursor = this.anchor = keep && held !== undefined ? Math.max(0, this.where[held] ?? 0) : 0;
    this.measure();
    this.box.scrollTop = 0;
    this.go(this.cursor, { keep: true });
    this.changed();
  },
  row() { return this.ids[this.cursor]; },
  measure() {
    const width = this.box.clientWidth - 2 * PAD + GAP;
    this.columns = Math.max(2, Math.floor(width / (this.want + GAP)));
    this.pitch = Math.max(40, Math.floor(width / this.columns));
    this.cell = this.pitch - GAP;
    let top = 0;
    for (const g of this.groups) {
      g.top = top;
      g.start = top + (g.name ? HEAD : GAP);
      g.rows = Math.ceil(g.ids.length / this.columns);
      top = g.start + g.rows * this.pitch + (g.name ? 8 : 0);
    }
    this.list.style.height = `${top}px`;
    this.list.style.setProperty("--cell", `${this.cell}px`);
    this.list.classList.toggle("tiny", this.cell < 84);
    for (const place of [...this.live.keys()]) this.release(place);
    for (const head of this.heads.values()) head.remove();
    this.heads.clear();
  },
  resize(to) {
    this.want = Math.max(64, Math.min(256, to));
    this.measure();
    this.reveal();
    this.paint();
    this.changed();
  },
  /** The last group whose key is at most value. */
  find(key, value) {
    let a = 0, b = this.groups.length - 1;
    while (a < b) {
      const middle = (a + b + 1) >> 1;
      if (this.groups[middle][key] <= value) a = middle; else b = middle - 1;
    }
    return a;
  },
  groupOf(place) { return this.groups[this.find("first", place)]; },
  place(place, g = this.groupOf(place)) {
    const k = place - g.first;
    return [PAD + (k % this.columns) * this.pitch, g.start + Math.floor(k / this.columns) * this.pitch];
  },
  /** The place whose cell is nearest to a point: what the arrows up and down and the page keys need. */
  near(x, y) {
    const g = this.groups[this.find("top", y)];
    const row = Math.max(0, Math.min(g.rows - 1, Math.floor((y - g.start) / this.pitch)));
    return g.first + Math.min(g.ids.length - 1, row * this.columns + Math.floor((x - PAD) / this.pitch));
  },
  step(by) {
    if (!this.ids.length) return 0;
    const g = this.groupOf(this.cursor), [x, y] = this.place(this.cursor, g);
    const past = by < 0 && y + by * this.pitch < g.start && g.first > 0; // over the heading, into the group before
    return this.near(x, Math.max(0, y + by * this.pitch - (past ? HEAD + 8 : 0)));
  },
  screen() { return Math.max(1, Math.floor(this.box.clientHeight / this.pitch) - 1); },
  /** The places whose cells touch the band from y0 to y1, group by group. */
  *bands(y0, y1) {
    for (let k = this.find("top", y0); k < this.groups.length && this.groups[k].top < y1; k++) {
      const g = this.groups[k], row = (y) => Math.max(0, Math.min(g.rows, y));
      const from = g.first + row(Math.floor((y0 - g.start) / this.pitch)) * this.columns;
      yield [g, from, Math.min(g.first + g.ids.length, g.first + row(Math.ceil((y1 - g.start) / this.pitch)) * this.columns)];
    }
  },
  paint() {
    const top = this.box.scrollTop, wanted = [], seen = new Set();
    const y0 = top - AHEAD * this.pitch, y1 = top + this.box.clientHeight + AHEAD * this.pitch;
    for (const [g, a, b] of this.groups.length ? this.bands(y0, y1) : []) {
      if (g.name) seen.add(g);
      for (let place = a; place < b; place++) wanted.push(place);
    }
    const first = wanted[0], last = wanted.at(-1);
    for (const place of [...this.live.keys()]) if (!(place >= first && place <= last)) this.release(place);
    const missing = wanted.filter((place) => !this.live.has(place)), held = new Map();
    for (const cell of this.free) held.set(cell.row, cell);
    // a cell that shows the image already is moved; the others take whatever cell is left
    const other = missing.filter((place) => !this.bind(place, held.get(this.ids[place])));
    for (const place of other) this.bind(place, this.free.values().next().value ?? this.make());
    for (const cell of this.free) cell.hidden = true;
    for (const [g, head] of this.heads) if (!seen.has(g)) { head.remove(); this.heads.delete(g); }
    for (const g of seen) if (!this.heads.has(g)) this.heads.set(g, this.heading(g));
    const here = this.groups[this.find("top", top + 1)];
    $("here").hidden = !here?.name;
    if (here?.name) put($("here"), html`${this.title(here)}${button("group", html`Select ${count(here.ids.length)} <kbd>A</kbd>`)}`);
    this.drain();
  },
  title: (g) => html`<b>${g.name}</b> <span class="soft">${g.note ?? many(g.ids.length)}</span>`,
  heading(g) {
    const head = document.createElement("div");
    head.className = "head";
    head.setAttribute("role", "presentation");
    head.style.top = `${g.top}px`;
    put(head, this.title(g));
    this.list.append(head);
    return head;
  },
  make() {
    const cell = document.createElement("div");
    cell.className = "cell";
    cell.setAttribute("role", "option");
    cell.innerHTML = '<img alt="" decoding="async" draggable="false"><span class="tick"></span><span class="mark"></span>'
      + '<span class="cap"><i></i><span></span><b class="n"></b></span>';
    cell.firstChild.addEventListener("load", () => cell.classList.remove("wait"));
    this.list.append(cell);
    return cell;
  },
  bind(place, cell) {
    if (!cell) return false;
    const [x, y] = this.place(place), row = this.ids[place];
    this.free.delete(cell);
    this.live.set(place, cell);
    cell.place = place;
    cell.hidden = false;
    cell.id = `c${place}`;
    cell.style.transform = `translate(${x}px,${y}px)`;
    if (cell.row !== row || cell.session !== rows.session) {
      Object.assign(cell, { row, session: rows.session });
      cell.classList.add("wait");
      this.queue.push(cell);
    }
    this.dress(cell);
    return true;
  },
  release(place) {
    const cell = this.live.get(place);
    this.live.delete(place);
    if (cell.classList.contains("wait")) { // its request is of no use any more
      cell.firstChild.removeAttribute("src");
      cell.row = -1;
    }
    cell.place = -1;
    cell.id = "";
    this.free.add(cell);
  },
  /** What is written on a cell, apart from its image: a new answer or a selection redraws words only. */
  dress(cell) {
    const { place } = cell, row = this.ids[place], on = selection.has(row), cursor = place === this.cursor;
    const c = this.caption(row), text = [place, row, this.ids.length, on, cursor, ...Object.values(c)].join("\t");
    if (cell.text === text) return;
    cell.text = text;
    const spoken = `${nameOf(row)}, ${c.spoken ?? c.words}`;
    for (const [a, v] of [["selected", on], ["posinset", place + 1], ["setsize", this.ids.length], ["label", spoken]]) {
      cell.setAttribute(`aria-${a}`, v);
    }
    cell.classList.toggle("cursor", cursor);
    cell.classList.toggle("lost", !rows.read[row]);
    const [, , mark, cap] = cell.children, [key, words, number] = cap.children;
    cap.hidden = !c.words;
    mark.textContent = c.mark ?? "";
    key.textContent = c.key ?? "";
    words.textContent = c.words;
    number.textContent = c.number ?? "";
  },
  refresh() { for (const cell of this.live.values()) this.dress(cell); },
  /** Some images a frame; a cell that left the screen meanwhile costs nothing. */
  drain() {
    if (this.busy) return;
    this.busy = true;
    const step = () => {
      for (let k = 0; k < 24 && this.queue.length; k++) {
        const cell = this.queue.shift();
        if (cell.place < 0 || !cell.classList.contains("wait")) continue;
        const row = this.ids[cell.place], source = `/thumbnails/${rows.digests[row]}.webp`;
        if (!rows.read[row]) cell.firstChild.removeAttribute("src");
        else if (cell.firstChild.getAttribute("src") === source) cell.classList.remove("wait");
        else cell.firstChild.src = source;
      }
      if (this.queue.length) requestAnimationFrame(step); else this.busy = false;
    };
    requestAnimationFrame(step);
  },
  reveal() {
    if (!this.ids.length) return;
    const [, y] = this.place(this.cursor), lead = this.groups[0].name ? HEAD : GAP;
    const top = this.box.scrollTop, view = this.box.clientHeight;
    if (y - lead < top) this.box.scrollTop = y - lead;
    else if (y + this.pitch > top + view) this.box.scrollTop = y + this.pitch - view;
  },
  /** Moves the cursor. extend: what lies between the anchor and it becomes the selection. */
  go(place, { extend, keep } = {}) {
    if (!this.ids.length) return this.paint();
    const to = Math.max(0, Math.min(this.ids.length - 1, place));
    if (!keep && (extend || selection.size)) selection.clear();
    if (extend) for (let k = Math.min(this.anchor, to); k <= Math.max(this.anchor, to); k++) selection.put(this.ids[k], true);
    else this.anchor = to;
    this.cursor = to;
    this.reveal();
    this.paint();
    this.refresh();
    this.list.setAttribute("aria-activedescendant", `c${to}`);
    this.moved();
  },
};

// Pointer: a click moves, Ctrl or the corner selects, Shift extends, a drag draws a frame. A finger scrolls.

export function pointer({ tell, open, drawActions }) {
  const { box, list } = grid, frame = document.createElement("div");
  let drag = null;
  frame.id = "marquee";
  frame.hidden = true;
  list.append(frame);
  const local = (e) => { const r = list.getBoundingClientRect(); return [e.clientX - r.left, e.clientY - r.top]; };
  const draw = () => {
    const a = drag.from, b = local(drag.last);
    const [left, right] = [a[0], b[0]].sort((x, y) => x - y), [top, bottom] = [a[1], b[1]].sort((x, y) => x - y);
    frame.hidden = false;
    Object.assign(frame.style, { left: `${left}px`, top: `${top}px`, width: `${right - left}px`, height: `${bottom - top}px` });
    selection.clear();
    for (const row of drag.base) selection.put(row, true);
    for (const [g, from, to] of grid.bands(top, bottom)) {
      for (let place = from; place < to; place++) {
        const [x, y] = grid.place(place, g);
        if (x < right && x + grid.cell > left && y < bottom && y + grid.cell > top) selection.put(grid.ids[place], true);
      }
    }
    grid.refresh();
    drawActions();
  };
  const edge = () => {
    if (!drag?.on) return;
    const r = box.getBoundingClientRect(), y = drag.last.clientY;
    const by = Math.min(0, y - r.top - 40) || Math.max(0, y - r.bottom + 40);
    if (by) { box.scrollTop += by / 2; draw(); }
    requestAnimationFrame(edge);
  };
  box.addEventListener("pointerdown", (e) => {
    if (e.button || e.pointerType === "touch" || e.target.closest("button") || e.target === box || !grid.ids.length) return;
    drag = { from: local(e), last: e, base: e.ctrlKey || e.metaKey ? selection.rows() : [] };
  });
  addEventListener("pointermove", (e) => {
    if (!drag) return;
    drag.last = e;
    const [x, y] = local(e);
    if (!drag.on && Math.hypot(x - drag.from[0], y - drag.from[1]) > 6) { drag.on = true; edge(); }
    if (drag.on) draw();
  });
  addEventListener("pointerup", () => {
    if (drag?.on) {
      const swallow = (e) => e.stopPropagation();
      box.addEventListener("click", swallow, true);
      setTimeout(() => box.removeEventListener("click", swallow, true));
      frame.hidden = true;
      list.focus({ preventScroll: true });
      tell(`${many(selection.size)} selected.`);
    }
    drag = null;
  });
  list.addEventListener("click", (e) => {
    const place = e.target.closest(".cell")?.place ?? -1, row = grid.ids[place];
    list.focus({ preventScroll: true });
    if (place < 0) { selection.clear(); return grid.changed(); }
    if (e.target.closest(".tick") || e.ctrlKey || e.metaKey) {
      selection.put(row, !selection.has(row));
      grid.go(place, { keep: true });
    } else grid.go(place, { extend: e.shiftKey });
  });
  list.addEventListener("dblclick", open);
  let due = false;
  box.addEventListener("scroll", () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => { due = false; grid.paint(); });
  }, { passive: true });
  new ResizeObserver(() => { if (grid.ids.length) { grid.measure(); grid.reveal(); grid.paint(); } }).observe(box);
}
