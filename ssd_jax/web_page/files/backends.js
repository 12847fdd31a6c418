// Ways to detect objects in a picture: in the browser, or by a server.
//
// A backend has `about`, a sentence on where pictures go, and `detect(bitmap, blob)`. It returns
// {width, height, milliseconds, detections: [{class_index, score, box: [x_min, y_min, x_max, y_max]}]}, best first,
// with boxes in pixels of the picture.

import { UserError, readPixels } from "./picture.js";

/**
 * Create the backend that the config of the page names, and load what it needs.
 *
 * @param {object} config Content of config.json.
 */
export async function createBackend(config) {
  return config.backend === "server" ? createServerBackend(config) : createOnnxBackend(config);
}

function createServerBackend(config) {
  return {
    about: "Pictures are sent to the server of this page, which detects the objects.",
    async detect(bitmap, blob) {
      const body = blob ?? (await encodePicture(bitmap));
      let response;
      try {
        response = await fetch(config.detect_url, { method: "POST", body });
      } catch {
        throw new UserError("The server does not answer. Is it still running?");
      }
      const answer = await response.json().catch(() => ({}));
      if (!response.ok || !answer.detections) {
        const { detail } = answer;
        throw new UserError(typeof detail === "string" ? detail : `The server answered with status ${response.status}.`);
      }
      return answer;
    },
  };
}

/** Return a frame of a camera as a JPEG file. */
async function encodePicture(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
}

async function createOnnxBackend(config) {
  const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  const waiting = new Map();
  let lastId = 0;

  function call(kind, request, transferred = []) {
    return new Promise((resolve, reject) => {
      waiting.set(++lastId, { resolve, reject });
      worker.postMessage({ id: lastId, kind, request }, transferred);
    });
  }

  worker.onmessage = ({ data: { id, result, error } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) resolve(result);
    else reject(new UserError(`The detector failed: ${error}`));
  };
  worker.onerror = () => {
    for (const { reject } of waiting.values()) {
      reject(new UserError("The detector cannot be started. Is a file of the page missing, or the browser too old?"));
    }
    waiting.clear();
  };

  await call("load", { model: new URL(config.model, document.baseURI).href, maxImageSize: config.max_image_size });
  return {
    about: "Pictures stay on this device: the detector runs in the browser.",
    async detect(bitmap) {
      const pixels = readPixels(bitmap);
      return call("detect", { pixels, width: bitmap.width, height: bitmap.height }, [pixels.buffer]);
    },
  };
}
