// The page: what was chosen, and the pictures and sentences that follow from it.
import {Engine, newest} from "./engine.js";
import {apart, between, inputs, jump, lengthOf, moved, python, range} from "./latent.js";
import {latent, neighbours} from "./noise.js";

const SHEET = 24, AROUND = 8, STRIP = 9;
const at = id => document.getElementById(id);
const state = {
  generators: [],      // from generators/generators.json
  g: null,             // the one that is loaded
  seed: 0,
  start: null,         // {input, origin}: what was chosen last, before changes; origin is {seed, number, label} or null
  input: null,         // the same after bars were dragged: z, and the classes of a generator that takes them
  sliders: [],         // how far along each direction
  touched: false,      // whether a bar was dragged
  a: null, b: null,    // where the walk begins and ends
  around: 0,           // which neighbours
};
let engine = null, loads = 0;

// ---- Pictures

function paint(canvas, image) {
  const [c, h, w] = state.g.shape, pixels = new ImageData(w, h);
  for (let i = 0; i < h * w; i++) {
    for (let k = 0; k < 3; k++) pixels.data[4 * i + k] = Math.round((image[(c === 1 ? 0 : k) * h * w + i] + 1) / 2 * 255);
    pixels.data[4 * i + 3] = 255;
  }
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, {width: w, height: h});
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

// Images of inputs in one array, a few at a time, so that the newest wish never waits long. Null when a generator was changed.
async function drawn(input, n, each = () => {}) {
  const wide = state.g.z_dim + state.g.classes, turn = loads, out = [];
  if (input.length !== n * wide) return null; // a wish for the generator before
  const few = state.g.shape.reduce((a, b) => a * b) > 4000 ? 4 : 8;
  for (let i = 0; i < n; i += few) {
    const k = Math.min(few, n - i), part = await engine.draw(input.slice(i * wide, (i + k) * wide), k);
    if (turn !== loads) return null;
    part.forEach((x, j) => each(x, i + j));
    out.push(...part);
  }
  return out;
}

function tiles(id, n, name, chosen) {
  at(id).replaceChildren(...Array.from({length: n}, (_, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.append(document.createElement("canvas"));
    button.setAttribute("aria-label", name(i));
    button.addEventListener("click", () => chosen(i));
    return button;
  }));
  return [...at(id).querySelectorAll("canvas")];
}

const say = text => { at("status").textContent = text; };

function measure(term, value, note) {
  const id = `m-${term.replace(/\W+/g, "-")}`;
  let entry = at(id);
  if (!entry) {
    entry = document.createElement("div");
    entry.id = id;
    entry.append(document.createElement("dt"), document.createElement("dd"));
    at("measured").append(entry);
  }
  const small = document.createElement("small");
  small.textContent = note;
  entry.firstChild.textContent = term;
  entry.lastChild.replaceChildren(value, small);
}

// ---- One image

const current = () => moved(state.input, state.g.directions.map((d, i) => [d.v, state.sliders[i]]));
const zOf = input => input.subarray(0, state.g.z_dim);
// Images number first, first + 1, … of a seed: their inputs, the classes in turn, as G.sample has them.
const drawnBy = (n, seed, first = 0, g = state.g) => inputs(latent(n, g.z_dim, g.z_law, seed, first), g, i => (first + i) % g.classes);
const numbered = (seed, number) => state.g.classes ? {seed, number, label: number % state.g.classes} : {seed, number};
const origin = () => state.touched || state.sliders.some(s => s) ? null : state.start.origin;
const named = where => where ? `image ${where.number} of seed ${where.seed}` + (where.label === undefined ? "" : `, class ${where.label}`) : "a changed image";

function choose(input, where) {
  state.start = {input: Float32Array.from(input), origin: where};
  reset();
}

function reset() {
  Object.assign(state, {input: Float32Array.from(state.start.input), touched: false, sliders: state.g.directions.map(() => 0)});
  at("directions").querySelectorAll("input").forEach(input => { input.value = 0; input.oninput(); });
  changed();
}

