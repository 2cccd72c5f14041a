// From a photograph to the rows of the predictions table: as mien/prediction/predict.py and face_cropper.py.
import { cutUpright, roll, square } from "./alignment.js";
import { Detector } from "./detector.js";
import { decode, reduced } from "./photograph.js";
import { resize } from "./pixels.js";
import { isUnusual, notes } from "./quality.js";

const rounded = (value, digits) => Number(value.toFixed(digits));

export class Predictor {
  // networks: {detect(image) -> maps, classify(image) -> numbers by name}; settings: what build.py exports from mien.
  constructor(networks, settings) {
    Object.assign(this, { networks, settings });
    this.detector = new Detector(networks.detect, settings.detector);
  }

  // The rows of one photograph; an ImageError says why there are none.
  async predict(file, crops) {
    const { settings } = this;
    const photograph = await decode(file, settings.images);
    const head = { file: file.name };
    const rows = [];
    for (const face of crops ? [this.whole(photograph)] : await this.faces(photograph)) {
      const values = await this.networks.classify(face.pixels);
      const note = isUnusual(values, settings.age_groups.names, settings.quality) ? settings.quality.unusual : "";
      const quality = [face.quality, note].filter(Boolean).join("; ");
      rows.push({ ...head, ...face.columns, status: "ok", ...this.answer(values), quality });
    }
    return rows.length ? rows : [{ ...head, status: "no face" }];
  }

  whole(photograph) {
    const { model, quality } = this.settings;
    const full = reduced(photograph, (longer) => longer);
    const side = Math.min(full.width, full.height);
    const { image, scale } = reduced(photograph, (longer) => (longer * model.size) / side);
    const where = [(full.width - side) / 2, (full.height - side) / 2, side].map((value) => value * scale);
    const edges = [where[0], where[1], Math.min(where[0] + where[2], image.width), Math.min(where[1] + where[2], image.height)];
    const pixels = resize(image, model.size, model.size, edges);
    return { columns: { face_index: 0 }, pixels, quality: notes(pixels, null, side, side, false, quality) };
  }

  async faces(photograph) {
    const { model, cropper, images, quality } = this.settings;
    const first = reduced(photograph, () => Math.max(cropper.read, this.detector.wants()));
    const { width, height } = first;
    const found = (await this.detector.find(first.image)).map((face) => scaled(face, 1 / first.scale));
    let { image } = first;
    if (found.length && first.scale < 1) {
      const least = Math.min(...found.map((face) => face.box.w)) * (1 + model.margin);
      const needed = Math.min(1, (cropper.enough * model.size) / least);
      if (needed > first.scale) ({ image } = reduced(photograph, (longer) => needed * longer));
    }
    const scale = Math.max(image.width, image.height) / Math.max(width, height);
    return found.map(({ score, turned, points, ...face }, index) => {
      const box = Object.fromEntries(Object.entries(face.box).map(([edge, value]) => [edge, rounded(value, 1)]));
      const where = square(box, model.margin).map((value) => value * scale);
      const pixels = cutUpright(image, where, model.size, rounded(roll(points), 3), images);
      const columns = { face_index: index, ...box, detector_score: rounded(score, 3) };
      return { columns, pixels, quality: notes(pixels, box, width, height, turned, quality) };
    });
  }

  answer(values) {
    const { model, age_groups: groups } = this.settings;
    const row = {};
    for (const [name, value] of Object.entries(values)) row[name] = rounded(value, name.includes("age") ? 2 : 4);
    if ("p_female" in values) {
      const female = values.p_female;
      row.gender = Math.max(female, 1 - female) < model.unsure_below ? "unsure" : female >= 0.5 ? "female" : "male";
    }
    if (model.tasks.includes("age_group")) {
      row.age_group = groups.names.reduce((best, name) => (values[`p_${name}`] > values[`p_${best}`] ? name : best));
    } else if ("age" in values) {
      row.age_group = groups.names[groups.ends.filter((end) => values.age > end).length];
    }
    return row;
  }
}

function scaled(face, factor) {
  const box = Object.fromEntries(Object.entries(face.box).map(([edge, value]) => [edge, value * factor]));
  return { ...face, box, points: face.points.map((point) => point.map((value) => value * factor)) };
}
