// Draw a picture with boxes and labels on a canvas.

const FONT_FAMILY = '"Helvetica Neue", "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif';
const PADDING = 4;
/** Width of a picture in CSS pixels below which labels have smaller letters. */
const NARROW = 480;
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
  const scaled = detections.map((detection) => ({ ...detection, box: detection.box.map((value) => value * scale) }));
  for (const detection of [...scaled].reverse()) drawBox(context, detection);
  if (detections.length <= CROWD) drawLabels(context, scaled, width, height);
}

function drawBox(context, { box: [left, top, right, bottom], color }) {
  context.lineJoin = "round";
  for (const [style, lineWidth] of [["rgb(0 0 0 / .45)", 4], [color, 2]]) {
    context.strokeStyle = style;
    context.lineWidth = lineWidth;
    context.strokeRect(left, top, right - left, bottom - top);
  }
}

/** Draw labels, the best on top. Each is placed where it covers least of the better ones, always in the picture. */
function drawLabels(context, detections, width, height) {
  const letters = width < NARROW ? 11 : 13;
  const labelHeight = letters + 5;
  context.font = `600 ${letters}px ${FONT_FAMILY}`;
  const labels = [];
  for (const { box: [left, top, right, bottom], color, name, score } of detections) {
    const text = `${name} ${score.toFixed(2)}`;
    const labelWidth = Math.min(context.measureText(text).width + 2 * PADDING, width);
    const places = [
      [left - 1, top - labelHeight], // above the box
      [left - 1, top], // in the box
      [left - 1, bottom], // below the box
      [right - labelWidth + 1, top - labelHeight],
      [right - labelWidth + 1, bottom],
    ].map(([x, y]) => [clamp(x, 0, width - labelWidth), clamp(y, 0, height - labelHeight), labelWidth, labelHeight]);
    const covered = places.map((place) => labels.reduce((sum, other) => sum + computeOverlap(place, other.place), 0));
    labels.push({ place: places[covered.indexOf(Math.min(...covered))], color, text });
  }
  for (const { place, color, text } of labels.reverse()) {
    context.fillStyle = color;
    context.fillRect(...place);
    context.fillStyle = isLight(color) ? "#000" : "#fff";
    context.fillText(text, place[0] + PADDING, place[1] + letters, place[2] - 2 * PADDING);
  }
}

function clamp(value, low, high) {
  return Math.max(low, Math.min(value, high));
}

/** Return the area that two rectangles [x, y, width, height] have in common. */
function computeOverlap(first, second) {
  const [width, height] = [0, 1].map(
    (axis) =>
      Math.min(first[axis] + first[axis + 2], second[axis] + second[axis + 2]) - Math.max(first[axis], second[axis]),
  );
  return Math.max(width, 0) * Math.max(height, 0);
}

/** Return whether black letters are easier to read on a color, such as "#ffd700", than white ones. */
function isLight(color) {
  const [red, green, blue] = [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 150;
}
