from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from annotations import unchecked
from transformer_lens.weights.matrix_index import WeightsError
from transformer_lens.weights.svd_interpreter import SVDInterpreter

GOLDEN = Path(__file__).parents[1] / "golden" / "analysis" / "gpt2_weights.safetensors"


def random_block(n_heads=4, n_kv_heads=4, d_model=8, d_head=3, d_mlp=20) -> SimpleNamespace:
    return SimpleNamespace(
        attn=SimpleNamespace(W_V=torch.randn(n_kv_heads, d_model, d_head), W_O=torch.randn(n_heads, d_head, d_model)),
        ln2=SimpleNamespace(w=torch.rand(d_model) + 0.5),
        mlp=SimpleNamespace(W_in=torch.randn(d_model, d_mlp), W_out=torch.randn(d_mlp, d_model)),
    )


@pytest.fixture
def model() -> SimpleNamespace:
    torch.manual_seed(0)
    return SimpleNamespace(blocks=[random_block(n_kv_heads=2), random_block()], W_U=torch.randn(8, 50))


def read(matrix: Tensor, model: SimpleNamespace, count: int) -> Tensor:
    """Absolute values of the right singular vectors of the full matrix times W_U."""
    Vh = torch.linalg.svd(matrix).Vh[:count]
    return (Vh @ model.W_U).T.abs()[:, None]


def test_recorded_vectors():
    golden = load_file(GOLDEN)
    blocks = [
        SimpleNamespace(
            attn=SimpleNamespace(W_V=golden["prop.W_V"][layer], W_O=golden["prop.W_O"][layer]),
            ln2=SimpleNamespace(w=torch.ones(16)),
            mlp=SimpleNamespace(W_in=golden["prop.W_in"][layer], W_out=golden["prop.W_out"][layer]),
        )
        for layer in range(2)
    ]
    interpreter = SVDInterpreter(SimpleNamespace(blocks=blocks, W_U=golden["prop.W_U"]))
    found = {
        "OV": interpreter.get_singular_vectors("OV", layer_index=1, num_vectors=3, head_index=2),
        "w_in": interpreter.get_singular_vectors("w_in", layer_index=0, num_vectors=3),
        "w_out": interpreter.get_singular_vectors("w_out", layer_index=0, num_vectors=3),
    }
    # The first two singular values of W_out are 2 % apart: the recorded vectors are themselves off by 1.6e-5.
    for name, value in found.items():
        assert_close(value.abs(), golden[f"SVDInterpreter.{name}"].abs(), atol=5e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("head", [0, 1, 2, 3])
@pytest.mark.parametrize("layer", [0, 1])
def test_OV_of_a_head_and_its_group(model, layer, head):
    attn = model.blocks[layer].attn
    W_V = attn.W_V.repeat_interleave(4 // len(attn.W_V), 0)
    found = SVDInterpreter(model).get_singular_vectors("OV", layer, 3, head)
    assert found.shape == (50, 1, 3)
    assert_close(found.abs(), read(W_V[head] @ attn.W_O[head], model, 3), atol=1e-4, rtol=1e-3)


def test_what_the_mlp_reads_and_writes(model):
    block = model.blocks[1]
    interpreter = SVDInterpreter(model)
    reads = interpreter.get_singular_vectors("w_in", 1, 5)
    assert_close(reads.abs(), read((block.ln2.w[:, None] * block.mlp.W_in).T, model, 5), atol=1e-4, rtol=1e-3)
    writes = interpreter.get_singular_vectors("w_out", 1, 5)
    assert_close(writes.abs(), read(block.mlp.W_out, model, 5), atol=1e-4, rtol=1e-3)


def test_low_precision_and_parameters(model):
    model.blocks[0].attn.W_V = torch.nn.Parameter(model.blocks[0].attn.W_V.bfloat16())
    model.blocks[0].attn.W_O = torch.nn.Parameter(model.blocks[0].attn.W_O.bfloat16())
    model.blocks[0].mlp.W_out = model.blocks[0].mlp.W_out.bfloat16()
    model.W_U = model.W_U.bfloat16()
    interpreter = SVDInterpreter(model)
    for found in (interpreter.get_singular_vectors("OV", 0, 2, 0), interpreter.get_singular_vectors("w_out", 0, 2)):
        assert found.dtype == torch.bfloat16
        assert not found.requires_grad
        assert found.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("QK", 0, 2), "vector_type is 'QK'; known: OV, w_in, w_out"),
        (("OV", 0, 2), "'OV' with head_index=None: 'OV' needs a head"),
        (("w_in", 0, 2, 1), "'w_in' with head_index=1"),
        (("OV", 2, 2, 0), "layer_index is 2; the model has layers 0 to 1"),
        (("OV", -1, 2, 0), "layer_index is -1"),
        (("OV", 0, 2, 4), "head_index is 4; the layer has heads 0 to 3"),
        (("OV", 0, 4, 0), "num_vectors is 4; 'OV' of layer 0 has 1 to 3"),
        (("w_out", 1, 0), "num_vectors is 0; 'w_out' of layer 1 has 1 to 8"),
    ],
)
def test_errors(model, arguments, message):
    with unchecked(), pytest.raises(WeightsError, match=message):
        SVDInterpreter(model).get_singular_vectors(*arguments)


def test_a_layer_without_the_weight(model):
    del model.blocks[0].mlp
    with pytest.raises(WeightsError, match=r"layer 0 has no weights for 'w_out': .*'mlp'"):
        SVDInterpreter(model).get_singular_vectors("w_out", 0, 2)
