"use strict";
// The live page. One stream of events brings the state and the loss curves; pictures come as tiles, asked for when they are
// visible. Positions in the picture are fractions of its width, so that a view stays where it is when the picture grows.

const get = id => document.getElementById(id);
const TILE = 512, MOST_TILES = 160, AT_ONCE = 2, QUIET_MS = 15000, SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "", "6 3", "2 3", "8 3 2 3", "", "6 3", "2 3"];

let state = null, about = {}, names = [], rows = [], run = null;
let offline = true, ended = false;

// ---------------------------------------------------------------------------------------------------------- words

const clock = seconds => {
  if (seconds == null || !isFinite(seconds)) return "–";
  const s = Math.max(0, Math.round(seconds)), two = n => String(n).padStart(2, "0");
  const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
  return h ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
};
const bytes = n => n >= 2 ** 30 ? `${(n / 2 ** 30).toFixed(1)} GiB` : n ? `${Math.round(n / 2 ** 20)} MiB` : "–";
const short = x => x == null ? "–" : x === 0 ? "0" : Math.abs(x) >= 1e-3 && Math.abs(x) < 1e5 ? x.toPrecision(4) : x.toExponential(2);
const put = (id, text) => { const node = get(id); if (node.textContent !== text) node.textContent = text; };
const PHASES = {preparing: "preparing", painting: "painting", paused: "paused", finished: "finished", stopped: "stopped", failed: "failed"};

// -------------------------------------------------------------------------------------------------- the connection

let source = null, heard = 0, wait = 1000, again = 0;

function connect() {
  clearTimeout(again);
  if (source) source.close();
  heard = performance.now();
  source = new EventSource("/events");
  source.onmessage = event => { heard = performance.now(); wait = 1000; take(JSON.parse(event.data)); };
  source.addEventListener("ping", () => { heard = performance.now(); });
  source.addEventListener("bye", () => { heard = performance.now(); source.close(); ended = true; lost(); });
  source.onerror = lost;
}

function lost() {
  if (source) source.close();
  offline = true;
  showPhase();
  steer();
  clearTimeout(again);
  again = setTimeout(connect, wait);
  wait = Math.min(wait * 1.5, 8000);
  if (!ended) fetch("/state.json", {cache: "no-store"}).then(answer => {
    if (answer.status === 401) say("Another run has begun; open the address that it printed.");
  }).catch(() => {});
}

setInterval(() => { if (!offline && performance.now() - heard > QUIET_MS) lost(); }, 3000);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && (offline || performance.now() - heard > QUIET_MS / 2)) { wait = 1000; connect(); }
});
addEventListener("online", connect);
addEventListener("pageshow", event => { if (event.persisted) connect(); });

function take(message) {
  if (message.run !== run) {  // the first state, or another run at the same address
    run = message.run;
    rows = [];
    tiles.clear();
    ladderKey = termsKey = compareKey = "";
  }
  if (message.about) { about = message.about; describe(); }
  const curves = message.curves;
  rows = rows.slice(0, curves.from).concat(curves.rows);
  names = curves.names;
  state = message;
  offline = ended = false;
  show();
}

// -------------------------------------------------------------------------------------------------------- the state

function describe() {
  put("title", about.content ? `${about.content} in the manner of ${about.styles.join(", ")}` : "style_transfer");
  const facts = [["program", about.program], ["network", about.network], ["devices", (about.devices || []).join(", ")], ["precision", about.precision],
    ["output", about.output], ...Object.entries(about.settings || {})];
  get("settings").replaceChildren(...facts.filter(([, value]) => value !== undefined).map(([name, value]) => {
    const row = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value === null ? "none" : Array.isArray(value) ? value.join(" ") : String(value);
    row.append(dt, dd);
    return row;
  }));
}

function showPhase() {
  const phase = offline ? "offline" : state.phase;
  const words = !offline ? PHASES[phase] : ended ? "the program has ended" : state ? "not connected; trying again" : "connecting";
  put("phase", words);
  get("phase").dataset.phase = phase;
  const percent = state && state.fraction != null ? `${Math.floor(100 * (over() ? 1 : state.fraction))} % · ` : "";
  document.title = `${percent}${words} · style_transfer`;
}

const over = () => ["finished", "stopped", "failed"].includes(state.phase);
let said = 0, asked = "";

function say(text) { put("answer", text); }

