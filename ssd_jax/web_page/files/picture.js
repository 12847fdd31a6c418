// Decode pictures in the browser, and read their pixels as the command `predict` reads them.

/** Number of rows that are read at a time. Browsers limit the area of a canvas, and phones to less than a photograph. */
const ROWS = 256;

/** An error whose message is written for the person who uses the page. */
export class UserError extends Error {}

/**
 * Decode a picture. It is turned upright by its EXIF orientation, and its colors are not converted.
 *
 * @param {Blob} blob Content of a file.
 * @param {string} name Name of the file for messages.
 * @returns {Promise<ImageBitmap>} The picture at its full size.
 */
export async function decodePicture(blob, name) {
  if (!blob.size) throw new UserError(`${name}: the file is empty.`);
  await checkIsComplete(blob, name);
  try {
    return await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    const type = blob.type ? ` (${blob.type})` : "";
    throw new UserError(
      `${name}: this browser cannot read the file${type} as a picture. It may be damaged, or of another kind. ` +
        "JPEG, PNG, WebP, GIF and BMP are read everywhere.",
    );
  }
}

/** Throw an error for a JPEG file without an end marker. Some browsers fill the missing part with gray. */
async function checkIsComplete(blob, name) {
  const start = new Uint8Array(await blob.slice(0, 3).arrayBuffer());
  if (start[0] !== 0xff || start[1] !== 0xd8 || start[2] !== 0xff) return;
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const scan = findScan(bytes);
  for (let i = bytes.length - 2; i > scan; i--) {
    if (bytes[i] === 0xff && bytes[i + 1] === 0xd9) return;
  }
  throw new UserError(`${name}: the file is truncated: its end is missing. Copy it again.`);
}

/** Return the position after the headers of a JPEG file, which may contain a small picture with an end of its own. */
function findScan(bytes) {
  let position = 2;
  while (position + 3 < bytes.length && bytes[position] === 0xff && bytes[position + 1] !== 0xda) {
    const isFill = bytes[position + 1] === 0xff;
    position += isFill ? 1 : 2 + bytes[position + 2] * 256 + bytes[position + 3];
  }
  return position;
}

/**
 * Return the RGB pixels of a picture without scaling it. Transparent pixels are blended with white.
 *
 * @param {ImageBitmap} bitmap The picture.
 * @returns {Uint8Array} Pixels, row by row, three bytes each.
 */
export function readPixels(bitmap) {
  const { width, height } = bitmap;
  const rows = Math.min(ROWS, height);
  const canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  const pixels = new Uint8Array(width * height * 3);
  for (let top = 0, target = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, top, width, count, 0, 0, width, count);
    const { data } = context.getImageData(0, 0, width, count);
    for (let source = 0; source < data.length; source += 4) {
      pixels[target++] = data[source];
      pixels[target++] = data[source + 1];
      pixels[target++] = data[source + 2];
    }
  }
  return pixels;
}
