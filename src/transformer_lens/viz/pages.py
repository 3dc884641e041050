"""Several pictures with text between them, in one HTML file that can be mailed."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from transformer_lens.viz import html
from transformer_lens.viz.picture import Picture


def page(parts: Sequence[Picture | str], path: str | Path, *, title: str, text: str = "") -> Path:
    """The path of the HTML page, written with these pictures and texts in their order.

    Args:
        parts: pictures, whose titles become headings, and texts. A text is split into paragraphs at empty lines;
            a paragraph that starts with ``## `` is a heading, and words in `backquotes` are set as code.
        path: where to write it; the name must end in ``.html``.
        title: the heading of the page, and the title in the browser.
        text: an introduction under the title, marked up as the texts are.

    Raises:
        ValueError: the name does not end in ``.html``.
        TypeError: a part is neither a picture nor a string.

    >>> import tempfile, torch
    >>> from transformer_lens.viz import head_grid, page
    >>> effect = head_grid(torch.randn(2, 4), title="Effect of each head")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page(["Two layers.", effect], f"{folder}/report.html", title="Report").name
    'report.html'
    """
    target = Path(path)
    if target.suffix.lower() != ".html":
        raise ValueError(f"a page is an HTML file: {target.name!r} must end in .html")
    if isinstance(parts, str):
        raise TypeError("parts is one string; it must be a sequence of pictures and strings")
    body = "\n".join([f"<h1>{escape(title)}</h1>", _paragraphs(text), *map(_part, parts)])
    content = f"{html.style()}\n<main>\n{body}\n</main>\n{html.script()}"
    target.write_text(html.document(content, title=title), encoding="utf-8")
    return target


def _part(part: Picture | str) -> str:
    if isinstance(part, Picture):
        return part.figure_html(heading="h2")
    if isinstance(part, str):
        return _paragraphs(part)
    raise TypeError(f"a page has pictures and strings as parts, not {type(part).__name__}")


def _paragraphs(text: str) -> str:
    return "\n".join(_paragraph(part.strip()) for part in text.split("\n\n") if part.strip())


def _paragraph(text: str) -> str:
    if text.startswith("## "):
        return f"<h2>{html.marked_up(text.removeprefix('## '))}</h2>"
    return f"<p>{html.marked_up(text)}</p>"
