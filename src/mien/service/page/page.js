"use strict";
// One request per photograph: results appear as they are ready, and the service batches requests.

const at = (id) => document.getElementById(id);
const AT_ONCE = 3;
const shown = []; // {file, bitmap, rows, figure, body}, in the order in which they were chosen
let columns = [];
let stream = null;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function report(words) {
  at("status").textContent = words;
}

async function ask(path, options = {}) {
  const key = at("key").value;
  const headers = { ...(options.headers || {}), ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  for (let tries = 0; ; tries++) {
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch {
      throw new Error("the service does not respond");
    }
    if (response.status === 503 && tries < 20) {
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      await new Promise((done) => setTimeout(done, 1000 * seconds));
      continue;
    }
    if (response.status === 401) at("key-label").hidden = false;
    const answer = await response.json();
    if (!response.ok) throw Object.assign(new Error(answer.detail), { reason: answer.reason });
    return answer;
  }
}

async function predict(files) {
  const waiting = [...files].map((file) => {
    const one = { file, bitmap: null, rows: [], figure: make("figure", { hidden: true }), body: make("tbody") };
    shown.push(one);
    at("photographs").append(one.figure);
    at("rows").append(one.body);
    return one;
  });
  const chosen = [...waiting];
  const total = waiting.length;
  const crops = at("crops").checked;
  let done = 0;
  const failed = [];
  report(`processing ${total === 1 ? "one photograph" : `${total} photographs`} …`);
  const work = async () => {
    for (let one = waiting.shift(); one; one = waiting.shift()) {
      const { file } = one;
      try {
        const body = new FormData();
        body.append("images", file, file.name || "photograph");
        const answer = await ask(`v1/predict?crops=${crops}`, { method: "POST", body });
        await show(one, answer.rows, crops);
      } catch (error) {
        failed.push(`${file.name || "photograph"}: ${error.reason || error.message}`);
        await show(one, [{ file: file.name || "photograph", status: error.reason || error.message }], false);
      }
      done += 1;
      if (done < total) report(`${done} of ${total} photographs`);
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, total) }, work));
  const faces = chosen.flatMap((one) => one.rows).filter((row) => row.status === "ok").length;
  const words = `${faces} ${faces === 1 ? "face" : "faces"} in ${total} ${total === 1 ? "photograph" : "photographs"}`;
  report(failed.length ? `${words}; not read: ${failed.join(", ")}` : words);
}

const percent = (share) => `${Math.round(100 * share)}%`;
const confidence = (row) => Math.max(row.p_female, 1 - row.p_female);

function label(row) {
  const parts = [];
  if (row.gender) parts.push(row.gender === "unsure" ? "unsure" : `${row.gender} ${percent(confidence(row))}`);
  if (row.age !== undefined) parts.push(`${Math.round(row.age)} (${Math.round(row.age_low)}–${Math.round(row.age_high)})`);
  return parts.join(", ");
}

async function show(one, rows, crops) {
  const { file, figure } = one;
  let bitmap = null;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    // The service may have read an image that the browser cannot show (a TIFF): the table has its rows.
  }
  Object.assign(one, { bitmap, rows });
  const caption = make("figcaption", {}, rows[0].file);
  if (rows[0].status !== "ok") caption.append(`: ${rows[0].status}`);
  figure.append(caption);
  figure.hidden = false;
  if (bitmap) {
    const image = make("img", { src: URL.createObjectURL(file), alt: rows[0].file });
    const picture = make("div", { className: "picture" }, image);
    for (const row of rows.filter((row) => row.status === "ok")) {
      const box = crops ? { x: 0, y: 0, w: bitmap.width, h: bitmap.height } : row;
      const words = label(row);
      const button = make("button", { className: "box", type: "button" }, make("span", {}, words.replace(", ", "\n")));
      button.setAttribute("aria-label", `Face ${row.face_index + 1} of ${row.file}: ${words}. Explain`);
      const [x, y] = [Math.max(0, box.x), Math.max(0, box.y)];
      const [right, low] = [Math.min(bitmap.width, box.x + box.w), Math.min(bitmap.height, box.y + box.h)];
      button.style.left = `${(100 * x) / bitmap.width}%`;
      button.style.top = `${(100 * y) / bitmap.height}%`;
      button.style.width = `${(100 * (right - x)) / bitmap.width}%`;
      button.style.height = `${(100 * (low - y)) / bitmap.height}%`;
      if (x > bitmap.width / 2) button.classList.add("right");
      if (low > 0.9 * bitmap.height) button.classList.add("low");
      button.addEventListener("click", () => explain(one, row, crops));
      picture.append(button);
    }
    figure.prepend(picture);
  }
  one.body.append(...rows.map((row) => line(one, row, crops)));
  at("results").hidden = false;
}

function line(one, row, crops) {
  const cells = [make("td", { title: row.file }, row.file)];
  if (row.status === "ok") {
    const button = make("button", { type: "button" }, String(row.face_index + 1));
    button.setAttribute("aria-label", `Explain face ${row.face_index + 1} of ${row.file}`);
    button.addEventListener("click", () => explain(one, row, crops));
    const has = row.age !== undefined;
    cells.push(make("td", {}, button), make("td", {}, row.gender || ""), make("td", {}, row.gender ? percent(confidence(row)) : ""));
    cells.push(make("td", {}, has ? row.age.toFixed(1) : ""), make("td", {}, has ? `${row.age_low.toFixed(0)} to ${row.age_high.toFixed(0)}` : ""));
    cells.push(make("td", {}, row.quality || ""));
  } else {
    cells.push(...Array.from({ length: 5 }, () => make("td")), make("td", {}, row.status));
  }
  return make("tr", {}, ...cells);
}

