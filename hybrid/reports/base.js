// A click on a heading of a sortable table sorts by that column: numbers by value (data-sort), text by locale.
document.querySelectorAll("table.sortable th").forEach(function (heading) {
  function key(row) {
    var cell = row.cells[heading.cellIndex];
    if (cell.dataset.sort === undefined) return cell.textContent.trim();
    var number = Number(cell.dataset.sort);
    return isNaN(number) ? -Infinity : number;
  }
  function sort() {
    var body = heading.closest("table").tBodies[0];
    var down = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heading.parentNode.querySelectorAll("th").forEach(function (other) { other.removeAttribute("aria-sort"); });
    heading.setAttribute("aria-sort", down > 0 ? "ascending" : "descending");
    Array.from(body.rows).sort(function (a, b) {
      var x = key(a), y = key(b);
      return down * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true }));
    }).forEach(function (row) { body.appendChild(row); });
  }
  heading.tabIndex = 0;
  heading.addEventListener("click", sort);
  heading.addEventListener("keydown", function (event) { if (event.key === "Enter") sort(); });
});
