/* Columns of `table.sortable` are sorted by a click on their heads: numbers from the largest, texts
   from A, and the other way at the next click. The last row of a `strong` one is a sum and stays. */
"use strict";

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const numeric = head.classList.contains("number");
    const before = head.getAttribute("aria-sort");
    const down = before ? before === "ascending" : numeric;
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows];
    const sum = table.classList.contains("strong") ? rows.pop() : null;
    const order = (row) => row.cells[column].dataset.order;
    rows.sort((one, other) => {
      const [a, b] = [order(one), order(other)];
      if (a !== undefined && b !== undefined) return down ? b - a : a - b;
      if (numeric) return (a === undefined) - (b === undefined);
      const texts = one.cells[column].textContent.localeCompare(
        other.cells[column].textContent, "en", { numeric: true });
      return down ? -texts : texts;
    });
    body.append(...rows, ...(sum ? [sum] : []));
  }));
}
