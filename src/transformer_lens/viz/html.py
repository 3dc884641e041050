"""Self-contained HTML: our own script and style stand in the text, and nothing is fetched from anywhere."""

import html
import json
import re
from functools import cache
from importlib import resources

from transformer_lens.viz.arrays import Json

_SCRIPTS = ("base.js", "grid.js", "attention.js", "text.js", "plots.js", "graph.js", "start.js")


def figure(kind: str, data: dict[str, Json], *, title: str, caption: str, heading: str) -> str:
    """One picture's markup: a ``figure`` element that holds its data, for the script to draw.

    It has no element ids, so that any number of pictures can share a page or a notebook.

    Args:
        kind: which function of the script draws it.
        data: what that function reads.
        title: shown above; none when empty.
        caption: shown below; none when empty.
        heading: the element of the title: ``div`` in a notebook, ``h2`` on a page.
    """
    above = f'<{heading} class="tlv-title">{html.escape(title)}</{heading}>' if title else ""
    below = f'<figcaption class="tlv-caption">{marked_up(caption)}</figcaption>' if caption else ""
    return (
        f'<figure class="tlv" data-kind="{html.escape(kind)}" data-title="{html.escape(title)}">{above}'
        f'<div class="tlv-body"><p class="tlv-wait">This interactive picture needs JavaScript, '
        f"which a notebook runs only once it is trusted.</p></div>{below}"
        f'<script type="application/json">{script_json(data)}</script></figure>'
    )


def style() -> str:
    """The ``style`` element that every picture needs."""
    return f"<style>\n{_asset('style.css')}</style>"


def script() -> str:
    """The ``script`` element that draws every picture before it that is not drawn yet."""
    body = "".join(_asset(name) for name in _SCRIPTS)
    return f'<script>\n(function () {{\n"use strict";\n{body}}})();\n</script>'


def script_json(data: Json) -> str:
    """The data as JSON that is safe inside a ``script`` element: no character in it can end the element.

    >>> script_json(["</script>"])
    '["\\\\u003c/script\\\\u003e"]'
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def marked_up(text: str) -> str:
    """The text escaped, with its `quoted code` in ``code`` elements.

    >>> marked_up("`a<b` & c")
    '<code>a&lt;b</code> &amp; c'
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


@cache
def _asset(name: str) -> str:
    return resources.files("transformer_lens.viz").joinpath("assets", name).read_text(encoding="utf-8")


def document(body: str, *, title: str) -> str:
    """A whole HTML document around this body."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{html.escape(title)}</title>\n</head>\n<body class="tlv-page">\n{body}\n</body>\n</html>\n'
    )
