// Elements, colours, numbers and the tooltip: what every kind of picture uses.
// Text reaches the document through textContent only, so a token can never become markup.

// The parser knows SVG's namespace, so that the page needs no address in it.
const NAMESPACE = (function () {
  const template = document.createElement("template");
  template.innerHTML = "<svg></svg>";
  return template.content.firstChild.namespaceURI;
})();

function element(parent, tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  parent.appendChild(made);
  return made;
}

function shape(parent, tag, attributes, text) {
  const made = document.createElementNS(NAMESPACE, tag);
  for (const name in attributes) made.setAttribute(name, attributes[name]);
  if (text !== undefined) made.textContent = text;
  parent.appendChild(made);
  return made;
}

// JSON has neither nan nor the infinities: they arrive as null and as strings.
function decoded(values) {
  return values.map((value) => (value === null ? NaN : value === "inf" ? Infinity : value === "-inf" ? -Infinity : value));
}

function shown(value) {
  return Number.isNaN(value) ? "nan" : value === Infinity ? "inf" : value === -Infinity ? "-inf" : String(value);
}

function brief(value) {
  return Number.isFinite(value) ? String(parseFloat(value.toPrecision(3))) : shown(value);
}

function channels(colour) {
  return [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
}

// The colour [r, g, b] of a value.
function colourOf(scale, value) {
  if (Number.isNaN(value)) return channels(scale.none);
  const share = Math.min(1, Math.max(0, (value - scale.low) / (scale.high - scale.low)));
  const place = share * (scale.stops.length - 1);
  const first = Math.min(Math.floor(place), scale.stops.length - 2);
  const below = channels(scale.stops[first]), above = channels(scale.stops[first + 1]);
  return below.map((channel, i) => Math.round(channel + (above[i] - channel) * (place - first)));
}

function css(rgb) {
  return "rgb(" + rgb.join(",") + ")";
}

// Black or white, whichever has the higher contrast (WCAG's relative luminance).
function inkOn(rgb) {
  const linear = rgb.map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : Math.pow((c / 255 + 0.055) / 1.055, 2.4)));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.18 ? "#111" : "#fff";
}

function paintBackground(target, scale, value) {
  const rgb = colourOf(scale, value);
  target.style.backgroundColor = css(rgb);
  target.style.color = inkOn(rgb);
}

function legend(parent, scale, name, values) {
  const row = element(parent, "div", "tlv-legend");
  element(row, "span", "tlv-about", name);
  element(row, "span", "tlv-number", brief(scale.low));
  element(row, "span", "tlv-ramp").style.background = "linear-gradient(to right," + scale.stops.join(",") + ")";
  element(row, "span", "tlv-number", brief(scale.high));
  if (values.some(Number.isNaN)) {
    element(row, "span", "tlv-swatch").style.background = scale.none;
    element(row, "span", "", "no value");
  }
  return row;
}

// One tooltip for each picture. `lines` are texts; the last is set in bold.
function tooltip(root) {
  const tip = element(root, "div", "tlv-tip");
  tip.setAttribute("role", "status");
  return {
    // At this point of the window; above `upper` instead where there is no room below.
    show(lines, clientX, clientY, upper = clientY) {
      tip.textContent = lines.slice(0, -1).map((line) => line + "\n").join("");
      element(tip, "b", "", lines[lines.length - 1]);
      tip.style.display = "block";
      tip.style.left = tip.style.top = "0";
      const box = root.getBoundingClientRect();
      const right = box.width - tip.offsetWidth - 4;
      const fits = clientY + 16 + tip.offsetHeight <= window.innerHeight;
      const top = fits ? clientY - box.top + 16 : upper - box.top - tip.offsetHeight - 10;
      tip.style.left = Math.max(4, Math.min(clientX - box.left + 14, right)) + "px";
      tip.style.top = top + "px";
    },
    hide() {
      tip.style.display = "none";
    },
  };
}

const ruler = document.createElement("canvas").getContext("2d");

function textWidth(text, font) {
  ruler.font = font || "11px ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace";
  return ruler.measureText(text).width;
}

function shortened(text, length) {
  return text.length <= length ? text : text.slice(0, length - 1) + "\u2026";
}
