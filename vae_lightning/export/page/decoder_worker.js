import * as ort from "./ort.wasm.bundle.min.mjs";

ort.env.wasm.numThreads = 1; // more need a server that isolates the page from others
let session = null;

self.onmessage = async ({ data }) => {
  try {
    if (data.kind === "load") {
      await load(data.modelFile, data.runtimeFile);
      self.postMessage({ kind: "ready" });
    } else {
      const answer = await decode(data.latents);
      self.postMessage(answer, [answer.pixels.buffer]);
    }
  } catch (error) {
    self.postMessage({ kind: "problem", reason: String(error?.message ?? error) });
  }
};

async function load(modelFile, runtimeFile) {
  let bytes = 0;
  const count = (more) => self.postMessage({ kind: "progress", bytes: (bytes += more) });
  const [model, runtime] = await Promise.all([read(modelFile, count), read(runtimeFile, count)]);
  ort.env.wasm.wasmBinary = runtime.buffer;
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
}

async function read(file, count) {
  const response = await fetch(file);
  if (!response.ok) throw new Error(`${file} cannot be read: the server says ${response.status}`);
  const reader = response.body.getReader();
  const parts = [];
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    count(part.value.length);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** Float32 latents -> pixels in [0, 1], channel after channel. */
async function decode(latents) {
  const start = performance.now();
  const input = new ort.Tensor("float32", latents, [1, latents.length]);
  const outputs = await session.run({ [session.inputNames[0]]: input });
  const pixels = Float32Array.from(outputs[session.outputNames[0]].data);
  return { kind: "decoded", pixels, milliseconds: performance.now() - start };
}