function steer() {
  const works = state && !offline && !over() && state.phase !== "preparing";
  for (const id of ["pause", "finish-scale", "finish"]) {
    get(id).disabled = !works || asked === id;
    get(id).hidden = Boolean(state) && over();
  }
  put("pause", state && state.phase === "paused" ? "Go on" : "Pause");
  get("close").hidden = !(state && !offline && over());
}

async function command(id, path) {
  asked = id;
  steer();
  say("Asked; the answer comes after this iteration.");
  try {
    const answer = await fetch(path, {method: "POST"});
    const found = answer.headers.get("Content-Type").includes("json") ? await answer.json() : {answer: `Refused: ${await answer.text()}`};
    if (found.answer) { asked = ""; say(found.answer); }
  } catch { asked = ""; say("The program did not answer."); }
  steer();
}

get("pause").onclick = () => command("pause", state.phase === "paused" ? "/resume" : "/pause");
get("finish-scale").onclick = () => command("finish-scale", "/finish-scale");
get("finish").onclick = () => command("finish", "/finish");
get("close").onclick = () => command("close", "/close");

let ladderKey = "", compareKey = "";

function show() {
  showPhase();
  if (state.answer.number !== said) {
    if (state.answer.number) { asked = ""; say(state.answer.text); }
    said = state.answer.number;
  }
  steer();
  const error = get("error");
  error.hidden = !state.error;
  if (state.error && error.textContent !== state.error) error.textContent = state.error;
  get("result-item").hidden = !state.result;
  if (state.result) put("result", `The result, ${state.result}`);
  if (state.index == null) return;
  get("bar").value = over() && state.phase === "finished" ? 1 : state.fraction;
  put("step", `${state.step} of ${state.steps}`);
  put("size", `${state.width} × ${state.height}`);
  put("left", clock(state.seconds_left));
  put("scale-left", clock(state.scale_seconds_left));
  put("seconds", clock(state.seconds));
  const pace = state.seconds_per_iteration;
  put("speed", !pace ? "–" : pace < 1 ? `${(1 / pace).toPrecision(3)} iterations/s` : `${pace.toPrecision(3)} s per iteration`);
  put("memory", bytes(state.memory));
  put("tiles", state.tiles.join(" + "));
  showLadder();
  showCompare();
  showTerms();
  drawCurves();
  view.style.setProperty("--aspect", state.width / state.height);
  const described = `The picture so far: ${state.width} by ${state.height} pixels, scale ${state.index + 1} of ${state.stages.length}`;
  if (canvas.getAttribute("aria-label") !== described) canvas.setAttribute("aria-label", described);
  redraw();
}

function showLadder() {
  const key = state.stages.map(s => s.width).join();
  if (key !== ladderKey) {
    ladderKey = key;
    get("ladder").replaceChildren(...state.stages.map((stage, index) => {
      const item = document.createElement("li"), size = document.createElement("span"), bar = document.createElement("progress");
      size.textContent = `${stage.width} × ${stage.height}`;
      bar.max = stage.steps;
      bar.value = 0;
      bar.setAttribute("aria-label", `Scale ${index + 1}`);
      item.append(size, bar, document.createElement("span"));
      return item;
    }));
  }
  [...get("ladder").children].forEach((item, index) => {
    const stage = state.stages[index], past = index < state.index;
    item.children[1].value = past ? stage.steps : stage.done;
    const text = past && stage.done < stage.steps ? `cut at ${stage.done}` : `${stage.done} / ${stage.steps}`;
    if (item.children[2].textContent !== text) item.children[2].textContent = text;
    if (index === state.index) item.setAttribute("aria-current", "step"); else item.removeAttribute("aria-current");
  });
}

function showCompare() {
  const key = `${about.content_size ? 1 : 0} ${state.index}`;
  if (key === compareKey) return;
  compareKey = key;
  const select = get("compare"), chosen = select.value;
  const choices = [["", "nothing"]];
  if (about.content_size) choices.push(["content", "the content"]);
  for (let i = 0; i < state.index; i++) choices.push([String(i), `the end of ${state.stages[i].width} × ${state.stages[i].height}`]);
  select.replaceChildren(...choices.map(([value, text]) => new Option(text, value)));
  select.value = choices.some(([value]) => value === chosen) ? chosen : "";
  compared();
}

// ----------------------------------------------------------------------------------------------------- the picture

