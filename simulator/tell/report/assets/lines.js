/* Parallel coordinates: a scale for each axis and number, a line for each point that can run. */
"use strict";

const SCALES_MAX = 8, SCALE_PX = 118, LINES_PX = 340, TOP_PX = 62, BOTTOM_PX = 26, SIDE_PX = 58,
  NEAR_PX = 16, SHADES = 12;

/* Blue is best and orange is worst, in all plots of a study. */
const BEST_TO_WORST = [[0, "#1b4f8a"], [0.35, "#7fa8cf"], [0.6, "#d9d5cd"], [0.8, "#e0a468"], [1, "#b8560d"]];

/* Return the colour of a place from 0, best, to 1. */
function shade(place) {
  const upper = BEST_TO_WORST.findIndex(([stop]) => stop >= place);
  if (upper <= 0) return BEST_TO_WORST[upper < 0 ? BEST_TO_WORST.length - 1 : 0][1];
  const [[low, from], [high, to]] = [BEST_TO_WORST[upper - 1], BEST_TO_WORST[upper]];
  const share = (place - low) / (high - low);
  const part = (text, at) => parseInt(text.slice(at, at + 2), 16);
  const mixed = [1, 3, 5].map((at) => Math.round(part(from, at) + share * (part(to, at) - part(from, at))));
  return `rgb(${mixed.join(",")})`;
}

/* Where on its scale a rank is, from 0 at the bottom to 1. */
class Scale {
  constructor(column) {
    this.column = column;
    const [least, most] = column.ends;
    this.isLog = !column.text && least > 0 && (column.log || most / least > 100);
    const on = this.isLog ? Math.log : (rank) => rank;
    const width = on(most) - on(least);
    this.place = (rank) => (width ? (on(rank) - on(least)) / width : 0.5);
  }

  /* Ranks that have a mark: every value of an axis where they are few, else some round ones. */
  get marks() {
    const steps = this.column.steps;
    if (this.column.role === "axis" && steps.length <= 12) return steps;
    const [least, most] = this.column.ends;
    if (this.isLog || this.column.text) return [least, most];
    const width = 10 ** Math.floor(Math.log10((most - least) / 3 || 1));
    const step = [1, 2, 5, 10].map((times) => times * width).find((each) => (most - least) / each <= 6);
    const marks = [];
    for (let mark = Math.ceil(least / step) * step; mark <= most + step / 1e6; mark += step) marks.push(mark);
    return marks;
  }

  mark(rank) {
    if (this.column.text || this.column.role === "axis") return this.column.step(rank);
    return String(Number(rank.toPrecision(4)));
  }
}

class Lines {
  constructor(place, rows) {
    [this.place, this.rows] = [place, rows];
    [this.back, this.front] = place.querySelectorAll("canvas");
    const numbers = rows.with("number").filter((column) => !rows.objectives.includes(column));
    this.scales = [...rows.with("axis"), ...rows.objectives, ...numbers]
      .filter((column) => column.ends && column.steps.length > 1)
      .slice(0, SCALES_MAX).map((column) => new Scale(column));
    this.brushes = new Map();
    this.listen();
    rows.on("kept", () => this.draw());
    rows.on("picked", () => this.drawFront());
    new ResizeObserver(() => this.resize()).observe(place.parentElement);
  }

  resize() {
    this.width = Math.max(place_width(this.place.parentElement), SCALE_PX * this.scales.length);
    const density = window.devicePixelRatio || 1;
    this.place.style.width = `${this.width}px`;
    this.place.style.height = `${LINES_PX}px`;
    for (const canvas of [this.back, this.front]) {
      [canvas.width, canvas.height] = [this.width * density, LINES_PX * density];
      canvas.getContext("2d").setTransform(density, 0, 0, density, 0, 0);
    }
    this.draw();
  }

  x(number) {
    return SIDE_PX + (number * (this.width - 2 * SIDE_PX)) / Math.max(1, this.scales.length - 1);
  }
  y(place) { return LINES_PX - BOTTOM_PX - place * (LINES_PX - TOP_PX - BOTTOM_PX); }

  /* Heights of a row's line at the scales; null where a scale has no value of it. */
  heights(row) {
    return this.scales.map((scale) => {
      const rank = scale.column.rank(row);
      return rank === null ? null : this.y(scale.place(rank));
    });
  }

  draw() {
    const pen = this.back.getContext("2d");
    pen.clearRect(0, 0, this.width, LINES_PX);
    const groups = Array.from({ length: SHADES + 1 }, () => []);
    for (const row of this.rows.runnable) groups[this.rows.isKept[row] ? this.group(row) : SHADES].push(row);
    const many = this.rows.runnable.length;
    this.stroke(pen, groups[SHADES], "#eceef1", 1, 0.7);
    for (let group = SHADES - 1; group >= 0; group--) {
      this.stroke(pen, groups[group], shade(group / (SHADES - 1)), 1.2, Math.max(0.25, Math.min(0.8, 200 / many)));
    }
    this.drawFront();
  }

  /* The shade of a row, by the first objective. */
  group(row) {
    const decisive = this.rows.objectives[0];
    if (!decisive || !decisive.ends || decisive.rank(row) === null) return SHADES >> 1;
    const [least, most] = decisive.ends;
    const place = most > least ? (decisive.rank(row) - least) / (most - least) : 0;
    return Math.round((decisive.better === "more" ? 1 - place : place) * (SHADES - 1));
  }

