"""What is hooked now, hooks under other names, and other forms of an activation."""

import pytest
import torch

from transformer_lens import HookedRootModule, TransformerBridge
from transformer_lens.errors import UnknownNameError
from transformer_lens.hooks import HookPoint
from transformer_lens.hooks.aliases import build_alias_to_canonical_map


class Two(HookedRootModule):
    def __init__(self):
        super().__init__()
        self.a, self.b = HookPoint(), HookPoint()
        self.setup()

    def forward(self, x):
        return self.b(self.a(x))


class Square:
    def convert(self, activation):
        return activation.reshape(2, 2)

    def revert(self, activation):
        return activation.reshape(4)


def same(activation, hook):
    return None


def test_hooks_are_listed_by_point():
    model = Two()
    assert model.name is None
    assert model.list_hooks() == {}
    model.add_hook("a", same)
    model.add_perma_hook("b", same)
    assert {name: len(handles) for name, handles in model.list_hooks().items()} == {"a": 1, "b": 1}
    assert model.list_hooks("a")["a"][0].user_hook is same
    assert list(model.list_hooks(lambda name: name == "b")) == ["b"]
    assert list(model.list_hooks(["b", "a"])) == ["b", "a"]
    assert list(model.list_hooks(including_permanent=False)) == ["a"]
    assert model.list_hooks(dir="bwd") == {}
    model.add_hook("a", same, dir="bwd")
    assert (len(model.list_hooks()["a"]), len(model.list_hooks(dir="fwd")["a"])) == (2, 1)
    with pytest.raises(UnknownNameError, match="no hook point 'zork'"):
        model.list_hooks("zork")


def test_both_spellings_find_a_hook():
    bridge = TransformerBridge.boot_transformers("demo", device="cpu")
    bridge.add_hook("blocks.1.hook_resid_pre", same)
    for meant in ("blocks.1.hook_in", "blocks.1.hook_resid_pre", lambda name: name.endswith("hook_resid_pre")):
        assert list(bridge.list_hooks(meant)) == ["blocks.1.hook_in"]
    others = build_alias_to_canonical_map(bridge.hook_dict)
    assert others["blocks.1.hook_resid_pre"] == "blocks.1.hook_in"
    assert others["blocks.0.attn.hook_q"] == "blocks.0.attn.q.hook_out"
    assert "blocks.1.hook_in" not in others
    assert build_alias_to_canonical_map({"a.hook": HookPoint()}, "p.") == {"p.a.hook": None}


def test_a_hook_runs_once_under_each_name():
    point, seen = HookPoint(), []
    point.name = "a.b"

    def plus_one(activation, hook):
        seen.append(hook.name)
        hook.ctx[hook.name] = True
        return activation + 1

    handle = point.add_hook(plus_one, alias_names=["x.y", "z"])
    assert point(torch.zeros(1)).item() == 2  # as in 4.3
    assert (seen, point.name, point.ctx) == (["x.y", "z"], "a.b", {"x.y": True, "z": True})
    handle.hook.remove()
    assert not point.has_hooks()
    with pytest.raises(ValueError, match="alias_names is empty, so the hook would never run"):
        point.add_hook(plus_one, alias_names=[])


def test_hooks_see_another_form():
    point, shapes = HookPoint(), []
    point.enable_reshape(Square())
    x = torch.ones(4, requires_grad=True)
    assert point(x) is x
    point.add_hook(lambda activation, hook: (shapes.append(activation.shape), activation * 2)[1])
    point.add_hook(lambda gradient, hook: (shapes.append(gradient.shape), gradient * 3)[1], dir="bwd")
    out = point(x)
    assert torch.equal(out, torch.full((4,), 2.0))
    out.sum().backward()
    assert shapes == [(2, 2), (2, 2)]
    assert torch.equal(x.grad, torch.full((4,), 6.0))
    point.enable_reshape(None)
    point(x)
    assert shapes[-1] == (4,)
