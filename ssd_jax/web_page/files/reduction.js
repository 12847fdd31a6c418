// Reduce pictures exactly as Pillow does: Image.resize(size, Resampling.BILINEAR, reducing_gap=3.0).
// The arithmetic is that of Pillow's Resample.c and Reduce.c for 8 bits per channel.

const REDUCING_GAP = 3;
const PRECISION_BITS = 22;

/**
 * A picture: RGB pixels, row by row, three bytes each.
 * @typedef {{pixels: Uint8Array, width: number, height: number}} Picture
 */

/**
 * Return a picture whose longer side is at most a limit, or the picture itself if it is.
 *
 * @param {Picture} picture The picture.
 * @param {number} limit Longest side in pixels.
 * @returns {Picture}
 */
export function reduceToFit(picture, limit) {
  const scale = Math.min(1, limit / picture.height, limit / picture.width);
  const [width, height] = [picture.width, picture.height].map((side) =>
    Math.min(Math.max(roundHalfToEven(side * scale), 1), limit),
  );
  if (width >= picture.width && height >= picture.height) return picture;
  const factorX = Math.trunc(picture.width / width / REDUCING_GAP) || 1;
  const factorY = Math.trunc(picture.height / height / REDUCING_GAP) || 1;
  const box = [picture.width / factorX, picture.height / factorY];
  const averaged = averageBlocks(picture, factorX, factorY);
  // The order changes the rounding. Pillow 13 shrinks tall pictures vertically first; older versions never do.
  return averaged.height - height > 2 * (averaged.width - width)
    ? resampleHorizontally(resampleVertically(averaged, height, box[1]), width, box[0])
    : resampleVertically(resampleHorizontally(averaged, width, box[0]), height, box[1]);
}

function roundHalfToEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2) ? below + 1 : below;
}

/** Return the means of blocks of pixels. Blocks at the right and lower edges may be smaller. */
function averageBlocks(picture, factorX, factorY) {
  if (factorX === 1 && factorY === 1) return picture;
  const [width, height] = [Math.ceil(picture.width / factorX), Math.ceil(picture.height / factorY)];
  const out = new Uint8Array(width * height * 3);
  for (let y = 0, target = 0; y < height; y++) {
    const bottom = Math.min((y + 1) * factorY, picture.height);
    for (let x = 0; x < width; x++) {
      const right = Math.min((x + 1) * factorX, picture.width);
      const count = (bottom - y * factorY) * (right - x * factorX);
      const multiplier = Math.trunc(Math.fround(2 ** 32 / (count * 256)));
      for (let channel = 0; channel < 3; channel++) {
        let sum = count >> 1;
        for (let row = y * factorY; row < bottom; row++) {
          const end = (row * picture.width + right) * 3;
          for (let i = (row * picture.width + x * factorX) * 3 + channel; i < end; i += 3) sum += picture.pixels[i];
        }
        out[target++] = Math.floor((sum * multiplier) / 2 ** 24);
      }
    }
  }
  return { pixels: out, width, height };
}

/**
 * Compute which pixels each pixel of a resized row is made of, and their weights as integers.
 *
 * @param {number} length Number of pixels of the row.
 * @param {number} end End of the part of the row that is resized, in pixels. It may lie inside of the last pixel.
 * @param {number} outLength Number of pixels of the resized row.
 */
function computeWeights(length, end, outLength) {
  const scale = Math.fround(end) / outLength;
  const filterScale = Math.max(scale, 1);
  return Array.from({ length: outLength }, (_, index) => {
    const center = (index + 0.5) * scale;
    const first = Math.max(Math.trunc(center - filterScale + 0.5), 0);
    const last = Math.min(Math.trunc(center + filterScale + 0.5), length);
    const weights = [];
    let total = 0;
    for (let i = first; i < last; i++) {
      const weight = Math.max(1 - Math.abs((i - center + 0.5) * (1 / filterScale)), 0);
      weights.push(weight);
      total += weight;
    }
    return { first, weights: Int32Array.from(weights, (weight) => 0.5 + (weight / total) * 2 ** PRECISION_BITS) };
  });
}

function resampleHorizontally(picture, outWidth, end) {
  const { pixels, width, height } = picture;
  if (outWidth === width && end === width) return picture;
  const table = computeWeights(width, end, outWidth);
  const out = new Uint8Array(outWidth * height * 3);
  for (let y = 0, target = 0; y < height; y++) {
    for (const { first, weights } of table) {
      const start = (y * width + first) * 3;
      for (let channel = 0; channel < 3; channel++) out[target++] = weigh(pixels, start + channel, 3, weights);
    }
  }
  return { pixels: out, width: outWidth, height };
}

function resampleVertically(picture, outHeight, end) {
  const { pixels, width, height } = picture;
  if (outHeight === height && end === height) return picture;
  const out = new Uint8Array(width * outHeight * 3);
  const stride = width * 3;
  let target = 0;
  for (const { first, weights } of computeWeights(height, end, outHeight)) {
    for (let i = 0; i < stride; i++) out[target++] = weigh(pixels, first * stride + i, stride, weights);
  }
  return { pixels: out, width, height: outHeight };
}

/** Return the rounded weighted sum of bytes that lie a step apart. */
function weigh(pixels, start, step, weights) {
  let sum = 1 << (PRECISION_BITS - 1);
  for (let i = 0; i < weights.length; i++) sum += pixels[start + i * step] * weights[i];
  return Math.min(sum >> PRECISION_BITS, 255);
}
