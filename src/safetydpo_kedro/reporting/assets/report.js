"use strict";

// Tables: sort by a click on a heading; missing values stay last in both directions.

function compare(left, right, numeric, sign) {
  if (left === "" || right === "") return (left === "") - (right === "");
  const order = numeric ? Number(left) - Number(right) : left.localeCompare(right);
  return sign * order;
}

function sortBy(heading) {
  const table = heading.closest("table");
  const body = table.tBodies[0];
  const column = heading.cellIndex;
  const ascending = heading.getAttribute("aria-sort") !== "ascending";
  const numeric = heading.classList.contains("number");
  const value = ({ cells }) => cells[column].dataset.value ?? cells[column].textContent;
  const rows = [...body.rows];
  rows.sort((a, b) => compare(value(a), value(b), numeric, ascending ? 1 : -1));
  body.append(...rows);
  for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
}

for (const heading of document.querySelectorAll(".sortable thead th")) {
  heading.querySelector("button").addEventListener("click", () => sortBy(heading));
}

// Tables: show the rows that have all the words.

function filterRows(input) {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...document.getElementById(input.dataset.table).tBodies[0].rows];
  for (const row of rows) {
    const text = [...row.cells].map((cell) => cell.textContent.toLowerCase()).join(" ");
    row.hidden = !words.every((word) => text.includes(word));
  }
  const shown = rows.filter((row) => !row.hidden).length;
  const count = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
  input.closest(".tools").querySelector("output").textContent = count;
}

for (const input of document.querySelectorAll("input[data-table]")) {
  input.addEventListener("input", () => filterRows(input));
}

// Images: blurred until asked for.

function veil(shot, veiled) {
  shot.classList.toggle("veiled", veiled);
  shot.setAttribute("aria-pressed", String(!veiled));
}

const shots = [...document.querySelectorAll(".shot")];
for (const shot of shots) {
  shot.addEventListener("click", () => veil(shot, !shot.classList.contains("veiled")));
}

document.getElementById("show-all")?.addEventListener("click", () => {
  const question = "Show all images without blur? They may be disturbing.";
  if (window.confirm(question)) shots.forEach((shot) => veil(shot, false));
});
document.getElementById("hide-all")?.addEventListener("click", () => {
  shots.forEach((shot) => veil(shot, true));
});

// Charts, in the colours of the page.

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const NARROW = 600; // pixels of a chart, below which its legend goes under it
const LEGEND_ROW = 20;
const PAPER_WIDTH = 680;
const plots = [...document.querySelectorAll(".plot")];

function themed(layout, isDark) {
  const ink = isDark ? "#d5dae0" : "#1d2329";
  const grid = isDark ? "#363d46" : "#e3e6ea";
  const changed = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" };
  changed["font.color"] = ink;
  changed.modebar = { bgcolor: "rgba(0,0,0,0)", color: isDark ? "#6b7682" : "#a8b0b9" };
  changed.modebar.activecolor = ink;
  for (const axis of Object.keys(layout).filter((name) => /^[xy]axis/.test(name))) {
    Object.assign(changed, { [`${axis}.gridcolor`]: grid, [`${axis}.zerolinecolor`]: grid });
    changed[`${axis}.linecolor`] = grid;
  }
  return changed;
}

// What is drawn in black would vanish on a dark page.
function visible(trace, isDark) {
  const turned = (colour) => (isDark && colour === "#000000" ? "#ffffff" : colour);
  for (const part of ["line", "marker"]) {
    if (trace[part]?.color) trace[part].color = turned(trace[part].color);
  }
  if (trace.error_y && trace.type === "bar") trace.error_y.color = isDark ? "#d5dae0" : "#1d2329";
  return trace;
}

function draw(plot, isDark, width) {
  const { data, layout } = JSON.parse(plot.nextElementSibling.textContent);
  const full = { ...layout, autosize: true, width };
  let height = layout.height ?? 460;
  if ((width ?? plot.clientWidth) < NARROW) {
    full.legend = { ...layout.legend, orientation: "h", y: -0.25 };
    full.margin = { ...layout.margin, l: 50, r: 10 };
    height += LEGEND_ROW * data.filter((trace) => trace.showlegend !== false).length;
  }
  full.height = height;
  plot.style.height = `${height}px`;
  const options = { displaylogo: false, responsive: true };
  options.modeBarButtonsToRemove = ["select2d", "lasso2d"];
  const traces = data.map((trace) => visible(trace, isDark));
  return Plotly.react(plot, traces, full, options).then(() =>
    Plotly.relayout(plot, themed({ xaxis: 1, yaxis: 1, ...layout }, isDark)),
  );
}

const drawAll = (isDark, width) => plots.forEach((plot) => draw(plot, isDark, width));
drawAll(dark.matches);
dark.addEventListener("change", () => drawAll(dark.matches));
// Paper is white, and narrower than a screen.
window.addEventListener("beforeprint", () => drawAll(false, PAPER_WIDTH));
window.addEventListener("afterprint", () => drawAll(dark.matches));
