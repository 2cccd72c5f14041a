"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const list = document.getElementById("cards");
const keys = { w: "wrong", k: "keep", n: "unsure" };
const said = { wrong: "wrong", keep: "keep", unsure: "not sure" };
const columns = [...new Set(data.cards.map((card) => card.column))];
const idOf = (card) => JSON.stringify([card.face, card.column, card.given, card.suggested]);
let column = columns[0];
// Marks are saved across sessions if the browser allows it.
let kept = {};
try { kept = JSON.parse(localStorage.getItem("mien-review") || "{}"); } catch { kept = {}; }
const state = new Map(data.cards.map((card) => [card, kept[idOf(card)] || { mark: "", value: card.suggested }]));

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function save() {
  for (const [card, now] of state) {
    if (now.mark || now.value !== card.suggested) kept[idOf(card)] = now;
    else delete kept[idOf(card)];
  }
  try { localStorage.setItem("mien-review", JSON.stringify(kept)); } catch { /* the page still works */ }
}

function count() {
  const marks = data.cards.filter((card) => card.column === column).map((card) => state.get(card).mark);
  const number = (mark) => marks.filter((one) => one === mark).length;
  document.getElementById("count").textContent =
    `${marks.length} of ${data.counts[column]} suggestions shown: ${number("wrong")} wrong, ${number("keep")} keep, ` +
    `${number("unsure")} not sure, ${number("")} remaining`;
  const wrong = [...state.values()].filter((now) => now.mark === "wrong").length;
  document.getElementById("download").textContent = `Download corrections (${wrong})`;
}

function mark(item, value) {
  const now = state.get(item.card);
  now.mark = value;
  show(item);
  save();
  count();
}

function show(item) {
  const now = state.get(item.card);
  item.dataset.mark = now.mark;
  for (const button of item.querySelectorAll(".marks button")) {
    button.setAttribute("aria-pressed", String(button.value === now.mark));
  }
}

function editor(card) {
  const now = state.get(card);
  let field;
  if (data.words[card.column]) {
    field = element("select");
    for (const word of [...data.words[card.column], ""]) {
      field.append(element("option", { value: word, textContent: word || "unknown" }));
    }
  } else {
    field = element("input", { type: "number", min: "0", max: "130", step: "any" });
  }
  field.value = now.value;
  field.addEventListener("input", () => { now.value = field.value; save(); });
  return element("label", {}, `Correct ${card.column.replace("_", " ")}`, field);
}

function draw(card) {
  const item = element("li", { className: "card", tabIndex: 0 });
  item.card = card;
  item.setAttribute("aria-label", `${card.rank}: labelled ${card.given}, predicted ${card.suggested}`);
  item.append(card.picture
    ? element("img", { src: card.picture, alt: "", loading: "lazy" })
    : element("span", { className: "none", textContent: "cannot be read" }));
  item.append(element("p", { className: "said" }, `${card.rank}. labelled `, element("b", { textContent: card.given }),
    `; ${card.why}`));
  item.append(element("div", { className: "name", textContent: card.face }));
  const marks = element("div", { className: "marks" });
  for (const value of Object.values(keys)) {
    const button = element("button", { type: "button", value, textContent: said[value], tabIndex: -1 });
    button.addEventListener("click", () => { item.focus(); mark(item, state.get(card).mark === value ? "" : value); });
    marks.append(button);
  }
  item.append(marks, editor(card));
  show(item);
  return item;
}

function drawAll() {
  list.replaceChildren(...data.cards.filter((card) => card.column === column).map(draw));
  for (const button of document.querySelectorAll("#columns button")) {
    button.setAttribute("aria-pressed", String(button.value === column));
  }
  count();
  const next = [...list.children].find((item) => !state.get(item.card).mark) || list.firstElementChild;
  if (next) next.focus();
}

function perRow() {
  const top = list.firstElementChild.offsetTop;
  return [...list.children].filter((item) => item.offsetTop === top).length;
}

function move(item, steps) {
  const items = [...list.children];
  const to = items[items.indexOf(item) + steps];
  if (to) to.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const item = document.activeElement.closest(".card");
  if (!item) {
    if ((event.key === "j" || event.key === "ArrowDown") && document.activeElement === document.body) {
      list.firstElementChild.focus();
      event.preventDefault();
    }
    return;
  }
  if (document.activeElement.matches("input, select")) {
    if (event.key === "Escape" || event.key === "Enter") item.focus();
    return;
  }
  const steps = { ArrowRight: 1, j: 1, ArrowLeft: -1, ArrowDown: perRow(), ArrowUp: -perRow() }[event.key];
  if (steps) move(item, steps);
  else if (keys[event.key]) { mark(item, keys[event.key]); move(item, 1); }
  else if (event.key === "x") mark(item, "");
  else if (event.key === "e") item.querySelector("input, select").focus();
  else return;
  event.preventDefault();
});

const field = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

function corrections() {
  const lines = ["face,column,old,new,why"];
  for (const [card, now] of state) {
    if (now.mark === "wrong" && now.value !== card.given) {
      const why = `marked wrong in a review; ${card.why}`;
      lines.push([card.face, card.column, card.given, now.value, why].map(field).join(","));
    }
  }
  return lines.join("\n") + "\n";
}

document.getElementById("download").addEventListener("click", () => {
  const url = URL.createObjectURL(new Blob([corrections()], { type: "text/csv" }));
  const link = element("a", { href: url, download: "corrections.csv" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
});

for (const name of columns) {
  const button = element("button", { type: "button", value: name, textContent: name.replace("_", " ") });
  button.addEventListener("click", () => { column = name; drawAll(); });
  document.getElementById("columns").append(button, " ");
}
if (columns.length) drawAll();
else document.getElementById("count").textContent = "No label contradicts the predictions.";
