// The page of a session. All text of the program is put in with textContent, never as HTML.
import { layered } from "/graph.js";

const KEY = "mars-key", main = document.getElementById("main");
const begun = new URLSearchParams(location.hash.slice(1)).get("key");
if (begun) { sessionStorage.setItem(KEY, begun); history.replaceState(null, "", "#/overview"); }
let key = sessionStorage.getItem(KEY) || "";
let latest = null, view = null, connected = false;

// -- talking to the program ------------------------------------------------------------------

const headers = more => ({ Authorization: `Bearer ${key}`, ...more });
async function ask(path, method = "GET", pace = {}) {
  const answer = await fetch(path, { method, headers: headers(), cache: "no-store" });
  pace.rest = Number(answer.headers.get("x-rest"));
  if (answer.status === 401) { locked(); throw new Error("locked"); }
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer.json();
}
// Server-sent events, read with fetch because EventSource sends no header. `on` may return "stop".
async function listen(path, on, signal, state = () => {}) {
  let last = null, wait = 500;
  while (!signal.aborted) {
    try {
      const answer = await fetch(path, { headers: headers(last === null ? {} : { "Last-Event-ID": last }), signal, cache: "no-store" });
      if (answer.status === 401) { locked(); return; }
      if (answer.status === 404) { on("missing", {}); return; }
      if (!answer.ok) throw new Error("refused");
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = ""; state(true); wait = 500;
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
        let cut;
        while ((cut = text.indexOf("\n\n")) >= 0) {
          const event = { event: "message" };
          for (const line of text.slice(0, cut).split("\n")) { const at = line.indexOf(": "); if (at > 0) event[line.slice(0, at)] = line.slice(at + 2); }
          text = text.slice(cut + 2);
          if (event.id !== undefined) last = event.id;
          if (event.data !== undefined) { on(event.event, JSON.parse(event.data)); if (event.event === "end") return; }
        }
      }
    } catch (error) { if (signal.aborted) return; }
    state(false);
    await new Promise(done => setTimeout(done, wait)); wait = Math.min(wait * 1.6, 5000);
  }
}

// When to ask again: not before the program says so, as answers take time from calls that run. Judged
// when it is asked, so that nobody waits for a run that has ended since.
function pace(least) {
  let ended = -1e9;
  return { rest: 0, end() { ended = performance.now(); }, soon() { ended = -1e9; },
    get due() { return performance.now() > ended + Math.max(least, latest?.runs ? 1000 * this.rest : 0); } };
}

// -- words -----------------------------------------------------------------------------------

const el = (name, props = {}, ...inside) => {
  const one = document.createElement(name);
  for (const [what, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (what.startsWith("on")) one.addEventListener(what.slice(2), value);
    else if (what === "class") one.className = value;
    else one.setAttribute(what, value);
  }
  one.append(...inside.filter(x => x !== null && x !== undefined));
  return one;
};
const span = s => s === null || s === undefined ? "–" : s < 0.001 ? `${(s * 1e6).toFixed(0)} µs` : s < 1 ? `${(s * 1e3).toFixed(s < 0.01 ? 1 : 0)} ms` : s < 60 ? `${s.toFixed(1)} s` : s < 3600 ? `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s` : `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`;
const rough = s => s < 1 ? "1 s" : s < 90 ? `${Math.round(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;
const between = (low, high) => low === high ? `about ${high}` : low.split(" ")[1] === high.split(" ")[1] ? `${low.split(" ")[0]} – ${high}` : `${low} – ${high}`;
const count = n => n === null || n === undefined ? "–" : n.toLocaleString("en");
const bytes = n => n === null || n === undefined ? "–" : n < 1024 ? `${n} B` : n < 1048576 ? `${(n / 1024).toFixed(1)} KiB` : n < 1073741824 ? `${(n / 1048576).toFixed(1)} MiB` : `${(n / 1073741824).toFixed(2)} GiB`;
// Each state: a word, a shape, a colour; nothing is said by colour alone.
const STATES = { value: ["done", "✓", "good"], done: ["done", "✓", "good"], reused: ["reused", "↺", "good"], running: ["running", "▶", "run"], blocked: ["waits for its calls", "❙", "run"], error: ["failed", "✕", "bad"], failed: ["failed", "✕", "bad"], died: ["its worker died", "✕", "bad"], lost: ["lost", "✕", "bad"], stopped: ["stopped", "■", "warn"], cancelled: ["cancelled", "■", "warn"], unknown: ["unknown", "?", "warn"], queued: ["queued", "○", "soft"], "waiting for inputs": ["waits for inputs", "◌", "soft"], "not started": ["not started", "–", "soft"] };
const word = state => (STATES[state] || [state])[0];
const mark = state => { const [name, shape, colour] = STATES[state] || [state, "·", "soft"]; return el("span", { class: `mark ${colour}`, "data-shape": shape }, name); };
const callLink = (id, name) => el("a", { href: `#/call/${id}` }, name || id);
const table = (heads, rows, label) => el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
  el("table", {}, el("thead", {}, el("tr", {}, ...heads.map(h => el("th", { scope: "col", class: h.startsWith("<") ? "left" : undefined }, h.replace("<", ""))))),
    el("tbody", {}, ...rows.map(row => el("tr", {}, ...row.map((cell, at) => el("td", { class: heads[at].startsWith("<") ? "left" : undefined }, cell instanceof Node ? cell : String(cell))))))));
const card = (title, ...inside) => el("section", { class: "card" }, title ? el("h2", {}, title) : null, ...inside);
const gauge = part => { const bar = el("i"); bar.style.width = `${Math.min(100, 100 * part)}%`; return el("span", { class: "gauge", role: "img", "aria-label": `${Math.round(100 * part)} %` }, bar); };
// Puts new content in only where it differs, so that the focus and the selection stay.
function put(place, ...inside) {
  const focus = document.activeElement, wanted = focus && place.contains(focus) ? focus.getAttribute("href") || focus.getAttribute("aria-label") : null;
  const box = el("div", {}, ...inside);
  if (box.innerHTML === place.innerHTML) { if (![...place.querySelectorAll("i")].length) return; }
  place.replaceChildren(...box.childNodes);
  if (wanted) [...place.querySelectorAll("a, [aria-label]")].find(one => (one.getAttribute("href") || one.getAttribute("aria-label")) === wanted)?.focus({ preventScroll: true });
}