  stroke(pen, rows, color, width, alpha) {
    [pen.strokeStyle, pen.lineWidth, pen.globalAlpha] = [color, width, alpha];
    pen.beginPath();
    for (const row of rows) {
      let joined = false;
      this.heights(row).forEach((height, number) => {
        if (height === null) joined = false;
        else if (joined) pen.lineTo(this.x(number), height);
        else { pen.moveTo(this.x(number), height); joined = true; }
      });
    }
    pen.stroke();
    pen.globalAlpha = 1;
  }

  drawFront() {
    const pen = this.front.getContext("2d");
    pen.clearRect(0, 0, this.width, LINES_PX);
    const { picked, feasible } = this.rows;
    if (picked >= 0 && feasible[picked]) this.stroke(pen, [picked], INK, 2.5, 1);
    this.scales.forEach((scale, number) => this.drawScale(pen, scale, this.x(number)));
  }

  drawScale(pen, scale, x) {
    [pen.strokeStyle, pen.lineWidth] = ["#9aa1ad", 1];
    pen.beginPath();
    pen.moveTo(x, this.y(0));
    pen.lineTo(x, this.y(1));
    pen.stroke();
    pen.font = `11px ${FONT.family}`;
    pen.textAlign = "left";
    for (const rank of scale.marks) {
      const y = this.y(scale.place(rank));
      pen.fillStyle = "rgba(255,255,255,0.75)";
      pen.fillRect(x + 5, y - 7, pen.measureText(scale.mark(rank)).width + 4, 14);
      pen.fillStyle = SOFT;
      pen.fillText(scale.mark(rank), x + 7, y + 4);
      pen.fillRect(x, y - 0.5, 4, 1);
    }
    this.drawTitle(pen, scale.column, x);
    const brush = this.brushes.get(scale);
    if (!brush) return;
    const [top, bottom] = [this.y(brush[1]), this.y(brush[0])];
    pen.fillStyle = "rgba(59,117,175,0.22)";
    pen.fillRect(x - 7, top, 14, bottom - top);
    pen.strokeStyle = BLUE;
    pen.strokeRect(x - 7, top, 14, bottom - top);
  }

  drawTitle(pen, column, x) {
    const room = (this.width - 2 * SIDE_PX) / Math.max(1, this.scales.length - 1) - 8;
    pen.font = `12px ${FONT.family}`;
    pen.fillStyle = INK;
    pen.textAlign = "center";
    const lines = [""];
    for (const word of column.label.split(" ")) {
      const longer = lines.at(-1) ? `${lines.at(-1)} ${word}` : word;
      if (!lines.at(-1) || pen.measureText(longer).width <= Math.min(room, 2 * SIDE_PX)) lines[lines.length - 1] = longer;
      else lines.push(word);
    }
    lines.slice(0, 3).forEach((line, number) =>
      pen.fillText(line, x, TOP_PX - 14 - 14 * (Math.min(3, lines.length) - 1 - number)));
  }

  listen() {
    let start = null;
    const at = (event) => {
      const box = this.front.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const scaleAt = (x) => this.scales.find((_, number) => Math.abs(this.x(number) - x) < NEAR_PX);
    const place = (y) => Math.max(0, Math.min(1, (this.y(0) - y) / (this.y(0) - this.y(1))));
    this.front.addEventListener("pointerdown", (event) => {
      const [x, y] = at(event);
      start = { scale: scaleAt(x), y };
      if (start.scale) this.front.setPointerCapture(event.pointerId);
    });
    this.front.addEventListener("pointermove", (event) => {
      const [x, y] = at(event);
      this.front.style.cursor = scaleAt(x) ? "ns-resize" : "pointer";
      if (!start || !start.scale || Math.abs(y - start.y) < 4) return;
      const ends = [place(start.y), place(y)].sort((one, other) => one - other);
      this.brushes.set(start.scale, ends);
      this.drawFront();
    });
    this.front.addEventListener("pointerup", (event) => {
      const [x, y] = at(event);
      if (!start) return;
      const { scale, y: from } = start;
      start = null;
      if (scale && Math.abs(y - from) < 4) this.brushes.delete(scale);
      if (scale) this.brush();
      else this.pickNear(x, y);
    });
    this.front.addEventListener("pointercancel", () => { start = null; });
  }

  /* Keep the rows whose lines go through every brush. */
  brush() {
    const brushes = [...this.brushes];
    const inside = (row) => brushes.every(([scale, [low, high]]) => {
      const rank = scale.column.rank(row);
      if (rank === null) return false;
      const place = scale.place(rank);
      return low - 1e-9 <= place && place <= high + 1e-9;
    });
    this.rows.keep("lines", brushes.length ? inside : null);
    this.drawFront();
  }

  clear() {
    this.brushes.clear();
    this.brush();
  }

  /* Pick the kept point whose line passes nearest. */
  pickNear(x, y) {
    const right = this.scales.findIndex((_, number) => this.x(number) >= x);
    if (right < 1) return;
    const share = (x - this.x(right - 1)) / (this.x(right) - this.x(right - 1));
    let [nearest, least] = [-1, NEAR_PX];
    for (const row of this.rows.kept) {
      if (!this.rows.feasible[row]) continue;
      const heights = this.heights(row);
      if (heights[right - 1] === null || heights[right] === null) continue;
      const away = Math.abs((1 - share) * heights[right - 1] + share * heights[right] - y);
      if (away < least) [nearest, least] = [row, away];
    }
    if (nearest >= 0) this.rows.pick(nearest);
  }
}

const place_width = (place) => Math.floor(place.getBoundingClientRect().width);
