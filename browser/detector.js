// The face detector around its network: as mien/prediction/face_network.py, second_look.py and faces.py.
import { roll, yaw } from "./alignment.js";
import { bilinear, blank, crop, reduce, resize, round, transform } from "./pixels.js";

// A row is a face: {x, y, side, score, points}, its square's centre and side.
export class Detector {
  // run: from an image to the network's maps, each {data, dims} of 14 numbers for each cell.
  constructor(run, settings) {
    Object.assign(this, { run, settings });
    this.least = settings.candidates ?? settings.score;
    this.looks = [...(settings.looks ?? [])].sort((a, b) => a - b);
  }

  wants() {
    return this.settings.side;
  }

  // The faces of an upright picture, best first.
  async find(picture) {
    const { settings } = this;
    const ratio = Math.min(settings.enlarged, settings.side / Math.max(picture.width, picture.height));
    const scale = ratio >= 1 / settings.as_it_is && ratio < 1 ? 1 : ratio;
    const [width, height] = [picture.width, picture.height].map((side) => Math.max(1, round(side * scale)));
    const edges = [0, 0, Math.min(width / scale, picture.width), Math.min(height / scale, picture.height)];
    const small = resize(picture, width, height, edges, 2);
    const table = brighteningTable(small, settings.second);
    const canvas = crop(brightened(small, table), 0, 0, 32 * Math.ceil(width / 32), 32 * Math.ceil(height / 32));
    const rows = (await this.decode(canvas)).map((row) => scaled(row, 1 / scale)).filter((row) => row.side >= settings.smallest);
    const candidates = distinct(rows, settings);
    const sure = this.looks.length ? await this.confirmed(candidates, { picture, small, scale, table }) : candidates;
    return distinct(sure, settings).map((row) => this.face(row));
  }

  // Those candidates that are faces in their second looks, at the place that the closest look gives.
  async confirmed(candidates, source) {
    const found = [];
    const number = this.looks.length;
    for (const candidate of candidates) {
      const leaning = roll(candidate.points);
      const angle = Math.abs(leaning) > this.settings.second.upright ? leaning : 0;
      const seen = [];
      let total = 0;
      for (const [done, share] of this.looks.entries()) {
        if (total + number - done < this.settings.score * number) break;
        const row = await this.lookAgain(candidate, source, share, angle);
        if (row) seen.push(row);
        total += row ? row.score : 0;
      }
      if (seen.length && total >= this.settings.score * number) found.push({ ...seen[0], score: total / number });
    }
    return found;
  }

  async lookAgain(candidate, { picture, small, scale, table }, share, angle) {
    const { side } = this.settings.second;
    const enough = candidate.side * scale * share >= side;
    const { x, y, side: width } = scaled(candidate, enough ? scale : 1);
    const patch = uprightPatch(enough ? small : picture, [x, y, width * share], angle, side);
    const rows = (await this.decode(brightened(patch, table))).filter((row) => inMiddle(row, side / share, side));
    if (!rows.length) return null;
    const best = rows.reduce((one, other) => (other.score >= one.score ? other : one));
    return back(best, candidate, (candidate.side * share) / side, angle, side);
  }

  face({ x, y, side, score, points }) {
    const turned = Math.abs(yaw(points)) > this.settings.turned;
    return { box: { x: x - side / 2, y: y - side / 2, w: side, h: side }, score, turned, points };
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

// The square of a picture (centre, side), turned upright, in so many pixels a side.
function uprightPatch(picture, [x, y, side], angle, size) {
  let [left, top] = [0, 0];
  const times = Math.max(1, Math.trunc(side / size));
  if (times > 1) {
    const half = (side * (Math.abs(Math.cos(angle)) + Math.abs(Math.sin(angle)))) / 2 + times;
    [left, top] = [Math.max(0, Math.floor(x - half)), Math.max(0, Math.floor(y - half))];
    const [right, bottom] = [Math.min(picture.width, Math.ceil(x + half)), Math.min(picture.height, Math.ceil(y + half))];
    if (right - left < 1 || bottom - top < 1) return blank(size, size);
    picture = reduce(picture, times, times, [left, top, right, bottom]);
  }
  const step = side / times / size;
  const [cos, sin, middle] = [step * Math.cos(angle), step * Math.sin(angle), size / 2];
  const [across, low] = [(x - left) / times, (y - top) / times];
  const turn = [cos, -sin, across - middle * (cos - sin), sin, cos, low - middle * (sin + cos)];
  return transform(picture, size, size, turn, bilinear);
}

// Values for those of a dark picture that make it light; null: it is light enough.
function brighteningTable({ width, height, data }, { lit, most_light: most }) {
  const counts = new Array(256).fill(0);
  for (let y = 0; y < height; y += 8) {
    for (let x = 0; x < width; x += 8) for (let band = 0; band < 3; band++) counts[data[3 * (y * width + x) + band]] += 1;
  }
  const total = counts.reduce((sum, count) => sum + count);
  let [lightest, sum] = [0, counts[0]];
  while (sum < 0.99 * total) sum += counts[++lightest];
  const gain = Math.min(lit / Math.max(lightest, 1), most);
  return gain > 1 ? Uint8Array.from(counts, (_, value) => Math.min(value * gain, 255)) : null;
}

const brightened = (image, table) => (table ? { ...image, data: image.data.map((value) => table[value]) } : image);

// Whether a row of a look is of the face in the middle of the patch, which should have that side.
function inMiddle(row, side, size) {
  const away = Math.max(Math.abs(row.x - size / 2), Math.abs(row.y - size / 2));
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
