// The page, for any engine: what predicts is the service (server.js), or the browser itself (browser/main.js).
//
// An engine has: where, a few words on where photographs go; atOnce, how many photographs it takes at a time;
// about() -> {name, columns, limits, notice, card}; predict(file, crops) -> rows of the predictions table; sample() -> an
// image; card() -> the model card's text; and, if it can, explain(file, face, crops) -> {crop, maps}.
import { confidence, drawn, kind, label, labels, percent, place } from "./boxes.js";
import { explanation } from "./maps.js";
import { csv, save } from "./save.js";

const at = (id) => document.getElementById(id);
const shown = []; // {file, bitmap, rows, figure, body}, in the order in which they were chosen
let engine = null;
let model = { columns: [], limits: {} };
let stream = null;

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

async function predict(files) {
  const waiting = [...files].map((file) => {
    const named = file.name ? file : new File([file], "photograph", { type: file.type });
    const one = { file: named, bitmap: null, rows: [], figure: make("figure", { className: "waiting" }), body: make("tbody") };
    shown.push(one);
    at("photographs").append(one.figure);
    at("rows").append(one.body);
    return one;
  });
  const chosen = [...waiting];
  const total = chosen.length;
  if (!total) return;
  const crops = at("crops").checked;
  const begun = performance.now();
  document.body.classList.add("filled");
  Object.assign(at("progress"), { hidden: false, max: total, value: 0 });
  at("status").textContent = `looking at ${count(total, "photograph")} …`;
  await Promise.all(chosen.map(picture));
  const work = async () => {
    for (let one = waiting.shift(); one; one = waiting.shift()) {
      try {
        one.rows = await engine.predict(one.file, crops);
      } catch (error) {
        one.rows = [{ file: one.file.name, status: error.reason || error.message }];
      }
      show(one, crops);
      at("progress").value += 1;
    }
  };
  await Promise.all(Array.from({ length: Math.min(engine.atOnce, total) }, work));
  const faces = chosen.flatMap((one) => one.rows).filter((row) => row.status === "ok").length;
  const unread = chosen.filter((one) => !["ok", "no face"].includes(one.rows[0].status)).length;
  const seconds = ((performance.now() - begun) / 1000).toFixed(1);
  at("progress").hidden = true;
  const words = `${count(faces, "face")} in ${count(total, "photograph")}${unread ? `, ${unread} not read` : ""}`;
  at("status").textContent = `${words} · ${seconds} s`;
}

// Shows the photograph itself, before there is an answer.
async function picture(one) {
  one.caption = make("figcaption", {}, make("span", {}, one.file.name));
  one.figure.append(one.caption);
  try {
    one.bitmap = await createImageBitmap(one.file, { imageOrientation: "from-image" });
  } catch {
    return; // a service may read an image that the browser cannot show (a TIFF)
  }
  const { width, height } = one.bitmap;
  const image = make("img", { src: URL.createObjectURL(one.file), alt: one.file.name, width, height });
  one.picture = make("div", { className: "picture" }, image);
  one.figure.prepend(make("div", { className: "stage" }, one.picture));
}

// Why there is no answer, with the limit that was exceeded.
function reason(status) {
  if (status !== "too large") return status;
  const { image_pixels: pixels, request_bytes: bytes } = model.limits;
  const limits = [pixels && `${Math.floor(pixels / 1e6)} million pixels`, bytes && `${Math.floor(bytes / 1e6)} MB`].filter(Boolean);
  return limits.length ? `too large: at most ${limits.join(" and ")}` : status;
}

function show(one, crops) {
  const { figure, bitmap, rows } = one;
  const faces = rows.filter((row) => row.status === "ok");
  figure.classList.remove("waiting");
  if (!faces.length) one.caption.firstChild.append(`: ${reason(rows[0].status)}`);
  one.faces = faces.map((row) => ({ row, box: crops && bitmap ? { x: 0, y: 0, w: bitmap.width, h: bitmap.height } : row }));
  if (bitmap && faces.length) {
    one.boxes = one.faces.map((face) => outline(one, face, crops));
    one.tags = faces.map((row) => make("span", { className: `tag ${kind(row)}` }));
    one.picture.append(...one.boxes, ...one.tags);
    new ResizeObserver(() => arrange(one)).observe(one.picture);
    const button = make("button", { type: "button" }, "Save picture");
    button.addEventListener("click", () => savePicture(one));
    one.caption.append(button);
  }
  if (shown.length > 1) for (const other of shown) head(other);
  one.body.append(...one.faces.map((face) => line(one, face, crops)));
  at("results").hidden = !at("rows").querySelector("td");
}

// Names the photograph above its faces, where there are several.
function head(one) {
  if (!one.rows.some((row) => row.status === "ok") || one.body.querySelector("th")) return;
  one.body.prepend(make("tr", {}, make("th", { colSpan: 4, scope: "rowgroup" }, one.file.name)));
}

