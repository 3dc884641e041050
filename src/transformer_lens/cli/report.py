"""What a command found, in its three forms: a table, JSON, and an HTML page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from transformer_lens import viz


@dataclass(frozen=True)
class Report:
    """What a command found.

    Attributes:
        title: the heading of the page.
        data: for programs; numbers that are not finite become null.
        shown: for the terminal.
        parts: for the page, pictures and text.
    """

    title: str
    data: dict[str, Any]
    shown: Sequence[RenderableType]
    parts: Sequence[viz.Picture | str]


@dataclass(frozen=True)
class Forms:
    """Which forms are wanted.

    A table unless `as_json`; JSON to the terminal or to `out`; a page at `html`; the first picture at `png`.
    """

    as_json: bool = False
    out: Path | None = None
    html: Path | None = None
    png: Path | None = None

    def __post_init__(self) -> None:
        if self.out is not None and not self.as_json:
            raise ValueError("--out says where the JSON goes; give --json with it (a page goes to --html).")
        if self.html is not None and self.html.suffix.lower() != ".html":
            raise ValueError(f"--html writes a page: {self.html.name} must end in .html.")
        if self.png is not None and self.png.suffix.lower() != ".png":
            raise ValueError(f"--png writes a picture: {self.png.name} must end in .png.")
        for path in (self.out, self.html, self.png):
            if path is not None and not path.parent.is_dir():
                raise ValueError(f"There is no folder {path.parent} to write {path.name} into: make it first.")


def deliver(report: Report, forms: Forms, console: Console) -> None:
    """Write the report in the forms that are wanted; where files went is said beside the output."""
    if forms.as_json:
        text = json.dumps(_finite(report.data), ensure_ascii=False, allow_nan=False)
        if forms.out is None:
            # NOTE: not through rich, which wraps lines and reads brackets as markup.
            print(text, file=console.file)
        else:
            forms.out.write_text(text + "\n", encoding="utf-8")
    else:
        for part in report.shown:
            console.print(part)
    if forms.html is not None:
        viz.page(report.parts, forms.html, title=report.title)
    if forms.png is not None:
        next(part for part in report.parts if isinstance(part, viz.Picture)).save(forms.png)
    written = [path for path in (forms.out, forms.html, forms.png) if path is not None]
    for path in written:
        Console(stderr=True, highlight=False).print(f"Written: {path}", soft_wrap=True, markup=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
