// What is shown, and how it is written into a link. A face is a random one with changes:
//   {prior, seed, temperature, finer, latents: {number: value}, attributes: {name: strength}}
// where `finer`, the temperature of the finer levels, is there for a hierarchical model alone;
// a view is {face, a, b, between}: the face of the sliders, the two that were kept, and null or the place
// from 0 (A) to 1 (B) that is shown instead.

import { LARGEST_SEED, sampleLatents } from "./sampling.js";

export const LATENT_RANGE = 3; // in units of demo.latents.unit, around the mean
export const STRENGTH_RANGE = 3; // in standard deviations of faces along the direction
export const LARGEST_TEMPERATURE = 1.5;
const FINER_TEMPERATURE = 0.3; // at 1 the finer levels draw texture over the face, at 0 none at all

export function newFace(demo, seed) {
  const finer = demo.latents.finer.count ? { finer: FINER_TEMPERATURE } : {};
  return { prior: demo.priors[0].name, seed, temperature: 0.8, ...finer, latents: {}, attributes: {} };
}

/** The random latents with those of the sliders in their place, before attributes. */
export function unmovedLatents(demo, face) {
  const prior = demo.priors.find(({ name }) => name === face.prior);
  const finer = { count: demo.latents.finer.count, temperature: face.finer };
  const latents = Float32Array.from(sampleLatents(prior, face.seed, face.temperature, finer));
  for (const [latent, value] of Object.entries(face.latents)) {
    latents[latent] = demo.latents.mean[latent] + value * demo.latents.unit[latent];
  }
  return latents;
}

/** Adds each attribute's direction times its strength; strength 1 is one standard deviation of faces along it. */
export function latentsOfFace(demo, face) {
  const latents = unmovedLatents(demo, face);
  for (const { name, vector, spread } of demo.attributes) {
    const strength = face.attributes[name] ?? 0;
    if (strength) vector.forEach((value, latent) => (latents[latent] += strength * spread * value));
  }
  return latents;
}

export function latentsOfView(demo, { face, a, b, between }) {
  if (between === null) return latentsOfFace(demo, face);
  const end = latentsOfFace(demo, b);
  return latentsOfFace(demo, a).map((start, latent) => (1 - between) * start + between * end[latent]);
}

function faceToText({ latents, attributes, ...settings }) {
  const parameters = new URLSearchParams(settings);
  for (const [latent, value] of Object.entries(latents)) parameters.set(`latent.${latent}`, value);
  for (const [name, strength] of Object.entries(attributes)) {
    if (strength) parameters.set(`attribute.${name}`, strength);
  }
  return parameters.toString();
}

export function viewToFragment({ face, a, b, between }) {
  const parameters = new URLSearchParams(faceToText(face));
  if (a) parameters.set("a", faceToText(a));
  if (b) parameters.set("b", faceToText(b));
  if (between !== null) parameters.set("between", between);
  return `#${parameters}`;
}

/** What a link asks for, and what of that this model does not have: `problems`, in words. */
export function viewFromFragment(demo, fragment, seedWithoutOne) {
  const problems = [];
  const parameters = new URLSearchParams(fragment.replace(/^#/, ""));
  const kept = ["a", "b"].map((name) => {
    const text = parameters.get(name);
    return text === null ? null : faceFromParameters(demo, new URLSearchParams(text), seedWithoutOne, problems);
  });
  const between = parameters.has("between") ? Number(parameters.get("between")) : null;
  const isPlace = between !== null && between >= 0 && between <= 1;
  if (between !== null && !(isPlace && kept[0] && kept[1])) problems.push("between");
  for (const name of ["a", "b", "between"]) parameters.delete(name);
  const face = faceFromParameters(demo, parameters, seedWithoutOne, problems);
  return { view: { face, a: kept[0], b: kept[1], between: isPlace && kept[0] && kept[1] ? between : null }, problems };
}

function faceFromParameters(demo, parameters, seed, problems) {
  const face = newFace(demo, seed);
  for (const [name, text] of parameters) if (!take(demo, face, name, text)) problems.push(`${name}=${text}`);
  return face;
}

/** Puts one setting of a link into the face; false where this model has no such setting. */
function take(demo, face, name, text) {
  const value = Number(text);
  if (name === "prior") {
    const known = demo.priors.some((prior) => prior.name === text);
    if (known) face.prior = text;
    return known;
  }
  if (text.trim() === "" || !Number.isFinite(value)) return false;
  const [kind, which] = name.split(/\.(.*)/);
  if (name === "seed" && Number.isInteger(value) && value >= 0 && value <= LARGEST_SEED) face.seed = value;
  else if (name === "temperature" && value >= 0 && value <= LARGEST_TEMPERATURE) face.temperature = value;
  else if (name === "finer" && "finer" in face && value >= 0 && value <= LARGEST_TEMPERATURE) face.finer = value;
  else if (kind === "latent" && /^\d+$/.test(which) && which < demo.latents.mean.length && within(value, LATENT_RANGE))
    face.latents[Number(which)] = value;
  else if (kind === "attribute" && demo.attributes.some((one) => one.name === which) && within(value, STRENGTH_RANGE))
    face.attributes[which] = value;
  else return false;
  return true;
}

const within = (value, range) => Math.abs(value) <= range;
