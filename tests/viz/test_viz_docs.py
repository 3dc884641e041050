import re
from pathlib import Path

import pytest


def test_the_page_about_pictures_runs(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    text = (Path(__file__).parents[2] / "docs" / "pictures.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert len(blocks) == 8
    exec(compile("\n".join(blocks), "docs/pictures.md", "exec"), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["patching.html", "patching.png", "report.html"]