// The part of a box that lies in the photograph.
function visible({ x, y, w, h }, bitmap) {
  const [left, top] = [Math.max(0, x), Math.max(0, y)];
  return { x: left, y: top, w: Math.min(bitmap.width, x + w) - left, h: Math.min(bitmap.height, y + h) - top };
}

function outline(one, { row, box }, crops) {
  const { bitmap } = one;
  const { x, y, w, h } = visible(box, bitmap);
  const button = make("button", { className: `box ${kind(row)}`, type: "button" });
  button.setAttribute("aria-label", `Face ${row.face_index} of ${row.file}: ${label(row)}`);
  button.style.left = `${(100 * x) / bitmap.width}%`;
  button.style.top = `${(100 * y) / bitmap.height}%`;
  button.style.width = `${(100 * w) / bitmap.width}%`;
  button.style.height = `${(100 * h) / bitmap.height}%`;
  button.addEventListener("click", () => open(one, { row, box }, crops));
  light(button, () => one.body.querySelectorAll("tr:has(td)")[row.face_index]);
  return button;
}

// Marks what belongs to an element while the pointer is on it.
function light(element, other) {
  element.addEventListener("pointerenter", () => other()?.classList.add("lit"));
  element.addEventListener("pointerleave", () => other()?.classList.remove("lit"));
}

// Puts the labels where they cover no face, at the size at which the photograph is shown.
function arrange(one) {
  const { bitmap, tags, picture: frame } = one;
  const size = { w: frame.clientWidth, h: frame.clientHeight };
  const scale = size.w / bitmap.width;
  const boxes = one.faces.map(({ box }) => {
    const { x, y, w, h } = visible(box, bitmap);
    return { x: x * scale, y: y * scale, w: w * scale, h: h * scale };
  });
  const probe = tags[0];
  const measure = (words) => {
    probe.textContent = words;
    return { w: probe.offsetWidth, h: probe.offsetHeight };
  };
  const spots = place(boxes, one.faces.map((face) => labels(face.row)), size, measure);
  spots.forEach(({ x, y, words }, index) => {
    tags[index].textContent = words;
    tags[index].style.transform = `translate(${x}px, ${y}px)`;
    tags[index].style.left = tags[index].style.top = "0";
  });
}

function savePicture(one) {
  const faces = one.faces.map(({ row, box }) => ({ row, box: visible(box, one.bitmap) }));
  const name = `${one.file.name.replace(/\.[^.]*$/, "")}-faces.png`;
  drawn(one.bitmap, faces).toBlob((blob) => save(blob, name));
}

// The face with something around it, on a canvas.
function portrait(canvas, { bitmap }, { x, y, w, h }) {
  if (!bitmap) return canvas;
  const [side, middle, low] = [Math.max(w, h) * 1.3, x + w / 2, y + h / 2];
  canvas.getContext("2d").drawImage(bitmap, middle - side / 2, low - side / 2, side, side, 0, 0, canvas.width, canvas.height);
  return canvas;
}

const whole = (row) => ({ x: 0, y: 0, w: 1, h: 1, ...row });

function line(one, face, crops) {
  const { row, box } = face;
  const button = make("button", { type: "button" }, portrait(make("canvas", { width: 88, height: 88 }), one, whole(box)), String(row.face_index));
  button.setAttribute("aria-label", `More about face ${row.face_index} of ${row.file}`);
  const gender = make("td");
  if (row.gender) {
    const share = make("small", {}, percent(confidence(row)));
    gender.append(make("i", { className: `dot ${kind(row)}` }), make("b", {}, row.gender), share);
  }
  const age = make("td");
  if (row.age !== undefined) {
    age.append(make("b", {}, row.age.toFixed(1)), make("small", {}, `${row.age_low.toFixed(0)}–${row.age_high.toFixed(0)}`), span(row));
  } else if (row.age_group) {
    age.append(row.age_group);
  }
  const tr = make("tr", {}, make("td", {}, button), gender, age, make("td", {}, (row.quality || "").replaceAll(";", ",")));
  tr.addEventListener("click", () => open(one, face, crops));
  light(tr, () => one.boxes?.[row.face_index]);
  return tr;
}

// The age and its interval between 0 and 100 years.
function span({ age, age_low: low, age_high: high }) {
  const [range, mark] = [make("i"), make("b")];
  const within = (years) => Math.min(100, Math.max(0, years));
  range.style.left = `${within(low)}%`;
  range.style.width = `${within(high) - within(low)}%`;
  mark.style.left = `${within(age)}%`;
  return make("div", { className: "span", title: `80% interval: ${low.toFixed(0)} to ${high.toFixed(0)} years` }, range, mark);
}

