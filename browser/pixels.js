// Pillow's resampling, to the bit: the networks were trained on its pixels, and a canvas scales otherwise.
// An image is {width, height, data}: RGB, a byte each, rows from the top.

const BITS = 22; // of the fraction of a weight, as Pillow has them for images of 8 bits

export function blank(width, height) {
  return { width, height, data: new Uint8Array(3 * width * height) };
}

// Python's round: halves to the even number.
export function round(value) {
  const low = Math.floor(value);
  const rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

// As Image.resize with BILINEAR, which is antialiased: a triangle as wide as a pixel of the result.
// With a gap, large pictures are first averaged in whole blocks, as with reducing_gap.
export function resize(image, width, height, box = [0, 0, image.width, image.height], gap = null) {
  if (gap !== null) {
    const times = [0, 1].map((axis) => Math.floor((box[axis + 2] - box[axis]) / [width, height][axis] / gap) || 1);
    if (times[0] > 1 || times[1] > 1) {
      const [far, deep] = [(0.5 * (box[2] - box[0])) / width, (0.5 * (box[3] - box[1])) / height];
      const safe = [Math.trunc(Math.max(0, box[0] - far)), Math.trunc(Math.max(0, box[1] - deep))];
      safe.push(Math.min(image.width, Math.ceil(box[2] + far)), Math.min(image.height, Math.ceil(box[3] + deep)));
      box = box.map((edge, index) => (edge - safe[index % 2]) / times[index % 2]);
      image = reduce(image, times[0], times[1], safe);
    }
  }
  const [left, top, right, bottom] = box.map(Math.fround);
  const rows = weights(image.height, top, bottom, height);
  const same = height === image.height && top === 0 && bottom === height;
  let begin = 0;
  if (width !== image.width || left !== 0 || right !== width) {
    begin = same ? 0 : rows.first[0];
    const end = same ? height : rows.first[height - 1] + rows.count[height - 1];
    image = across(image, weights(image.width, left, right, width), width, begin, end);
  }
  return same ? image : down(image, rows, height, begin);
}

function weights(size, from, to, length) {
  const scale = Math.fround(to - from) / length;
  const support = Math.max(scale, 1);
  const most = 2 * Math.ceil(support) + 1;
  const first = new Int32Array(length);
  const count = new Int32Array(length);
  const values = new Int32Array(length * most);
  const line = new Float64Array(most);
  for (let place = 0; place < length; place++) {
    const middle = from + (place + 0.5) * scale;
    const begin = Math.max(0, Math.trunc(middle - support + 0.5));
    const number = Math.min(size, Math.trunc(middle + support + 0.5)) - begin;
    let sum = 0;
    for (let index = 0; index < number; index++) {
      const away = Math.abs((index + begin - middle + 0.5) / support);
      line[index] = away < 1 ? 1 - away : 0;
      sum += line[index];
    }
    for (let index = 0; index < number; index++) {
      values[place * most + index] = Math.trunc(0.5 + (sum ? line[index] / sum : 0) * (1 << BITS));
    }
    first[place] = begin;
    count[place] = number;
  }
  return { first, count, values, most };
}

function across(image, { first, count, values, most }, width, begin, end) {
  const result = blank(width, end - begin);
  const { data } = image;
  let out = 0;
  for (let y = begin; y < end; y++) {
    for (let x = 0; x < width; x++) {
      let [r, g, b] = [1 << (BITS - 1), 1 << (BITS - 1), 1 << (BITS - 1)];
      let from = 3 * (y * image.width + first[x]);
      for (let index = x * most, last = index + count[x]; index < last; index++, from += 3) {
        const weight = values[index];
        r += data[from] * weight;
        g += data[from + 1] * weight;
        b += data[from + 2] * weight;
      }
      result.data[out++] = r >> BITS;
      result.data[out++] = g >> BITS;
      result.data[out++] = b >> BITS;
    }
  }
  return result;
}

function down(image, { first, count, values, most }, height, begin) {
  const result = blank(image.width, height);
  const line = 3 * image.width;
  const sums = new Int32Array(line);
  for (let y = 0; y < height; y++) {
    sums.fill(1 << (BITS - 1));
    for (let index = 0; index < count[y]; index++) {
      const weight = values[y * most + index];
      let from = (first[y] - begin + index) * line;
      for (let x = 0; x < line; x++) sums[x] += image.data[from++] * weight;
    }
    for (let x = 0, out = y * line; x < line; x++) result.data[out++] = sums[x] >> BITS;
  }
  return result;
}

// As Image.reduce: means of blocks, at the far edges of what is left of them.
export function reduce(image, wide, high, [left, top, right, bottom] = [0, 0, image.width, image.height]) {
  const result = blank(Math.ceil((right - left) / wide), Math.ceil((bottom - top) / high));
  let out = 0;
  for (let y = top; y < bottom; y += high) {
    const low = Math.min(y + high, bottom);
    for (let x = left; x < right; x += wide) {
      const far = Math.min(x + wide, right);
      const number = (low - y) * (far - x);
      const factor = Math.floor(2 ** 24 / number);
      let [r, g, b] = Array(3).fill(Math.floor(number / 2));
      for (let row = y; row < low; row++) {
        let from = 3 * (row * image.width + x);
        for (let column = x; column < far; column++, from += 3) {
          r += image.data[from];
          g += image.data[from + 1];
          b += image.data[from + 2];
        }
      }
      result.data[out++] = (r * factor) / 2 ** 24;
      result.data[out++] = (g * factor) / 2 ** 24;
      result.data[out++] = (b * factor) / 2 ** 24;
    }
  }
  return result;
}

// As Image.crop: black beyond the image.
export function crop(image, left, top, right, bottom) {
  const result = blank(right - left, bottom - top);
  const [from, to] = [Math.max(0, left), Math.min(image.width, right)];
  for (let y = Math.max(0, top); y < Math.min(image.height, bottom) && from < to; y++) {
    const row = image.data.subarray(3 * (y * image.width + from), 3 * (y * image.width + to));
    result.data.set(row, 3 * ((y - top) * result.width + from - left));
  }
  return result;
}

// The image with so many more pixels at each edge, which repeat it: numpy.pad with mode="edge".
export function padded(image, left, top, right, bottom) {
  const result = blank(image.width + left + right, image.height + top + bottom);
  const line = 3 * result.width;
  for (let y = 0; y < result.height; y++) {
    const row = Math.min(image.height - 1, Math.max(0, y - top));
    const pixels = image.data.subarray(3 * row * image.width, 3 * (row + 1) * image.width);
    const target = result.data.subarray(y * line, (y + 1) * line);
    target.set(pixels, 3 * left);
    for (let x = 0; x < left; x++) target.set(pixels.subarray(0, 3), 3 * x);
    for (let x = left + image.width; x < result.width; x++) target.set(pixels.subarray(-3), 3 * x);
  }
  return result;
}

// As Image.transform with AFFINE: where a pixel of the result comes from; black beyond the image.
export function transform(image, width, height, [a, b, c, d, e, f], sample) {
  const result = blank(width, height);
  for (let y = 0, out = 0; y < height; y++) {
    for (let x = 0; x < width; x++, out += 3) {
      const across = a * (x + 0.5) + b * (y + 0.5) + c;
      const low = d * (x + 0.5) + e * (y + 0.5) + f;
      if (across >= 0 && across < image.width && low >= 0 && low < image.height) {
        sample(image, across - 0.5, low - 0.5, result.data, out);
      }
    }
  }
  return result;
}

const clamp = (value, size) => (value < 0 ? 0 : value < size ? value : size - 1);

export function bilinear(image, across, low, target, out) {
  const [x, y] = [Math.floor(across), Math.floor(low)];
  const [dx, dy] = [across - x, low - y];
  const [left, right] = [3 * clamp(x, image.width), 3 * clamp(x + 1, image.width)];
  const above = 3 * image.width * clamp(y, image.height);
  const below = y + 1 >= 0 && y + 1 < image.height ? 3 * image.width * (y + 1) : above;
  for (let band = 0; band < 3; band++) {
    const one = image.data[above + left + band];
    const first = one + (image.data[above + right + band] - one) * dx;
    const other = image.data[below + left + band];
    target[out + band] = first + (other + (image.data[below + right + band] - other) * dx - first) * dy;
  }
}

const cubic = (v1, v2, v3, v4, d) => v2 + d * (v3 - v1 + d * (2 * (v1 - v2) + v3 - v4 + d * (v2 - v1 - v3 + v4)));

export function bicubic(image, across, low, target, out) {
  const [x, y] = [Math.floor(across), Math.floor(low)];
  const [dx, dy] = [across - x, low - y];
  const columns = [-1, 0, 1, 2].map((step) => 3 * clamp(x + step, image.width));
  for (let band = 0; band < 3; band++) {
    const values = [];
    for (let step = -1; step <= 2; step++) {
      const row = y + step;
      if (step >= 0 && (row < 0 || row >= image.height)) {
        values.push(values.at(-1));
        continue;
      }
      const start = 3 * image.width * clamp(row, image.height) + band;
      values.push(cubic(...columns.map((column) => image.data[start + column]), dx));
    }
    const value = cubic(...values, dy);
    target[out + band] = value <= 0 ? 0 : value >= 255 ? 255 : value;
  }
}

// As Image.convert("L"), in three equal bands.
export function grey(image) {
  const result = blank(image.width, image.height);
  for (let at = 0; at < image.data.length; at += 3) {
    const [r, g, b] = image.data.subarray(at, at + 3);
    result.data.fill((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16, at, at + 3);
  }
  return result;
}
