// Tokens as text with a background, and the table of a lens.

// One element for each token; a newline token also ends the line. `describe` gives the tooltip's lines.
function writeTokens(parent, tokens, tag, tip, describe) {
  return tokens.map((token, index) => {
    const made = element(parent, tag, "tlv-token", token);
    if (tag === "button") made.type = "button";
    else made.tabIndex = 0;
    const show = () => {
      const box = made.getClientRects()[0];
      tip.show(describe(index), box.left, box.bottom - 8, box.top);
    };
    made.addEventListener("pointerenter", show);
    made.addEventListener("focus", show);
    made.addEventListener("pointerleave", tip.hide);
    made.addEventListener("blur", tip.hide);
    parent.appendChild(document.createElement("wbr"));
    if (token.endsWith("\u21b5")) parent.appendChild(document.createElement("br"));
    return made;
  });
}

function tokens(body, data, tip) {
  const values = decoded(data.values);
  legend(body, data.scale, data.value_name, values);
  const text = element(body, "div", "tlv-text");
  const made = writeTokens(text, data.tokens, "span", tip, (index) => [
    "position " + index + ": " + data.tokens[index],
    data.value_name + ": " + shown(values[index]),
  ]);
  made.forEach((token, index) => paintBackground(token, data.scale, values[index]));
  return made.length;
}

function table(body, data, tip) {
  const values = decoded(data.values);
  legend(body, data.scale, data.value_name, values);
  const made = element(element(body, "div", "tlv-scroll"), "table", "tlv-table");
  const head = element(element(made, "thead"), "tr");
  element(head, "th", "", data.axes[0]);
  data.tokens.forEach((token) => (element(head, "th", "", token).scope = "col"));
  const rows = element(made, "tbody");
  const width = data.tokens.length;
  data.layers.forEach((layer, row) => {
    const line = element(rows, "tr");
    element(line, "th", "", layer).scope = "row";
    for (let column = 0; column < width; column++) {
      const index = row * width + column;
      const cell = element(line, "td", "", data.top[index]);
      paintBackground(cell, data.scale, values[index]);
      cell.addEventListener("pointermove", (event) => {
        const where = data.axes[0] + " " + layer + ", " + data.axes[1] + " " + column + ": " + data.tokens[column];
        const value = data.value_name + ": " + shown(values[index]);
        tip.show([where, "top token: " + data.top[index], value], event.clientX, event.clientY);
      });
      cell.addEventListener("pointerleave", tip.hide);
    }
  });
  return values.length;
}
