// Where the label of each face goes: beside its box, and on no face and no other label.

export const percent = (share) => `${Math.round(100 * share)}%`;
export const confidence = (row) => Math.max(row.p_female, 1 - row.p_female);
export const kind = (row) => row.gender || "other";

export function label(row) {
  const parts = [];
  if (row.gender) parts.push(row.gender === "unsure" ? "unsure" : `${row.gender} ${percent(confidence(row))}`);
  if (row.age !== undefined) parts.push(`${Math.round(row.age)} (${Math.round(row.age_low)}–${Math.round(row.age_high)})`);
  else if (row.age_group) parts.push(row.age_group);
  return parts.join(", ");
}

const apart = (a, b) => a.x + a.w <= b.x || b.x + b.w <= a.x || a.y + a.h <= b.y || b.y + b.h <= a.y;

const FOREHEAD = 0.35; // of a box's height, above it: a box begins at the brows

// A place {x, y, w, h, words} for each box in a picture of that size. measure: from words to {w, h}. Where no place is
// free, it is the last of the labels in the corner of the box.
export function place(boxes, labels, size, measure) {
  const taken = boxes.map(({ x, y, w, h }) => ({ x, y: y - FOREHEAD * h, w, h: (1 + FOREHEAD) * h }));
  const free = (spot) =>
    spot.x >= 0 && spot.y >= 0 && spot.x + spot.w <= size.w && spot.y + spot.h <= size.h && taken.every((other) => apart(spot, other));
  return boxes.map((box, index) => {
    const choices = labels[index].map((words) => ({ words, ...measure(words) }));
    const spots = [below, beside].flatMap((side) => choices.slice(0, -1).flatMap((choice) => side(box, choice)));
    const last = choices.at(-1);
    spots.push(...below(box, last), ...beside(box, last));
    const found = spots.find(free) ?? { ...last, x: Math.max(0, box.x), y: Math.max(0, box.y) };
    taken.push(found);
    return found;
  });
}

function below(box, choice) {
  const y = box.y + box.h + 3;
  const left = box.x + (box.w - choice.w) / 2;
  return [box.x, left, box.x + box.w - choice.w].map((x) => ({ ...choice, x, y }));
}

function beside(box, choice) {
  const above = box.y - FOREHEAD * box.h - choice.h - 3;
  const left = [box.x, box.x + box.w - choice.w].map((x) => ({ ...choice, x, y: above }));
  const sides = [box.x + box.w + 3, box.x - choice.w - 3];
  return [...sides.flatMap((x) => [box.y + box.h - choice.h, box.y].map((y) => ({ ...choice, x, y }))), ...left];
}

// The labels of a face from the longest to the shortest.
export const labels = (row) => [`${row.face_index}  ${label(row)}`, `${row.face_index}  ${label(row)}`.replace(", ", "\n"), String(row.face_index)];

const COLOURS = { female: ["#cc79a7", "#8d3f6a"], male: ["#0072b2", "#00598b"], unsure: ["#e69f00", "#7a5200"], other: ["#767676", "#4a4a4a"] };

// The photograph with boxes and labels, as a canvas.
export function drawn(bitmap, faces) {
  const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height });
  const context = canvas.getContext("2d");
  const unit = Math.max(bitmap.width, bitmap.height) / 400;
  const letter = Math.max(12, 5 * unit);
  const pad = letter / 3;
  context.drawImage(bitmap, 0, 0);
  context.font = `600 ${letter}px system-ui, sans-serif`;
  context.textBaseline = "top";
  const measure = (words) => {
    const lines = words.split("\n");
    return { w: Math.max(...lines.map((line) => context.measureText(line).width)) + 2 * pad, h: lines.length * 1.3 * letter + pad };
  };
  const spots = place(faces.map((face) => face.box), faces.map((face) => labels(face.row)), { w: bitmap.width, h: bitmap.height }, measure);
  faces.forEach(({ box, row }, index) => {
    const [line, ground] = COLOURS[kind(row)];
    context.lineWidth = Math.max(2, unit);
    context.strokeStyle = line;
    context.strokeRect(box.x, box.y, box.w, box.h);
    const { x, y, w, h, words } = spots[index];
    context.fillStyle = ground;
    context.fillRect(x, y, w, h);
    context.fillStyle = "white";
    words.split("\n").forEach((text, number) => context.fillText(text, x + pad, y + pad + number * 1.3 * letter));
  });
  return canvas;
}
