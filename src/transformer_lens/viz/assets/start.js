// Draws every picture of the document that is not drawn yet; `data-cells` says how many cells or points it has.

const KINDS = { grid, heads, attention_text: attentionText, tokens, table, lines, scatter, graph };

for (const root of document.querySelectorAll("figure.tlv:not([data-cells])")) {
  const body = root.querySelector(".tlv-body");
  const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  body.replaceChildren();
  root.dataset.cells = KINDS[root.dataset.kind](body, data, tooltip(root), root.dataset.title);
}
