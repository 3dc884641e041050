"""Write docs/hook-points.md from the catalogue of hook points: `python docs/hook_points.py`."""

from pathlib import Path

from transformer_lens.hooks.catalogue import CATALOGUE

PAGE = Path(__file__).with_name("hook-points.md")
INTRODUCTION = """# Hook points

Written by `docs/hook_points.py` from `transformer_lens/hooks/catalogue.py`; change it there. `{l}` is a layer, `{e}` an
expert. Each model answers to both spellings. *Flag*: caching everything stores it only with this flag on; naming it
always works. Axes: d_model is the stream's width, kv_head the key heads of grouped-query attention, batch_pos the
tokens of all rows in one.

| name | bridge's name | axes | what it is | flag |
| --- | --- | --- | --- | --- |
"""


def page() -> str:
    """The page as Markdown."""
    rows = []
    for info in CATALOGUE:
        bridge = f"`{info.bridge}`" if info.bridge else "the same"
        flag = f"`{info.flag}`" if info.flag else ""
        rows.append(f"| `{info.name}` | {bridge} | {info.axes} | {info.meaning} | {flag} |")
    return INTRODUCTION + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