function open(one, { row, box }, crops) {
  at("face-title").textContent = `Face ${row.face_index} of ${row.file}`;
  portrait(at("face-picture"), one, whole(box));
  const words = [];
  if (row.gender === "unsure") words.push(`Too uncertain to name a gender (${percent(confidence(row))}).`);
  else if (row.gender) words.push(`Perceived as ${row.gender}, confidence ${percent(confidence(row))}.`);
  if (row.age !== undefined) {
    words.push(`Age ${row.age.toFixed(1)} years; 80% interval ${row.age_low.toFixed(0)} to ${row.age_high.toFixed(0)}.`);
  }
  if (row.quality) words.push(`The picture of the face is ${row.quality.replaceAll(";", ",")}.`);
  at("face-words").textContent = words.join(" ");
  const groups = Object.keys(row).filter((name) => /^p_\d/.test(name));
  at("ages").replaceChildren(
    ...groups.map((name) => {
      const bar = make("i");
      bar.style.backgroundSize = `${100 * row[name]}% 100%`;
      const entry = make("div", { className: "age" }, make("span", {}, name.slice(2)), bar, make("span", {}, percent(row[name])));
      entry.setAttribute("role", "listitem");
      return entry;
    }),
  );
  at("explanation").hidden = !engine.explain;
  at("face").showModal();
  if (engine.explain) explanation(engine.explain(one.file, row.face_index, crops), one.bitmap);
}

function clear() {
  for (const image of at("photographs").querySelectorAll("img")) URL.revokeObjectURL(image.src);
  shown.length = 0;
  at("photographs").replaceChildren();
  for (const body of at("rows").querySelectorAll("tbody")) body.remove();
  at("results").hidden = true;
  at("status").textContent = "";
  document.body.classList.remove("filled");
}

async function openCamera() {
  if (!navigator.mediaDevices) {
    at("status").textContent = "the camera needs https, or this page on localhost";
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
  } catch (error) {
    at("status").textContent = `no camera: ${error.message}`;
    return;
  }
  at("video").srcObject = stream;
  await at("video").play();
  at("viewfinder").hidden = false;
  at("shoot").focus();
}

function closeCamera() {
  if (stream) stream.getTracks().forEach((track) => track.stop());
  stream = null;
  at("viewfinder").hidden = true;
  at("camera").focus();
}

function shoot() {
  const video = at("video");
  const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  const name = `camera ${new Date().toLocaleTimeString("en-GB")}.png`;
  canvas.toBlob((blob) => predict([new File([blob], name, { type: blob.type })]), "image/png");
  closeCamera();
}

// The model card by its sections, of which one can be opened.
async function openCard(section) {
  if (!at("card-text").children.length) {
    const [first, ...rest] = (await engine.card()).split(/^## /m);
    at("card-text").append(make("pre", {}, first.replace(/^# .*\n+/, "")));
    for (const part of rest) {
      const [name] = part.split("\n", 1);
      at("card-text").append(make("details", {}, make("summary", {}, name), make("pre", {}, part.slice(name.length).trim())));
    }
  }
  for (const part of at("card-text").querySelectorAll("details")) part.open = part.firstChild.textContent === section;
  at("card").showModal();
  at("card-text").querySelector("details[open]")?.scrollIntoView();
}

function listen() {
  const rows = () => shown.flatMap((one) => one.rows);
  const actions = {
    camera: openCamera,
    "close-camera": closeCamera,
    shoot,
    clear,
    sample: async () => predict([new File([await engine.sample()], "drawn sample.png", { type: "image/png" })]),
    "save-csv": () => save(new Blob([csv(rows(), model.columns)], { type: "text/csv" }), "faces.csv"),
    "save-json": () => save(new Blob([JSON.stringify(rows(), null, 1)], { type: "application/json" }), "faces.json"),
  };
  for (const [id, act] of Object.entries(actions)) {
    at(id).addEventListener("click", () => Promise.resolve(act()).catch((error) => { at("status").textContent = error.message; }));
  }
  for (const [id, section] of [["limits", "Limits"], ["card-link", null]]) {
    at(id).addEventListener("click", (event) => {
      event.preventDefault();
      openCard(section);
    });
  }
  for (const button of document.querySelectorAll("dialog .close")) button.addEventListener("click", () => button.closest("dialog").close());
  at("files").addEventListener("change", (event) => predict(event.target.files).finally(() => { event.target.value = ""; }));
  document.addEventListener("paste", (event) => predict(event.clipboardData.files));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    at("drop").classList.add("over");
  });
  document.addEventListener("dragleave", () => at("drop").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    at("drop").classList.remove("over");
    predict(event.dataTransfer.files);
  });
}

export async function start(given) {
  engine = given;
  at("where").textContent = engine.where;
  listen();
  try {
    model = await engine.about();
  } catch (error) {
    at("status").textContent = error.message;
    return;
  }
  at("model").append(`Model ${model.name}. ${model.notice || ""} `, ...(engine.explain ? [make("a", { href: "openapi.json" }, "API")] : []));
  at("limits").hidden = at("card-link").hidden = !model.card;
}
