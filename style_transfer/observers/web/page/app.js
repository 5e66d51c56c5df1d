"use strict";
// The live page: connection to the program, state of the run, buttons and theme. One stream of events brings the state and the
// loss curves. viewer.js shows the picture and curves.js the losses; the three scripts share their global names.

const get = id => document.getElementById(id);
const QUIET_MS = 15000;

let state = null, about = {}, names = [], rows = [], run = null;
let offline = true, ended = false;

// ------------------------------------------------------------------------------------------------------- formats

const clock = seconds => {
  if (seconds == null || !isFinite(seconds)) return "–";
  const s = Math.max(0, Math.round(seconds)), two = n => String(n).padStart(2, "0");
  const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
  return h ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
};
const bytes = n => n >= 2 ** 30 ? `${(n / 2 ** 30).toFixed(1)} GiB` : n ? `${Math.round(n / 2 ** 20)} MiB` : "–";
const short = x => x == null ? "–" : x === 0 ? "0" : Math.abs(x) >= 1e-3 && Math.abs(x) < 1e5 ? x.toPrecision(4) : x.toExponential(2);
const put = (id, text) => { const node = get(id); if (node.textContent !== text) node.textContent = text; };
const PHASES = {preparing: "preparing", running: "running", paused: "paused", finished: "finished", stopped: "stopped", failed: "failed"};

// -------------------------------------------------------------------------------------------------- the connection

let source = null, lastHeard = 0, wait = 1000, again = 0;

function connect() {
  clearTimeout(again);
  if (source) source.close();
  lastHeard = performance.now();
  source = new EventSource("/events");
  source.onmessage = event => { lastHeard = performance.now(); wait = 1000; receive(JSON.parse(event.data)); };
  source.addEventListener("ping", () => { lastHeard = performance.now(); });
  source.addEventListener("bye", () => { lastHeard = performance.now(); source.close(); ended = true; lost(); });
  source.onerror = lost;
}

function lost() {
  if (source) source.close();
  offline = true;
  showPhase();
  updateButtons();
  clearTimeout(again);
  again = setTimeout(connect, wait);
  wait = Math.min(wait * 1.5, 8000);
  if (!ended) fetch("/state.json", {cache: "no-store"}).then(answer => {
    if (answer.status === 401) showAnswer("Another run has started; open the address that it printed.");
  }).catch(() => {});
}

setInterval(() => { if (!offline && performance.now() - lastHeard > QUIET_MS) lost(); }, 3000);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && (offline || performance.now() - lastHeard > QUIET_MS / 2)) { wait = 1000; connect(); }
});
addEventListener("online", connect);
addEventListener("pageshow", event => { if (event.persisted) connect(); });

function receive(message) {
  if (message.run !== run) {  // the first state, or that of another run
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
  put("title", about.content ? `${about.content} in the style of ${about.styles.join(", ")}` : "style_transfer");
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
  const words = !offline ? PHASES[phase] : ended ? "the program has ended" : state ? "not connected; retrying" : "connecting";
  put("phase", words);
  get("phase").dataset.phase = phase;
  const percent = state && state.fraction != null ? `${Math.floor(100 * (over() ? 1 : state.fraction))} % · ` : "";
  document.title = `${percent}${words} · style_transfer`;
}

const over = () => ["finished", "stopped", "failed"].includes(state.phase);
let shownAnswer = 0, asked = "";

function showAnswer(text) { put("answer", text); }

function updateButtons() {
  const works = state && !offline && !over() && state.phase !== "preparing";
  for (const id of ["pause", "finish-scale", "finish"]) {
    get(id).disabled = !works || asked === id;
    get(id).hidden = Boolean(state) && over();
  }
  put("pause", state && state.phase === "paused" ? "Resume" : "Pause");
  get("close").hidden = !(state && !offline && over());
}

async function command(id, path) {
  asked = id;
  updateButtons();
  showAnswer("Requested; takes effect after the current iteration.");
  try {
    const answer = await fetch(path, {method: "POST"});
    const found = answer.headers.get("Content-Type").includes("json") ? await answer.json() : {answer: `Refused: ${await answer.text()}`};
    if (found.answer) { asked = ""; showAnswer(found.answer); }
  } catch { asked = ""; showAnswer("The program does not answer."); }
  updateButtons();
}

get("pause").onclick = () => command("pause", state.phase === "paused" ? "/resume" : "/pause");
get("finish-scale").onclick = () => command("finish-scale", "/finish-scale");
get("finish").onclick = () => command("finish", "/finish");
get("close").onclick = () => command("close", "/close");

let ladderKey = "", compareKey = "";

function show() {
  showPhase();
  if (state.answer.number !== shownAnswer) {
    if (state.answer.number) { asked = ""; showAnswer(state.answer.text); }
    shownAnswer = state.answer.number;
  }
  updateButtons();
  const error = get("error");
  error.hidden = !state.error;
  if (state.error && error.textContent !== state.error) error.textContent = state.error;
  get("result-item").hidden = !state.result;
  if (state.result) put("result", `The result, ${state.result}`);
  if (over()) put("waiting", "No picture to show");
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
  const described = `Current picture: ${state.width} by ${state.height} pixels, scale ${state.index + 1} of ${state.stages.length}`;
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
    const text = past && stage.done < stage.steps ? `ended at ${stage.done}` : `${stage.done} / ${stage.steps}`;
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
  if (about.content_size) choices.push(["content", "the content picture"]);
  for (let i = 0; i < state.index; i++) choices.push([String(i), `the end of ${state.stages[i].width} × ${state.stages[i].height}`]);
  select.replaceChildren(...choices.map(([value, text]) => new Option(text, value)));
  select.value = choices.some(([value]) => value === chosen) ? chosen : "";
  compared();
}

// --------------------------------------------------------------------------------------------------------- the theme

const system = matchMedia("(prefers-color-scheme: dark)");
const THEMES = {auto: "Auto", light: "Light", dark: "Dark"};
let theme = "auto";
try { theme = localStorage.getItem("theme") || "auto"; } catch { theme = "auto"; }
function applyTheme() {
  if (!(theme in THEMES)) theme = "auto";
  document.documentElement.dataset.theme = theme === "auto" ? system.matches ? "dark" : "light" : theme;
  get("theme").textContent = THEMES[theme];
  get("theme").setAttribute("aria-label", `Colours: ${theme === "auto" ? "Auto, same as the system" : THEMES[theme]}`);
}
get("theme").onclick = () => {
  theme = {auto: "light", light: "dark", dark: "auto"}[theme];
  try { localStorage.setItem("theme", theme); } catch { /* not available in private windows */ }
  applyTheme();
};
system.addEventListener("change", applyTheme);
applyTheme();
addEventListener("DOMContentLoaded", connect);
