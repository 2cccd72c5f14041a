// From the bytes of an image file to RGB pixels as mien/data/images.py gives them: upright, transparency over white, and
// large JPEG files at a half, a quarter or an eighth of their size as Pillow's decoder gives them.
import { blank } from "./pixels.js";

const JPEG = [0xff, 0xd8, 0xff];
const PNG = [0x89, 0x50, 0x4e, 0x47];
const RIFF = [0x52, 0x49, 0x46, 0x46];
const starts = (bytes, magic) => magic.every((value, index) => bytes[index] === value);

export class ImageError extends Error {}

// The whole photograph as it is stored, and what turns it upright.
export async function decode(file, settings) {
  if (file.size === 0) throw new ImageError("empty");
  const bytes = new Uint8Array(await file.arrayBuffer());
  const orientation = takeOrientation(bytes);
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([bytes]), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new ImageError(starts(bytes, JPEG) || starts(bytes, PNG) ? "truncated" : "not an image");
  }
  const { width, height } = bitmap;
  try {
    if (width * height > settings.max_pixels) throw new ImageError("too large");
    if (Math.min(width, height) < settings.min_side) throw new ImageError("too small");
    return { stored: pixelsOf(bitmap), orientation, jpeg: starts(bytes, JPEG) };
  } finally {
    bitmap.close();
  }
}

function pixelsOf(bitmap) {
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new ImageError("too large");
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const image = blank(width, height);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    image.data[to++] = data[from];
    image.data[to++] = data[from + 1];
    image.data[to++] = data[from + 2];
  }
  return image;
}

// The photograph upright, with at least `longer(its longer side)` pixels of that side where it has them.
export function reduced({ stored, orientation, jpeg }, longer) {
  const [width, height] = orientation > 4 ? [stored.height, stored.width] : [stored.width, stored.height];
  const most = Math.max(width, height);
  const scale = longer(most) / most;
  const image = turned(jpeg && scale < 1 ? fewerPixels(stored, scale) : stored, orientation);
  return { image, width, height, scale: Math.max(image.width, image.height) / most };
}

function fewerPixels(image, scale) {
  const least = [Math.ceil(image.width * scale), Math.ceil(image.height * scale)];
  const times = Math.min(Math.floor(image.width / least[0]), Math.floor(image.height / least[1]));
  const factor = [8, 4, 2].find((one) => times >= one);
  return factor ? fromBlocks(image, 8 / factor) : image;
}

// What a JPEG decoder gives that takes only the `kept` lowest frequencies of each block of 8 pixels: a linear map of the
// block's rows and columns, which can be had from the decoded pixels.
function fromBlocks(image, kept) {
  const map = blockMap(kept);
  const [wide, high] = [Math.ceil((image.width * kept) / 8), Math.ceil((image.height * kept) / 8)];
  const result = blank(wide, high);
  const rows = new Float32Array(8 * wide * 3);
  for (let top = 0; top < image.height; top += 8) {
    for (let y = 0; y < 8; y++) {
      const start = 3 * image.width * Math.min(top + y, image.height - 1);
      for (let x = 0; x < wide; x++) {
        const left = 8 * Math.floor(x / kept);
        const line = map[x % kept];
        let [r, g, b] = [0, 0, 0];
        for (let index = 0; index < 8; index++) {
          const from = start + 3 * Math.min(left + index, image.width - 1);
          r += line[index] * image.data[from];
          g += line[index] * image.data[from + 1];
          b += line[index] * image.data[from + 2];
        }
        const to = 3 * (y * wide + x);
        [rows[to], rows[to + 1], rows[to + 2]] = [r, g, b];
      }
    }
    for (let y = 0; y < kept && (top * kept) / 8 + y < high; y++) {
      for (let x = 0, out = 3 * wide * ((top * kept) / 8 + y); x < 3 * wide; x++) {
        let sum = 0.5;
        for (let index = 0; index < 8; index++) sum += map[y][index] * rows[3 * wide * index + x];
        result.data[out++] = sum < 0 ? 0 : sum > 255 ? 255 : sum;
      }
    }
  }
  return result;
}

