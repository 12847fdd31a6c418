// Draw a picture with boxes and labels on a canvas.

const FONT = '600 13px "Helvetica Neue", "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif';
const LABEL_HEIGHT = 18;
const PADDING = 4;
/** Number of boxes above which only boxes are drawn, because labels would cover the picture. */
const CROWD = 60;

/**
 * Draw a picture that fills the width of its container, and boxes with class names and scores.
 *
 * @param {HTMLCanvasElement} canvas Canvas to draw on. Its size is changed.
 * @param {ImageBitmap} bitmap The picture.
 * @param {{name: string, color: string, score: number, box: number[]}[]} detections Detections, best first.
 */
export function drawDetections(canvas, bitmap, detections) {
  const available = canvas.parentElement.clientWidth;
  const largest = Math.max(window.innerHeight * 0.8, 320);
  const scale = Math.min(available / bitmap.width, largest / bitmap.height, Math.max(2, 480 / bitmap.width));
  const [width, height] = [bitmap.width * scale, bitmap.height * scale];
  const density = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * density));
  canvas.height = Math.max(1, Math.round(height * density));
  canvas.style.width = `${width}px`;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  context.setTransform(canvas.width / width, 0, 0, canvas.height / height, 0, 0);
  const worstFirst = [...detections].reverse();
  const scaled = worstFirst.map((detection) => ({ ...detection, box: detection.box.map((value) => value * scale) }));
  for (const detection of scaled) drawBox(context, detection);
  if (detections.length <= CROWD) {
    context.font = FONT;
    for (const detection of scaled) drawLabel(context, detection, width, height);
  }
}

function drawBox(context, { box: [left, top, right, bottom], color }) {
  context.lineJoin = "round";
  for (const [style, lineWidth] of [["rgb(0 0 0 / .45)", 4], [color, 2]]) {
    context.strokeStyle = style;
    context.lineWidth = lineWidth;
    context.strokeRect(left, top, right - left, bottom - top);
  }
}

/** Draw a label above the upper left corner of a box, or inside of it if there is no room, always in the picture. */
function drawLabel(context, { box: [left, top], color, name, score }, width, height) {
  const text = `${name} ${score.toFixed(2)}`;
  const labelWidth = Math.min(context.measureText(text).width + 2 * PADDING, width);
  const x = Math.max(0, Math.min(left - 1, width - labelWidth));
  const y = Math.min(top >= LABEL_HEIGHT ? top - LABEL_HEIGHT : Math.max(top, 0), height - LABEL_HEIGHT);
  context.fillStyle = color;
  context.fillRect(x, y, labelWidth, LABEL_HEIGHT);
  context.fillStyle = isLight(color) ? "#000" : "#fff";
  context.fillText(text, x + PADDING, y + LABEL_HEIGHT - 5, labelWidth - 2 * PADDING);
}

/** Return whether black letters are easier to read on a color, such as "#ffd700", than white ones. */
function isLight(color) {
  const [red, green, blue] = [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 150;
}
