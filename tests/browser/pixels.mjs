// Runs operations of browser/pixels.js and browser/photograph.js: standard input has one JSON list of [name, width,
// height, RGB in base64, ...arguments], standard output the results as [width, height, RGB in base64].
import { readFileSync } from "node:fs";
import * as alignment from "../../browser/alignment.js";
import * as photograph from "../../browser/photograph.js";
import * as pixels from "../../browser/pixels.js";

const names = {
  cut: (image, where, size, angle) => alignment.cutUpright(image, where, size, angle, { upright: 0.087, largest_square: 4 }),
  draft: (image, least, orientation) =>
    photograph.reduced({ stored: image, orientation, jpeg: true }, (longer) => Math.min(longer, least)).image,
  transform: (image, width, height, turn, sample) => pixels.transform(image, width, height, turn, pixels[sample]),
};

const results = JSON.parse(readFileSync(0, "utf8")).map(([name, width, height, data, ...rest]) => {
  const image = { width, height, data: new Uint8Array(Buffer.from(data, "base64")) };
  const result = (names[name] ?? pixels[name])(image, ...rest);
  return [result.width, result.height, Buffer.from(result.data).toString("base64")];
});
process.stdout.write(JSON.stringify(results));
