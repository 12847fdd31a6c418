// Pictures of the camera.

import { UserError } from "./picture.js";

/**
 * Start the camera, and call a function with each frame until the camera is stopped. A frame is taken after the function
 * is done with the one before.
 *
 * @param {(frame: ImageBitmap) => Promise<void>} handleFrame Function of a frame. If it fails, the camera stops.
 * @param {(error?: Error) => void} handleEnd Function that is called after the camera has stopped, perhaps by an error.
 * @returns {Promise<() => void>} Function that stops the camera.
 */
export async function startCamera(handleFrame, handleEnd) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new UserError("Browsers give the camera only to pages with an https address, or on localhost.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    throw new UserError(
      error.name === "NotAllowedError" ? "The camera is not allowed for this page." : "No camera can be used.",
    );
  }
  const video = document.createElement("video");
  video.playsInline = video.muted = true;
  video.srcObject = stream;
  let isRunning = true;

  function stop(error) {
    if (!isRunning) return;
    isRunning = false;
    for (const track of stream.getTracks()) track.stop();
    handleEnd(error);
  }

  async function run() {
    try {
      await video.play();
      while (isRunning) {
        // A hidden page gets no frames for drawing, so the loop waits while it is hidden.
        await new Promise(requestAnimationFrame);
        if (video.videoWidth) await handleFrame(await createImageBitmap(video));
      }
    } catch (error) {
      stop(error);
    }
  }

  for (const track of stream.getTracks()) track.onended = () => stop(new UserError("The camera was switched off."));
  run();
  return () => stop();
}
