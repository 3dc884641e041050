"""Further names of hooks. The facts of 4.3 are those that it showed for the same objects."""

from types import SimpleNamespace

import pytest
from torch import nn

from transformer_lens import TransformerBridge
from transformer_lens.hooks.aliases import collect_aliases_recursive, resolve_alias

TARGET = SimpleNamespace(a=SimpleNamespace(hook_out="H"), b="B")


class Part(nn.Module):
    hook_aliases = {"hook_old": "lin.hook_out", "": "hook_out"}


class SeveralPlaces(nn.Module):
    hook_aliases = {"hook_in": ["gone.hook_out", "lin.weight", "lin.bias"], "hook_no": ["gone", "away"]}

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(1, 1)


class Whole(nn.Module):
    hook_aliases = {"hook_embed": "embed.hook_out"}

    def __init__(self):
        super().__init__()
        self.block, self.blocks = Part(), nn.ModuleList([Part(), SeveralPlaces()])


@pytest.mark.parametrize(
    ("name", "aliases", "found"),
    [
        ("x", {"x": "a.hook_out"}, "H"),
        ("x", {"x": ["c.d", "a.hook_out", "b"]}, "H"),
        ("y", {"x": "b"}, None),
        ("b", {"x": "b"}, None),
    ],
)
def test_a_name_is_looked_up(name, aliases, found):
    assert resolve_alias(TARGET, name, aliases) == found


def test_a_name_without_a_place_is_an_error():
    with pytest.raises(AttributeError, match="'x' stands for 'zz' or 'yy', and this SimpleNamespace has no such"):
        resolve_alias(TARGET, "x", {"x": ["zz", "yy"]})
    with pytest.raises(AttributeError, match=r"'x' stands for 'a\.zz'"):
        resolve_alias(TARGET, "x", {"x": "a.zz"})


def test_names_are_collected_from_the_whole_tree():
    assert collect_aliases_recursive(Part(), "pre") == {"pre.hook_old": "pre.lin.hook_out", "pre": "pre.hook_out"}
    assert collect_aliases_recursive(nn.Linear(1, 1)) == {}
    assert collect_aliases_recursive(Whole()) == {
        "hook_embed": "embed.hook_out",
        "block.hook_old": "block.lin.hook_out",
        "block": "block.hook_out",
        "blocks.0.hook_old": "blocks.0.lin.hook_out",
        "blocks.0": "blocks.0.hook_out",
        "blocks.1.hook_in": "blocks.1.lin.weight",
        "blocks.1.hook_no": "blocks.1.away",
    }


def test_a_bridge_declares_names_that_lead_to_its_points():
    bridge = TransformerBridge.boot_transformers("demo", device="cpu")
    found = collect_aliases_recursive(bridge)
    assert found == dict(bridge.hook_aliases)
    assert all(
        resolve_alias(bridge, name, found) is bridge.hook_dict[name] for name in ("hook_embed", "hook_pos_embed")
    )
