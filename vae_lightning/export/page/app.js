import { drawPicture, savePicture } from "./controls.js";
import { Decoder } from "./decoder.js";
import { latentsOfFace, latentsOfView, newFace, viewFromFragment, viewToFragment } from "./faces.js";
import { Panel } from "./panel.js";
import { unpackFloats } from "./sampling.js";

const LINK_DELAY_MS = 300; // browsers refuse to change an address too often
const SPEED_PICTURES = 15; // that the shown time is the median of
const MEGABYTE = 1e6;

const at = (id) => document.getElementById(id);
const randomSeed = () => Math.floor(Math.random() * 1_000_000);
const times = [];
let decoder;
let demo;
let panel;
let view;
let linkTimer;

function say(words, isProblem = false) {
  at("status").className = isProblem ? "problem" : "";
  at("status").textContent = words;
}

async function readDescription() {
  const response = await fetch("demo.json");
  if (!response.ok) throw new Error(`demo.json cannot be read: the server says ${response.status}`);
  const content = await response.json();
  for (const component of content.priors.flatMap((prior) => prior.components)) {
    if (component.cholesky) component.cholesky = unpackFloats(component.cholesky);
  }
  return content;
}

async function show() {
  const latents = latentsOfView(demo, view);
  at("shown").textContent = describe();
  at("face").setAttribute("aria-label", `Face: ${describe()}`);
  clearTimeout(linkTimer);
  linkTimer = setTimeout(writeLink, LINK_DELAY_MS);
  if (!(await draw(at("face"), latents, true))) return;
  window.demo = { latents: Array.from(latents), pictures: window.demo.pictures + 1 };
}

/** True once the picture is there; false where a newer one follows, or after an error. */
async function draw(canvas, latents, mayBeDropped = false) {
  try {
    const answer = await decoder.decode(latents, mayBeDropped);
    if (!answer) return false;
    drawPicture(canvas, answer.pixels, demo.image_size);
    if (window.demo.pictures) showSpeed(answer.milliseconds); // the first picture also sets things up
    return true;
  } catch (error) {
    say(`The picture could not be computed: ${error.message}`, true);
    return false;
  }
}

function showSpeed(milliseconds) {
  times.push(milliseconds);
  if (times.length > SPEED_PICTURES) times.shift();
  const median = [...times].sort((one, other) => one - other)[Math.floor(times.length / 2)];
  at("speed").textContent = `· ${median < 10 ? median.toFixed(1) : Math.round(median)} ms per picture`;
}

function describe() {
  if (view.between !== null) return `${Math.round(100 * view.between)} % of the way from A to B`;
  const moved = [...Object.values(view.face.latents), ...Object.values(view.face.attributes).filter(Boolean)].length;
  return `seed ${view.face.seed}${moved ? `, ${moved} ${moved > 1 ? "sliders" : "slider"} moved` : ""}`;
}

function writeLink() {
  clearTimeout(linkTimer);
  history.replaceState(null, "", viewToFragment(view));
}

function drawKept(which) {
  at(`picture-${which}`).setAttribute("aria-label", `Face ${which.toUpperCase()}: seed ${view[which].seed}`);
  return draw(at(`picture-${which}`), latentsOfFace(demo, view[which]));
}

async function openLink() {
  const { view: asked, problems } = viewFromFragment(demo, location.hash, randomSeed());
  view = asked;
  panel.update(view);
  for (const which of ["a", "b"]) {
    if (view[which]) await drawKept(which);
    else at(`picture-${which}`).width = 1; // empties it
  }
  await show();
  if (problems.length) say(`The link asks for what this model does not have: ${problems.join(", ")}.`, true);
}

/** What the person does: each changes the view and shows it. */
const actions = {
  /** The sliders' face is shown from now on, not the way from A to B. */
  change(changes) {
    Object.assign(view.face, changes);
    view.between = null;
    panel.update(view);
    show();
  },
  between(place) {
    view.between = place;
    show();
  },
  keep(which) {
    view[which] = structuredClone(view.face);
    actions.change({});
    say(`Kept as ${which.toUpperCase()}: ${describe()}.`);
    drawKept(which);
  },
  drawNew() {
    actions.change({ seed: randomSeed(), latents: {} });
    say(`New face: ${describe()}.`);
  },
  reset() {
    actions.change({ latents: {}, attributes: {} });
    say("All sliders are back.");
  },
  save() {
    savePicture(at("face"), `face_${describe().replace(/[^\w]+/g, "_")}.png`);
  },
  async copy() {
    writeLink();
    try {
      await navigator.clipboard.writeText(location.href);
      say("The link to this face is copied.");
    } catch {
      say("This browser does not let the page copy: the link to this face is in the address bar.");
    }
  },
};

function showProgress(bytes) {
  const share = (number) => (number / MEGABYTE).toFixed(1);
  say(`Loading the model: ${share(Math.min(bytes, demo.bytes_to_load))} of ${share(demo.bytes_to_load)} MB`);
}

async function start() {
  say("Loading …");
  if (typeof WebAssembly !== "object") throw new Error("it has no WebAssembly. Take a browser of 2023 or later");
  demo = await readDescription();
  document.title = demo.title;
  at("title").textContent = demo.title;
  at("description").textContent = demo.description;
  at("data-note").textContent = demo.data_note;
  decoder = new Decoder();
  await decoder.load("decoder.onnx", "ort-wasm-simd-threaded.wasm", showProgress);
  panel = new Panel(demo, actions);
  window.demo = { latents: [], pictures: 0 }; // for the console: the latents that are shown, and how many pictures were
  document.querySelector("main").hidden = false;
  say("Ready.");
  await openLink();
  addEventListener("hashchange", openLink); // a link that is pasted while the page is open
}

start().catch((error) => say(`The demo cannot run in this browser, or from this server: ${error.message}.`, true));
