/* Two columns of a study against each other: points, the front of the best, curves along an axis. */
"use strict";

const SVG_POINTS_MAX = 3000, ERRORS_MAX = 200, CURVES_MAX = 12;
const CURVE_COLORS = ["#1b4f8a", "#3b75af", "#6a9ac8", "#9cb9d6", "#c9b79c", "#e0a468", "#cf7f35", "#b8560d"];

class PointMap {
  constructor(place, selects, rows) {
    Object.assign(this, { place, rows, selects });
    const drawable = [...rows.with("axis"), ...rows.with("field"), ...rows.with("number")].filter((column) => column.ends);
    const [axes, objectives] = [rows.with("axis"), rows.objectives.filter((each) => each.ends)];
    const first = objectives[0] || rows.with("number").find((each) => each.ends);
    const turning = axes.filter((each) => each.steps.length > 1);
    const chosen = objectives.length > 1
      ? [objectives[1], first, turning[0]] : [turning[0] || axes[0], first, turning[1] || first];
    ["x", "y", "color"].forEach((name, number) => {
      fill(selects[name], drawable, chosen[number]);
      selects[name].addEventListener("change", () => this.draw());
    });
    rows.on("kept", () => this.dim());
    rows.on("picked", () => this.mark());
    this.draw();
  }

  column(name) { return this.rows.named(this.selects[name].value); }

  show(x, y, color) {
    for (const [name, value] of Object.entries({ x, y, color })) {
      if (value && this.rows.named(value)) this.selects[name].value = value;
    }
    this.draw();
  }

  draw() {
    const [x, y, color] = ["x", "y", "color"].map((name) => this.column(name));
    const has = (row) => x.rank(row) !== null && y.rank(row) !== null;
    this.drawn = this.rows.runnable.filter(has);
    this.placeOf = new Map(this.drawn.map((row, place) => [row, place]));
    const traces = [...this.curves(x, y, color), ...this.front(x, y), this.points(x, y, color), this.ring(x, y)];
    this.pointTrace = traces.length - 2;
    const layout = layoutStyle({ xaxis: axisOf(x), yaxis: axisOf(y), hovermode: "closest",
      showlegend: false, dragmode: window.innerWidth > 640 ? "select" : false,
      selections: [], margin: { l: 60, r: 16, t: 30, b: 52 } });
    const first = !this.place.data;
    Plotly.react(this.place, traces, layout, CONFIG);
    if (first) this.listen();
    this.dim();
    this.mark();
  }

  points(x, y, color) {
    const type = this.drawn.length > SVG_POINTS_MAX ? "scattergl" : "scatter";
    const [least, most] = color.ends;
    const reversed = color.better === "more";
    const few = color.role !== "number" && color.steps.length <= CURVES_MAX;
    const trace = { type, mode: "markers", x: this.drawn.map((row) => x.rank(row)),
      y: this.drawn.map((row) => y.rank(row)), hoverinfo: "text",
      text: this.drawn.map((row) => this.hover(row)),
      marker: { size: this.drawn.length > 1000 ? 5 : 8, line: { width: 0.5, color: "#fff" },
        color: this.drawn.map((row) => this.tint(color, row)), cmin: 0, cmax: 1,
        colorscale: scaleOf(reversed),
        colorbar: { thickness: 10, len: 0.9, outlinewidth: 0, ticklen: 0,
          title: { text: inert(color.label), side: "right", font: { size: 12, color: INK } },
          ...(few ? { tickvals: color.steps.map((rank) => tintOf(color, rank)),
            ticktext: color.steps.map((rank) => inert(color.step(rank))) }
            : { tickvals: [0, 0.25, 0.5, 0.75, 1], ticktext: [0, 0.25, 0.5, 0.75, 1].map((share) =>
              inert(color.text ? color.step(Math.round(share * most))
                : String(Number((least + share * (most - least)).toPrecision(4))))) }) } } };
    if (y.low && this.drawn.length <= ERRORS_MAX) trace.error_y = this.errors(y);
    if (x.low && this.drawn.length <= ERRORS_MAX) trace.error_x = this.errors(x);
    return trace;
  }

  tint(color, row) {
    const rank = color.rank(row);
    return rank === null ? 0.5 : tintOf(color, rank);
  }

  errors(column) {
    const from = (ends, sign) => this.drawn.map((row) =>
      (ends[row] === null ? 0 : Math.max(0, sign * (ends[row] - column.rank(row)))));
    return { type: "data", symmetric: false, array: from(column.high, 1),
      arrayminus: from(column.low, -1), color: "rgba(100,107,121,0.35)", thickness: 1, width: 0 };
  }

