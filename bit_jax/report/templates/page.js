// Tables of class "sorts": a click on a column's heading sorts by it, another one reverses the order.
document.querySelectorAll("table.sorts").forEach(table => {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  if (body.rows.length < 2) return;
  const text = (row, i) => { const c = row.cells[i]; return c.dataset.value ?? c.textContent.trim(); };
  const value = s => s === "" ? NaN : Number(s.replace(/[,%]/g, ""));
  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.ariaSort === "ascending";
      heads.forEach(h => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = [...body.rows].map(row => [text(row, i), row]);
      const numbers = keyed.every(([s]) => s === "" || !isNaN(value(s)));
      keyed.sort(([a], [b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");  // those without a value stay last
        const order = numbers ? value(a) - value(b) : a.localeCompare(b, undefined, {numeric: true});
        return down ? -order : order;
      });
      body.append(...keyed.map(([, row]) => row));
    });
  });
});
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(d => d.open = true));
