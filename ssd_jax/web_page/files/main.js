// Start the page, and connect its parts.

import { createBackend } from "./backends.js";
import { startCamera } from "./camera.js";
import { drawDetections } from "./drawing.js";
import { createPanel, describeDetections } from "./panel.js";
import { UserError, decodePicture } from "./picture.js";

const find = (id) => document.getElementById(id);
const canvas = find("canvas");
/** The picture that is shown: its name, the bitmap, the result of the backend, and the detections that are drawn. */
let shown = null;
let backend;
let config;
let panel;
let stopCamera = null;
/** Number of the newest picture. Results of older ones are dropped. */
let newest = 0;

function showMessage(text) {
  find("message").textContent = text;
  find("message").hidden = !text;
}

function showError(error) {
  if (!(error instanceof UserError)) console.error(error);
  showMessage(error instanceof UserError ? error.message : `Something failed: ${error?.message ?? error}`);
}

/** Draw the shown picture and its boxes in the size that there is room for. */
function draw() {
  if (shown) drawDetections(canvas, shown.bitmap, shown.chosen);
}

/** Show the picture with the detections that the panel lets through. */
function update() {
  if (!shown) return;
  shown.chosen = panel.choose(shown.result.detections);
  draw();
  panel.showRows(shown.chosen);
  const description = describeDetections(shown.chosen);
  canvas.setAttribute("aria-label", `${shown.name} with boxes. ${description}`);
  if (!stopCamera) find("status").textContent = `${shown.name}: ${description}`;
}

/**
 * Detect objects in a picture, and show it unless a newer one was opened meanwhile. The bitmap is closed when another
 * one takes its place.
 */
async function detect(number, name, bitmap, blob) {
  const result = await backend.detect(bitmap, blob);
  if (number !== newest) return bitmap.close();
  shown?.bitmap.close();
  shown = { name, bitmap, result, chosen: [] };
  canvas.hidden = false;
  find("invitation").hidden = true;
  find("drop").classList.add("filled");
  find("save").disabled = false;
  panel.showTime(result.milliseconds);
  update();
}

/** Show a picture that was chosen, dropped or pasted. */
async function openPicture(blob, name) {
  stopCamera?.();
  const number = ++newest;
  showMessage("");
  find("status").textContent = `${name}: detecting …`;
  try {
    const bitmap = await decodePicture(blob, name);
    await detect(number, name, bitmap, blob);
  } catch (error) {
    if (number !== newest) return;
    find("status").textContent = "";
    update(); // the picture before remains
    showError(error);
  }
}

function openFiles(files) {
  if (files?.length) openPicture(files[0], files[0].name || "picture");
  else showMessage("That contains no file. Save the picture first, and then choose or drop its file.");
}

async function toggleCamera() {
  if (stopCamera) return stopCamera();
  showMessage("");
  const button = find("camera");
  button.disabled = true;
  try {
    stopCamera = await startCamera(
      (frame) => detect(++newest, "camera", frame),
      (error) => {
        stopCamera = null;
        button.textContent = "Use the camera";
        update();
        if (error) showError(error);
      },
    );
    button.textContent = "Stop the camera";
    find("status").textContent = "The camera is on.";
  } catch (error) {
    showError(error);
  } finally {
    button.disabled = false;
  }
}

/** Save all detections of the shown picture that the panel lets through. */
function saveDetections() {
  const { width, height, milliseconds, detections } = shown.result;
  const rows = panel.choose(detections).map((row) => ({
    class_name: row.name,
    class_index: row.class_index,
    score: row.score,
    box: row.box,
  }));
  const content = { detector: config.name, image: shown.name, width, height, milliseconds, detections: rows };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
  link.download = `${shown.name.replace(/\.[^.]*$/, "")}_detections.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function connect() {
  find("choose").addEventListener("click", () => find("file").click());
  find("file").addEventListener("change", ({ target }) => {
    if (target.files.length) openFiles(target.files);
    target.value = ""; // so that the same file can be chosen again
  });
  find("camera").addEventListener("click", toggleCamera);
  find("save").addEventListener("click", saveDetections);
  document.addEventListener("paste", ({ clipboardData }) => openFiles(clipboardData.files));
  for (const [type, isOver] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    document.addEventListener(type, (event) => {
      event.preventDefault();
      find("drop").classList.toggle("over", isOver);
    });
  }
  document.addEventListener("drop", ({ dataTransfer }) => openFiles(dataTransfer.files));
  new ResizeObserver(draw).observe(find("drop").parentElement);
}

function addParagraph(...content) {
  const paragraph = document.createElement("p");
  paragraph.append(...content);
  find("about").append(paragraph);
}

function describePage() {
  document.title = `${config.name} – detector`;
  find("title").textContent = config.name;
  const names = config.class_names;
  const listed = names.slice(0, 12).join(", ");
  find("classes-line").textContent =
    names.length > 12 ? `Detects ${names.length} classes: ${listed}, …` : `Detects ${listed}`;
  const lines = [backend.about, config.license && `License of the detector: ${config.license}.`, config.about];
  for (const line of lines.filter(Boolean)) addParagraph(line);
  if (config.backend === "onnx") {
    const link = Object.assign(document.createElement("a"), { textContent: "license", href: "onnxruntime_license.txt" });
    addParagraph("It is run by ONNX Runtime Web (", link, ").");
  }
}

/** Show the picture that the address names, such as ?image=photo.jpg. It must be on the same server. */
async function openLinkedPicture() {
  const address = new URLSearchParams(location.search).get("image");
  if (!address) return;
  const name = address.split("/").pop();
  try {
    const response = await fetch(address);
    if (!response.ok) throw new UserError(`${name}: there is no such picture (HTTP status ${response.status}).`);
    await openPicture(await response.blob(), name);
  } catch (error) {
    showError(error instanceof UserError ? error : new UserError(`${name}: the picture cannot be loaded.`));
  }
}

async function start() {
  find("not-started").remove();
  find("detector").hidden = false;
  find("status").textContent = "Loading the detector …";
  for (const button of document.querySelectorAll("button")) button.disabled = true;
  try {
    const response = await fetch("config.json");
    if (!response.ok) throw new UserError(`The file config.json of the page is missing (HTTP status ${response.status}).`);
    config = await response.json();
    panel = createPanel(config, update);
    backend = await createBackend(config);
  } catch (error) {
    find("status").textContent = "";
    return showError(error);
  }
  describePage();
  connect();
  for (const button of document.querySelectorAll("button:not(#save)")) button.disabled = false;
  find("status").textContent = "The detector is ready.";
  document.documentElement.dataset.state = "ready";
  await openLinkedPicture();
}

start();
