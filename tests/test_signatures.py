"""Public names and parameters of the two generations before this one, under their old paths.

`signatures/recorded.json` holds them as facts: module, name, parameters (`name=` is optional, "." a field).
"""

import json
from pathlib import Path

import pytest

import transformer_lens
from signatures.compare import arguments_differ, differences
from signatures.not_here import NOT_HERE

RECORDED = json.loads((Path(__file__).parent / "signatures" / "recorded.json").read_text())


@pytest.fixture(scope="module")
def found():
    model = transformer_lens.HookedTransformer.from_pretrained("demo")
    bridge = transformer_lens.TransformerBridge.boot_transformers("demo")
    sizes = {"n_layers": 1, "d_model": 8, "d_head": 4, "n_ctx": 8, "d_vocab": 9, "device": "cpu"}
    encoder = transformer_lens.HookedEncoder(sizes)
    objects = [encoder, model, bridge, model.blocks[0], model.hook_embed, transformer_lens.utils.Slice()]
    instances = {type(thing): thing for thing in objects} | {transformer_lens.HookedRootModule: model}
    generations = [module for generation in RECORDED.values() for module in generation.items()]
    return {name: what for module, names in generations for name, what in differences(module, names, instances)}


def test_every_recorded_name_is_here_with_its_parameters(found):
    assert {name: what for name, what in found.items() if name not in NOT_HERE} == {}


def test_the_list_of_what_is_not_here_shrinks(found):
    assert NOT_HERE - found.keys() == set(), "these are here now: take them out of tests/signatures/not_here.py"


def test_most_names_are_recorded():
    assert sum(len(names) for generation in RECORDED.values() for names in generation.values()) > 200


@pytest.mark.parametrize(
    ("recorded", "problem"),
    [
        ("x, y=", ""),
        ("x, y=, z=", "takes no z"),
        ("y, x", "positional arguments are"),
        ("", "needs x"),
        ("x, *, y=", ""),
    ],
)
def test_other_parameters_are_seen(recorded, problem):
    def function(x, y=1): ...

    said = [what for _, what in arguments_differ("function", function, recorded)]
    assert [what.startswith(problem) for what in said] == ([True] if problem else [])