const canvas = get("canvas"), view = get("view"), pen = canvas.getContext("2d");
const tiles = new Map();  // "layer/level/column/row" -> {image, frame, loading, used, failed}
let loading = 0, tick = 0, drawing = false;
let width = 1, height = 1, dots = 1;
let at = {x: 0.5, y: 0.5, zoom: 0};  // centre, in widths of the picture; zoom: CSS pixels per width; 0: the whole picture
let split = 0.5;

const aspect = () => state.height / state.width;
const fit = () => Math.min(width, height / aspect());
const zoomNow = () => at.zoom || fit();
const real = () => state.width / dots;
const most = () => Math.max(fit(), real() * 16);

function layerOf(name) {
  if (name === "content") return about.content_size ? {name, width: about.content_size.width, height: about.content_size.height, frame: 1} : null;
  const stage = state.stages[Number(name)];
  return stage && stage.frame ? {name, width: stage.shown[0], height: stage.shown[1], frame: stage.frame} : null;
}

function resized() {
  const box = view.getBoundingClientRect();
  dots = window.devicePixelRatio || 1;
  width = Math.max(1, box.width);
  height = Math.max(1, box.height);
  canvas.width = Math.round(width * dots);
  canvas.height = Math.round(height * dots);
  redraw();
}
new ResizeObserver(resized).observe(view);

function redraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; if (state && state.index != null) draw(); });
}

function clamp() {
  const zoom = zoomNow(), wide = width / zoom / 2, high = height / zoom / 2, tall = aspect();
  at.x = wide >= 0.5 ? 0.5 : Math.min(Math.max(at.x, wide), 1 - wide);
  at.y = high >= tall / 2 ? tall / 2 : Math.min(Math.max(at.y, high), tall - high);
}

function draw() {
  clamp();
  tick++;
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const choice = get("compare").value, other = choice ? layerOf(choice) : null, border = Math.round(split * canvas.width);
  const now = [];
  for (let i = Math.max(0, state.index - 1); i <= state.index; i++) { const layer = layerOf(String(i)); if (layer) now.push(layer); }
  let drawn = false;
  const part = (from, to, layers) => {
    pen.save();
    pen.beginPath();
    pen.rect(from, 0, to - from, canvas.height);
    pen.clip();
    layers.forEach((layer, i) => { if (i === layers.length - 1 || !covered(layers[i + 1])) drawn = drawLayer(layer, from, to) || drawn; });
    pen.restore();
  };
  if (other) {
    part(0, border, [other]);
    part(border, canvas.width, now);
    pen.fillStyle = "#fff";
    pen.fillRect(border - 1.5 * dots, 0, 3 * dots, canvas.height);
    pen.beginPath();
    pen.arc(border, canvas.height / 2, 13 * dots, 0, 2 * Math.PI);
    pen.fill();
    pen.fillStyle = "#222";
    for (const side of [-1, 1]) {
      pen.beginPath();
      pen.moveTo(border + side * 9 * dots, canvas.height / 2);
      pen.lineTo(border + side * 3 * dots, canvas.height / 2 - 5 * dots);
      pen.lineTo(border + side * 3 * dots, canvas.height / 2 + 5 * dots);
      pen.fill();
    }
  } else part(0, canvas.width, now);
  if (drawn) get("waiting").hidden = true;
  put("zoom", `${Math.round(100 * zoomNow() / real())} %`);
  view.classList.toggle("zoomed", Boolean(at.zoom));
  fetchTiles();
}

const topLevel = layer => Math.max(0, Math.ceil(Math.log2(Math.max(layer.width, layer.height) / TILE)));
const covered = layer => { const tile = tiles.get(`${layer.name}/${topLevel(layer)}/0/0`); return Boolean(tile && tile.image); };

function drawLayer(layer, from, to) {
  const top = topLevel(layer), zoom = zoomNow() * dots, tall = aspect();
  const left = canvas.width / 2 - at.x * zoom, above = canvas.height / 2 - at.y * zoom;
  const wanted = Math.min(top, Math.max(0, Math.floor(Math.log2(layer.width / zoom) + 0.01)));
  pen.imageSmoothingEnabled = zoom / layer.width < 3;
  pen.imageSmoothingQuality = "high";
  let any = false;
  for (const level of wanted < top ? [top, wanted] : [top]) {
    const side = TILE * 2 ** level, x = zoom / layer.width, y = zoom * tall / layer.height;
    const first = Math.max(0, Math.floor((from - left) / x / side)), last = Math.min(Math.ceil(layer.width / side) - 1, Math.floor((to - left) / x / side));
    const high = Math.max(0, Math.floor(-above / y / side)), low = Math.min(Math.ceil(layer.height / side) - 1, Math.floor((canvas.height - above) / y / side));
    for (let row = high; row <= low; row++) for (let column = first; column <= last; column++) {
      const tile = want(layer, level, column, row);
      if (!tile.image) continue;
      const x0 = Math.round(left + column * side * x), x1 = Math.round(left + Math.min(layer.width, (column + 1) * side) * x);
      const y0 = Math.round(above + row * side * y), y1 = Math.round(above + Math.min(layer.height, (row + 1) * side) * y);
      pen.drawImage(tile.image, x0, y0, x1 - x0, y1 - y0);
      any = true;
    }
  }
  return any;
}