const drawImage = newest(async input => {
  const found = await drawn(input, 1);
  if (found) paint(at("image"), found[0]);
});

const drawAround = newest(async input => {
  const zDim = state.g.z_dim, z = neighbours(zOf(input), AROUND, Number(at("reach").value), state.around);
  state.near = Array.from({length: AROUND + 1}, (_, i) => {
    const one = Float32Array.from(input);
    one.set(z.subarray(i * zDim, (i + 1) * zDim));
    return one;
  });
  const canvases = [...at("around").querySelectorAll("canvas")], all = new Float32Array((AROUND + 1) * input.length);
  state.near.forEach((one, i) => all.set(one, i * input.length));
  await drawn(all, AROUND + 1, (x, i) => paint(canvases[i], x));
});

// Another class for the same z: what G.sample makes when it is told so.
function tell(label) {
  state.input.fill(0, state.g.z_dim);
  state.input[state.g.z_dim + label] = 1;
  if (state.start.origin) state.start.origin = {...state.start.origin, label};
  else state.touched = true;
  state.start.input.set(state.input.subarray(state.g.z_dim), state.g.z_dim);
  changed();
}

function changed() {
  const input = current(), where = origin(), zDim = state.g.z_dim;
  drawImage(input);
  drawAround(input);
  at("image").setAttribute("aria-label", `${state.g.title}: ${named(where)}`);
  at("origin").textContent = where ? `Image ${where.number} of seed ${where.seed}, counted from 0.` : "Changed by hand.";
  at("classes").querySelectorAll("input").forEach((radio, i) => { radio.checked = state.input[zDim + i] === 1; });
  at("reset").disabled = !state.touched && !state.sliders.some(s => s);
  at("python").textContent = python(state.g.name, input, where);
  at("sheet").querySelectorAll("button").forEach((tile, i) => {
    const here = state.start.origin;
    tile.setAttribute("aria-pressed", String(Boolean(here) && here.seed === state.seed && here.number === i));
  });
  const usual = Math.sqrt(state.g.z_law === "normal" ? zDim : zDim / 3);
  measure("Length of z", lengthOf(zOf(input)).toFixed(1), `Drawn vectors are about ${usual.toFixed(1)} long.`);
  drawBars(zOf(input));
  showValue(input);
  location.hash === hash() || history.replaceState(null, "", hash());
}

const hash = () => `#${state.g.name}` + (state.start.origin ? `/${state.start.origin.seed}/${state.start.origin.number}` : "");

// ---- Sliders and bars

function buildDirections() {
  at("directions").replaceChildren(...state.g.directions.map((d, i) => {
    const row = document.createElement("div"), label = document.createElement("label");
    const input = document.createElement("input"), out = document.createElement("output"), ends = document.createElement("div");
    Object.assign(input, {type: "range", min: -1, max: 1, step: 0.05, value: 0, id: `direction-${i}`});
    Object.assign(label, {htmlFor: input.id, textContent: d.label});
    label.title = `The reading rose in ${d.rose} of ${d.of} images.`;
    out.htmlFor = input.id;
    input.oninput = () => { out.textContent = Number(input.value).toFixed(2); };
    input.addEventListener("input", () => { state.sliders[i] = Number(input.value); changed(); });
    ends.className = "ends";
    const weak = d.rose < 0.9 * d.of ? [`works in ${d.rose} of ${d.of} images`] : [];
    ends.append(...[d.low, ...weak, d.high].map(text => Object.assign(document.createElement("span"), {textContent: text})));
    row.className = "direction";
    row.append(label, out, input, ends);
    input.oninput();
    return row;
  }));
  at("directions-about").textContent = state.g.directions_about;
}

function buildClasses() {
  at("classes").hidden = !state.g.classes;
  at("classes").querySelectorAll("label").forEach(label => label.remove());
  for (let k = 0; k < state.g.classes; k++) at("classes").append(choice("class", k, k, () => tell(k)));
}

