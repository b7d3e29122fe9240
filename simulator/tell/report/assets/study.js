/* A study's page: its rows, their table and their plots, all linked through what is kept and picked. */
"use strict";

const byId = (id) => document.getElementById(id);
const study = JSON.parse(byId("study").textContent);
const rows = new Rows(study);
const grid = new Grid(byId("grid"), rows);
const canDraw = rows.runnable.length > 0 && rows.with("number").some((column) => column.ends);

const selectsOf = (name, keys) => Object.fromEntries(keys.map((key) => [key, byId(`${name}-${key}`)]));
let [map, lines] = [null, null];
if (canDraw) {
  const turning = rows.with("axis").filter((axis) => axis.steps.length > 1);
  if (turning.length > 1) {
    byId("heat-section").hidden = false;
    new HeatMap(byId("heat"), selectsOf("heat", ["x", "y", "z"]), rows);
  }
  map = new PointMap(byId("map"), selectsOf("map", ["x", "y", "color"]), rows);
  lines = new Lines(byId("lines"), rows);
} else {
  for (const section of [byId("map").parentElement, byId("lines-section")]) section.hidden = true;
}

/* What the study says of itself: a click sets the plot to it. */
for (const figure of map ? study.figures : []) {
  if (!figure.y || !rows.named(figure.x)) continue;
  const button = byId("findings").appendChild(document.createElement("button"));
  button.type = "button";
  button.textContent = figure.title;
  button.addEventListener("click", () => map.show(figure.x, figure.y, figure.by));
  byId("findings").hidden = false;
}

for (const card of document.querySelectorAll(".card[data-row]")) {
  card.addEventListener("click", () => {
    const row = Number(card.dataset.row);
    if (rows.picked !== row) rows.pick(row);
  });
}

function tellCount() {
  const [kept, all] = [rows.kept.length, rows.count];
  const number = (count) => count.toLocaleString("en-US");
  byId("count").textContent = kept === all ? `${number(all)} points` : `${number(kept)} of ${number(all)} points`;
  byId("clear").hidden = kept === all;
}

function tellPicked() {
  const [place, row] = [byId("picked"), rows.picked];
  place.hidden = row < 0;
  if (row < 0) return;
  byId("picked-title").textContent = `Point ${rows.columns[0].show(row)}`;
  const list = place.querySelector("dl");
  list.replaceChildren();
  for (const column of rows.columns.slice(1)) {
    const value = column.value(row);
    if (value === null || value === "") continue;
    const [title, told] = [document.createElement("dt"), document.createElement("dd")];
    title.textContent = column.title;
    told.textContent = column.named(value);
    if (column.low && column.low[row] !== null) {
      told.append(` (P10 to P90: ${column.format(column.low[row])} to ${column.named(column.high[row])})`);
    }
    list.append(title, told);
  }
  grid.reveal(row);
}

byId("runnable").addEventListener("change", (event) =>
  rows.keep("runnable", event.target.checked ? (row) => rows.feasible[row] : null));
byId("clear").addEventListener("click", () => {
  for (const input of byId("grid").querySelectorAll("input")) input.value = "";
  byId("runnable").checked = false;
  for (const view of [...rows.conditions.keys()]) if (!["map", "lines"].includes(view)) rows.keep(view, null);
  if (map) { map.clear(); lines.clear(); }
});
rows.on("kept", tellCount);
rows.on("picked", tellPicked);
tellCount();
