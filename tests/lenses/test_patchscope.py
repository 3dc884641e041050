"""Patchscopes: put back where it came from a residual changes nothing; elsewhere it does what a hook by hand does."""

import pytest
import torch
from lens_models import DEMOS, demo_on, small

from annotations import unchecked
from toys import TOKENS
from transformer_lens.lenses import patchscope

EIFFEL, COLOSSEUM = "The Eiffel Tower is in", "The Colosseum is in"


@pytest.mark.parametrize("name", ["plain", "gated_grouped", "parallel_rotary", "llama bridge", "gemma2 bridge"])
@torch.no_grad()
def test_a_residual_put_back_changes_nothing(name):
    model = small(name)
    expected = model(TOKENS[:1])[0, -1].log_softmax(-1)
    for position in (-1, 2):
        scope = patchscope(model, TOKENS[0], TOKENS[0], position=position, target_position=position)
        torch.testing.assert_close(scope.log_probs, expected.expand(3, -1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["plain", "gpt2 bridge", "llama bridge"])
@torch.no_grad()
def test_each_row_is_a_run_with_one_edit(name):
    model = small(name)
    source, target = TOKENS[:1], TOKENS[1:, :5]
    _, cache = model.run_with_cache(source)
    scope = patchscope(
        model, source[0], target[0], layers=[0, 1], position=4, target_layer=1, target_position=3,
        mapping=lambda residual, layer: residual * (layer + 1),
    )  # fmt: skip
    for row, layer in enumerate((0, 1)):

        def edit(stream, hook, layer=layer):
            stream[:, 3] = cache["resid_pre", layer][0, 4] * (layer + 1)

        logits = model.run_with_hooks(target, fwd_hooks=[("blocks.1.hook_resid_pre", edit)])
        torch.testing.assert_close(scope.log_probs[row], logits[0, -1].log_softmax(-1), atol=1e-5, rtol=1e-5)
    assert scope.target_layers == [1, 1]


@pytest.mark.parametrize("host", DEMOS)
def test_paris_is_told_in_another_sentence(host):
    model = demo_on(host)
    scope = patchscope(model, EIFFEL, COLOSSEUM, max_new_tokens=3)
    assert scope.top_tokens(1)[0] == [" Rome"]
    assert scope.top_tokens(1)[-1] == [" Paris"]
    assert scope.texts[0].startswith(" Rome")
    assert scope.texts[-1].startswith(" Paris")
    # The edit is made in the first pass alone: what is written next follows from what is there.
    ids = torch.cat([model.to_tokens(COLOSSEUM), torch.tensor([[model.to_single_token(" Rome")]])], 1)
    with torch.no_grad():
        following = model.to_single_str_token(int(model(ids)[0, -1].argmax()))
    assert scope.texts[0].startswith(" Rome" + following)


def test_generation_from_a_prompt_of_one_token():
    model = small("plain")
    scope = patchscope(model, TOKENS[0], TOKENS[1, :1], layers=[1], max_new_tokens=3)
    _, cache = model.run_with_cache(TOKENS[:1])
    ids = TOKENS[1:, :1]

    def edit(stream, hook):
        stream[:, 0] = cache["resid_pre", 1][0, -1]

    for _ in range(3):
        logits = model.run_with_hooks(ids, fwd_hooks=[("blocks.1.hook_resid_pre", edit)])
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    assert scope.texts == ["".join(str(int(token)) for token in ids[0, 1:])]


def test_result_and_refusals():
    model = demo_on("native")
    scope = patchscope(model, EIFFEL, COLOSSEUM, layers=[0, 4])
    rows = scope.table(k=2)
    assert [row["layer"] for row in rows] == [0, 4]
    assert rows[1]["top"][0] == " Paris"
    assert rows[1]["text"] == ""
    assert "Paris" in scope._repr_html_()
    with unchecked(), pytest.raises(ValueError, match=r"from 0 to 4 \(4: the final stream\); got 5"):
        patchscope(model, EIFFEL, COLOSSEUM, layers=[5])
    with unchecked(), pytest.raises(ValueError, match="one prompt each; got 2 and 1"):
        patchscope(model, [EIFFEL, EIFFEL], COLOSSEUM)
    assert not any(point.fwd_hooks for point in model.hook_dict.values())