const most = () => state.g.z_law === "normal" ? 3.5 : 1;

function drawBars(z) {
  const canvas = at("bars"), scale = window.devicePixelRatio || 1, look = getComputedStyle(canvas);
  const width = canvas.clientWidth, height = canvas.clientHeight, chosen = Number(at("which").value) - 1;
  Object.assign(canvas, {width: width * scale, height: height * scale});
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const step = width / z.length, middle = height / 2;
  z.forEach((value, i) => {
    pen.fillStyle = look.getPropertyValue(i === chosen ? "--accent" : "--soft");
    const tall = Math.max(-1, Math.min(1, value / most())) * (middle - 4);
    pen.fillRect(i * step + step * 0.12, middle - Math.max(tall, 0), step * 0.76, Math.max(Math.abs(tall), 1));
    if (i === chosen) pen.fillRect(i * step, height - 3, step, 3);
  });
  pen.fillRect(0, middle, width, 0.5);
}

function showValue(input) {
  const i = Number(at("which").value) - 1;
  if (document.activeElement !== at("value")) at("value").value = input[i];
  at("value-out").textContent = input[i].toFixed(2);
}

// Give number i of z this value, whatever the sliders add to it.
function setNumber(i, value) {
  state.input[i] += value - current()[i];
  state.touched = true;
  changed();
}

function whichNumber(i) {
  at("which").value = Math.max(0, Math.min(state.g.z_dim - 1, i)) + 1;
}

function dragBars(event) {
  if (event.type === "pointermove" && !(event.buttons & 1)) return;
  const box = event.currentTarget.getBoundingClientRect();
  if (event.type === "pointerdown") {
    if (event.isTrusted) event.currentTarget.setPointerCapture(event.pointerId);
    whichNumber(Math.floor((event.clientX - box.left) / box.width * state.g.z_dim));
  }
  const value = (1 - 2 * (event.clientY - box.top) / box.height) * most();
  setNumber(Number(at("which").value) - 1, Math.max(-most(), Math.min(most(), value)));
}

// ---- Many images

async function drawSheet() {
  const g = state.g, seed = state.seed, all = drawnBy(SHEET, seed), wide = g.z_dim + g.classes;
  const canvases = tiles("sheet", SHEET, i => `Image ${i} of seed ${seed}`,
    i => choose(all.slice(i * wide, (i + 1) * wide), numbered(seed, i)));
  const began = performance.now();
  const images = await drawn(all, SHEET, (x, i) => paint(canvases[i], x));
  if (!images) return;
  const speed = SHEET / (performance.now() - began) * 1000, far = apart(images), [low, high] = range(images);
  const about = far / g.apart < 0.03 ? "Nearly the same image from every z." : "0: all the same; about 1: as different as real ones.";
  measure("Variety of the sheet", (far / g.apart).toFixed(2), `${about} Lesson 11 computes it so.`);
  measure("Range of the sheet", `${low.toFixed(2)} to ${high.toFixed(2)}`, "Pixels before they are shown; tanh ends at -1 and 1.");
  measure("Speed", `${speed < 10 ? speed.toFixed(1) : Math.round(speed)} images/s`, "On this device, one thread, while the sheet was drawn.");
  say(`${SHEET} images of seed ${seed} are drawn.`);
}

async function setSeed(seed, number = 0) {
  state.seed = seed;
  at("seed").value = seed;
  const whole = drawSheet();
  choose(drawnBy(1, seed, number), numbered(seed, number));
  await whole;
}

// ---- A walk

const onTheWay = t => between(state.a.input, state.b.input, t, state.g);

const drawWalk = newest(async t => {
  const found = await drawn(onTheWay(t), 1);
  if (found) paint(at("walk-now"), found[0]);
});

