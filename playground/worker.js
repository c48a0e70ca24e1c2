// A generator in a thread of its own, so that the page stays quick while it draws. Messages: {id, model} loads one,
// {id, z, n} draws n images; the answers are {id, x} or {id, error}.
import * as ort from "./ort/ort.wasm.bundle.min.mjs";

ort.env.wasm.numThreads = 1; // more would need headers that a plain server does not send
ort.env.wasm.wasmPaths = {wasm: new URL("./ort/ort-wasm-simd-threaded.wasm", import.meta.url).href};
let session = null;

async function answer({model, z, n}) {
  if (model) {
    await session?.release();
    session = null;
    session = await ort.InferenceSession.create(model, {executionProviders: ["wasm"]});
    return null;
  }
  const {x} = await session.run({z: new ort.Tensor("float32", z, [n, z.length / n])});
  return x.data;
}

// One after the other: a session runs one batch at a time.
let queue = Promise.resolve();
self.onmessage = ({data}) => {
  queue = queue.then(() => answer(data)).then(
    x => self.postMessage({id: data.id, x}, x ? [x.buffer] : []),
    e => self.postMessage({id: data.id, error: String(e?.message ?? e)}));
};
