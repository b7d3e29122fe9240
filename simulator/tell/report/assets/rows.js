/* The rows of a study, which of them are kept by what people asked for, and which one is picked. */
"use strict";

/* A column: `value(row)` as data, `rank(row)` as what it is sorted and drawn by, `show(row)` as text;
   null, and no text, where a row has none. Texts of an axis rank as they stand in it. */
class Column {
  constructor(given) {
    Object.assign(this, given);
    const plain = this.decimals === null;
    const format = plain ? null : new Intl.NumberFormat("en-US", { useGrouping: this.grouped !== false,
      minimumFractionDigits: this.decimals, maximumFractionDigits: this.decimals });
    this.format = (value) => {
      if (value === null) return "";
      return format && !this.text ? format.format(value) : String(value);
    };
    this.label = this.unit ? `${this.title}, ${this.unit}` : this.title;
  }

  value(row) { return this.kinds ? this.kinds[this.codes[row]] : this.values[row]; }
  rank(row) { return this.text ? this.codes[row] : this.value(row); }
  show(row) { return this.format(this.value(row)); }
  named(value) { return this.unit ? `${this.format(value)} ${this.unit}` : this.format(value); }

  /* Its different values in order, as ranks, and their texts. */
  get steps() {
    if (!this.kept) {
      const all = this.kinds ? this.kinds.map((kind, code) => (this.text ? code : kind))
        : [...new Set(this.values)];
      const ranks = all.filter((rank) => rank !== null);
      this.kept = ranks.sort((one, other) => one - other);
    }
    return this.kept;
  }
  step(rank) { return this.text ? this.kinds[rank] : this.format(rank); }

  /* Least and most of its numbers; null where it has none. */
  get ends() {
    let [least, most] = [Infinity, -Infinity];
    for (const rank of this.steps) { least = Math.min(least, rank); most = Math.max(most, rank); }
    return least <= most ? [least, most] : null;
  }

  /* -1 where one of two ranks is better than the other, 1 where it is worse. */
  compare(one, other) { return this.better === "more" ? other - one : one - other; }
}

class Rows {
  constructor(study) {
    this.columns = study.columns.map((column) => new Column(column));
    this.count = study.rows;
    this.feasible = study.feasible;
    this.objectives = study.objectives.map((name) => this.named(name)).filter(Boolean);
    this.picked = -1;
    this.conditions = new Map();
    this.listeners = { kept: [], picked: [] };
    this.kept = Array.from({ length: this.count }, (_, row) => row);
    this.isKept = new Uint8Array(this.count).fill(1);
    this.runnable = this.kept.filter((row) => this.feasible[row]);
  }

  named(name) { return this.columns.find((column) => column.name === name); }
  with(role) { return this.columns.filter((column) => column.role === role); }
  on(event, listener) { this.listeners[event].push(listener); }

  /* Keep the rows for which a view's condition holds, beside those of other views; all for null. */
  keep(view, condition) {
    if (condition) this.conditions.set(view, condition);
    else if (!this.conditions.delete(view)) return;
    const conditions = [...this.conditions.values()];
    this.kept = [];
    for (let row = 0; row < this.count; row++) {
      const kept = conditions.every((each) => each(row));
      this.isKept[row] = kept;
      if (kept) this.kept.push(row);
    }
    for (const listener of this.listeners.kept) listener();
  }

  pick(row) {
    this.picked = row === this.picked ? -1 : row;
    for (const listener of this.listeners.picked) listener();
  }
}

/* Return what a filter's text asks of a column: `>=20`, `<3.5`, `10..40`, or a part of its text. */
function conditionOf(column, text) {
  const asked = text.trim().toLowerCase();
  if (!asked) return null;
  const number = "(-?[\\d.,]+(?:e[+-]?\\d+)?)";
  const read = (part) => Number(part.replace(/,/g, ""));
  const range = asked.match(new RegExp(`^${number}\\s*\\.\\.\\s*${number}$`));
  const bound = asked.match(new RegExp(`^(<=|>=|<|>|=)\\s*${number}$`));
  const holds = (test) => (row) => { const value = column.value(row); return value !== null && test(value); };
  if (!column.text && range) {
    const [low, high] = [read(range[1]), read(range[2])];
    return holds((value) => low <= value && value <= high);
  }
  if (!column.text && bound) {
    const limit = read(bound[2]);
    return holds({ "<": (v) => v < limit, "<=": (v) => v <= limit, ">": (v) => v > limit,
      ">=": (v) => v >= limit, "=": (v) => v === limit }[bound[1]]);
  }
  return (row) => column.show(row).toLowerCase().includes(asked);
}