  /* Curves along x, one for each value of the colour if that is an axis, through the best over all
     other axes. */
  curves(x, y, color) {
    if (x.role !== "axis" || y.role === "axis") return [];
    const split = color.role === "axis" && color !== x;
    if (split && color.steps.length > CURVES_MAX) return [];
    const steps = split ? color.steps : [null];
    const number = steps.length;
    return steps.map((step, place) => {
      const best = new Map();
      for (const row of this.drawn) {
        if (split && color.rank(row) !== step) continue;
        const [at, now] = [x.rank(row), y.rank(row)];
        if (!best.has(at) || y.compare(now, best.get(at)) < 0) best.set(at, now);
      }
      const xs = [...best.keys()].sort((one, other) => one - other);
      const tone = CURVE_COLORS[Math.round((place * (CURVE_COLORS.length - 1)) / Math.max(1, number - 1))];
      return { type: "scatter", mode: "lines", x: xs, y: xs.map((at) => best.get(at)),
        line: { color: split ? tone : "#9aa1ad", width: 1.5 }, opacity: 0.6, hoverinfo: "skip" };
    });
  }

  /* The points than which none is better both ways, where both columns have a better way. */
  front(x, y) {
    if (!x.better || !y.better || x === y) return [];
    const sorted = [...this.drawn].sort((one, other) =>
      x.compare(x.rank(one), x.rank(other)) || y.compare(y.rank(one), y.rank(other)));
    const front = [];
    for (const row of sorted) {
      if (!front.length || y.compare(y.rank(row), y.rank(front.at(-1))) < 0) front.push(row);
    }
    return [{ type: "scatter", mode: "lines", x: front.map((row) => x.rank(row)),
      y: front.map((row) => y.rank(row)), hoverinfo: "skip",
      line: { color: INK, width: 1.2, dash: "dot", shape: "linear" } }];
  }

  ring(x, y) {
    return { type: "scatter", mode: "markers", x: [], y: [], hoverinfo: "skip", marker: { size: 15, symbol: "circle-open",
      color: INK, line: { width: 2.5, color: INK } } };
  }

  hover(row) {
    const named = (column) => `${inert(column.title)}: <b>${inert(column.named(column.value(row)))}</b>`;
    const told = [...this.rows.with("axis"), ...this.rows.objectives];
    for (const name of ["x", "y"]) if (!told.includes(this.column(name))) told.push(this.column(name));
    return [`point ${this.rows.columns[0].show(row)}`, ...told.map(named)].join("<br>");
  }

  listen() {
    this.place.on("plotly_click", ({ points }) => {
      const hit = points.find((point) => point.curveNumber === this.pointTrace);
      if (hit) this.rows.pick(this.drawn[hit.pointNumber]);
    });
    this.place.on("plotly_selected", (event) => {
      if (!event || !event.points) return;
      const inside = new Set(event.points.filter((point) => point.curveNumber === this.pointTrace)
        .map((point) => this.drawn[point.pointNumber]));
      this.rows.keep("map", inside.size ? (row) => inside.has(row) : null);
    });
    this.place.on("plotly_deselect", () => this.rows.keep("map", null));
  }

  clear() {
    this.rows.keep("map", null);
    Plotly.relayout(this.place, { selections: [] });
  }

  /* Rows that are not kept step back. */
  dim() {
    const all = this.rows.kept.length === this.rows.count;
    const kept = all ? null : this.drawn.flatMap((row, place) => (this.rows.isKept[row] ? [place] : []));
    Plotly.restyle(this.place, { selectedpoints: [kept], "unselected.marker.opacity": 0.08 }, [this.pointTrace]);
  }

  mark() {
    const [row, x, y] = [this.rows.picked, this.column("x"), this.column("y")];
    const at = this.placeOf.has(row) ? [[x.rank(row)], [y.rank(row)]] : [[], []];
    Plotly.restyle(this.place, { x: [at[0]], y: [at[1]] }, [this.pointTrace + 1]);
  }
}

/* Where on the colour scale a rank is: axes step by step, numbers in proportion. */
function tintOf(column, rank) {
  if (column.role !== "number" && column.steps.length <= CURVES_MAX) {
    return column.steps.length > 1 ? column.steps.indexOf(rank) / (column.steps.length - 1) : 0;
  }
  const [least, most] = column.ends;
  return most > least ? (rank - least) / (most - least) : 0;
}

const scaleOf = (reversed) => (reversed
  ? BEST_TO_WORST.map(([stop, color]) => [1 - stop, color]).reverse() : BEST_TO_WORST);

/* How Plotly draws a column along an axis of a plot. */
function axisOf(column) {
  const title = { text: inert(column.label) };
  if (column.text) {
    return { title, tickvals: column.steps, ticktext: column.steps.map((rank) => inert(column.step(rank))) };
  }
  const scale = new Scale(column);
  const marks = column.role === "axis" && column.steps.length <= CURVES_MAX
    ? { tickvals: column.steps, ticktext: column.steps.map((rank) => column.step(rank)) } : {};
  return { title, type: scale.isLog ? "log" : "linear", ...marks };
}

/* Fill a select with columns. */
function fill(select, columns, chosen) {
  select.replaceChildren(...columns.map((column) => new Option(column.label, column.name)));
  if (chosen) select.value = chosen.name;
}
