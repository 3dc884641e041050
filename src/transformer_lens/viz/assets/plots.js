// Lines over an axis, and points of the complex plane.

// Round numbers that cover low to high in about `count` steps.
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const made = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) made.push(parseFloat((i * step).toPrecision(12)));
  return made;
}

function span(values) {
  const finite = values.filter(Number.isFinite);
  if (!finite.length) return [0, 1];
  const low = finite.reduce((a, b) => Math.min(a, b)), high = finite.reduce((a, b) => Math.max(a, b));
  return low < high ? [low, high] : [low - 0.5, high + 0.5];
}

function lines(body, data, tip, title) {
  const x = decoded(data.x);
  const series = data.series.map((one) => ({ ...one, values: decoded(one.values) }));
  if (series.length > 1) lineKeys(body, series);
  const [low, high] = span(series.flatMap((one) => one.values));
  const [first, last] = span(x);
  const air = 0.06 * (high - low);
  const yTicks = ticks(low - air, high + air, 6);
  const left = 30 + Math.max(...yTicks.map((tick) => textWidth(String(tick))));
  const names = data.labels ? data.labels.map((label) => shortened(label, 24)) : null;
  const slot = 600 / x.length;
  const widest = names ? Math.max(...names.map((name) => textWidth(name))) : 0;
  const turned = widest > slot - 6;
  const p = { left, right: left + 620, top: 10, bottom: 290, turned };
  const height = p.bottom + 44 + (turned ? widest * 0.71 : 0);
  const at = (value) => p.left + 14 + ((value - first) / (last - first)) * (p.right - p.left - 28);
  const up = (value) => p.bottom - ((value - low + air) / (high - low + 2 * air)) * (p.bottom - p.top);
  const svg = shape(element(body, "div", "tlv-scroll"), "svg", { width: p.right + 20, height, role: "img", tabindex: 0 });
  svg.setAttribute("aria-label", title + ": " + series.map((one) => one.name).join(", ") + "; arrow keys read the values");
  for (const tick of yTicks) {
    const y = up(tick), stroke = tick === 0 ? "#8a8a8a" : "#e6e6e6";
    shape(svg, "line", { x1: p.left, x2: p.right, y1: y, y2: y, stroke });
    shape(svg, "text", { x: p.left - 6, y: y + 4, "text-anchor": "end" }, String(tick));
  }
  drawPlaces(svg, x, names, p, at, slot);
  shape(svg, "text", { x: (p.left + p.right) / 2, y: height - 8, "text-anchor": "middle", class: "tlv-name" }, data.x_axis);
  const middle = (p.top + p.bottom) / 2;
  const side = { x: 14, y: middle, "text-anchor": "middle", class: "tlv-name", transform: "rotate(-90 14 " + middle + ")" };
  shape(svg, "text", side, data.y_axis);
  const count = series.reduce((sum, one) => sum + drawLine(svg, one, x, at, up), 0);
  readPlaces(svg, { x, series, names: data.labels, x_axis: data.x_axis, y_axis: data.y_axis }, p, at, tip);
  return count;
}

function lineKeys(body, series) {
  const row = element(body, "div", "tlv-legend");
  for (const one of series) {
    const key = element(row, "span", "tlv-key");
    const svg = shape(key, "svg", { width: 26, height: 10 });
    shape(svg, "line", { x1: 0, x2: 26, y1: 5, y2: 5, stroke: one.colour, "stroke-width": 2, "stroke-dasharray": one.dashes });
    shape(svg, "circle", { cx: 13, cy: 5, r: 3, fill: one.colour });
    element(key, "span", "", one.name);
  }
}

function drawPlaces(svg, x, names, p, at, slot) {
  const whole = x.every(Number.isInteger);
  const marks = names
    ? everyNth(names, slot, 15).map((i) => [x[i], names[i]])
    : ticks(...span(x), 12).filter((tick) => !whole || Number.isInteger(tick)).map((tick) => [tick, String(tick)]);
  shape(svg, "line", { x1: p.left, x2: p.right, y1: p.bottom, y2: p.bottom, stroke: "#8a8a8a" });
  for (const [value, name] of marks) {
    const left = at(value), y = p.bottom + (p.turned ? 12 : 17);
    shape(svg, "line", { x1: left, x2: left, y1: p.bottom, y2: p.bottom + 4, stroke: "#8a8a8a" });
    const turn = p.turned ? { transform: "rotate(-45 " + (left + 3) + " " + y + ")", x: left + 3 } : { x: left };
    shape(svg, "text", { ...turn, y, "text-anchor": p.turned ? "end" : "middle" }, name);
  }
}

