from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from annotations import unchecked
from transformer_lens import HookedTransformer
from transformer_lens.weights import composition
from transformer_lens.weights.composition import (
    CompositionScores,
    all_composition_scores,
    attention_composition_scores,
    composition_scores,
)
from transformer_lens.weights.factored_matrix import FactoredMatrix
from transformer_lens.weights.matrix_index import WeightsError

GOLDEN = Path(__file__).parents[1] / "golden" / "analysis"
MODES = ["Q", "K", "V"]


def random_weights(n_layers=3, n_heads=4, d_model=16, d_head=5, n_kv_heads=None, dtype=torch.float32):
    kv = n_kv_heads or n_heads
    shapes = {
        "W_Q": (n_layers, n_heads, d_model, d_head),
        "W_K": (n_layers, kv, d_model, d_head),
        "W_V": (n_layers, kv, d_model, d_head),
        "W_O": (n_layers, n_heads, d_head, d_model),
    }
    generator = torch.Generator().manual_seed(n_heads)
    return {name: torch.randn(*shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def by_definition(mode: str, W_Q: Tensor, W_K: Tensor, W_V: Tensor, W_O: Tensor) -> Tensor:
    """The scores from full d_model x d_model products, in float64."""
    repeat = W_Q.shape[1] // W_K.shape[1]
    Q, K, V, O = W_Q.double(), W_K.double(), W_V.double(), W_O.double()  # noqa: E741
    K, V = K.repeat_interleave(repeat, 1), V.repeat_interleave(repeat, 1)
    OV, QK = V @ O, Q @ K.mT
    reads = {"Q": QK, "K": QK.mT, "V": OV}[mode]
    scores = torch.linalg.norm(OV[:, :, None, None] @ reads, dim=(-2, -1))
    scores /= torch.linalg.norm(OV, dim=(-2, -1))[:, :, None, None] * torch.linalg.norm(reads, dim=(-2, -1))
    layer = torch.arange(len(Q))
    return (scores * (layer[:, None, None, None] < layer[:, None])).float()


@pytest.mark.parametrize("mode", MODES)
def test_recorded_scores(mode):
    golden = load_file(GOLDEN / "gpt2_weights.safetensors")
    weights = {name: golden[f"prop.{name}"] for name in ("W_Q", "W_K", "W_V", "W_O")}
    assert_close(all_composition_scores(mode, **weights), golden[f"all_composition_scores({mode})"])


@pytest.mark.parametrize("mode", MODES)
def test_a_models_scores_are_the_recorded_ones(mode):
    model = HookedTransformer.from_pretrained(str(GOLDEN.parent / "gpt2"), device="cpu")
    recorded = load_file(GOLDEN / "gpt2_weights.safetensors")[f"all_composition_scores({mode})"]
    assert_close(model.all_composition_scores(mode), recorded, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_recorded_scores_with_kv_heads(mode):
    golden = load_file(GOLDEN / "gqa_composition.safetensors")
    weights = {name: golden[name] for name in ("W_Q", "W_K", "W_V", "W_O")}
    assert_close(all_composition_scores(mode, **weights), golden[f"scores_{mode}"])
    expanded = weights | {name: weights[name].repeat_interleave(3, 1) for name in ("W_K", "W_V")}
    assert_close(all_composition_scores(mode, **expanded), golden[f"scores_{mode}"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "sizes", [{}, {"d_head": 16}, {"d_head": 20}, {"n_kv_heads": 2}, {"d_model": 50, "d_head": 1}, {"n_layers": 1}]
)
def test_definition(mode, sizes):
    weights = random_weights(**sizes)
    assert_close(all_composition_scores(mode, **weights), by_definition(mode, **weights), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("columns", [1, 3, 7, 16])
def test_width_of_the_blocks_changes_nothing(monkeypatch, columns):
    weights = random_weights(d_model=16)
    monkeypatch.setattr(composition, "BLOCK_FLOATS", 0)
    monkeypatch.setattr(composition, "MIN_COLUMNS", columns)
    assert_close(all_composition_scores("K", **weights), by_definition("K", **weights), atol=1e-6, rtol=1e-5)


def test_zero_where_the_source_is_not_earlier():
    scores = all_composition_scores("V", **random_weights())
    for source in range(3):
        for reader in range(3):
            assert bool((scores[source, :, reader] > 0).all()) == (source < reader)


def test_identity_circuits_score_one():
    eye = torch.eye(4).expand(2, 1, 4, 4)
    # ||I I|| / (||I|| ||I||) = 2 / (2 * 2)
    scores = all_composition_scores("Q", W_Q=eye, W_K=eye, W_V=eye, W_O=eye)
    assert scores[0, 0, 1, 0] == pytest.approx(0.5)


def test_nearly_orthogonal_heads_keep_their_digits():
    """A head that writes 1e-5 of its output into the direction the next one reads."""
    write, read = torch.zeros(1, 1, 8), torch.zeros(1, 8, 1)
    write[0, 0, 0], write[0, 0, 1] = 1.0, 1e-5
    read[0, 1, 0] = 1.0
    away = torch.ones(1, 8, 1)
    scores = all_composition_scores("Q", W_Q=[away, read], W_K=[away, away], W_V=[away, away], W_O=[write, write])
    assert_close(scores[0, 0, 1, 0], torch.tensor(1e-5), rtol=1e-4, atol=0)
    write[0, 0, 1] = 0
    scores = all_composition_scores("Q", W_Q=[away, read], W_K=[away, away], W_V=[away, away], W_O=[write, write])
    assert scores.abs().max() == 0


def test_a_head_of_zeros_composes_with_nothing():
    weights = random_weights()
    weights["W_V"][0, 1] = 0
    weights["W_Q"][2, 3] = 0
    scores = all_composition_scores("Q", **weights)
    assert scores.isfinite().all()
    assert scores[0, 1].abs().max() == scores[:, :, 2, 3].abs().max() == 0
    assert scores[0, 0, 2, 0] > 0


def test_scores_ignore_scale_and_the_basis_inside_heads():
    weights = random_weights(d_head=5)
    turn = torch.linalg.qr(torch.randn(5, 5)).Q
    turned = weights | {"W_V": 3 * weights["W_V"] @ turn, "W_O": turn.T @ weights["W_O"]}
    assert_close(all_composition_scores("Q", **turned), all_composition_scores("Q", **weights))


def test_low_precision_weights_give_float32_scores():
    weights = random_weights(dtype=torch.bfloat16)
    assert_close(all_composition_scores("Q", **weights), by_definition("Q", **weights), atol=1e-6, rtol=1e-5)


def test_parameters_need_no_gradient_tape():
    weights = {name: torch.nn.Parameter(w) for name, w in random_weights().items()}
    assert not all_composition_scores("Q", **weights).requires_grad


@pytest.mark.parametrize("mode", MODES)
def test_layers_without_attention(mode):
    stacked = random_weights(n_layers=3)
    mixed = {name: [w[0], None, w[1], None, None, w[2]] for name, w in stacked.items()}
    dense = all_composition_scores(mode, **stacked)
    found = attention_composition_scores(mode, **mixed)
    assert isinstance(found, CompositionScores)
    assert found.layer_indices == [0, 2, 5]
    assert found.head_labels == [f"L{layer}H{head}" for layer in (0, 2, 5) for head in range(4)]
    assert (found.shape, found.dtype, found.device) == ((3, 4, 3, 4), torch.float32, torch.device("cpu"))
    assert_close(found.scores, dense)
    assert_close(found[0, 1], dense[0, 1])
    full = all_composition_scores(mode, **mixed)
    assert full.shape == (6, 4, 6, 4)
    attention = torch.tensor([0, 2, 5])
    assert_close(full[attention][:, :, attention], dense)
    assert_close(full.sum(), dense.sum())


def test_layers_with_different_head_sizes():
    small, large = random_weights(n_layers=2, d_head=3), random_weights(n_layers=2, d_head=7)
    mixed = {name: [small[name][0], large[name][1]] for name in small}
    OV = FactoredMatrix(small["W_V"][0], small["W_O"][0])
    QK = FactoredMatrix(large["W_Q"][1], large["W_K"][1].mT)
    assert_close(all_composition_scores("Q", **mixed)[0, :, 1], composition_scores(OV, QK))


def test_head_sizes_that_differ_between_qk_and_ov():
    weights = random_weights(d_head=3)
    other = random_weights(d_head=6)
    weights = {name: (weights if name in ("W_Q", "W_K") else other)[name] for name in weights}
    assert_close(all_composition_scores("K", **weights), by_definition("K", **weights), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W_O": torch.ones(2, 4, 5, 16)}, r"different numbers of layers: .*'W_O': 2"),
        ({"W_K": [None] * 3}, r"layer 0 has only W_Q, W_V, W_O"),
        ({"W_Q": torch.ones(3, 4, 16, 6)}, r"layer 0: W_Q, W_K and W_V are .*'W_Q': \(4, 16, 6\)"),
        ({"W_K": torch.ones(3, 3, 16, 5)}, r"multiple of kv heads: .*'W_K': \(3, 16, 5\)"),
        ({"W_Q": torch.ones(3, 16, 5)}, r"three axes, head first: .*'W_Q': \(16, 5\)"),
        ({name: [None] for name in ("W_Q", "W_K", "W_V", "W_O")}, "no layer has attention"),
    ],
)
def test_errors(change, message):
    with unchecked(), pytest.raises(WeightsError, match=message):
        all_composition_scores("Q", **(random_weights() | change))


def test_layers_of_different_widths():
    narrow, wide = random_weights(d_model=8), random_weights(d_model=16)
    mixed = {name: [narrow[name][0], wide[name][1]] for name in narrow}
    with pytest.raises(WeightsError, match=r"layers differ in \(heads, d_model\): \{0: \(4, 8\), 1: \(4, 16\)\}"):
        all_composition_scores("Q", **mixed)


@pytest.mark.parametrize("mode", ["q", "QK", "", None])
def test_unknown_mode(mode):
    with unchecked(), pytest.raises(WeightsError, match=f"mode is {mode!r}; composition is one of 'Q', 'K' and 'V'"):
        all_composition_scores(mode, **random_weights())


def random_matrix(*shape, mdim=3):
    return FactoredMatrix(torch.randn(*shape[:-1], mdim), torch.randn(*shape[:-2], mdim, shape[-1]))


@pytest.mark.parametrize(
    ("left_shape", "right_shape"),
    [
        ((2, 3, 8, 8), (2, 3, 8, 8)),
        ((2, 3, 6, 8), (5, 8, 9)),
        ((6, 8), (8, 9)),
        ((6, 8), (5, 8, 9)),
        ((2, 6, 8), (8, 9)),
    ],
)
def test_every_left_meets_every_right(left_shape, right_shape):
    left, right = random_matrix(*left_shape), random_matrix(*right_shape, mdim=4)
    scores = composition_scores(left, right)
    assert scores.shape == left_shape[:-2] + right_shape[:-2]
    spread = left.AB.reshape(*left_shape[:-2], *[1] * (len(right_shape) - 2), *left_shape[-2:])
    products = (spread @ right.AB).norm(dim=(-2, -1))
    norms = spread.norm(dim=(-2, -1)) * right.AB.norm(dim=(-2, -1))
    assert_close(scores, products / norms, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("right_shape", [(2, 3, 8, 9), (3, 8, 9), (8, 9), (2, 1, 8, 9)])
def test_leading_axes_side_by_side(right_shape):
    left, right = random_matrix(2, 3, 6, 8), random_matrix(*right_shape)
    scores = composition_scores(left, right, broadcast_dims=False)
    products = (left.AB @ right.AB).norm(dim=(-2, -1))
    norms = left.AB.norm(dim=(-2, -1)) * right.AB.norm(dim=(-2, -1))
    assert_close(scores, products / norms, atol=1e-6, rtol=1e-4)


def test_pairs_agree_with_all_heads_at_once():
    weights = random_weights(n_layers=2)
    OV = FactoredMatrix(weights["W_V"], weights["W_O"])
    QK = FactoredMatrix(weights["W_Q"], weights["W_K"].mT)
    assert_close(all_composition_scores("Q", **weights)[0, :, 1], composition_scores(OV, QK)[0, :, 1])
    assert_close(all_composition_scores("K", **weights)[0, :, 1], composition_scores(OV, QK.T)[0, :, 1])
    assert_close(all_composition_scores("V", **weights)[0, :, 1], composition_scores(OV, OV)[0, :, 1])


def test_pair_scores_have_gradients():
    A = torch.randn(6, 2, requires_grad=True)
    composition_scores(FactoredMatrix(A, torch.randn(2, 6)), random_matrix(6, 6)).backward()
    assert A.grad.abs().sum() > 0


def test_low_precision_pairs():
    left = random_matrix(6, 8)
    low = FactoredMatrix(left.A.bfloat16(), left.B.bfloat16())
    high = FactoredMatrix(low.A.float(), low.B.float())
    assert_close(composition_scores(low, low.T), composition_scores(high, high.T))


def test_pairs_that_do_not_fit():
    with pytest.raises(WeightsError, match=r"left \(6, 8\), right \(6, 8\)"):
        composition_scores(random_matrix(6, 8), random_matrix(6, 8))
    with pytest.raises(WeightsError, match=r"do not broadcast: left \(2, 6, 6\), right \(3, 6, 6\)"):
        composition_scores(random_matrix(2, 6, 6), random_matrix(3, 6, 6), broadcast_dims=False)