function want(layer, level, column, row) {
  const key = `${layer.name}/${level}/${column}/${row}`;
  let tile = tiles.get(key);
  if (!tile) tiles.set(key, tile = {key, image: null, frame: 0, loading: false, used: 0, failed: -Infinity});
  tile.used = tick;
  tile.wanted = layer.frame;
  tile.level = level;
  return tile;
}

function fetchTiles() {
  const now = performance.now();
  const missing = [...tiles.values()].filter(t => t.used === tick && !t.loading && t.frame !== t.wanted && now - t.failed > 1000);
  missing.sort((a, b) => Boolean(a.image) - Boolean(b.image) || b.level - a.level);
  while (loading < AT_ONCE && missing.length) fetchTile(missing.shift());
  if (tiles.size > MOST_TILES) {
    const old = [...tiles.values()].filter(t => !t.loading).sort((a, b) => a.used - b.used);
    for (const tile of old.slice(0, tiles.size - MOST_TILES)) tiles.delete(tile.key);
  }
}

function fetchTile(tile) {
  loading++;
  tile.loading = true;
  const image = new Image(), frame = tile.wanted;
  const done = () => { loading--; tile.loading = false; redraw(); };
  image.onload = () => { tile.image = image; tile.frame = frame; done(); };
  image.onerror = () => { tile.failed = performance.now(); setTimeout(redraw, 1100); done(); };
  image.src = `/tile/${tile.key}?${run}-${frame}`;
}

// ------------------------------------------------------------------------------------------------ moving the picture

function zoomTo(zoom, x = width / 2, y = height / 2) {
  if (!state || state.index == null) return;
  const before = zoomNow(), after = Math.min(Math.max(zoom, fit()), most());
  const px = at.x + (x - width / 2) / before, py = at.y + (y - height / 2) / before;
  at.zoom = after <= fit() * 1.001 ? 0 : after;
  at.x = px - (x - width / 2) / zoomNow();
  at.y = py - (y - height / 2) / zoomNow();
  redraw();
}
function move(x, y) {
  if (!state || state.index == null) return;
  at.x -= x / zoomNow();
  at.y -= y / zoomNow();
  redraw();
}
function setSplit(value) {
  split = Math.min(1, Math.max(0, value));
  get("split").value = Math.round(100 * split);
  redraw();
}
function compared() {
  const select = get("compare"), on = Boolean(select.value);
  get("split").disabled = !on;
  get("tag-left").hidden = get("tag-right").hidden = !on;
  if (on) { put("tag-left", select.selectedOptions[0].textContent); put("tag-right", "the picture so far"); }
  redraw();
}
get("compare").onchange = compared;
get("split").oninput = event => setSplit(event.target.value / 100);
get("zoom-in").onclick = () => zoomTo(zoomNow() * 1.5);
get("zoom-out").onclick = () => zoomTo(zoomNow() / 1.5);
get("zoom-fit").onclick = () => zoomTo(0);
get("zoom-real").onclick = () => zoomTo(real());

view.addEventListener("wheel", event => {
  event.preventDefault();
  const box = view.getBoundingClientRect(), step = event.deltaMode ? event.deltaY * 20 : event.deltaY;
  zoomTo(zoomNow() * Math.exp(-step / 400), event.clientX - box.left, event.clientY - box.top);
}, {passive: false});

