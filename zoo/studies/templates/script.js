for (const table of document.querySelectorAll("table.sort")) {
  const heads = [...table.tHead.rows[0].cells].filter(head => head.hasAttribute("aria-sort")), body = table.tBodies[0];
  for (const head of heads) head.firstElementChild.addEventListener("click", () => {
    const column = head.cellIndex, words = head.classList.contains("name");
    const turn = head.getAttribute("aria-sort") === (words ? "ascending" : "descending") ? !words : words;
    heads.forEach(other => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", turn ? "ascending" : "descending");
    const value = row => row.cells[column].dataset.v, empty = text => text === "" || text === "nan";
    body.append(...[...body.rows].sort((a, b) => {
      const [v, w] = [value(a), value(b)];
      if (empty(v) || empty(w)) return empty(v) - empty(w); // what is unknown stays below
      return (turn ? 1 : -1) * (words ? v.localeCompare(w) : v - w);
    }));
  });
}

// a contact sheet, cut into its images, each with its score
const cut = image => {
  const [columns, tile, high] = image.dataset.tiles.split(" ").map(Number), list = document.createElement("ol");
  list.className = "tiles";
  image.dataset.scores.split(" ").forEach((score, k) => {
    const item = list.appendChild(document.createElement("li")), canvas = item.appendChild(document.createElement("canvas"));
    [canvas.width, canvas.height] = [tile - 1, high - 1];
    canvas.getContext("2d").drawImage(image, -1 - tile * (k % columns), -1 - high * Math.floor(k / columns));
    item.append(score);
  });
  return list;
};
for (const image of document.querySelectorAll(".sheets img")) {
  const figure = image.parentNode;
  figure.addEventListener("click", event => {
    if (!event.target.closest("img, .tiles")) return;
    if (image.dataset.scores && image.complete && !figure.querySelector(".tiles")) image.after(cut(image));
    figure.classList.toggle("big");
  });
}

document.querySelectorAll("[data-unit]").forEach((plot, number) => {
  const lines = plots[number];
  let kept = null;
  const show = line => {
    plot.classList.toggle("focus", line !== null);
    for (const curve of plot.querySelectorAll(".curve")) curve.classList.toggle("on", curve.dataset.line === line);
  };
  for (const button of plot.querySelectorAll(".legend button")) {
    const line = button.dataset.line;
    button.onmouseenter = button.onfocus = () => show(line);
    button.onmouseleave = button.onblur = () => show(kept);
    button.onclick = () => {
      kept = kept === line ? null : line;
      for (const other of plot.querySelectorAll(".legend button")) other.setAttribute("aria-pressed", other.dataset.line === kept);
      show(kept ?? line);
    };
  }
  const tip = plot.querySelector(".tip"), keys = plot.querySelectorAll(".legend .key");
  const nearest = (points, count, place) => points.reduce((a, b) => Math.abs(place(b[0]) - count) < Math.abs(place(a[0]) - count) ? b : a);
  for (const chart of plot.querySelectorAll(".chart")) {
    const scale = JSON.parse(chart.dataset.scale), guide = chart.querySelector(".guide");
    const place = value => scale.log ? Math.log10(Math.max(value, 1e-4)) : value;
    const hide = () => { tip.hidden = true; guide.style.visibility = "hidden"; };
    chart.onpointerleave = hide;
    chart.onpointermove = chart.onpointerdown = event => {
      const box = chart.getBoundingClientRect(), zoom = box.width / scale.width;
      const count = scale.first + ((event.clientX - box.left) / zoom - scale.left) / scale.span * scale.wide;
      const stop = nearest(lines.flatMap(line => line.points), count, place)[0];
      const here = lines.map(line => [line, nearest(line.points, place(stop), place)]).filter(([, p]) => p[0] === stop).sort((a, b) => b[1][2] - a[1][2]);
      const x = scale.left + (place(stop) - scale.first) / scale.wide * scale.span;
      guide.setAttribute("transform", `translate(${x} 0)`);
      guide.style.visibility = "visible";
      const table = document.createElement("table");
      table.createCaption().textContent = `${Number(stop.toFixed(1))} ${plot.dataset.unit}`;
      for (const [line, point] of here) {
        const row = table.insertRow();
        row.insertCell().append(keys[lines.indexOf(line)].cloneNode(true), line.name);
        row.insertCell().textContent = point[1];
      }
      tip.replaceChildren(table);
      tip.hidden = false;
      const side = x * zoom + 14;
      tip.style.left = (side + tip.offsetWidth > box.width ? Math.max(0, x * zoom - 14 - tip.offsetWidth) : side) + "px";
    };
  }
});