const drawStrip = newest(async () => {
  const wide = state.g.z_dim + state.g.classes, all = new Float32Array(STRIP * wide);
  for (let i = 0; i < STRIP; i++) all.set(onTheWay(i / (STRIP - 1)), i * wide);
  const canvases = [...at("strip").querySelectorAll("canvas")];
  const images = await drawn(all, STRIP, (x, i) => paint(canvases[i], x));
  if (!images) return;
  paint(at("walk-a"), images[0]);
  paint(at("walk-b"), images[STRIP - 1]);
  const sharp = jump(images);
  measure("Largest step of the walk", Number.isNaN(sharp) ? "–" : `${sharp.toFixed(1)} × the mean`,
    `Between ${STRIP} images: 1 is an even walk. Lesson 15 says what it can show.`);
});

function walkChanged() {
  const way = state.g.z_law === "normal" ? "along the arc, since the arc keeps the length of z" : "along the straight line, which never leaves the cube";
  at("walk-about").textContent = `From ${state.a.says} to ${state.b.says}, ${way}.`;
  drawStrip();
  stepTo(Number(at("t").value));
}

function stepTo(t) {
  at("walk-t").textContent = `t = ${t.toFixed(2)}`;
  return drawWalk(t);
}

const end = () => ({input: current(), says: named(origin())});

function play() {
  const on = at("play").getAttribute("aria-pressed") !== "true";
  at("play").setAttribute("aria-pressed", String(on));
  at("play").textContent = on ? "Pause" : "Play";
  let way = 1, before = performance.now();
  const frame = async now => {
    if (at("play").getAttribute("aria-pressed") !== "true") return;
    let t = Number(at("t").value) + way * Math.min(now - before, 100) / 4000;
    before = now;
    if (t >= 1 || t <= 0) way = -way;
    t = Math.max(0, Math.min(1, t));
    at("t").step = "any";
    at("t").value = t;
    await stepTo(t);
    requestAnimationFrame(frame);
  };
  if (on) requestAnimationFrame(frame);
}

// ---- Choosing a generator

function still(g, words) {
  at("live").hidden = true;
  at("progress").hidden = true;
  at("stills").hidden = false;
  Object.assign(at("still"), {src: `generators/${g.name}.png`, alt: `24 images of ${g.title}, drawn beforehand`});
  at("status").className = "trouble";
  say(words);
  document.documentElement.dataset.state = "stills";
}

async function open(name, seed = 0, number = 0) {
  const turn = ++loads, g = state.generators.find(one => one.name === name);
  at("picker").querySelectorAll("input").forEach(input => { input.checked = input.value === name; });
  at("about").textContent = g.about;
  document.documentElement.dataset.state = "loading";
  if (typeof WebAssembly !== "object" || typeof Worker !== "function") {
    still(g, "This browser can't run WebAssembly, so nothing can be drawn here. These images were drawn beforehand.");
    return;
  }
  try {
    say(`Loading the generator, ${(g.bytes / 1e6).toFixed(1)} MB.`);
    at("progress").hidden = false;
    engine ??= new Engine();
    await engine.load(`generators/${g.name}.onnx`, g.bytes, part => { at("progress").value = part; });
  } catch (e) {
    if (turn === loads) still(g, `The generator “${g.name}” could not be opened here (${e.message}). These images were drawn beforehand.`);
    return;
  }
  await engine.draw(drawnBy(1, 0, 0, g), 1).catch(() => {}); // the first one is slow, and its speed none
  if (turn === loads) await begin(g, seed, number);
}