// The discrete cosine transform of 8 values, then the inverse one of its first `kept`.
function blockMap(kept) {
  const basis = (size, frequency, place) =>
    Math.sqrt((frequency ? 2 : 1) / size) * Math.cos(((2 * place + 1) * frequency * Math.PI) / (2 * size));
  return Array.from({ length: kept }, (_, to) =>
    Float64Array.from({ length: 8 }, (_, from) => {
      let sum = 0;
      for (let frequency = 0; frequency < kept; frequency++) sum += basis(kept, frequency, to) * basis(8, frequency, from);
      return Math.sqrt(kept / 8) * sum;
    }),
  );
}

// EXIF orientation 1 to 8: which stored pixel stands at (x, y) of the upright image.
function turned(image, orientation) {
  if (orientation === 1) return image;
  const { width, height, data } = image;
  const [w, h] = [width - 1, height - 1];
  const from = {
    2: (x, y) => [w - x, y],
    3: (x, y) => [w - x, h - y],
    4: (x, y) => [x, h - y],
    5: (x, y) => [y, x],
    6: (x, y) => [y, h - x],
    7: (x, y) => [w - y, h - x],
    8: (x, y) => [w - y, x],
  }[orientation];
  const result = orientation > 4 ? blank(height, width) : blank(width, height);
  for (let y = 0, out = 0; y < result.height; y++) {
    for (let x = 0; x < result.width; x++) {
      const [column, row] = from(x, y);
      const place = 3 * (row * width + column);
      result.data[out++] = data[place];
      result.data[out++] = data[place + 1];
      result.data[out++] = data[place + 2];
    }
  }
  return result;
}

// The orientation that EXIF states in a JPEG, PNG or WebP file; 1 where it states none. The bytes then state 1: browsers
// do not agree on how they are told to leave an image as it is stored.
function takeOrientation(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    const start = exifStart(bytes, view);
    const found = start === null ? null : orientationAt(view, start);
    const value = found && view.getUint16(found.at, found.little);
    if (!(value >= 1 && value <= 8)) return 1;
    view.setUint16(found.at, 1, found.little);
    return value;
  } catch (error) {
    if (error instanceof RangeError) return 1; // what is cut off says nothing
    throw error;
  }
}

const word = (bytes, at, length = 4) => String.fromCharCode(...bytes.subarray(at, at + length));

// Where the TIFF header of the EXIF data stands.
function exifStart(bytes, view) {
  if (starts(bytes, JPEG)) {
    for (let at = 2; bytes[at] === 0xff && bytes[at + 1] !== 0xda; at += 2 + view.getUint16(at + 2)) {
      if (bytes[at + 1] === 0xe1 && word(bytes, at + 4, 6) === "Exif\0\0") return at + 10;
    }
  } else if (starts(bytes, PNG)) {
    for (let at = 8; at + 8 <= bytes.length; at += 12 + view.getUint32(at)) {
      if (word(bytes, at + 4) === "eXIf") return at + 8;
    }
  } else if (starts(bytes, RIFF)) {
    for (let at = 12; at + 8 <= bytes.length; at += 8 + view.getUint32(at + 4, true) + (view.getUint32(at + 4, true) % 2)) {
      if (word(bytes, at) === "EXIF") return word(bytes, at + 8, 6) === "Exif\0\0" ? at + 14 : at + 8;
    }
  }
  return null;
}

function orientationAt(view, start) {
  const little = view.getUint16(start) === 0x4949;
  const first = start + view.getUint32(start + 4, little);
  for (let entry = 0; entry < view.getUint16(first, little); entry++) {
    const at = first + 2 + 12 * entry;
    if (view.getUint16(at, little) === 0x0112) return { at: at + 8, little };
  }
  return null;
}
