// The square of a face, turned upright: as mien/data/images.py and mien/data/alignment.py.
import { bicubic, padded, resize, round, transform } from "./pixels.js";
import { ImageError } from "./photograph.js";

// points: five [x, y], the eyes, the nose, the corners of the mouth.
const between = (a, b) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];

export function roll(points) {
  const across = [points[1][0] - points[0][0], points[1][1] - points[0][1]];
  const [eyes, mouth] = [between(points[0], points[1]), between(points[3], points[4])];
  const down = [mouth[0] - eyes[0], mouth[1] - eyes[1]];
  return Math.atan2(across[1] - down[0], across[0] + down[1]); // 0 where all points are one
}

export function yaw(points) {
  const angle = roll(points);
  const [eyes, mouth] = [between(points[0], points[1]), between(points[3], points[4])];
  const middle = between(eyes, mouth);
  const height = Math.max(Math.hypot(mouth[0] - eyes[0], mouth[1] - eyes[1]), 1e-6);
  return ((points[2][0] - middle[0]) * Math.cos(angle) + (points[2][1] - middle[1]) * Math.sin(angle)) / height;
}

export function square({ x, y, w, h }, margin) {
  const side = Math.max(w, h) * (1 + margin);
  return [x + (w - side) / 2, y + (h - side) / 2, side];
}

function cut(image, [left, top, side], size, settings) {
  const beyond = [-left, -top, left + side - image.width, top + side - image.height];
  const far = Math.max(...beyond);
  if (far > 0 && (Math.ceil(far) > side || side > settings.largest_square * Math.max(image.width, image.height))) {
    throw new ImageError("outside");
  }
  const pad = beyond.map((excess) => Math.max(0, Math.ceil(excess)));
  if (pad.some(Boolean)) {
    image = padded(image, ...pad);
    left += pad[0];
    top += pad[1];
  }
  const edges = [left, top, Math.min(left + side, image.width), Math.min(top + side, image.height)];
  return resize(image, size, size, edges);
}

export function cutUpright(image, where, size, angle, settings) {
  if (Math.abs(angle) < settings.upright) return cut(image, where, size, settings);
  const [left, top, side] = where;
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const around = Math.max(size, round(size * (Math.abs(cos) + Math.abs(sin))));
  const ratio = around / size;
  const outer = [left - ((ratio - 1) / 2) * side, top - ((ratio - 1) / 2) * side, side * ratio];
  const patch = cut(image, outer, around, settings);
  const [middle, centre] = [around / 2, size / 2];
  const turn = [cos, -sin, middle - centre * (cos - sin), sin, cos, middle - centre * (sin + cos)];
  return transform(patch, size, size, turn, bicubic);
}
