"""Names of models: every official name and alias resolves, in any case."""

import pytest

from transformer_lens.errors import ConfigurationError, UnknownNameError
from transformer_lens.specs.names import alias_map, aliases, official_names, resolve
from transformer_lens.specs.training_checkpoints import choose, labels


def test_every_name_and_alias_resolves_in_any_case():
    assert len(official_names()) == 250
    for name in official_names():
        assert resolve(name) == resolve(name.upper()) == resolve(name.lower()) == name
    for name, others in aliases().items():
        for other in others:
            assert resolve(other) == resolve(other.swapcase()) == name


def test_no_two_names_are_one_in_lower_case():
    assert len(alias_map()) == len(set(alias_map()))
    assert len({name.lower() for name in official_names()}) == len(official_names())


def test_any_other_hub_name_stays():
    assert resolve("someone/Their-Model") == "someone/Their-Model"


@pytest.mark.parametrize("name", ["gpt2-smal", "./nowhere", "/no/such/folder", "~/x", "a/b/c"])
def test_a_name_that_is_nothing_says_so(name):
    with pytest.raises(UnknownNameError, match=r"No model is called .* and no folder is there"):
        resolve(name)


def test_a_misspelt_name_says_the_nearest():
    with pytest.raises(UnknownNameError, match="gpt2-small"):
        resolve("gpt2-smal")


def test_training_checkpoints_by_index_and_by_value():
    assert choose("EleutherAI/pythia-70m", None, None) is None
    last = choose("EleutherAI/pythia-70m", -1, None)
    assert (last.index, last.value, last.kind, last.revision) == (153, 143000, "step", "step143000")
    assert choose("EleutherAI/pythia-70m", None, 512).index == 10
    assert choose("EleutherAI/pythia-70m-v0", 0, None).value == 1000
    assert choose("stanford-crfm/alias-gpt2-small-x21", None, 400_000).revision == "checkpoint-400000"
    assert len(labels("stanford-crfm/alias-gpt2-small-x21")[0]) == 609


def test_checkpoints_of_toy_models_are_files():
    files = [
        "config.json",
        "model_final.pth",
        "checkpoints/m_200.pth",
        "checkpoints/m_30.pth",
        "checkpoints/readme.txt",
    ]
    chosen = choose("NeelNanda/GELU_1L512W_C4_Code", 0, None, files)
    assert (chosen.value, chosen.kind, chosen.revision) == (30, "token", None)


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (1, 1000, "not both"),
        (None, 143_001, "no checkpoint at step 143001. Nearest: 143000"),
        (154, None, "has 154 checkpoints; checkpoint_index=154 is none of them"),
    ],
)
def test_a_checkpoint_that_is_not_there(index, value, message):
    with pytest.raises(ConfigurationError, match=message):
        choose("EleutherAI/pythia-70m", index, value)


def test_a_model_without_checkpoints():
    with pytest.raises(ConfigurationError, match="gpt2 publishes no checkpoints"):
        choose("gpt2", 0, None)