// -- screens: each gives what `latest` changes, and how it ends --------------------------------

const SCREENS = { overview, calls, graph, timeline, workers, objects, report };
const TITLES = { overview: "Overview", calls: "Calls", graph: "Graph", timeline: "Timeline", workers: "Workers", objects: "Objects", report: "Report" };

function overview() {
  const tiles = el("div", { class: "tiles" }), holds = el("p", { class: "holds", role: "status" }), running = el("div"), failing = el("div"), kinds = el("div");
  main.replaceChildren(el("h1", {}, "Overview"), tiles, holds, el("div", { class: "two" }, card("Running now", running), card("Failed", failing)), card("Functions", kinds));
  const tile = (label, value, small, note) => el("div", { class: "card tile" }, el("div", { class: "label" }, label), el("div", { class: "value" }, value, small ? el("small", {}, ` ${small}`) : null), el("div", { class: "note" }, note || ""));
  return { update(o) {
    const live = o.runs > 0;
    const left = !live ? "–" : !o.left ? "not known yet" : o.left[1] === null ? `over ${rough(o.left[0])}` : between(rough(o.left[0]), rough(o.left[1]));
    put(tiles,
      live ? tile("Done", count(o.done), `of ${count(o.total)}`, `${(100 * (o.done + o.failed) / Math.max(1, o.total)).toFixed(0)} % in ${span(o.elapsed)}`) : tile("Done", count(o.ended), "calls", o.closed ? "the session is closed" : "no run at the moment"),
      tile("Time left", left, "", !live ? "" : !o.left ? "until some calls have ended" : o.behind > 100 ? "from the rate of calls so far" : "from the calls that have ended"),
      tile("Running", count(o.running.length), o.cores ? `on ${+o.cores.toFixed(2)} cores` : "", `${+o.busy.toFixed(2)} cores busy`),
      tile("Failed", count(Math.max(o.failed, o.failures)), Math.max(o.failed, o.failures) === 1 ? "call" : "calls", o.failures ? "the reasons stand below" : "nothing has failed"));
    if (holds.textContent !== o.holds) holds.textContent = o.holds;
    put(running, o.running.length ? table(["<call", "<progress", "for", "usual"], o.running.slice(0, 30).map(r => [el("span", {}, callLink(r.key, r.name), r.items ? el("span", { class: "soft" }, ` items ${r.items[0]} … ${r.items[0] + r.items[1] - 1}`) : null), r.part ? gauge(r.part) : r.expected ? gauge(Math.min(1, r.for / r.expected)) : "–", span(r.for), r.expected ? span(r.expected) : "–"]), "Running calls") : el("p", { class: "soft" }, "No call runs."));
    put(failing, o.failing.length ? el("ul", { class: "list" }, ...o.failing.slice().reverse().slice(0, 8).map(f => el("li", {}, mark(f.ending), " ", callLink(f.key, f.name), f.items ? ` (${f.items} items)` : "", el("div", { class: "why" }, f.why || "open the call for its error")))) : el("p", { class: "soft" }, "Nothing has failed."));
    put(kinds, o.functions.length ? table(["<function", "done", "of", "failed", "mean", "longest"], o.functions.slice(0, 30).map(k => [k[0], count(k[2]), count(Math.max(k[1], k[2] + k[3])), k[3] ? el("span", { class: "bad" }, count(k[3])) : "0", span(k[4]), k[5] ? span(k[5]) : "–"]), "Functions") : el("p", { class: "soft" }, "No call has ended."));
  } };
}

