/* The table of a study: only the rows in sight are in the page, however many there are. */
"use strict";

const ROW_PX = 30, ROW_WITH_ENDS_PX = 42, BEYOND = 12, WIDEST = 30;

class Grid {
  constructor(place, rows) {
    this.rows = rows;
    this.columns = rows.columns.filter((column) => this.tells(column));
    this.hasEnds = this.columns.some((column) => column.low);
    this.rowPx = this.hasEnds ? ROW_WITH_ENDS_PX : ROW_PX;
    const decisive = rows.objectives.find((column) => column.ends) || this.columns[0];
    this.sorted = { column: decisive, down: decisive.better === "more" };
    this.place = place;
    this.build();
    place.addEventListener("scroll", () => requestAnimationFrame(() => this.draw()));
    place.addEventListener("keydown", (event) => this.step(event));
    new ResizeObserver(() => this.draw()).observe(place);
    rows.on("kept", () => this.order());
    rows.on("picked", () => this.draw());
    this.order();
  }

  /* A mark that is the same in every row is left out. */
  tells(column) { return column.role !== "mark" || column.steps.length > 1; }

  build() {
    const table = document.createElement("table");
    const widths = table.appendChild(document.createElement("colgroup"));
    const head = table.createTHead();
    const [titles, filters] = [head.insertRow(), head.insertRow()];
    for (const column of this.columns) {
      widths.appendChild(document.createElement("col")).style.width = `${this.width(column)}ch`;
      titles.append(this.title(column));
      filters.append(this.filter(column));
    }
    this.heads = [...titles.cells];
    this.body = table.createTBody();
    this.place.append(table);
  }

  title(column) {
    const head = document.createElement("th");
    head.scope = "col";
    head.dataset.column = column.name;
    head.classList.toggle("number", !column.text);
    const button = head.appendChild(document.createElement("button"));
    button.type = "button";
    button.append(column.title);
    if (column.unit) {
      const unit = button.appendChild(document.createElement("span"));
      unit.className = "unit";
      unit.textContent = ` ${column.unit}`;
    }
    button.addEventListener("click", () => this.sort(column));
    return head;
  }

  filter(column) {
    const cell = document.createElement("th");
    const input = cell.appendChild(document.createElement("input"));
    input.type = "search";
    input.setAttribute("aria-label", `filter ${column.title}`);
    input.addEventListener("input", () =>
      this.rows.keep(`column ${column.name}`, conditionOf(column, input.value)));
    return cell;
  }

  /* Characters that fit the longest text and the longest word of the title. */
  width(column) {
    const of = (texts) => Math.max(0, ...texts.map((text) => text.length));
    const ends = column.ends || [];
    let inside = column.text ? of(column.kinds.slice(0, 1000)) : of(ends.map((each) => column.format(each)));
    if (column.low) inside = Math.max(inside, 2 * inside - 2);
    const words = of(column.title.split(/[\s.]+/)) + 2;
    const title = Math.max(words, Math.ceil((column.title.length + column.unit.length) / 2) + 3);
    return Math.min(WIDEST, Math.max(inside + 3, title, 7));
  }

  sort(column) {
    const again = column === this.sorted.column;
    this.sorted = { column, down: again ? !this.sorted.down : column.better === "more" };
    this.order();
  }

  order() {
    const { column, down } = this.sorted;
    const places = Float64Array.from({ length: this.rows.count }, (_, row) => column.rank(row) ?? NaN);
    const empty = (row) => (Number.isNaN(places[row]) ? 1 : 0);
    this.shown = [...this.rows.kept].sort((one, other) => empty(one) - empty(other)
      || (down ? places[other] - places[one] : places[one] - places[other]) || one - other);
    this.heads.forEach((head, number) => {
      if (this.columns[number] !== column) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", down ? "descending" : "ascending");
    });
    this.drawn = null;
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.place.scrollTop / this.rowPx) - BEYOND);
    const last = Math.min(this.shown.length,
      first + Math.ceil(this.place.clientHeight / this.rowPx) + 2 * BEYOND);
    const drawn = `${first} ${last} ${this.rows.picked}`;
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.body.replaceChildren(this.space(first),
      ...this.shown.slice(first, last).map((row) => this.line(row)),
      this.space(this.shown.length - last));
  }

  space(rows) {
    const line = document.createElement("tr");
    line.className = "space";
    line.style.height = `${rows * this.rowPx}px`;
    return line;
  }

  line(row) {
    const line = document.createElement("tr");
    line.dataset.row = row;
    line.style.height = `${this.rowPx}px`;
    if (row === this.rows.picked) line.setAttribute("aria-selected", "true");
    if (!this.rows.feasible[row]) line.className = "cannot";
    line.append(...this.cells(row));
    line.addEventListener("click", () => this.rows.pick(row));
    return line;
  }

  /* The cells of a row; of one that cannot run, why, in the place of its numbers. */
  cells(row) {
    const reason = this.rows.named("reason");
    const numbers = this.columns.filter((column) => column.role === "number");
    if (this.rows.feasible[row] || !reason || !numbers.length) {
      return this.columns.map((column) => this.cell(column, row));
    }
    return this.columns.flatMap((column) => {
      if (column === reason) return [document.createElement("td")];
      if (column.role !== "number") return [this.cell(column, row)];
      if (column !== numbers[0]) return [];
      const cell = this.cell(reason, row);
      cell.colSpan = numbers.length;
      return [cell];
    });
  }

  cell(column, row) {
    const cell = document.createElement("td");
    const text = column.name === "pareto" ? (column.show(row) === "True" ? "●" : "") : column.show(row);
    cell.textContent = text;
    if (column.text) cell.title = text;
    else cell.className = "number";
    if (column.low && column.low[row] !== null) {
      const ends = cell.appendChild(document.createElement("small"));
      ends.textContent = `${column.format(column.low[row])} – ${column.format(column.high[row])}`;
    }
    return cell;
  }

  /* Bring a row into sight. */
  reveal(row) {
    const place = this.shown.indexOf(row);
    if (place < 0) return;
    const [top, head] = [place * this.rowPx, this.place.querySelector("thead").offsetHeight];
    const { scrollTop, clientHeight } = this.place;
    if (top < scrollTop || top + this.rowPx + head > scrollTop + clientHeight) {
      this.place.scrollTop = Math.max(0, top - (clientHeight - head) / 2);
    }
    this.draw();
  }

  step(event) {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by || event.target !== this.place) return;
    const next = this.shown[this.shown.indexOf(this.rows.picked) + by];
    if (next === undefined) return;
    event.preventDefault();
    this.rows.pick(next);
    this.reveal(next);
  }
}