const fingers = new Map();
let sliding = false;
view.addEventListener("pointerdown", event => {
  if (event.button > 0) return;
  const x = event.clientX - view.getBoundingClientRect().left;
  sliding = fingers.size === 0 && !get("split").disabled && Math.abs(x - split * width) < (event.pointerType === "mouse" ? 14 : 26);
  fingers.set(event.pointerId, {x: event.clientX, y: event.clientY});
  if (fingers.size > 1) sliding = false;
  view.setPointerCapture(event.pointerId);
  view.classList.add(sliding ? "sliding" : "moving");
});
view.addEventListener("pointermove", event => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const now = {x: event.clientX, y: event.clientY}, box = view.getBoundingClientRect();
  const [a, b] = [...fingers.values()];
  fingers.set(event.pointerId, now);
  if (sliding) setSplit((now.x - box.left) / width);
  else if (fingers.size === 1) move(now.x - before.x, now.y - before.y);
  else if (fingers.size === 2) {
    const [c, d] = [...fingers.values()];
    move((c.x + d.x - a.x - b.x) / 2, (c.y + d.y - a.y - b.y) / 2);
    const spread = Math.hypot(c.x - d.x, c.y - d.y) / Math.max(1, Math.hypot(a.x - b.x, a.y - b.y));
    zoomTo(zoomNow() * spread, (c.x + d.x) / 2 - box.left, (c.y + d.y) / 2 - box.top);
  }
});
const lifted = event => { fingers.delete(event.pointerId); if (!fingers.size) { sliding = false; view.classList.remove("sliding", "moving"); } };
view.addEventListener("pointerup", lifted);
view.addEventListener("pointercancel", lifted);
view.addEventListener("dblclick", event => {
  const box = view.getBoundingClientRect();
  if (at.zoom) zoomTo(0); else zoomTo(Math.max(real(), 2 * fit()), event.clientX - box.left, event.clientY - box.top);
});
view.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = event.shiftKey ? 240 : 60;
  const keys = {
    ArrowLeft: () => move(step, 0), ArrowRight: () => move(-step, 0), ArrowUp: () => move(0, step), ArrowDown: () => move(0, -step),
    "+": () => zoomTo(zoomNow() * 1.5), "=": () => zoomTo(zoomNow() * 1.5), "-": () => zoomTo(zoomNow() / 1.5),
    "0": () => zoomTo(0), "1": () => zoomTo(real()), ",": () => setSplit(split - 0.05), ".": () => setSplit(split + 0.05),
  };
  const action = keys[event.key];
  if (!action || (event.key.startsWith("Arrow") && !at.zoom)) return;  // the page scrolls while the whole picture is shown
  event.preventDefault();
  action();
});

// -------------------------------------------------------------------------------------------------------- the curves

let termsKey = "", pointer = null;
const chart = get("chart");
const element = (name, attributes, text) => {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
};
const nearest = step => {
  let low = 0, high = rows.length - 1;
  while (low < high) { const middle = (low + high) >> 1; if (rows[middle][0] < step) low = middle + 1; else high = middle; }
  return rows[low];
};
const begins = () => { let sum = 0; return state.stages.map(stage => { const first = sum + 1; sum += stage.done; return stage.done ? first : null; }); };

function showTerms() {
  const all = ["sum", ...names], key = all.join();
  if (!rows.length) return;
  if (key !== termsKey) {
    termsKey = key;
    get("terms").replaceChildren(...all.map((name, i) => {
      const row = document.createElement("tr"), head = document.createElement("th"), mark = element("svg", {viewBox: "0 0 26 10", "aria-hidden": "true"});
      mark.append(element("line", {x1: 0, x2: 26, y1: 5, y2: 5, class: `c${i % 8}`, "stroke-dasharray": DASHES[i % 8]}));
      head.scope = "row";
      head.append(mark, name);
      row.append(head, ...[1, 2, 3].map(() => document.createElement("td")));
      return row;
    }));
  }
  const last = rows[rows.length - 1], first = nearest(begins()[state.index]), pointed = pointer == null ? null : nearest(pointer);
  put("pointed", pointed ? `At iteration ${pointed[0]}` : "At the pointer");
  [...get("terms").children].forEach((row, i) => {
    [last, first, pointed].forEach((values, column) => {
      const text = values ? short(values[i + 1]) : "", cell = row.children[column + 1];
      if (cell.textContent !== text) cell.textContent = text;
    });
  });
}

let drawnWith = "", scales = null;

