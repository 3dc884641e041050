"""Probes by layer: countries and cities in `demo`, with controls that tell knowledge from memory."""

import pytest
import torch

from annotations import unchecked
from transformer_lens import HookedTransformer, TransformerBridge
from transformer_lens.demo.world import CAPITALS
from transformer_lens.probing import difference_in_means, layer_activations, probe_layers

TEMPLATES = ("We travelled to {}", "They live in {}", "I like {}", "She comes from {}")
PLACES = [*CAPITALS, *CAPITALS.values()]
WORDS = [place for _ in TEMPLATES for place in PLACES]
WORDING = [template for template in TEMPLATES for _ in PLACES]
IS_COUNTRY = torch.tensor([int(word in CAPITALS) for word in WORDS])


def features(model, name):
    """The activations at the place's name, in sentences of different lengths."""
    tokens = model.to_tokens([template.format(word) for template, word in zip(WORDING, WORDS, strict=True)])
    ends = [len(model.to_tokens(template.format("Paris"))[0]) - 1 for template in WORDING]
    return layer_activations(model, tokens, name, positions=torch.tensor(ends))


@pytest.fixture(scope="module", params=["native", "bridge"])
def model(request):
    if request.param == "bridge":
        return TransformerBridge.boot_transformers("demo", device="cpu")
    return HookedTransformer.from_pretrained("demo", device="cpu")


def test_countries_and_cities_are_told_apart_among_words_never_seen(model):
    study = probe_layers(features(model, "resid_post"), IS_COUNTRY, groups=WORDS)
    assert (study.accuracy > 0.9).all()
    assert study.chance < 0.65
    assert study.selectivity is None


def test_at_the_embedding_the_control_is_learned_by_heart(model):
    """Words are told apart there by identity, so any labels are learned: no selectivity. Later it is there."""
    study = probe_layers(features(model, "resid_pre"), IS_COUNTRY, groups=WORDING, types=WORDS, draws=2)
    assert study.accuracy[0] == study.control[0] == 1
    assert study.selectivity[0] == 0
    assert (study.selectivity[1:] > 0.15).all()
    assert study.table()[1].keys() == {"layer", "accuracy", "control", "selectivity"}
    assert "control task" in study._repr_html_()


def test_activations_are_the_caches(model):
    tokens = model.to_tokens(["We travelled to Paris", "They live in France"])
    found = layer_activations(model, tokens, "z", positions=torch.tensor([2, -1]), batch_size=1)
    _, cache = model.run_with_cache(tokens)
    assert found.shape == (4, 2, 128)
    torch.testing.assert_close(found[3, 0], cache["z", 3][0, 2].flatten(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1, 1], cache["z", 1][1, -1].flatten(), atol=1e-5, rtol=1e-4)
    with unchecked(), pytest.raises(ValueError, match=r"2 examples; got positions of shape \(3,\)"):
        layer_activations(model, tokens, positions=torch.tensor([1, 2, 3]))


def test_the_difference_in_means_separates_too(model):
    layers = features(model, "resid_post")
    direction = difference_in_means(layers, IS_COUNTRY)[1]
    along = layers[1] @ direction
    assert ((along > along.mean()).long() == IS_COUNTRY).float().mean() > 0.85


def test_a_control_that_cannot_be_learned_is_refused():
    planted = torch.randn(1, 40, 3)
    labels = torch.arange(40) % 2
    with unchecked(), pytest.raises(ValueError, match=r"on the test side alone .*Split by something else"):
        probe_layers(planted, labels, groups=torch.arange(40) // 4, types=torch.arange(40) // 4)
    with unchecked(), pytest.raises(ValueError, match=r"\[layer, example, feature\]; got \(40, 3\)"):
        probe_layers(planted[0], labels, groups=torch.arange(40))
