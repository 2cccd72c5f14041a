// Notes on the picture of a face: as mien/prediction/quality.py.
import { grey, resize } from "./pixels.js";

export function notes(face, box, width, height, turned, settings) {
  const uniform = spread(face) < settings.uniform;
  const found = {
    "one colour": uniform,
    small: Math.min(box ? box.w : width, box ? box.h : height) < settings.small,
    blurred: !uniform && sharpness(face, settings.side) < settings.sharpness,
    "cut off": box !== null && beyond(box, width, height) > settings.beyond,
    "turned away": turned,
  };
  return Object.keys(found).filter((words) => found[words]).join("; ");
}

// Whether an answer, numbers by name, has two separate peaks of age.
export function isUnusual(values, names, { second_peak: least }) {
  const groups = names.map((name) => values[`p_${name}`]);
  if (groups.includes(undefined)) return false;
  return groups.slice(1, -1).some((between, index) => {
    const second = Math.min(Math.max(...groups.slice(0, index + 1)), Math.max(...groups.slice(index + 2)));
    return second >= least && between <= second / 2;
  });
}

// The standard deviation of the mean of the bands.
function spread({ data }) {
  let [sum, squares] = [0, 0];
  for (let at = 0; at < data.length; at += 3) {
    const value = (data[at] + data[at + 1] + data[at + 2]) / 3;
    sum += value;
    squares += value * value;
  }
  const number = data.length / 3;
  return Math.sqrt(Math.max(0, squares / number - (sum / number) ** 2));
}

function sharpness(face, side) {
  const { data } = resize(grey(face), side, side);
  const value = (x, y) => data[3 * (y * side + x)];
  let [sum, squares, number] = [0, 0, 0];
  for (let y = 1; y < side - 1; y++) {
    for (let x = 1; x < side - 1; x++) {
      const edge = value(x, y - 1) + value(x, y + 1) + value(x - 1, y) + value(x + 1, y) - 4 * value(x, y);
      sum += edge;
      squares += edge * edge;
      number += 1;
    }
  }
  return squares / number - (sum / number) ** 2;
}

function beyond({ x, y, w, h }, width, height) {
  const wide = Math.max(0, Math.min(x + w, width) - Math.max(x, 0));
  const high = Math.max(0, Math.min(y + h, height) - Math.max(y, 0));
  return 1 - (wide * high) / (w * h);
}