async function explain(one, row, crops) {
  at("face-title").textContent = `Face ${row.face_index + 1} of ${row.file}`;
  const notes = row.quality ? ` Image quality: ${row.quality.replaceAll(";", ",")}.` : "";
  const age = row.age === undefined ? "" : ` Age ${row.age.toFixed(1)} years (80% interval: ${row.age_low.toFixed(0)} to ${row.age_high.toFixed(0)}).`;
  const gender = row.gender ? `Perceived as ${row.gender}, confidence ${percent(confidence(row))}.` : "";
  at("face-words").textContent = `${gender}${age}${notes}`;
  const groups = Object.keys(row).filter((name) => /^p_\d/.test(name));
  at("ages").replaceChildren(
    ...groups.map((name) => {
      const bar = make("i");
      bar.style.backgroundSize = `${100 * row[name]}% 100%`;
      const line = make("div", { className: "age" }, make("span", {}, name.slice(2)), bar, make("span", {}, percent(row[name])));
      line.setAttribute("role", "listitem");
      return line;
    }),
  );
  at("maps").replaceChildren();
  at("maps-hint").hidden = true;
  at("maps-status").textContent = "computing the maps …";
  at("face").showModal();
  try {
    const type = { "Content-Type": "application/octet-stream" };
    const answer = await ask(`v1/explain?face=${row.face_index}&crops=${crops}`, { method: "POST", body: one.file, headers: type });
    const names = { gender: "gender", age: "age" };
    for (const [name, grid] of Object.entries(answer.maps)) {
      const canvas = draw(one.bitmap, answer.crop, grid);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `Map of the regions that support the predicted ${names[name] || name}; strongest ${strongest(grid)}`);
      at("maps").append(make("figure", {}, canvas, make("figcaption", {}, names[name] || name)));
    }
    at("maps-hint").hidden = false;
    at("maps-status").textContent = "";
  } catch (error) {
    at("maps-status").textContent = `no map: ${error.message}`;
  }
}

function strongest(grid) {
  let best = [0, 0, 0];
  grid.forEach((line, y) => line.forEach((value, x) => { if (value > best[0]) best = [value, x, y]; }));
  const third = (place, names) => names[Math.min(2, Math.floor((3 * place) / grid.length))];
  return `${third(best[2], ["above", "in the middle", "below"])}, ${third(best[1], ["left", "centre", "right"])}`;
}

// The response has the position of the crop in the image; colours of the map show sign and strength.
function draw(bitmap, crop, grid) {
  const side = 256;
  const canvas = make("canvas", { width: side, height: side });
  const context = canvas.getContext("2d");
  if (bitmap) {
    context.filter = "grayscale(1)";
    context.drawImage(bitmap, crop.x, crop.y, crop.side, crop.side, 0, 0, side, side);
    context.filter = "none";
  }
  const most = Math.max(1e-9, ...grid.flat().map(Math.abs));
  const small = make("canvas", { width: grid.length, height: grid.length });
  const pixels = new ImageData(grid.length, grid.length);
  grid.flat().forEach((value, index) => {
    pixels.data.set(value > 0 ? [230, 120, 0] : [0, 110, 200], 4 * index);
    pixels.data[4 * index + 3] = 190 * Math.min(1, Math.abs(value) / most);
  });
  small.getContext("2d").putImageData(pixels, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, side, side);
  return canvas;
}

function csv() {
  const cell = (value) => {
    let text = value === undefined || value === null ? "" : String(value);
    // Prevents a spreadsheet from running a file name as a formula.
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const rows = shown.flatMap((one) => one.rows);
  const names = columns.length ? columns : [...new Set(rows.flatMap((row) => Object.keys(row)))];
  return [names.join(","), ...rows.map((row) => names.map((name) => cell(row[name])).join(","))].join("\n") + "\n";
}

function download() {
  const link = make("a", { href: URL.createObjectURL(new Blob([csv()], { type: "text/csv" })), download: "faces.csv" });
  link.click();
  URL.revokeObjectURL(link.href);
}

function clear() {
  for (const image of at("photographs").querySelectorAll("img")) URL.revokeObjectURL(image.src);
  shown.length = 0;
  at("photographs").replaceChildren();
  for (const body of at("rows").querySelectorAll("tbody")) body.remove();
  at("results").hidden = true;
  report("");
}

async function openCamera() {
  if (!navigator.mediaDevices) {
    report("the camera needs https, or this page on localhost");
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
  } catch (error) {
    report(`no camera: ${error.message}`);
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
  canvas.toBlob((blob) => predict([new File([blob], `camera ${new Date().toLocaleTimeString("en-GB")}.jpg`)]), "image/jpeg", 0.92);
  closeCamera();
}

at("files").addEventListener("change", (event) => {
  predict(event.target.files).finally(() => { event.target.value = ""; });
});
at("camera").addEventListener("click", openCamera);
at("close-camera").addEventListener("click", closeCamera);
at("shoot").addEventListener("click", shoot);
at("download").addEventListener("click", download);
at("clear").addEventListener("click", clear);
at("close-face").addEventListener("click", () => at("face").close());
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) predict(files);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
document.addEventListener("dragleave", () => at("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  if (event.dataTransfer.files.length) predict(event.dataTransfer.files);
});
ask("v1/model").then(
  (model) => {
    columns = model.columns;
    at("model").textContent = `Model ${model.name}. ${model.notice || ""}`;
  },
  (error) => report(error.message),
);
