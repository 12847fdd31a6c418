// Runs the ONNX file with onnxruntime-web, beside the page, so that the page stays usable meanwhile.

import * as ort from "./onnxruntime.js";
import { reduceToFit } from "./reduction.js";

const MAX_THREADS = 4;
let session;
let maxImageSize;

const handlers = {
  /** Load the detector. */
  async load(request) {
    maxImageSize = request.maxImageSize;
    ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", import.meta.url).href };
    // Threads share memory, which browsers allow only on pages that are isolated from other origins.
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency ?? 1, MAX_THREADS) : 1;
    const response = await fetch(request.model);
    if (!response.ok) throw new Error(`${request.model}: HTTP status ${response.status}`);
    session = await ort.InferenceSession.create(new Uint8Array(await response.arrayBuffer()), {
      executionProviders: ["wasm"],
    });
  },

  /** Detect objects in a picture, and return them with boxes in its pixels. */
  async detect({ pixels, width, height }) {
    const start = performance.now();
    const reduced = reduceToFit({ pixels, width, height }, maxImageSize);
    const images = new ort.Tensor("uint8", reduced.pixels, [1, reduced.height, reduced.width, 3]);
    const { boxes, scores, labels, count } = await session.run({ images });
    const milliseconds = performance.now() - start;
    const scales = [width / reduced.width, height / reduced.height];
    const detections = Array.from({ length: count.data[0] }, (_, i) => ({
      class_index: labels.data[i] - 1,
      score: scores.data[i],
      box: Array.from(boxes.data.subarray(4 * i, 4 * i + 4), (value, axis) => value * scales[axis % 2]),
    }));
    return { width, height, detections, milliseconds };
  },
};

self.onmessage = async ({ data: { id, kind, request } }) => {
  try {
    self.postMessage({ id, result: await handlers[kind](request) });
  } catch (error) {
    self.postMessage({ id, error: String(error?.message ?? error) });
  }
};