// A path with a gap at each value that is not finite, and a dot for each that is.
function drawLine(svg, one, x, at, up) {
  let path = "", pen = "M", count = 0;
  one.values.forEach((value, i) => {
    if (Number.isFinite(value)) {
      path += pen + at(x[i]).toFixed(1) + " " + up(value).toFixed(1);
      pen = "L";
    } else pen = "M";
  });
  shape(svg, "path", { d: path, fill: "none", stroke: one.colour, "stroke-width": 2, "stroke-dasharray": one.dashes });
  one.values.forEach((value, i) => {
    if (!Number.isFinite(value)) return;
    shape(svg, "circle", { cx: at(x[i]), cy: up(value), r: x.length > 80 ? 1.5 : 3, fill: one.colour });
    count += 1;
  });
  return count;
}

function readPlaces(svg, data, p, at, tip) {
  const mark = shape(svg, "line", { y1: p.top, y2: p.bottom, stroke: "#555", "stroke-dasharray": "3 3", visibility: "hidden" });
  let place = -1;
  function read(index, clientX, clientY) {
    place = index;
    mark.setAttribute("x1", at(data.x[index]));
    mark.setAttribute("x2", at(data.x[index]));
    mark.setAttribute("visibility", "visible");
    const where = data.x_axis + ": " + (data.names ? data.names[index] : shown(data.x[index]));
    const values = data.series.map((one) => one.name + ": " + shown(one.values[index]));
    tip.show([where, values.join("\n")], clientX, clientY);
  }
  function leave() {
    mark.setAttribute("visibility", "hidden");
    tip.hide();
  }
  svg.addEventListener("pointermove", (event) => {
    const left = event.clientX - svg.getBoundingClientRect().left;
    let best = 0;
    data.x.forEach((value, i) => {
      if (Math.abs(at(value) - left) < Math.abs(at(data.x[best]) - left)) best = i;
    });
    read(best, event.clientX, event.clientY);
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const index = Math.min(data.x.length - 1, Math.max(0, place + step));
    const box = svg.getBoundingClientRect();
    read(index, box.left + at(data.x[index]), box.top + p.top + 20);
  });
}

function scatter(body, data, tip, title) {
  const size = 168, edge = 8;
  const legendRow = element(body, "div", "tlv-legend");
  for (const [colour, name] of [[data.positive, "real part 0 or more"], [data.negative, "real part below 0"]]) {
    const key = element(legendRow, "span", "tlv-key");
    shape(shape(key, "svg", { width: 10, height: 10 }), "circle", { cx: 5, cy: 5, r: 4, fill: colour });
    element(key, "span", "", name);
  }
  element(legendRow, "span", "", "both axes run from " + brief(-1.1 * data.reach) + " to " + brief(1.1 * data.reach));
  const panels = element(body, "div", "tlv-panels");
  let count = 0;
  for (const head of data.heads) {
    const panel = element(panels, "div", "tlv-panel");
    const which = element(panel, "div", "tlv-which");
    element(which, "b", "", head.name);
    element(which, "span", "", "score " + (head.score < 0 ? "" : "+") + head.score.toFixed(2));
    const svg = shape(panel, "svg", { width: size, height: size, role: "img", "aria-label": title + " " + head.name });
    const at = (value) => size / 2 + (value / (1.1 * data.reach)) * (size / 2 - edge);
    shape(svg, "rect", { x: edge, y: edge, width: size - 2 * edge, height: size - 2 * edge, fill: "none", stroke: "#d0d0d0" });
    shape(svg, "path", { d: "M" + edge + " " + size / 2 + "h" + (size - 2 * edge) + "M" + size / 2 + " " + edge + "v" + (size - 2 * edge), stroke: "#e0e0e0" });
    const imaginary = decoded(head.imaginary);
    decoded(head.real).forEach((real, i) => {
      if (!Number.isFinite(real) || !Number.isFinite(imaginary[i])) return;
      const fill = real < 0 ? data.negative : data.positive;
      const dot = shape(svg, "circle", { cx: at(real), cy: size - at(imaginary[i]), r: 3, fill, "fill-opacity": 0.75 });
      const sign = imaginary[i] < 0 ? " - " : " + ";
      const value = shown(real) + sign + shown(Math.abs(imaginary[i])) + "i";
      dot.addEventListener("pointerenter", (event) => tip.show([head.name, value], event.clientX, event.clientY));
      dot.addEventListener("pointerleave", tip.hide);
      count += 1;
    });
  }
  return count;
}
