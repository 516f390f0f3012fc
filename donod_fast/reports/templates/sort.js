document.querySelectorAll("table[data-sortable]").forEach(table => {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const key = (row, at) => row.cells[at].dataset.sort ?? row.cells[at].textContent.trim();
  heads.forEach((head, at) => head.querySelector("button").addEventListener("click", () => {
    const falling = head.getAttribute("aria-sort") === "ascending";
    const numeric = [...body.rows].some(row => row.cells[at].dataset.sort !== undefined);
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a, at), key(b, at)];
      if (numeric && (x === "" || y === "" || isNaN(x) || isNaN(y))) {
        return (x === "" || isNaN(x)) - (y === "" || isNaN(y));
      }
      const order = numeric ? x - y : x.localeCompare(y, undefined, {numeric: true});
      return falling ? -order : order;
    });
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    body.append(...rows);
  }));
});
