// Latents from a prior. Random numbers: mulberry32 and the Box–Muller transform, so that a seed gives the same face in
// every browser. They are not PyTorch's: `vae sample --seed` draws other faces from the same seed.

export const LARGEST_SEED = 2 ** 32 - 1;

/** A function that gives uniform numbers in (0, 1). */
export function uniformNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (((mixed ^ (mixed >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
}

/** Standard normal numbers, as many as asked for. */
export function normalNumbers(count, uniform) {
  const numbers = new Float64Array(count);
  for (let index = 0; index < count; index += 2) {
    const radius = Math.sqrt(-2 * Math.log(uniform()));
    const angle = 2 * Math.PI * uniform();
    numbers[index] = radius * Math.cos(angle);
    if (index + 1 < count) numbers[index + 1] = radius * Math.sin(angle);
  }
  return numbers;
}

/**
 * One sample. Temperature scales the spread around the component's centre, as in Python.
 * A component has a `mean` and either a `spread` for each latent or `cholesky`, the lower triangle row by row.
 * `finer` is {count, temperature}: so many latents of N(0, I) follow, those of a hierarchical model's finer levels.
 */
export function sampleLatents(prior, seed, temperature, finer = { count: 0, temperature: 0 }) {
  const uniform = uniformNumbers(seed);
  const coarse = sampleComponent(choose(prior.components, uniform()), uniform, temperature);
  return [...coarse, ...normalNumbers(finer.count, uniform).map((number) => finer.temperature * number)];
}

function sampleComponent(component, uniform, temperature) {
  const noise = normalNumbers(component.mean.length, uniform).map((number) => temperature * number);
  if (component.spread) return component.mean.map((mean, row) => mean + component.spread[row] * noise[row]);
  let entry = 0;
  return component.mean.map((mean, row) => {
    let sum = mean;
    for (let column = 0; column <= row; column += 1) sum += component.cholesky[entry++] * noise[column];
    return sum;
  });
}

function choose(components, share) {
  let sum = 0;
  for (const component of components) {
    sum += component.weight;
    if (share < sum) return component;
  }
  return components.at(-1);
}

/** base64 of little-endian float32, as demo.json holds large arrays. */
export function unpackFloats(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
}
