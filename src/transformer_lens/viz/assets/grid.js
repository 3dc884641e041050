// A matrix as an image of one pixel for each cell, stretched, with labels around it.

// A canvas of `columns` by `rows` pixels; `count` is how many were given a colour.
function painted(values, start, rows, columns, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(columns, rows);
  let count = 0;
  for (let i = 0; i < rows * columns; i++) {
    pixels.data.set([...colourOf(scale, values[start + i]), 255], 4 * i);
    count += 1;
  }
  context.putImageData(pixels, 0, 0);
  return { canvas, count };
}

// The indices of the labels to write, so that they stand at least `apart` pixels from each other; numbers in round steps.
function everyNth(labels, size, apart) {
  const least = Math.max(1, Math.ceil(apart / size));
  const power = Math.pow(10, Math.floor(Math.log10(least)));
  const round = [1, 2, 5, 10].map((factor) => factor * power).find((steps) => steps >= least);
  const step = labels.every(isNumber) ? round : least;
  return Array.from({ length: Math.ceil(labels.length / step) }, (_, i) => i * step);
}

// Cell sizes and margins, in pixels. A cell is square unless values are written in it.
function gridLayout(spec, room) {
  const rows = spec.rows.length, columns = spec.columns.length;
  const rowLabels = spec.rows.map((label) => shortened(label, 24));
  const columnLabels = spec.columns.map((label) => shortened(label, 24));
  const rowWidth = Math.max(...rowLabels.map((label) => textWidth(label)));
  const columnWidth = Math.max(...columnLabels.map((label) => textWidth(label)));
  const left = 24 + rowWidth + 8;
  let width = Math.max(1, Math.min(34, (room - left - 16) / columns, spec.square ? 34 : 560 / rows));
  width = width >= 2 ? Math.floor(width) : width;
  let height = Math.max(1, Math.min(width, 34));
  if (spec.notes) {
    width = Math.max(width, 12 + Math.max(...spec.notes.map((note) => textWidth(note))));
    height = Math.max(height, 26);
  }
  if (!spec.square) height = Math.max(height, Math.min(12, 480 / rows));
  // Numbers read better level and thinned out than turned; words are turned when they are wider than a cell.
  const turned = columnWidth > width - 4 && !spec.columns.every(isNumber);
  const bottom = 26 + (turned ? columnWidth * 0.71 + 14 : 16);
  return {
    rows, columns, rowLabels, columnLabels, columnWidth, width, height, turned, bottom, top: 4,
    left: turned ? Math.max(left, columnWidth * 0.71 - width / 2 + 8) : left,
  };
}

// Draws `spec` (values, start, rows, columns, names, scale) and answers pointing and arrow keys.
function drawGrid(parent, spec, tip, room) {
  const g = gridLayout(spec, room);
  const inner = { width: g.columns * g.width, height: g.rows * g.height };
  const total = { width: Math.ceil(g.left + inner.width + 14), height: Math.ceil(g.top + inner.height + g.bottom) };
  const scroll = element(parent, "div", "tlv-scroll");
  const svg = shape(scroll, "svg", { width: total.width, height: total.height, tabindex: 0, role: "img" });
  svg.setAttribute("aria-label", spec.title + ": " + g.rows + " by " + g.columns + " cells, arrow keys move between them");
  const { canvas, count } = painted(spec.values, spec.start, g.rows, g.columns, spec.scale);
  shape(svg, "image", {
    x: g.left, y: g.top, width: inner.width, height: inner.height, preserveAspectRatio: "none", class: "tlv-pixels",
    style: "image-rendering: pixelated", href: canvas.toDataURL(),
  });
  drawGaps(svg, g, inner);
  drawGridLabels(svg, spec, g, inner);
  if (spec.notes) drawAnnotations(svg, spec, g);
  const mark = shape(svg, "rect", {
    width: g.width, height: g.height, fill: "none", stroke: "#d55e00", "stroke-width": 2, visibility: "hidden",
  });
  followPointer(svg, spec, g, mark, tip);
  return count;
}

