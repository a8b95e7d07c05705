"use strict";
// The page reads without this; with it, the table can be searched and sorted, and any two models
// compared. The choice is kept in the address, so that a comparison can be sent: #compare=a,b
const facts = JSON.parse(document.getElementById("facts").textContent);
const table = document.getElementById("models");
const rows = [...table.tBodies[0].rows];
const find = document.getElementById("find");
const allowed = document.getElementById("allowed");
const runs = document.getElementById("runs");
const found = document.getElementById("found");

function filter() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    row.hidden =
      !words.every((word) => row.dataset.words.includes(word)) ||
      (allowed.checked && row.dataset.allowed !== "yes") ||
      (runs.checked && row.dataset.runs !== "yes");
    shown += row.hidden ? 0 : 1;
  }
  found.textContent = `${shown} of ${rows.length} models`;
}

function sortBy(column, isNumber, isDown) {
  const value = (row) => row.cells[column].dataset.value;
  const order = (a, b) => {
    if (value(a) === "" || value(b) === "") return (value(a) === "") - (value(b) === "");
    const sign = isNumber ? value(a) - value(b) : value(a).localeCompare(value(b));
    return isDown ? -sign : sign;
  };
  table.tBodies[0].append(...[...rows].sort(order));
}

for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = head.textContent;
  head.replaceChildren(button);
  button.addEventListener("click", () => {
    const isNumber = head.dataset.sort === "n";
    const before = head.getAttribute("aria-sort");
    const isDown = before ? before === "ascending" : isNumber;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", isDown ? "descending" : "ascending");
    sortBy(column, isNumber, isDown);
  });
}

const sides = ["left", "right"].map((id) => document.getElementById(id));
const drawing = document.querySelector("#both svg");
const pair = document.getElementById("pair");

function compare() {
  const chosen = sides.map((side) => facts[side.value]);
  const names = document.querySelectorAll("#both .legend li > span:last-child");
  for (const [side, model] of chosen.entries()) {
    pair.tHead.rows[0].cells[side + 1].textContent = model.name;
    names[side].textContent = model.name;
    for (const [row, cell] of model.cells.entries()) {
      pair.tBodies[0].rows[row].cells[side + 1].textContent = cell;
    }
  }
  for (const [row, cell] of chosen[0].cells.entries()) {
    pair.tBodies[0].rows[row].classList.toggle("same", cell === chosen[1].cells[row]);
  }
  draw(chosen);
}

function draw(chosen) {
  for (const old of drawing.querySelectorAll(".shape")) old.remove();
  for (const side of [1, 0]) {
    if (!chosen[side].path) continue;
    const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
    shape.setAttribute("class", `shape r${side}`);
    shape.setAttribute("d", chosen[side].path);
    drawing.append(shape);
  }
  const scored = chosen.filter((model) => model.path);
  const said = scored.map((model) => `${model.name}: ${model.said}.`).join(" ");
  drawing.setAttribute("aria-label", `Scores by task type. ${said}`);
  const without = [...new Set(chosen.filter((model) => !model.path).map((model) => model.name))];
  document.getElementById("unscored").textContent = without.length
    ? `No published scores by task type are known of ${without.join(" and ")}.`
    : "";
}

function choose() {
  const asked = /^#compare=([^,]+),([^,]+)$/.exec(decodeURIComponent(location.hash));
  if (!asked || !facts[asked[1]] || !facts[asked[2]]) return;
  sides[0].value = asked[1];
  sides[1].value = asked[2];
  compare();
  document.getElementById("compare").scrollIntoView();
}

for (const side of sides) {
  side.addEventListener("change", () => {
    compare();
    history.replaceState(null, "", `#compare=${sides.map((one) => one.value).join(",")}`);
  });
}
for (const control of [find, allowed, runs]) control.addEventListener("input", filter);
for (const hidden of document.querySelectorAll(".filters, .pickers")) hidden.hidden = false;
window.addEventListener("hashchange", choose);
filter();
choose();
