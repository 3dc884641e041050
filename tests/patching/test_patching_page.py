"""The page's example runs, and its numbers are those of plain hooks."""

import re
from pathlib import Path

import torch

PAGE = Path(__file__).parents[2] / "docs" / "patching.md"


def test_example_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    printed = capsys.readouterr().out
    assert "16 cells: 0 change nothing" in printed
    assert printed.splitlines()[-1] == "torch.Size([16])"
    assert names["by_position"].shape == (4, 6)
    model, clean = names["model"], names["clean"]

    def silence(z, hook):
        z[:, :, 2] = 0.0

    logits = model.run_with_hooks(clean, fwd_hooks=[("blocks.1.attn.hook_z", silence)])
    torch.testing.assert_close(names["without_each_head"][6], names["metric"](logits), atol=2e-4, rtol=1e-4)