function calls(wanted) {
  const HEIGHT = 34, [ID, NAME, FUNC, STATE, ATTEMPT, SIZE, WORKER, BEGIN, SECONDS, CPU] = Array(10).keys();
  const stored = JSON.parse(sessionStorage.getItem("mars-calls") || "{}");
  let words = [], rows = [], shown = [], at = -1, order = stored.order || [null, 1], closed = false;
  const find = el("input", { type: "search", id: "find", placeholder: "Name or function" }); find.value = wanted ?? stored.find ?? "";
  const state = el("select", { id: "state" }, ...["all", "under way", "done", "failed", "stopped"].map(x => el("option", { value: x }, x))); state.value = wanted === undefined ? stored.state || "all" : "all";
  const told = el("p", { class: "soft num", role: "status" });
  const COLUMNS = [["call", NAME], ["state", STATE], ["function", FUNC, 1], ["attempt", ATTEMPT, 1], ["worker", WORKER, 1], ["began", BEGIN, 1], ["took", SECONDS], ["CPU", CPU, 1]];
  const head = el("div", { role: "row", class: "head" }, ...COLUMNS.map(([name, column, narrow]) => el("div", { role: "columnheader", class: narrow ? "narrow" : "" }, el("button", { type: "button", onclick: () => { order = order[0] === column ? [order[1] > 0 ? column : null, -order[1]] : [column, 1]; if (order[0] === null) order[1] = 1; choose(); } }, name))));
  const space = el("div", { role: "presentation" }), layer = el("div", { role: "rowgroup" }), body = el("div", { class: "body", role: "presentation" }, space, layer);
  const grid = el("div", { class: "grid", role: "grid", "aria-label": "Calls; arrow keys move, Enter opens", tabindex: "0" }, el("div", { role: "rowgroup", class: "top" }, head), body);
  main.replaceChildren(el("h1", {}, "Calls"), el("div", { class: "tools" }, el("label", { for: "find" }, "Find", find), el("label", { for: "state" }, "State", state), told), grid);
  const CLASS = { running: "under way", blocked: "under way", queued: "under way", "waiting for inputs": "under way", value: "done", error: "failed", died: "failed", unknown: "failed", stopped: "stopped" };
  function choose() {
    const text = find.value.toLowerCase(), fits = words.map(w => !text || w.toLowerCase().includes(text)), wanted = state.value;
    shown = rows.filter(r => (fits[r[NAME]] || fits[r[FUNC]]) && (wanted === "all" || CLASS[r[STATE]] === wanted));
    if (order[0] !== null) {  // by numbers: of words, their places in the alphabet
      const c = order[0], sign = order[1], keys = new Float64Array(shown.length), from = shown;
      let place = null;
      if (c === NAME || c === FUNC) { place = new Uint32Array(words.length); words.map((w, n) => n).sort((a, b) => words[a] < words[b] ? -1 : 1).forEach((n, at) => { place[n] = at; }); }
      else if (c === STATE) place = Object.fromEntries([...new Set(from.map(r => r[STATE]))].sort().map((w, n) => [w, n]));
      for (let n = 0; n < from.length; n++) { const v = from[n][c]; keys[n] = sign * (place ? place[v] : v ?? -1); }
      shown = Array.from(Uint32Array.from(keys, (_, n) => n).sort((a, b) => keys[a] - keys[b] || a - b), n => from[n]);
    }
    [...head.children].forEach((one, n) => { one.setAttribute("aria-sort", COLUMNS[n][1] === order[0] ? order[1] > 0 ? "ascending" : "descending" : "none"); one.firstChild.textContent = COLUMNS[n][0] + (COLUMNS[n][1] === order[0] ? order[1] > 0 ? " ↑" : " ↓" : ""); });
    sessionStorage.setItem("mars-calls", JSON.stringify({ find: find.value, state: state.value, order }));
    grid.setAttribute("aria-rowcount", shown.length + 1);
    space.style.height = `${shown.length * HEIGHT}px`; at = Math.min(at, shown.length - 1); draw();
  }
  function draw() {
    const first = Math.max(0, Math.floor(grid.scrollTop / HEIGHT) - 5), end = Math.min(shown.length, first + Math.ceil((grid.clientHeight - head.offsetHeight) / HEIGHT) + 10), made = [];
    for (let n = first; n < end; n++) {
      const r = shown[n], cell = (inside, narrow) => el("div", { role: "gridcell", class: narrow ? "narrow" : "" }, inside);
      const one = el("div", { role: "row", id: `row-${n}`, "aria-rowindex": n + 2, "aria-selected": n === at, onclick: () => { location.hash = `#/call/${r[ID]}`; } },
        cell(words[r[NAME]] + (r[SIZE] > 1 ? ` × ${r[SIZE]}` : "")), cell(mark(r[STATE])), cell(words[r[FUNC]], 1), cell(r[ATTEMPT] ? String(r[ATTEMPT]) : "–", 1), cell(r[WORKER] ?? "–", 1), cell(r[BEGIN] === null ? "–" : span(Math.max(0, r[BEGIN])), 1), cell(span(r[SECONDS])), cell(span(r[CPU]), 1));
      one.style.top = `${n * HEIGHT}px`; made.push(one);
    }
    layer.replaceChildren(...made);
    if (at >= first && at < end) grid.setAttribute("aria-activedescendant", `row-${at}`); else grid.removeAttribute("aria-activedescendant");
  }
  function go(to) { at = Math.max(0, Math.min(shown.length - 1, to)); const y = at * HEIGHT; if (y < grid.scrollTop) grid.scrollTop = y; else if (y + HEIGHT > grid.scrollTop + (grid.clientHeight - head.offsetHeight)) grid.scrollTop = y + HEIGHT - (grid.clientHeight - head.offsetHeight); draw(); }
  grid.addEventListener("keydown", event => {
    if (event.target !== grid) return;
    const page = Math.floor((grid.clientHeight - head.offsetHeight) / HEIGHT) - 1, steps = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: shown.length - 1 };
    if (event.key in steps) { go(steps[event.key]); event.preventDefault(); }
    else if (event.key === "Enter" && at >= 0 && shown[at]) location.hash = `#/call/${shown[at][ID]}`;
  });
  grid.addEventListener("scroll", () => requestAnimationFrame(draw)); find.addEventListener("input", choose); state.addEventListener("change", choose);
  // Those that have ended come once; those under way come anew each time.
  const MOST = 100000, numbers = new Map(), ended = [], asks = pace(1000);
  let news = "", busy = false, next = 0;
  function take(got) {
    const known = got.words.map(w => { if (!numbers.has(w)) { numbers.set(w, words.length); words.push(w); } return numbers.get(w); });
    for (const r of got.rows) { r[NAME] = known[r[NAME]]; r[FUNC] = known[r[FUNC]]; }
    for (let n = got.rows.length - 1; n >= got.under_way; n--) ended.push(got.rows[n]);
    if (ended.length > 1.2 * MOST) ended.splice(0, ended.length - MOST);
    next = got.next; rows = got.rows.slice(0, got.under_way);
    for (let n = ended.length - 1; n >= 0; n--) rows.push(ended[n]);
  }
  async function load() {
    busy = true;
    try { const got = await ask(`/api/calls?since=${next}`, "GET", asks); if (closed || !got) return; take(got);
      told.textContent = `${count(rows.length)} rows` + (got.more ? `, ${count(got.more)} more wait` : "") + (got.dropped ? `; ${count(got.dropped)} older ones are only counted` : "") + (got.behind ? `; ${count(got.behind)} are being read` : ""); choose();
    } finally { busy = false; asks.end(); }
  }
  return { update(o) { const now = `${o.ended} ${o.failures} ${o.done} ${o.behind} ${o.running.map(r => r.key)}`; if (!busy && asks.due && (now !== news || o.running.length)) { news = now; load().catch(() => { news = ""; }); } }, end() { closed = true; } };
}

