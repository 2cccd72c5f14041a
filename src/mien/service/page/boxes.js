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

// A place {x, y, w, h, words} for each box in a picture of that size. measure: from words to {w, h}. Where no place is
// free for the label, it is the number alone, in the corner of the box.
export function place(boxes, labels, size, measure) {
  const taken = [...boxes];
  return boxes.map((box, index) => {
    for (const words of labels[index]) {
      const { w, h } = measure(words);
      const right = box.x + box.w - w;
      const middle = box.x + (box.w - w) / 2;
      const [below, above] = [box.y + box.h + 3, box.y - h - 3];
      const [before, after] = [box.x - w - 3, box.x + box.w + 3];
      const choices = [[box.x, below], [middle, below], [right, below], [box.x, above], [middle, above], [right, above]];
      choices.push([after, box.y], [before, box.y], [after, box.y + box.h - h], [before, box.y + box.h - h]);
      for (const [x, y] of choices) {
        const spot = { x, y, w, h, words };
        const inside = x >= 0 && y >= 0 && x + w <= size.w && y + h <= size.h;
        if (inside && taken.every((other) => apart(spot, other))) {
          taken.push(spot);
          return spot;
        }
      }
    }
    const words = labels[index].at(-1);
    const spot = { x: Math.max(0, box.x), y: Math.max(0, box.y), ...measure(words), words };
    taken.push(spot);
    return spot;
  });
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
