"""The head detector against recorded numbers, and what it refuses."""

from pathlib import Path

import pytest
import torch
from lens_models import DEMOS, demo_on
from safetensors.torch import load_file
from transformer_lens.head_detector import detect_head as detect_head_by_its_old_path
from transformers import PreTrainedTokenizerFast

from annotations import unchecked
from transformer_lens import HookedTransformer, TransformerBridge
from transformer_lens.lenses import detect_head
from transformer_lens.lenses.head_detector import PATTERNS, get_supported_heads

GOLDEN = Path(__file__).parent.parent / "golden"
RECORDED = load_file(GOLDEN / "head_detector" / "gpt2.safetensors")
TEXT = "w5 w9 w20 w5 w9 w33 w5 w9"


@pytest.fixture(scope="module", params=["native", "bridge"])
def model(request):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(GOLDEN / "head_detector")
    folder = str(GOLDEN / "gpt2")
    if request.param == "native":
        return HookedTransformer.from_pretrained(folder, tokenizer=tokenizer, device="cpu")
    bridge = TransformerBridge.boot_transformers(folder, tokenizer=tokenizer, device="cpu")
    bridge.enable_compatibility_mode()
    return bridge


@pytest.mark.parametrize("name", sorted(name for name in RECORDED if name.count(".") == 4))
def test_scores_are_the_recorded_ones(model, name):
    _, pattern, measure, bos, current = name.split(".")
    scores = detect_head(
        model, TEXT, pattern, exclude_bos=bos == "bos1", exclude_current_token=current == "cur1", error_measure=measure
    )
    rounding = 5.1e-4 if measure == "abs" else 1e-5  # these were recorded with three decimals
    torch.testing.assert_close(scores, RECORDED[name], atol=rounding, rtol=1e-4)


def test_heads_and_lists_of_texts(model):
    scores = detect_head(model, TEXT, "induction_head", heads=[(1, 2), (0, 0)])
    torch.testing.assert_close(scores, RECORDED["detect_head.heads"], atol=1e-5, rtol=1e-4)
    assert torch.equal(detect_head(model, TEXT, "induction_head", heads={1: [2], 0: [0]}), scores)
    several = detect_head(model, [TEXT, "w4 w4 w6 w7 w4 w6"], "duplicate_token_head")
    torch.testing.assert_close(several, RECORDED["detect_head.list"], atol=1e-5, rtol=1e-4)


def test_patterns_and_a_cache(model):
    tokens = model.to_tokens(TEXT)
    for name, pattern in PATTERNS.items():
        assert torch.equal(pattern(tokens), RECORDED[f"pattern.{name}"])
    _, cache = model.run_with_cache(tokens)
    _, alone = model.run_with_cache(tokens, remove_batch_dim=True)
    expected = detect_head(model, TEXT, "induction_head")
    for given in (cache, alone):
        torch.testing.assert_close(detect_head(model, TEXT, "induction_head", cache=given), expected)
    custom = detect_head(model, TEXT, PATTERNS["induction_head"](tokens))
    assert torch.equal(custom, expected)
    assert detect_head_by_its_old_path is detect_head


@pytest.mark.parametrize("host", DEMOS)
def test_demo_has_the_heads_that_its_page_names(host):
    model = demo_on(host)
    text = " the red cat sat" * 4
    previous = detect_head(model, text, "previous_token_head", exclude_bos=True)
    assert divmod(int(previous.argmax()), 4) == (0, 0)
    induction = detect_head(model, text, "induction_head", exclude_bos=True)
    assert int(induction.argmax()) // 4 > 0


def test_what_is_refused(capsys):
    model = demo_on("native")
    with (
        unchecked(),
        pytest.raises(ValueError, match="duplicate_token_head, induction_head; got 'copy_head'"),
    ):
        detect_head(model, "The cat", "copy_head")
    with unchecked(), pytest.raises(ValueError, match=r"shape \(2, 2\), but the text is 3 tokens: give \[3, 3\]"):
        detect_head(model, "The cat", torch.zeros(2, 2))
    with unchecked(), pytest.raises(ValueError, match="zero above the diagonal"):
        detect_head(model, "The cat", torch.ones(3, 3))
    with unchecked(), pytest.raises(ValueError, match=r"layers 0 to 3 and heads 0 to 3; got \(0, 4\)"):
        detect_head(model, "The cat", "induction_head", heads=[(0, 4)])
    with unchecked(), pytest.raises(ValueError, match='error_measure is "mul" or "abs"; got \'square\''):
        detect_head(model, "The cat", "induction_head", error_measure="square")
    with unchecked(), pytest.raises(ValueError, match="n_ctx=128"):
        detect_head(model, " the" * 200, "induction_head")
    _, cache = model.run_with_cache("The cat")
    with unchecked(), pytest.raises(ValueError, match="A cache is of one run"):
        detect_head(model, ["The cat", "The dog"], "induction_head", cache=cache)
    get_supported_heads()
    assert "induction_head" in capsys.readouterr().out
