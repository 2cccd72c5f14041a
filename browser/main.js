// The page without a service: the networks run in the browser, and nothing is sent anywhere.
import * as ort from "onnxruntime-web/wasm";
import settings from "settings";
import { start } from "../src/mien/service/page/page.js";
import { Predictor } from "./predictor.js";

const embedded = (name) => document.getElementById(`data-${name}`).textContent;

async function bytesOf(name) {
  const text = atob(embedded(name));
  const packed = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) packed[index] = text.charCodeAt(index);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function loaded() {
  ort.env.wasm.numThreads = 1; // more need headers that a file cannot have
  ort.env.wasm.wasmBinary = await bytesOf("runtime");
  const session = async (name) => ort.InferenceSession.create(await bytesOf(name), { executionProviders: ["wasm"], logSeverityLevel: 3 });
  const [detector, classifier] = [await session("detector"), await session("classifier")];
  const tensor = ({ data, width, height }, batch) => new ort.Tensor("uint8", data, [...batch, height, width, 3]);
  const networks = {
    async detect(image) {
      const maps = await detector.run({ [detector.inputNames[0]]: tensor(image, settings.detector.batch) });
      return detector.outputNames.map((name) => maps[name]);
    },
    async classify(image) {
      const values = await classifier.run({ [classifier.inputNames[0]]: tensor(image, [1]) });
      return Object.fromEntries(classifier.outputNames.map((name) => [name, values[name].data[0]]));
    },
  };
  return new Predictor(networks, settings);
}

// After the first picture of the page, so that it is there at once.
const predictor = new Promise((begin) => requestAnimationFrame(() => setTimeout(begin))).then(loaded);
predictor.catch(() => {}); // each photograph says it

start({
  where: "Photographs stay in this browser: nothing is sent anywhere",
  atOnce: 1,
  about: async () => settings.about,
  predict: async (file, crops) => (await predictor).predict(file, crops),
  sample: () => bytesOf("sample").then((bytes) => new Blob([bytes], { type: "image/png" })),
  card: async () => embedded("card"),
});
