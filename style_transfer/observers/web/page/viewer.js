"use strict";
// The picture: tiles that are requested when they are visible, zoom, and the comparison with another picture. Positions in the
// picture are fractions of its width, so that a view stays the same when the next scale has more pixels.

const TILE = 512, MAX_TILES = 160, PARALLEL = 2;

const canvas = get("canvas"), view = get("view"), pen = canvas.getContext("2d");
const tiles = new Map();  // "layer/level/column/row" -> {image, frame, loading, used, failed}
let loading = 0, tick = 0, drawing = false;
let width = 1, height = 1, dots = 1;
let at = {x: 0.5, y: 0.5, zoom: 0};  // the centre, in widths of the picture; zoom: CSS pixels per width, 0 for the whole picture
let split = 0.5;

const aspect = () => state.height / state.width;
const fit = () => Math.min(width, height / aspect());
const zoomNow = () => at.zoom || fit();
const real = () => state.width / dots;
const maxZoom = () => Math.max(fit(), real() * 16);

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
      const tile = requestTile(layer, level, column, row);
      if (!tile.image) continue;
      const x0 = Math.round(left + column * side * x), x1 = Math.round(left + Math.min(layer.width, (column + 1) * side) * x);
      const y0 = Math.round(above + row * side * y), y1 = Math.round(above + Math.min(layer.height, (row + 1) * side) * y);
      pen.drawImage(tile.image, x0, y0, x1 - x0, y1 - y0);
      any = true;
    }
  }
  return any;
}

function requestTile(layer, level, column, row) {
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
  while (loading < PARALLEL && missing.length) fetchTile(missing.shift());
  if (tiles.size > MAX_TILES) {
    const old = [...tiles.values()].filter(t => !t.loading).sort((a, b) => a.used - b.used);
    for (const tile of old.slice(0, tiles.size - MAX_TILES)) tiles.delete(tile.key);
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
  const before = zoomNow(), after = Math.min(Math.max(zoom, fit()), maxZoom());
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
  if (on) { put("tag-left", select.selectedOptions[0].textContent); put("tag-right", "current picture"); }
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
  if (!action || (event.key.startsWith("Arrow") && !at.zoom)) return;  // while the whole picture is visible, arrow keys scroll the page
  event.preventDefault();
  action();
});
