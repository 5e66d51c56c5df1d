"use strict";
// The loss: a chart on a logarithmic axis, and a table of the terms.

const SVG = "http://www.w3.org/2000/svg", DASHES = ["", "", "6 3", "2 3", "8 3 2 3", "", "6 3", "2 3"];

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
  const svg = element("svg", {role: "img", "aria-label": `Curves of ${names.length + 1} loss terms over ${end} iterations; the table below contains the numbers`});
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
