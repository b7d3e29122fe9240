/* Two axes of a study and a number as a map of colours: the best over what else moves. */
"use strict";

const TEXT_CELLS_MAX = 160;

class HeatMap {
  constructor(place, selects, rows) {
    Object.assign(this, { place, selects, rows });
    const axes = rows.with("axis").filter((axis) => axis.steps.length > 1);
    const numbers = rows.with("number").filter((column) => column.ends);
    fill(selects.x, axes, axes[0]);
    fill(selects.y, axes, axes[1]);
    fill(selects.z, numbers, rows.objectives.find((each) => each.ends) || numbers[0]);
    for (const select of Object.values(selects)) select.addEventListener("change", () => this.draw());
    rows.on("kept", () => this.draw());
    rows.on("picked", () => this.mark());
    this.draw();
    place.on("plotly_click", ({ points }) => {
      const row = this.best[points[0].pointIndex[0]]?.[points[0].pointIndex[1]];
      if (row !== undefined && row >= 0) rows.pick(row);
    });
  }

  column(name) { return this.rows.named(this.selects[name].value); }

  draw() {
    const [x, y, z] = ["x", "y", "z"].map((name) => this.column(name));
    const [across, up] = [new Map(x.steps.map((rank, at) => [rank, at])), new Map(y.steps.map((rank, at) => [rank, at]))];
    this.best = y.steps.map(() => x.steps.map(() => -1));
    const stopped = y.steps.map(() => x.steps.map(() => false));
    const runs = new Set(this.rows.runnable.map((row) => `${y.rank(row)} ${x.rank(row)}`));
    for (const row of this.rows.kept) {
      const [i, j] = [up.get(y.rank(row)), across.get(x.rank(row))];
      if (i === undefined || j === undefined) continue;
      if (!this.rows.feasible[row]) stopped[i][j] = !runs.has(`${y.rank(row)} ${x.rank(row)}`);
      else if (z.rank(row) !== null) {
        const best = this.best[i][j];
        if (best < 0 || z.compare(z.rank(row), z.rank(best)) < 0) this.best[i][j] = row;
      }
    }
    const few = x.steps.length * y.steps.length <= TEXT_CELLS_MAX && this.place.clientWidth > 420;
    const filled = this.best.flat().filter((row) => row >= 0).map((row) => z.rank(row));
    const [low, high] = [Math.min(...filled), Math.max(...filled)];
    const cell = (row, i, j) => (row >= 0 ? String(Number(z.rank(row).toPrecision(4))) : stopped[i][j] ? "×" : "");
    const texts = this.best.map((line, i) => line.map((row, j) => cell(row, i, j)));
    const heat = { type: "heatmap", z: this.best.map((line) => line.map((row) => (row >= 0 ? z.rank(row) : null))),
      zmin: low, zmax: high > low ? high : low + 1, colorscale: scaleOf(z.better === "more"), xgap: 2, ygap: 2, hoverinfo: "text",
      text: this.best.map((line, i) => line.map((row, j) => this.hover(row, stopped[i][j], x, y, z, i, j))),
      colorbar: { thickness: 10, len: 0.9, outlinewidth: 0, ticklen: 0, title: { text: inert(z.label), side: "right", font: { size: 12, color: INK } } } };
    const layout = layoutStyle({ xaxis: stepsOf(x), yaxis: stepsOf(y), margin: { l: 60, r: 16, t: 30, b: 52 }, hovermode: "closest",
      dragmode: false, annotations: this.labels(texts, z, few, low, high) });
    this.layout = layout;
    Plotly.react(this.place, [heat, { type: "scatter", mode: "markers", x: [], y: [], hoverinfo: "skip",
      marker: { symbol: "square-open", size: 22, color: INK, line: { width: 2.5, color: INK } } }], layout, CONFIG);
    this.mark();
  }

  /* Numbers in cells, where there is room; a cross where no point can run. */
  labels(texts, z, few, low, high) {
    const found = [];
    texts.forEach((line, i) => line.forEach((text, j) => {
      if (!text || (!few && text !== "×")) return;
      const row = this.best[i][j];
      const place = row >= 0 && high > low ? (z.rank(row) - low) / (high - low) : 0.5;
      found.push({ x: j, y: i, text, showarrow: false, font: { size: 11,
        color: text === "×" ? "#9aa1ad" : place < 0.2 || place > 0.9 ? "#fff" : INK } });
    }));
    return found;
  }

  hover(row, stopped, x, y, z, i, j) {
    const where = `${inert(x.title)}: <b>${inert(x.named(x.text ? x.step(x.steps[j]) : x.steps[j]))}</b><br>` +
      `${inert(y.title)}: <b>${inert(y.named(y.text ? y.step(y.steps[i]) : y.steps[i]))}</b>`;
    if (row < 0) return `${where}<br>${stopped ? "no point here can run" : "no point here"}`;
    return `${where}<br>${inert(z.title)}: <b>${inert(z.named(z.value(row)))}</b> (point ${this.rows.columns[0].show(row)})`;
  }

  mark() {
    const [x, y, row] = [this.column("x"), this.column("y"), this.rows.picked];
    const at = row < 0 ? [[], []] : [[x.steps.indexOf(x.rank(row))], [y.steps.indexOf(y.rank(row))]];
    Plotly.restyle(this.place, { x: [at[0]], y: [at[1]] }, [1]);
  }
}

/* An axis of a plot with a place for each value of a column, all equally far apart. */
const stepsOf = (column) => ({ title: { text: inert(column.label) }, showgrid: false,
  tickvals: column.steps.map((_, at) => at), range: [-0.5, column.steps.length - 0.5],
  ticktext: column.steps.map((rank) => inert(column.step(rank))) });
