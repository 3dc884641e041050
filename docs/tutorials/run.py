"""Run the tutorials' Python and keep their pictures: `python docs/tutorials/run.py`."""

import os
import re
from contextlib import chdir
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PAGES = ("causal-tracing", "ioi", "induction")


def run(page: str, pictures: str | os.PathLike[str]) -> dict[str, Any]:
    """All names that a page's Python blocks define; its pictures are saved in the folder `pictures`."""
    blocks = re.findall(r"```python\n(.*?)```", (FOLDER / f"{page}.md").read_text(encoding="utf-8"), flags=re.S)
    names: dict[str, Any] = {}
    with chdir(pictures):
        exec(compile("\n".join(blocks), f"docs/tutorials/{page}.md", "exec"), names)
    return names


if __name__ == "__main__":
    for page in PAGES:
        run(page, FOLDER / "pictures")