function drawCurves() {
  const wide = chart.clientWidth, high = chart.clientHeight, key = [rows.length, rows.length && rows[rows.length - 1][0], wide, high, run, state.index].join();
  if (!rows.length || !wide || key === drawnWith) return;
  drawnWith = key;
  const left = 52, right = 10, above = 8, below = 24;
  let low = Infinity, top = -Infinity;
  for (const row of rows) for (let i = 1; i < row.length; i++) if (row[i] > 0) { low = Math.min(low, row[i]); top = Math.max(top, row[i]); }
  if (!(low < Infinity)) return;
  low = Math.max(low, top * 1e-9);
  const a = Math.log10(low), b = Math.max(Math.log10(top), a + 0.1), end = Math.max(2, rows[rows.length - 1][0]);
  const x = step => left + (wide - left - right) * (step - 1) / (end - 1);
  const y = value => high - below - (high - below - above) * (Math.log10(Math.max(value, low)) - a) / (b - a);
  const svg = element("svg", {role: "img", "aria-label": `Curves of ${names.length + 1} loss terms over ${end} iterations; the table below has the numbers`});
  const every = Math.max(1, Math.ceil((b - a) / 6)), marks = b - a < 1 ? [low, Math.sqrt(low * top), top] : [];
  if (!marks.length) for (let power = Math.ceil(a); power <= b; power += every) marks.push(10 ** power);
  for (const value of marks) {
    svg.append(element("line", {x1: left, x2: wide - right, y1: y(value), y2: y(value)}));
    svg.append(element("text", {x: left - 6, y: y(value) + 4, "text-anchor": "end"}, value.toPrecision(2).length > 6 ? value.toExponential(0) : String(Number(value.toPrecision(2)))));
  }
  const step = [1, 2, 5].flatMap(n => [0, 1, 2, 3, 4, 5, 6, 7].map(p => n * 10 ** p)).sort((p, q) => p - q).find(n => end / n <= wide / 90);
  for (let value = step; value <= end; value += step)
    svg.append(element("text", {x: x(value), y: high - 6, "text-anchor": value > end * 0.97 ? "end" : "middle"}, value.toLocaleString("en")));
  begins().forEach((first, index) => {
    if (index && first) svg.append(element("line", {x1: x(first), x2: x(first), y1: above, y2: high - below, class: "scale"}));
  });
  const every2 = Math.max(1, Math.floor(rows.length / (2 * wide)));
  for (let i = rows[0].length - 1; i >= 1; i--) {
    let path = "", up = true;
    for (let k = 0; k < rows.length; k += every2) {
      const value = rows[k][i];
      if (value == null || value <= 0) { up = true; continue; }
      path += `${up ? "M" : "L"}${x(rows[k][0]).toFixed(1)} ${y(value).toFixed(1)}`;
      up = false;
    }
    svg.append(element("path", {d: path, class: `c${(i - 1) % 8}`, "stroke-dasharray": DASHES[(i - 1) % 8]}));
  }
  const cross = element("line", {y1: above, y2: high - below, class: "cross", visibility: "hidden"});
  svg.append(cross);
  scales = {left, right, wide, end, x, cross};
  chart.replaceChildren(svg);
  point();
}

function point() {
  if (!scales) return;
  scales.cross.setAttribute("visibility", pointer == null ? "hidden" : "visible");
  if (pointer == null) return;
  scales.cross.setAttribute("x1", scales.x(pointer));
  scales.cross.setAttribute("x2", scales.x(pointer));
}
chart.addEventListener("pointermove", event => {
  if (!scales) return;
  const x = event.clientX - chart.getBoundingClientRect().left, {left, right, wide, end} = scales;
  pointer = Math.min(end, Math.max(1, Math.round(1 + (x - left) / (wide - left - right) * (end - 1))));
  point();
  showTerms();
});
chart.addEventListener("pointerleave", () => { pointer = null; point(); if (state) showTerms(); });
new ResizeObserver(() => { if (state && state.index != null) drawCurves(); }).observe(chart);

// --------------------------------------------------------------------------------------------------------- the theme

const system = matchMedia("(prefers-color-scheme: dark)");
const THEMES = {auto: "Auto", light: "Light", dark: "Dark"};
let theme = "auto";
try { theme = localStorage.getItem("theme") || "auto"; } catch { theme = "auto"; }
function dress() {
  if (!(theme in THEMES)) theme = "auto";
  document.documentElement.dataset.theme = theme === "auto" ? system.matches ? "dark" : "light" : theme;
  get("theme").textContent = THEMES[theme];
  get("theme").setAttribute("aria-label", `Colours: ${theme === "auto" ? "Auto, as the system" : THEMES[theme]}`);
}
get("theme").onclick = () => {
  theme = {auto: "light", light: "dark", dark: "auto"}[theme];
  try { localStorage.setItem("theme", theme); } catch { /* a private window: for this visit only */ }
  dress();
};
system.addEventListener("change", dress);
dress();
connect();
