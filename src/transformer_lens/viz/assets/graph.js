// Nodes in rows from the bottom up, and edges as curves between them.

function graph(body, data, tip, title) {
  const wide = 104, high = 84, boxWidth = 78, boxHeight = 26, margin = 14;
  const values = decoded(data.values);
  const row = element(body, "div", "tlv-legend");
  element(row, "span", "tlv-about", data.value_name);
  for (const [colour, name] of [[data.positive, "0 or more"], [data.negative, "below 0"]]) {
    const key = element(row, "span", "tlv-key");
    shape(shape(key, "svg", { width: 22, height: 8 }), "line", { x1: 0, x2: 22, y1: 4, y2: 4, stroke: colour, "stroke-width": 4 });
    element(key, "span", "", name);
  }
  const xs = data.nodes.map((node) => node.x), ys = data.nodes.map((node) => node.y);
  const left = Math.min(...xs), top = Math.max(...ys);
  const width = (Math.max(...xs) - left) * wide + boxWidth + 2 * margin + 60;
  const height = (top - Math.min(...ys)) * high + boxHeight + 2 * margin;
  const svg = shape(element(body, "div", "tlv-scroll"), "svg", { width, height, role: "img", tabindex: 0 });
  svg.setAttribute("aria-label", title + ": " + data.nodes.length + " nodes, " + data.edges.length + " edges; arrow keys read the edges");
  const at = (node) => [(node.x - left) * wide + boxWidth / 2 + margin + 30, (top - node.y) * high + boxHeight / 2 + margin];
  const words = (edge, i) => [data.nodes[edge.from].label + " \u2192 " + data.nodes[edge.to].label + (edge.label ? " (" + edge.label + ")" : ""), shown(values[i])];
  const curves = data.edges.map((edge, i) => {
    const [x1, y1] = at(data.nodes[edge.from]), [x2, y2] = at(data.nodes[edge.to]);
    const [ax, ay, bx, by] = [x1, y1 - boxHeight / 2, x2, y2 + boxHeight / 2];
    const mx = (ax + bx) / 2 - edge.bend * (by - ay), my = (ay + by) / 2 + edge.bend * (bx - ax);
    const d = "M" + ax + " " + ay + "Q" + mx + " " + my + " " + bx + " " + by;
    const stroke = values[i] < 0 ? data.negative : data.positive;
    const curve = shape(svg, "path", { d, fill: "none", stroke, "stroke-width": edge.width, "stroke-opacity": 0.65 });
    const reach = shape(svg, "path", { d, fill: "none", stroke: "transparent", "stroke-width": Math.max(10, edge.width) });
    reach.addEventListener("pointermove", (event) => light(i, event.clientX, event.clientY));
    reach.addEventListener("pointerleave", dark);
    return curve;
  });
  function light(chosen, clientX, clientY) {
    curves.forEach((curve, i) => curve.setAttribute("stroke-opacity", i === chosen ? 1 : 0.2));
    tip.show(words(data.edges[chosen], chosen), clientX, clientY);
  }
  function dark() {
    curves.forEach((curve) => curve.setAttribute("stroke-opacity", 0.65));
    tip.hide();
  }
  data.nodes.forEach((node, place) => {
    const [x, y] = at(node);
    const box = { x: x - boxWidth / 2, y: y - boxHeight / 2, width: boxWidth, height: boxHeight, rx: 5, fill: "#f6f6f6", stroke: "#555" };
    const group = shape(svg, "g", {});
    shape(group, "rect", box);
    shape(group, "text", { x, y: y + 4, "text-anchor": "middle" }, shortened(node.label, 10));
    group.addEventListener("pointermove", (event) => {
      const touching = data.edges.map((edge) => edge.from === place || edge.to === place);
      curves.forEach((curve, i) => curve.setAttribute("stroke-opacity", touching[i] ? 1 : 0.1));
      const lines = data.edges.map((edge, i) => (touching[i] ? words(edge, i).join("  ") : "")).filter(Boolean);
      tip.show([lines.slice(0, 12).join("\n") + (lines.length > 12 ? "\n\u2026" : ""), node.label], event.clientX, event.clientY);
    });
    group.addEventListener("pointerleave", dark);
  });
  let reading = -1;
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    reading = Math.min(data.edges.length - 1, Math.max(0, reading + step));
    const place = svg.getBoundingClientRect(), [x, y] = at(data.nodes[data.edges[reading].to]);
    light(reading, place.left + x, place.top + y);
  });
  svg.addEventListener("blur", dark);
  return data.edges.length;
}