async function begin(g, seed, number) {
  state.g = g;
  at("stills").hidden = true;
  at("progress").hidden = true;
  at("live").hidden = false;
  at("status").className = "";
  at("measured").replaceChildren();
  Object.assign(at("which"), {max: g.z_dim, value: 1});
  Object.assign(at("value"), {min: -most(), max: most()});
  state.around = 0;
  buildDirections();
  buildClasses();
  tiles("around", AROUND + 1, i => i ? `Neighbour ${i}` : "The image itself", i => {
    if (i) choose(state.near[i], null);
  });
  at("strip").replaceChildren(...Array.from({length: STRIP}, () => document.createElement("canvas")));
  [state.a, state.b] = [0, 1].map(i => ({input: drawnBy(1, seed, i), says: named(numbered(seed, i))}));
  const whole = setSeed(seed, number);
  walkChanged();
  await whole;
  if (state.g === g) document.documentElement.dataset.state = "ready";
}

function fromHash() {
  const [name, seed, number] = decodeURIComponent(location.hash.slice(1)).split("/");
  const count = text => /^\d{1,9}$/.test(text ?? "") ? Number(text) : 0;
  const there = state.generators.some(g => g.name === name);
  return [there ? name : state.generators[0].name, count(seed), Math.min(count(number), 9999), there || !name ? "" :
    `There is no generator “${name}” here; there are ${state.generators.map(g => g.name).join(", ")}.`];
}

function listen() {
  at("reset").addEventListener("click", reset);
  at("as-a").addEventListener("click", () => { state.a = end(); walkChanged(); });
  at("as-b").addEventListener("click", () => { state.b = end(); walkChanged(); });
  at("again").addEventListener("click", () => setSeed((state.seed + 1) % 2 ** 32));
  at("seed").addEventListener("change", () => setSeed(Math.max(0, Math.min(2 ** 32 - 1, Math.floor(Number(at("seed").value)) || 0))));
  at("reach").addEventListener("input", () => { at("reach-out").textContent = Number(at("reach").value).toFixed(2); drawAround(current()); });
  at("others").addEventListener("click", () => { state.around++; drawAround(current()); });
  at("t").addEventListener("input", () => stepTo(Number(at("t").value)));
  at("play").addEventListener("click", play);
  at("take").addEventListener("click", () => { choose(onTheWay(Number(at("t").value)), null); at("one").scrollIntoView(); });
  at("value").addEventListener("input", () => setNumber(Number(at("which").value) - 1, Number(at("value").value)));
  at("which").addEventListener("input", () => { whichNumber(Math.floor(Number(at("which").value) || 1) - 1); drawBars(zOf(current())); showValue(current()); });
  for (const kind of ["pointerdown", "pointermove"]) at("bars").addEventListener(kind, dragBars);
  at("copy").addEventListener("click", copy);
  window.addEventListener("resize", () => state.input && drawBars(zOf(current())));
  window.addEventListener("unhandledrejection", e => state.g && still(state.g, `Drawing failed (${e.reason?.message ?? e.reason}). These images were drawn beforehand.`));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => state.input && drawBars(zOf(current())));
}

async function copy() {
  try {
    await navigator.clipboard.writeText(at("python").textContent);
    say("The line is copied.");
  } catch {
    getSelection().selectAllChildren(at("python"));
    say("The line is selected: copy it by the keyboard.");
  }
}

// One of several round buttons, with its word.
function choice(group, value, word, chosen) {
  const label = document.createElement("label"), input = document.createElement("input");
  Object.assign(input, {type: "radio", name: group, value});
  input.addEventListener("change", chosen);
  label.append(input, word);
  return label;
}

async function main() {
  const mode = localStorage.getItem("mode"); // the site's own choice of light and dark
  if (mode === "dark" || mode === "light") document.documentElement.dataset.theme = mode;
  try {
    state.generators = await (await fetch("generators/generators.json")).json();
  } catch {
    say("The list of generators is not here: build this page by `make playground`, and look at it through a web server.");
    return;
  }
  at("picker").append(...state.generators.map(g => choice("generator", g.name, g.title, () => open(g.name))));
  listen();
  at("reach-out").textContent = Number(at("reach").value).toFixed(2);
  const [name, seed, number, trouble] = fromHash();
  await open(name, seed, number);
  if (trouble) {
    at("status").className = "trouble";
    say(trouble);
  }
}

main();
