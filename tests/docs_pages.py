"""Runs the code of a page, and compares what it prints with what the page says."""

import math
import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
NUMBER = re.compile(r"[-+]?\d+\.?\d*")


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return re.findall(
        r"^```(\w+)\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )


def same(found: str, said: str, tolerance: float = 0.02) -> bool:
    """Whether two outputs are alike: words exactly, numbers within the tolerance (absolute and relative)."""
    words = [" ".join(NUMBER.sub("#", text).split()) for text in (found, said)]
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (found, said)]
    return words[0] == words[1] and all(
        math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance) for one, other in zip(*numbers, strict=True)
    )
