"""torch.compile, in a process of its own: the checks of annotations in this one cannot be compiled."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import torch
from toys import TOKENS, toy

def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-5)

HOOKS = [("blocks.0.hook_mlp_out", lambda a, hook: a * 0), ("blocks.1.attn.hook_pattern", lambda a, hook: a * 0.5)]
kind, way = {kind!r}, {way!r}
model, plain = toy(kind), toy(kind)
logits = plain(TOKENS)
if way == "function":
    compiled = torch.compile(model, backend="eager")
else:
    model.compile(backend="eager")
    compiled = model
close(compiled(TOKENS), logits)
close(compiled(TOKENS), logits)
hooked = compiled.run_with_hooks(TOKENS, fwd_hooks=HOOKS)
close(hooked, plain.run_with_hooks(TOKENS, fwd_hooks=HOOKS))
assert not torch.allclose(hooked, logits)
with model.hooks(HOOKS):
    close(compiled(TOKENS), hooked)
_, cache = compiled.run_with_cache(TOKENS)
close(cache["blocks.0.attn.hook_pattern"], plain.run_with_cache(TOKENS)[1]["pattern", 0])
close(compiled(TOKENS), logits)
print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "gated_grouped", "experts"])
@pytest.mark.parametrize("way", ["function", "method"])
def test_a_compiled_model_equals_the_eager_one_and_hooks_act(kind, way):
    script = SCRIPT.format(kind=kind, way=way)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert done.stdout == "done\n", done.stderr