function call(id) {
  const over = new AbortController(), title = el("div", { class: "title" }), facts = el("div"), attempts = el("div"), error = el("div"), links = el("div"), map = el("div"), log = el("pre", { class: "log", tabindex: "0", role: "log", "aria-label": "Log", "aria-live": "off" }), state = el("p", { class: "soft", role: "status" });
  const follow = el("input", { type: "checkbox", id: "follow" }); follow.checked = true;
  const name = el("h1", {}, "Call"), where = el("span"), cancel = el("button", { type: "button", class: "danger", hidden: "" }, "Cancel this call"), answer = el("span", { class: "soft", role: "status" });
  title.append(name, where, cancel, answer);
  cancel.addEventListener("click", async () => { cancel.disabled = true; try { const got = await ask(`/api/cancel?key=${encodeURIComponent(id)}`, "POST"); answer.textContent = got ? got.told : "It is not known."; } finally { cancel.disabled = false; load(); } });
  main.replaceChildren(el("p", {}, el("a", { href: "#/calls" }, "← All calls")), title, facts, error, el("section", { class: "card" }, el("div", { class: "title" }, el("h2", { class: "grow" }, "Log"), el("label", { for: "follow", class: "soft" }, follow, " follow the end"), state), log), attempts, map, links);
  let text = 0, busy = false, live = true, drawn_last = "null"; const asks = pace(1500);
  const MOST = 8;
  function near(c) {  // some of its inputs, itself, some of its readers
    const reads = c.inputs || [], readers = c.readers || [];
    if (!reads.length && !readers.length) return null;
    const boxes = [{ title: c.name, state: c.state, label: word(c.state), here: true }], arrows = [];
    for (const [some, inward] of [[reads, true], [readers, false]]) {
      for (const [key, name, state] of some.slice(0, MOST)) { arrows.push(inward ? [boxes.length, 0] : [0, boxes.length]); boxes.push({ title: name, state, label: word(state), href: `#/call/${key}` }); }
    }
    return { boxes, arrows };
  }
  const add = more => { log.append(more); text += more.length; while (text > 3000000 && log.firstChild) { text -= log.firstChild.length; log.firstChild.remove(); } if (follow.checked) log.scrollTop = log.scrollHeight; };
  listen(`/api/log?call=${encodeURIComponent(id)}`, (kind, got) => {
    if (kind === "gap") add(`… the first ${bytes(got.bytes)} are not shown …\n`);
    else if (kind === "again") { log.replaceChildren(); text = 0; }
    else if (kind === "log") { add(got.text); state.textContent = "live"; }
    else if (kind === "end") state.textContent = text ? "complete" : "It printed nothing.";
    else if (kind === "missing") state.textContent = "The program has let go of this call, and of its log.";
  }, over.signal);
  async function load() {
    busy = true;
    try {
      const c = await ask(`/api/call?key=${encodeURIComponent(id)}`, "GET", asks);
      if (over.signal.aborted) return;
      if (!c) { name.textContent = "This call is not known"; live = false; return; }
      name.textContent = c.name; put(where, mark(c.state), c.told && c.told !== c.state ? el("span", { class: "soft" }, ` ${c.told.replace(c.state, "").trim()}`) : null); cancel.hidden = !c.live; live = c.live;
      document.title = `${c.name} · mars`;
      put(facts, el("p", { class: "soft" }, [c.function && c.function !== c.name ? `function ${c.function}` : "", c.items ? `${count(c.items)} items` : "", c.arguments ? `arguments of ${bytes(c.arguments)}` : ""].filter(Boolean).join(" · ")));
      put(error, c.error ? card("Error", el("pre", { class: "bad", tabindex: "0", "aria-label": "Error" }, c.error)) : null);
      const bar = t => { if (!t) return "–"; const parts = [t[3] - t[0], t[4] - t[3], t[5] - t[4], t[6] - t[5], t[7] - t[6]].map(x => Math.max(0, x)), names = ["waited", "inputs", "start", "ran", "stored"]; const b = el("span", { class: "phases", role: "img", "aria-label": names.map((n, i) => `${n} ${span(parts[i])}`).join(", ") }); parts.forEach((p, i) => { const one = el("i", { class: `p${i}`, title: `${names[i]} ${span(p)}` }); one.style.flex = String(p || 0); b.append(one); }); return b; };
      put(attempts, c.attempts.length ? card(c.attempts.length > 1 ? "Attempts" : "Attempt", el("p", { class: "soft key" }, ...["waited", "inputs", "start", "ran", "stored"].flatMap((n, i) => [el("i", { class: `p${i}` }), n])), table(["<attempt", "<moments", "ran", "CPU", "memory", "read", "written", "<ended", "worker"], c.attempts.map(a => [`${a.attempt}${a.size > 1 ? ` (${a.size} items)` : ""}`, bar(a.times), a.times ? span(a.times[6] - a.times[5]) : "–", span(a.cpu), a.peak ? bytes(a.peak) : "–", bytes(a.read), bytes(a.written), mark(a.ending), `${a.worker} on ${a.node}`]), "Attempts")) : null);
      const list = (what, some) => some && some.length ? card(`${what} (${some.length})`, el("ul", { class: "list" }, ...some.map(([k, n, s]) => el("li", {}, mark(s), " ", callLink(k, n))))) : null;
      const around = near(c), shape = JSON.stringify(around);
      if (shape !== drawn_last) { drawn_last = shape; put(map, around ? card("What it reads, and what reads it", drawn(around.boxes.map(b => ({ ...b, under: [mark(b.state)] })), around.arrows, "Inputs and readers of this call")) : null); }
      put(links, list("Inputs", c.inputs), list("Read by", c.readers));
    } catch (problem) { if (problem.message !== "locked") live = true; } finally { busy = false; asks.end(); }
  }
  load();
  return { update() { if (live && !busy && asks.due) load(); }, end() { over.abort(); } };
}

function workers() {
  const body = el("div"), nodes = el("div"), stack = el("pre", { class: "log", tabindex: "0", "aria-label": "Stack" }), name = el("h2"), shown = el("section", { class: "card", hidden: "" }, name, stack);
  main.replaceChildren(el("h1", {}, "Workers and nodes"), card("Nodes", nodes), card("Workers", body), shown);
  async function look(number) { shown.hidden = false; name.textContent = `Stack of worker ${number}`; stack.textContent = "asking…"; const got = await ask(`/api/stack?worker=${number}`); stack.textContent = got ? got.text : "There is no such worker any more."; stack.scrollIntoView({ block: "nearest" }); }
  return { update(o) {
    const by = {}; for (const w of o.workers) { const n = by[w.node] ??= { workers: 0, busy: 0, cpu: 0, memory: 0, known: false, pids: new Set() }; n.workers++; n.busy += w.call ? 1 : 0; if (w.memory !== null && !n.pids.has(w.pid)) { n.pids.add(w.pid); n.known = true; n.cpu += w.cpu; n.memory += w.memory; } }
    put(nodes, table(["<node", "workers", "busy", "CPU", "memory"], Object.entries(by).map(([n, f]) => [n, f.workers, f.busy, f.known ? `${f.cpu.toFixed(2)} cores` : "–", f.known ? bytes(f.memory) : "–"]), "Nodes"));
    put(body, table(["<worker", "<call", "for", "queued", "CPU", "memory", "<stack"], o.workers.map(w => [el("span", {}, String(w.number), el("span", { class: "soft" }, ` pid ${w.pid}`)), w.call ? callLink(w.call, w.name) : el("span", { class: "soft" }, w.ready ? "idle" : "starting"), w.call ? span(w.for) : "–", w.queued, w.cpu === null ? "–" : `${Math.round(100 * w.cpu)} %`, w.memory === null ? "–" : bytes(w.memory), el("a", { href: `#/stack/${w.number}`, role: "button", "aria-label": `Stack of worker ${w.number}`, onclick: event => { event.preventDefault(); look(w.number); } }, "show")]), "Workers"));
    for (const a of body.querySelectorAll("a[role=button]")) a.onclick = event => { event.preventDefault(); look(a.getAttribute("href").split("/").pop()); };
  } };
}

