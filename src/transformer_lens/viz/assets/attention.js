// All heads as thumbnails with one of them large; and one head's weights over the text.

function headSpec(data, values, head, title) {
  return {
    values, start: head * data.queries.length * data.keys.length, rows: data.queries, columns: data.keys,
    row_axis: "query", column_axis: "key", value_name: data.value_name, scale: data.scale, square: true,
    title: title + " " + data.heads[head],
  };
}

function heads(body, data, tip, title) {
  const values = decoded(data.values);
  const queries = data.queries.length, keys = data.keys.length;
  legend(body, data.scale, data.value_name, values);
  const both = element(body, "div", "tlv-heads");
  const thumbs = element(both, "div", "tlv-thumbs");
  const large = element(both, "div", "tlv-large");
  const room = Math.max(360, Math.min(620, (body.clientWidth || 900) - 410));
  let kept = 0, count = 0;
  function enlarge(head) {
    large.replaceChildren();
    element(large, "div", "tlv-which", data.heads[head]);
    drawGrid(large, headSpec(data, values, head, title), tip, room);
  }
  const buttons = data.heads.map((name, head) => {
    const button = element(thumbs, "button", "tlv-thumb");
    button.type = "button";
    const made = painted(values, head * queries * keys, queries, keys, data.scale);
    // Pixels stay sharp when they grow, and are averaged when they shrink.
    if (Math.max(queries, keys) <= 84) made.canvas.className = "tlv-pixels";
    count += made.count;
    button.appendChild(made.canvas);
    element(button, "span", "", name);
    button.addEventListener("click", () => keep(head));
    button.addEventListener("pointerenter", () => enlarge(head));
    button.addEventListener("focus", () => enlarge(head));
    return button;
  });
  function keep(head) {
    kept = head;
    buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(index === head)));
    enlarge(head);
  }
  thumbs.addEventListener("pointerleave", () => enlarge(kept));
  keep(0);
  return count;
}

function attentionText(body, data, tip) {
  const values = decoded(data.values);
  const length = data.queries.length;
  let head = data.head, query = data.query;
  legend(body, data.scale, data.value_name, values);
  element(body, "p", "tlv-hint", "Click a token to make it the query; its row of weights colours the text.");
  const chips = element(body, "div", "tlv-chips");
  const text = element(body, "div", "tlv-text");
  const buttons = data.heads.map((name, index) => {
    const chip = element(chips, "button", "tlv-chip", name);
    chip.type = "button";
    chip.addEventListener("click", () => ((head = index), colour()));
    return chip;
  });
  const weight = (key) => values[(head * length + query) * length + key];
  const tokens = writeTokens(text, data.queries, "button", tip, (key) => [
    data.heads[head] + ", query " + query + ": " + data.queries[query],
    "key " + key + ": " + data.queries[key],
    data.value_name + ": " + shown(weight(key)),
  ]);
  tokens.forEach((token, index) => token.addEventListener("click", () => ((query = index), colour())));
  function colour() {
    buttons.forEach((chip, index) => chip.setAttribute("aria-pressed", String(index === head)));
    tokens.forEach((token, index) => {
      token.setAttribute("aria-pressed", String(index === query));
      paintBackground(token, data.scale, weight(index));
    });
  }
  colour();
  return tokens.length;
}
