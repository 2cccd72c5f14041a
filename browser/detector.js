// The face detector around its network: as mien/prediction/face_network.py and mien/prediction/faces.py.
import { roll, yaw } from "./alignment.js";
import { bilinear, crop, resize, round, transform } from "./pixels.js";

// A row is a face: {x, y, side, score, points}, its square's centre and side.
export class Detector {
  // run: from an image to the network's maps, each {data, dims} of 14 numbers for each cell.
  constructor(run, settings) {
    Object.assign(this, { run, settings });
    this.least = settings.candidates ?? settings.score;
    this.looks = settings.looks ?? [];
  }

  wants() {
    return this.settings.side;
  }

  // The faces of an upright picture, best first.
  async find(picture) {
    const { settings } = this;
    const scale = Math.min(settings.enlarged, settings.side / Math.max(picture.width, picture.height));
    const [width, height] = [picture.width, picture.height].map((side) => Math.max(1, round(side * scale)));
    const edges = [0, 0, Math.min(width / scale, picture.width), Math.min(height / scale, picture.height)];
    const small = resize(picture, width, height, edges, 2);
    const rows = (await this.decode(crop(small, 0, 0, 32 * Math.ceil(width / 32), 32 * Math.ceil(height / 32))))
      .map((row) => scaled(row, 1 / scale))
      .filter((row) => row.side >= settings.smallest);
    const candidates = distinct(rows, settings);
    if (!this.looks.length) return candidates.map((row) => this.face(row));
    const seen = [];
    for (const candidate of candidates) {
      const enough = candidate.side * scale * Math.max(...this.looks) >= settings.patch;
      const row = await this.lookAgain(enough ? small : picture, enough ? scale : 1, candidate);
      if (row) seen.push(row);
    }
    return distinct(seen, settings).map((row) => this.face(row));
  }

  face({ x, y, side, score, points }) {
    const turned = Math.abs(yaw(points)) > this.settings.turned;
    return { box: { x: x - side / 2, y: y - side / 2, w: side, h: side }, score, turned, points };
  }

  async lookAgain(picture, shrunk, candidate) {
    const { settings } = this;
    const leaning = roll(candidate.points);
    const angle = Math.abs(leaning) > settings.upright ? leaning : 0;
    const width = Math.max(...this.looks);
    const patch = patchOf(picture, scaled(candidate, shrunk), width, angle, settings.patch);
    const seen = [];
    let { score } = candidate;
    for (const share of this.looks) {
      const rows = await this.decode(middleOf(patch, share / width, settings));
      const [best] = rows.filter((row) => isSame(row, settings.look / share, settings)).sort((a, b) => b.score - a.score);
      if (best) {
        score += best.score;
        seen.push(back(best, candidate, (candidate.side * share) / settings.look, angle, settings.look));
      }
    }
    score /= 1 + this.looks.length;
    if (score < settings.score || !seen.length) return null;
    const mean = (of) => seen.reduce((sum, row) => sum + of(row), 0) / seen.length;
    const points = candidate.points.map((_, index) => [0, 1].map((axis) => mean((row) => row.points[index][axis])));
    return { x: mean((row) => row.x), y: mean((row) => row.y), side: mean((row) => row.side), score, points };
  }

  // The rows of all cells that are sure enough, in pixels of the image.
  async decode(image) {
    const rows = [];
    for (const [level, { data, dims }] of (await this.run(image)).entries()) {
      const [stride, size] = [this.settings.strides[level], this.settings.sizes[level]];
      const [high, wide] = dims.slice(-2);
      for (let cell = 0; cell < high * wide; cell++) {
        if (!(data[cell] >= this.least)) continue;
        const value = (index) => data[index * high * wide + cell];
        const [x, y] = [stride * ((cell % wide) + 0.5), stride * (Math.floor(cell / wide) + 0.5)];
        const points = [4, 6, 8, 10, 12].map((index) => [x + (size / 2) * value(index), y + (size / 2) * value(index + 1)]);
        const side = size * Math.exp(Math.min(4, Math.max(-4, value(3))));
        rows.push({ x: x + stride * value(1), y: y + stride * value(2), side, score: value(0), points });
      }
    }
    return rows;
  }
}

function scaled({ x, y, side, score, points }, factor) {
  const moved = points.map((point) => point.map((value) => value * factor));
  return { x: x * factor, y: y * factor, side: side * factor, score, points: moved };
}

function patchOf(picture, { x, y, side }, share, angle, size) {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const grow = Math.abs(cos) + Math.abs(sin);
  const half = (side * share * grow) / 2;
  const [left, top] = [Math.floor(x - half), Math.floor(y - half)];
  const part = crop(picture, left, top, Math.ceil(x + half), Math.ceil(y + half));
  const edges = [x - half - left, y - half - top];
  edges.push(Math.min(x + half - left, part.width), Math.min(y + half - top, part.height));
  const around = round(size * grow);
  const patch = resize(part, around, around, edges, 2);
  if (angle === 0) return patch;
  const [middle, centre] = [around / 2, size / 2];
  const turn = [cos, -sin, middle - centre * (cos - sin), sin, cos, middle - centre * (sin + cos)];
  return transform(patch, size, size, turn, bilinear);
}

function middleOf(patch, share, { patch: size, look }) {
  const rest = ((1 - share) / 2) * size;
  const at = round(rest);
  if (Math.abs(share * size - look) < 1) return crop(patch, at, at, at + look, at + look);
  return resize(patch, look, look, [rest, rest, size - rest, size - rest]);
}

function isSame(row, side, { look }) {
  const away = Math.max(Math.abs(row.x - look / 2), Math.abs(row.y - look / 2));
  return away < 0.35 * side && row.side > 0.6 * side && row.side < side / 0.6;
}

// A row of a look in pixels of the picture.
function back(row, centre, scale, angle, look) {
  const [cos, sin] = [scale * Math.cos(angle), scale * Math.sin(angle)];
  const place = (x, y) => [
    (x - look / 2) * cos - (y - look / 2) * sin + centre.x,
    (x - look / 2) * sin + (y - look / 2) * cos + centre.y,
  ];
  const [x, y] = place(row.x, row.y);
  return { x, y, side: scale * row.side, score: row.score, points: row.points.map((point) => place(...point)) };
}

// Best first, without those that lie on a better one.
function distinct(rows, settings) {
  const kept = [];
  const sorted = [...rows].sort((a, b) => b.score - a.score).slice(0, settings.most_candidates);
  for (const row of sorted) if (kept.every((other) => overlap(row, other) <= settings.same)) kept.push(row);
  return kept;
}

function overlap(a, b) {
  const shared = (axis) =>
    Math.max(0, Math.min(a[axis] + a.side / 2, b[axis] + b.side / 2) - Math.max(a[axis] - a.side / 2, b[axis] - b.side / 2));
  const both = shared("x") * shared("y");
  return both / (a.side ** 2 + b.side ** 2 - both);
}