function timeline() {
  const ROW = 24, TOP = 26, LEFT = innerWidth < 760 ? 64 : 110, canvas = el("canvas", { tabindex: "0", role: "img", "aria-label": "Timeline: a row for each worker, a bar for each attempt. Keys: plus and minus zoom, arrows move, 0 shows all." }), tip = el("p", { class: "soft num", role: "status" }, "Point at a bar."), pen = canvas.getContext("2d");
  main.replaceChildren(el("h1", {}, "Timeline"), el("p", { class: "soft" }, "Scroll or press + and − to zoom, drag or press ← and → to move, 0 for all. A cross: it did not end with a value."), card("", canvas, tip));
  let lanes = new Map(), next = 0, last = 0.001, low = Infinity, from = 0, to = 0, whole = true, width = 0, busy = false, hovered = null;
  const hues = new Map(), hue = name => { if (!hues.has(name)) { let h = 7; for (const c of name) h = (h * 31 + c.codePointAt(0)) >>> 0; hues.set(name, h % 360); } return hues.get(name); };
  const X = s => LEFT + (s - from) / (to - from) * (width - LEFT), first = (rows, when) => { let a = 0, b = rows.length; while (a < b) { const m = (a + b) >> 1; if (rows[m][2] < when) a = m + 1; else b = m; } return a; };
  function draw() {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches, scale = devicePixelRatio || 1, style = getComputedStyle(document.documentElement), ink = style.getPropertyValue("--ink"), line = style.getPropertyValue("--line"), soft = style.getPropertyValue("--soft");
    if (whole) { from = Math.min(low, last); to = Math.max(last, from + 1e-6) + (last - from) * 0.01; }
    width = canvas.clientWidth; const height = TOP + Math.max(1, lanes.size) * ROW; canvas.style.height = `${height}px`; canvas.width = width * scale; canvas.height = height * scale; pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.font = "12px system-ui, sans-serif"; pen.textBaseline = "middle"; pen.lineWidth = 1;
    let step = 10 ** Math.floor(Math.log10((to - from) / 3)); if ((to - from) / step > 8) step *= 2; if ((to - from) / step > 8) step *= 2.5; pen.strokeStyle = line; pen.fillStyle = soft;
    const origin = Number.isFinite(low) ? low : 0; for (let t = origin + Math.ceil((from - origin) / step) * step, n = 0; t < to && n < 40; t += step, n++) { pen.beginPath(); pen.moveTo(X(t) + .5, TOP - 6); pen.lineTo(X(t) + .5, height); pen.stroke(); if (X(t) < width - 40) pen.fillText(t - origin < step / 2 ? "0" : span(t - origin), X(t) + 4, TOP / 2 - 2); }
    [...lanes.entries()].sort((a, b) => a[0] - b[0]).forEach(([number, lane], n) => {
      const y = TOP + n * ROW; let edge = -1;
      for (let k = first(lane.rows, from - lane.longest); k < lane.rows.length && lane.rows[k][2] < to; k++) {
        const r = lane.rows[k]; if (r[5] < from) continue;
        const a = Math.max(LEFT, X(r[2])), b = Math.min(width, X(r[5])); if (b <= edge) continue;
        const wide = Math.max(.7, b - a), h = hue(r[1]); pen.fillStyle = `hsl(${h} 25% ${dark ? 34 : 80}%)`; pen.fillRect(a, y + 4, wide, ROW - 8);
        const c = Math.max(LEFT, X(r[3])), d = Math.min(width, X(r[4])); if (d > c) { pen.fillStyle = `hsl(${h} 42% ${dark ? 42 : 62}%)`; pen.fillRect(c, y + 4, Math.max(.5, d - c), ROW - 8); }
        if (r[6] !== "value" && wide > 5) { pen.strokeStyle = ink; pen.lineWidth = 1.6; const m = b - 5, q = y + ROW / 2; pen.beginPath(); pen.moveTo(m - 3.5, q - 3.5); pen.lineTo(m + 3.5, q + 3.5); pen.moveTo(m + 3.5, q - 3.5); pen.lineTo(m - 3.5, q + 3.5); pen.stroke(); pen.lineWidth = 1; }
        if (wide > 46) { pen.save(); pen.beginPath(); pen.rect(a, y, wide - 10, ROW); pen.clip(); pen.fillStyle = dark ? "#fff" : "#111"; pen.fillText(r[1], a + 5, y + ROW / 2); pen.restore(); }
        edge = a + wide - .35;
      }
      pen.fillStyle = style.getPropertyValue("--card"); pen.fillRect(0, y, LEFT, ROW); pen.fillStyle = ink; pen.fillText(`worker ${number}`.slice(0, LEFT < 80 ? 9 : 30), 2, y + ROW / 2);
    });
  }
  const later = () => requestAnimationFrame(draw);
  function show(a, b) { whole = false; const wide = Math.min(Math.max(b - a, 1e-6), (last - low) * 1.1 || 1); from = a; to = a + wide; later(); }
  const zoom = (factor, middle) => show(middle - (middle - from) * factor, middle + (to - middle) * factor), when = event => from + (event.offsetX - LEFT) / (width - LEFT) * (to - from);
  canvas.addEventListener("wheel", event => { event.preventDefault(); zoom(event.deltaY > 0 ? 1.25 : .8, when(event)); }, { passive: false });
  let held = null;
  canvas.addEventListener("pointerdown", event => { held = [event.offsetX, from, to, false]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => { if (held && !held[3] && hovered) location.hash = `#/call/${hovered[7]}`; held = null; });
  canvas.addEventListener("pointermove", event => {
    if (held) { if (Math.abs(event.offsetX - held[0]) > 3) held[3] = true; if (held[3]) { const by = (event.offsetX - held[0]) / (width - LEFT) * (held[2] - held[1]); show(held[1] - by, held[2] - by); } return; }
    const lane = [...lanes.entries()].sort((a, b) => a[0] - b[0])[Math.floor((event.offsetY - TOP) / ROW)]?.[1], t = when(event); hovered = null;
    if (lane) { const k = first(lane.rows, t); hovered = lane.rows.slice(Math.max(0, k - 40), k).reverse().find(r => r[5] >= t) || null; }
    tip.textContent = hovered ? `${hovered[1]}: ran ${span(hovered[4] - hovered[3])}, before that ${span(hovered[3] - hovered[2])}, after it ${span(hovered[5] - hovered[4])}; ${word(hovered[6])}. Click opens it.` : "Point at a bar.";
  });
  canvas.addEventListener("dblclick", () => { whole = true; later(); });
  canvas.addEventListener("keydown", event => { const m = (from + to) / 2, by = (to - from) / 5, does = { "+": () => zoom(.7, m), "=": () => zoom(.7, m), "-": () => zoom(1.4, m), ArrowLeft: () => show(from - by, to - by), ArrowRight: () => show(from + by, to + by), 0: () => { whole = true; later(); } }[event.key]; if (does) { does(); event.preventDefault(); } });
  addEventListener("resize", later);
  const asks = pace(800);
  async function load() { busy = true; try { const got = await ask(`/api/timeline?since=${next}`, "GET", asks); next = got.next; for (const r of got.rows) { r[1] = got.names[r[1]]; if (!lanes.has(r[0])) lanes.set(r[0], { rows: [], longest: 0 }); const lane = lanes.get(r[0]); let k = lane.rows.length; while (k && lane.rows[k - 1][2] > r[2]) k--; lane.rows.splice(k, 0, r); lane.longest = Math.max(lane.longest, r[5] - r[2]); last = Math.max(last, r[5]); low = Math.min(low, r[2]); } if (got.rows.length) later(); } finally { busy = false; asks.end(); } }
  later();
  return { update() { if (!busy && asks.due) load().catch(() => {}); }, end() { removeEventListener("resize", later); } };
}

function report() {
  const COLOURS = ["#2563a8", "#8fb3d9", "#b9a3d6", "#7d5fb2", "#5aa59a", "#b3402e", "#d9a441", "#e0c890", "#8c6d31", "#9aa3ad", "#c3c8ce", "#6b7480"], place = el("div", {}, el("p", { class: "soft" }, "Adding up…"));
  main.replaceChildren(el("h1", {}, "Report"), place);
  let wanted = false;
  const asks = pace(3000);
  let busy = false, over = false;
  async function load() {
    busy = true;
    try {
      const r = await ask(`/api/report${wanted ? "?now=1" : ""}`, "GET", asks); if (over || !r) return;
      wanted = false;
      if (r.many) {
        if (!place.querySelector(".grid, .stackbar")) place.replaceChildren(card("", el("p", {}, `${count(r.many)} attempts have ended. To add them up takes some seconds from the calls that run, so it waits for their end.`), el("button", { type: "button", onclick: () => { wanted = true; asks.soon(); if (!busy) load(); } }, "Add up now")));
        return;
      }
      const all = r.wall * r.cores || 1, losses = r.losses.map(([n, s], i) => [n, s, COLOURS[i % COLOURS.length]]).filter(x => x[1] > 0.0005 * all), bar = el("div", { class: "stackbar", role: "img", "aria-label": `Core time by cause; the table below has the numbers` });
      for (const [n, s, c] of losses) { const one = el("i", { title: `${n}: ${span(s)}` }); one.style.flex = String(s / all); one.style.background = c; bar.append(one); }
      const tile = (label, value, note) => el("div", { class: "card tile" }, el("div", { class: "label" }, label), el("div", { class: "value" }, value), el("div", { class: "note" }, note));
      put(place, el("div", { class: "tiles" }, tile("Wall time", span(r.wall), `on ${r.cores} cores`), tile("Efficiency", `${(100 * r.efficiency).toFixed(0)} %`, `at best ${span(r.limit)}`), tile("Work", span(r.work), "that functions ran"), tile("Critical path", span(r.path), `${r.critical.length} calls`)),
        card("Advice", r.advice.length ? el("ol", {}, ...r.advice.map(a => el("li", {}, a))) : el("p", { class: "soft" }, "Nothing stands out.")),
        card("Where the core time went", bar, table(["<cause", "seconds", "share"], losses.map(([n, s, c]) => { const sw = el("i", { class: "sw" }); sw.style.background = c; return [el("span", {}, sw, n), span(s), `${(100 * s / all).toFixed(1)} %`]; }), "Core time by cause")),
        card("Functions", table(["<function", "calls", "work", "mean", "longest", "CPU", "failed"], r.functions.map(f => [f[0], count(f[1]), span(f[2]), span(f[3]), span(f[4]), span(f[5]), f[6] || "0"]), "Functions")),
        r.critical.length ? card("Critical path", el("ol", {}, ...r.critical.slice(0, 30).map(([k, n, s]) => el("li", {}, callLink(k, n), ` ${span(s)}`)))) : null);
    } catch (problem) { if (problem.message !== "locked") put(place, el("p", { class: "soft" }, "There is nothing to report yet.")); } finally { busy = false; asks.end(); }
  }
  return { update() { if (!busy && asks.due) load(); }, end() { over = true; } };
}

// Boxes and arrows. A box is {title, href, label, under}: what stands in it, and what it says aloud.
function size(count, arrows) {  // as wide as leaves room for all columns, within what can be read
  if (innerWidth < 760) return { width: 152, height: 58, across: 30, down: 12 };
  const box = { width: 236, height: 58, across: 48, down: 14 }, columns = Math.round((layered(count, arrows, box).width + box.across) / (box.width + box.across));
  return { ...box, width: Math.max(168, Math.min(box.width, Math.floor((main.clientWidth - 92 + box.across) / Math.max(1, columns)) - box.across)) };
}
function drawn(boxes, arrows, label) {
  const ends = arrows.map(([a, b]) => [a, b]), box_size = size(boxes.length, ends), { at, paths, width, height } = layered(boxes.length, ends, box_size), NS = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(NS, "svg"), part = (name, props) => { const one = document.createElementNS(NS, name); for (const [k, v] of Object.entries(props)) one.setAttribute(k, v); return one; };
  for (const [k, v] of Object.entries({ width: width + 2, height: height + 2, "aria-hidden": "true" })) svg.setAttribute(k, v);
  paths.forEach((points, n) => {
    if (!points) return;
    let d = `M${points[0][0]} ${points[0][1]}`;
    for (let k = 1; k < points.length; k++) { const [x0, y0] = points[k - 1], [x1, y1] = points[k], m = (x0 + x1) / 2; d += y0 === y1 ? `L${x1} ${y1}` : `C${m} ${y0} ${m} ${y1} ${x1} ${y1}`; }
    const [x, y] = points[points.length - 1], many = arrows[n][2] || 1;
    svg.append(part("path", { d, class: `arrow${arrows[n][3] ? " made" : ""}`, "stroke-width": many > 100 ? 3 : many > 1 ? 2 : 1.3 }), part("path", { d: `M${x} ${y}l-7 -4v8z`, class: `tip${arrows[n][3] ? " made" : ""}` }));
  });
  const inside = el("div", { class: "sheet" }, svg); inside.style.width = `${width + 2}px`; inside.style.height = `${height + 2}px`;
  const reads = boxes.map(() => []), makers = boxes.map(() => []); for (const [a, b, , made] of arrows) if (a !== b) (made ? makers : reads)[b].push(boxes[a].title);
  boxes.forEach((one, n) => {
    const some = (what, names) => names.length ? `; ${what} ${names.slice(0, 5).join(", ")}${names.length > 5 ? ` and ${names.length - 5} more` : ""}` : "", said = `${one.title}: ${one.label}${some("reads", reads[n])}${some("made by", makers[n])}`;
    const box = el(one.href ? "a" : "div", { class: `node${one.here ? " here" : ""}`, href: one.href, "aria-label": one.href ? said : undefined, title: one.title }, el("span", { class: "name" }, one.title), el("span", { class: "under" }, ...one.under));
    box.style.width = `${box_size.width}px`; box.style.left = `${at[n][0]}px`; box.style.top = `${at[n][1]}px`; inside.append(box);
  });
  return el("div", { class: "scroll graph", tabindex: "0", role: "region", "aria-label": label }, inside);
}
const ORDER = ["failed", "running", "done", "reused", "stopped", "queued", "waiting for inputs", "not started"];
function states(counts) {  // of many calls: a bar of their states, and the counts in words
  const some = ORDER.filter(s => counts[s]), all = some.reduce((sum, s) => sum + counts[s], 0), bar = el("span", { class: "bar", "aria-hidden": "true" });
  for (const s of some) { const one = el("i", { class: `s-${s.split(" ")[0]}` }); one.style.flex = String(counts[s] / all); bar.append(one); }
  return { bar, all, text: some.map(s => `${count(counts[s])} ${word(s)}`).join(", ") };
}

function graph(wanted) {
  const place = el("div"), told = el("p", { class: "soft", role: "status" }), by = el("select", { id: "by" }, ...[["", "what fits"], ["call", "each call"], ["function", "each function"]].map(([v, t]) => el("option", { value: v }, t))), run = el("select", { id: "run" }, el("option", { value: "" }, "the latest"));
  run.value = wanted || "";
  main.replaceChildren(el("h1", {}, "Graph"), el("div", { class: "tools" }, el("label", { for: "by" }, "A box is", by), el("label", { for: "run" }, "Run", run), told), el("section", { class: "card" }, place));
  const asks = pace(1500);
  let busy = false, over = false, last = "";
  async function load() {
    busy = true;
    try {
      const g = await ask(`/api/graph?by=${by.value}&run=${run.value}`, "GET", asks); if (over || !g) return;
      const told_runs = ["", ...g.runs.slice().reverse().map(String)];
      if (told_runs.join() !== [...run.options].map(o => o.value).join() && document.activeElement !== run) { const chosen = run.value; run.replaceChildren(...told_runs.map(v => el("option", { value: v }, v ? `run ${v}` : "the latest"))); run.value = told_runs.includes(chosen) ? chosen : ""; }
      const text = JSON.stringify(g); if (text === last) return; last = text;
      told.textContent = !g.boxes.length ? "" : g.grouped ? `${count(g.calls)} calls of ${count(g.boxes.length)} function${g.boxes.length === 1 ? "" : "s"}` : `${count(g.calls)} calls` + (g.more ? `; ${count(g.more)} are left out` : "");
      const focus = place.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null, old = place.querySelector(".graph"), scrolled = old ? [old.scrollLeft, old.scrollTop] : null;
      const boxes = g.boxes.map(([key, name, calls, counts, mean]) => {
        const { bar, all, text } = states(counts), one = calls === 1 && !g.grouped, state = ORDER.find(s => counts[s]) || "unknown", took = mean === null ? "" : span(mean) + (all > 1 && !counts.failed && !counts.running ? " each" : "");
        const done = (counts.done || 0) + (counts.reused || 0);
        return { title: name, href: g.grouped ? `#/calls/${encodeURIComponent(name)}` : key ? `#/call/${key}` : undefined, label: one ? `${word(state)} ${took}` : `${text} ${took}`,
          under: one ? [mark(state), el("span", { class: "soft" }, took)] : [bar, el("span", { class: "soft num" }, done === all ? `${count(all)} done` : `${count(done)} of ${count(all)}`), counts.failed ? el("span", { class: "bad num" }, `✕ ${count(counts.failed)}`) : null, counts.running ? el("span", { class: "run num" }, `▶ ${count(counts.running)}`) : null, el("span", { class: "soft last" }, took)].filter(Boolean) };
      });
      place.replaceChildren(boxes.length ? drawn(boxes, g.arrows, "Graph of calls: an arrow leads from what is read to what reads it, a dashed one from a call to the calls that it makes") : el("p", { class: "soft" }, "No call has been executed yet."));
      if (g.arrows.some(a => a[3])) place.append(el("p", { class: "soft key" }, el("span", { class: "dash", "aria-hidden": "true" }), "leads from a call to the calls that it makes inside itself"));
      const fresh = place.querySelector(".graph"); if (fresh && scrolled) [fresh.scrollLeft, fresh.scrollTop] = scrolled;
      if (focus) [...place.querySelectorAll("a")].find(a => a.getAttribute("href") === focus)?.focus({ preventScroll: true });
    } finally { busy = false; asks.end(); }
  }
  const again = () => { asks.soon(); last = ""; if (!busy) load().catch(() => {}); };
  by.addEventListener("change", again); run.addEventListener("change", again);
  return { update() { if (!busy && asks.due) load().catch(() => {}); }, end() { over = true; } };
}

function objects() {
  const tiles = el("div", { class: "tiles three" }), list = el("div");
  main.replaceChildren(el("h1", {}, "Objects"), el("p", { class: "soft" }, "Values that are kept: results, what put() stored, and large arguments. A value goes when the program holds it no more and no call will read it."), tiles, card("Largest values", list));
  const tile = (label, value, note, part) => el("div", { class: "card tile" }, el("div", { class: "label" }, label), el("div", { class: "value" }, value), el("div", { class: "note" }, part === undefined ? null : gauge(part), part === undefined ? note : ` ${note}`));
  const asks = pace(3000);
  let busy = false, over = false;
  async function load() {
    busy = true;
    try {
      const o = await ask("/api/objects", "GET", asks); if (over || !o) return;
      put(tiles, tile("In memory", bytes(o.used), o.limit ? `of ${bytes(o.limit)}` : "of this program", o.limit ? o.used / o.limit : undefined), tile("On disk", bytes(o.disk), o.disk ? "memory was full" : "nothing had to go there"), tile("Small results", bytes(o.small), "beside these values"));
      const worker = n => n ? `worker ${n}` : "the program", several = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;
      put(list, o.rows.length ? table(["<value", "size", "<where", "<made by", "<mapped by", "<held by"], o.rows.map(([key, name, what, size, disk, made, readers, held, left]) => [
        key && what === "result" ? el("span", {}, callLink(key, name), el("span", { class: "soft" }, " result")) : what, bytes(size), disk ? "disk" : "memory", worker(made), readers.length ? readers.slice(0, 4).map(worker).join(", ") + (readers.length > 4 ? ` and ${readers.length - 4} more` : "") : "nobody",
        [held ? several(held, "object") + " of the program" : "", left ? several(left, "call") + " to come" : ""].filter(Boolean).join(", ") || (what === "argument" ? "calls of a run" : what === "function" ? "calls of it" : "–")]), "Largest values") : el("p", { class: "soft" }, "No large value is kept."));
      if (o.more) list.append(el("p", { class: "soft" }, `${several(o.more, "further value")} of ${bytes(o.more_bytes)}`));
    } finally { busy = false; asks.end(); }
  }
  return { update() { if (!busy && asks.due) load().catch(() => {}); }, end() { over = true; } };
}

// -- the frame -------------------------------------------------------------------------------

function locked() {
  view?.end?.(); view = { update() {} };
  const field = el("input", { id: "key", type: "password", autocomplete: "off" });
  main.replaceChildren(el("h1", {}, "This page needs its key"), card("", el("p", {}, "session.get_web_endpoint() gives the address with the key. Or paste the key here:"), el("form", { class: "tools", onsubmit: event => { event.preventDefault(); sessionStorage.setItem(KEY, key = field.value.trim().replace(/^.*#key=/, "")); start(); } }, el("label", { for: "key" }, "Key", field), el("button", { type: "submit" }, "Open"))));
}
function route() {
  const [name, id] = location.hash.replace(/^#\/?/, "").split("/");
  if (location.hash === "#main") { main.focus(); return; }
  view?.end?.();
  const screen = name === "call" && id ? "calls" : name in SCREENS ? name : "overview";
  for (const a of document.querySelectorAll("#nav a")) if (a.getAttribute("href") === `#/${screen}`) { a.setAttribute("aria-current", "page"); a.scrollIntoView({ block: "nearest", inline: "nearest" }); } else a.removeAttribute("aria-current");
  document.title = `${TITLES[screen]} · mars`;
  view = name === "call" && id ? call(id) : SCREENS[screen](id === undefined || id === "" ? undefined : decodeURIComponent(id));
  if (latest) view.update(latest);
}
function tick(o) {
  latest = o;
  const strip = document.getElementById("strip"), meter = document.getElementById("meter"), part = o.total ? o.done / o.total : 0, bad = o.total ? o.failed / o.total : 0;
  strip.hidden = !o.runs; meter.setAttribute("aria-valuenow", Math.round(100 * (part + bad))); meter.children[0].style.width = `${100 * part}%`; meter.children[1].style.width = `${100 * bad}%`;
  view?.update(o);
}
let stream = null;
function start() {
  stream?.abort(); stream = new AbortController();
  route();
  const link = document.getElementById("link");
  listen("/api/events", (kind, value) => { if (kind === "overview") tick(value); }, stream.signal, up => { const text = up ? "● live" : "○ not connected"; if (link.textContent !== text) link.textContent = text; });
}
document.getElementById("nav").append(...Object.entries(TITLES).map(([name, title]) => el("a", { href: `#/${name}` }, title)));
document.getElementById("skip").addEventListener("click", event => { event.preventDefault(); main.focus(); });
addEventListener("hashchange", () => { const k = new URLSearchParams(location.hash.slice(1)).get("key"); if (k) { sessionStorage.setItem(KEY, key = k); history.replaceState(null, "", "#/overview"); start(); } else if (key) route(); });
if (key) start(); else locked();
