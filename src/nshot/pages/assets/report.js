// Sort a table by the column whose head was clicked: numbers by data-key, the rest as text; empty last.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, column) => row.cells[column].dataset.key ?? row.cells[column].textContent.trim();
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const numeric = "key" in (body.rows[0]?.cells[column].dataset ?? {});
    const down = head.ariaSort ? head.ariaSort === "ascending" : numeric;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].sort((a, b) => {
      const x = key(a, column), y = key(b, column);
      if (x === "" || y === "") return (x === "") - (y === "");
      return (numeric ? x - y : x.localeCompare(y)) * (down ? -1 : 1);
    });
    body.append(...rows);
  }));
}