function drawGaps(svg, g, inner) {
  shape(svg, "rect", { x: g.left, y: g.top, width: inner.width, height: inner.height, fill: "none", stroke: "#cfcfcf" });
  if (Math.min(g.width, g.height) < 14) return;
  let path = "";
  for (let i = 1; i < g.columns; i++) path += "M" + (g.left + i * g.width) + " " + g.top + "v" + inner.height;
  for (let i = 1; i < g.rows; i++) path += "M" + g.left + " " + (g.top + i * g.height) + "h" + inner.width;
  shape(svg, "path", { d: path, stroke: "#fff", "stroke-width": 1, fill: "none", "pointer-events": "none" });
}

function drawGridLabels(svg, spec, g, inner) {
  for (const i of everyNth(spec.rows, g.height, 12)) {
    const y = g.top + (i + 0.5) * g.height + 4;
    shape(svg, "text", { x: g.left - 6, y, "text-anchor": "end" }, g.rowLabels[i]);
  }
  for (const i of everyNth(spec.columns, g.width, g.turned ? 15 : g.columnWidth + 6)) {
    const x = g.left + (i + 0.5) * g.width, y = g.top + inner.height + (g.turned ? 12 : 15);
    const turn = g.turned ? { transform: "rotate(-45 " + (x + 3) + " " + y + ")", x: x + 3 } : { x };
    shape(svg, "text", { ...turn, y, "text-anchor": g.turned ? "end" : "middle" }, g.columnLabels[i]);
  }
  const middle = g.top + inner.height / 2, bottom = g.top + inner.height + g.bottom - 8;
  shape(svg, "text", { x: g.left + inner.width / 2, y: bottom, "text-anchor": "middle", class: "tlv-name" }, spec.column_axis);
  const side = { x: 14, y: middle, "text-anchor": "middle", class: "tlv-name", transform: "rotate(-90 14 " + middle + ")" };
  shape(svg, "text", side, spec.row_axis);
}

function drawAnnotations(svg, spec, g) {
  for (let i = 0; i < g.rows * g.columns; i++) {
    const value = spec.values[spec.start + i];
    const x = g.left + ((i % g.columns) + 0.5) * g.width, y = g.top + (Math.floor(i / g.columns) + 0.5) * g.height + 4;
    const fill = "fill:" + inkOn(colourOf(spec.scale, value));
    shape(svg, "text", { x, y, "text-anchor": "middle", style: fill, "pointer-events": "none" }, spec.notes[i]);
  }
}

function followPointer(svg, spec, g, mark, tip) {
  let cell = [0, 0];
  function point(row, column, clientX, clientY) {
    cell = [row, column];
    mark.setAttribute("x", g.left + column * g.width);
    mark.setAttribute("y", g.top + row * g.height);
    mark.setAttribute("visibility", "visible");
    const value = spec.value_name + ": " + shown(spec.values[spec.start + row * g.columns + column]);
    const where = spec.joined
      ? [spec.rows[row] + spec.columns[column]]
      : [spec.row_axis + ": " + labelled(spec.rows, row), spec.column_axis + ": " + labelled(spec.columns, column)];
    tip.show([...where, value], clientX, clientY);
  }
  function leave() {
    mark.setAttribute("visibility", "hidden");
    tip.hide();
  }
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - g.left) / g.width);
    const row = Math.floor((event.clientY - box.top - g.top) / g.height);
    if (row >= 0 && row < g.rows && column >= 0 && column < g.columns) point(row, column, event.clientX, event.clientY);
    else leave();
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const row = Math.min(g.rows - 1, Math.max(0, cell[0] + step[0]));
    const column = Math.min(g.columns - 1, Math.max(0, cell[1] + step[1]));
    const box = svg.getBoundingClientRect();
    point(row, column, box.left + g.left + (column + 1) * g.width, box.top + g.top + (row + 1) * g.height);
  });
}

function isNumber(label) {
  return /^[A-Z]?\d+$/.test(label);
}

// A label with its index, unless it is a number itself.
function labelled(labels, index) {
  return isNumber(labels[index]) ? labels[index] : labels[index] + " (" + index + ")";
}

function grid(body, data, tip, title) {
  const values = decoded(data.values);
  legend(body, data.scale, data.value_name, values);
  return drawGrid(body, { ...data, values, start: 0, title }, tip, Math.max(320, body.clientWidth || 900));
}
