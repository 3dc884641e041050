"""Columns: where canonical activations lie in what a projection gives, for every layout there is."""

import pytest
import torch

from transformer_lens.specs import FAMILIES
from transformer_lens.weights.layouts import hf_shape, to_canonical
from transformer_lens.wrapped.columns import D_MODEL_AXIS, columns

SIZES = {
    "head": 8, "kv": 2, "group": 4, "d_head": 3, "d_model": 5, "d_mlp": 7, "d_vocab": 11, "pos": 4, "expert": 2,
    "layer": 1, "two": 2, "three": 3, "core": 4, "each": 2, "group_and_two": 6, "d_shared": 6,
}  # fmt: skip
RULES = {
    (weight.parts, weight.first): weight
    for spec in FAMILIES
    for weight in spec.weights
    if all(part.ours.rpartition(".")[2] in D_MODEL_AXIS for part in weight.parts)
}


@pytest.mark.parametrize("weight", RULES.values(), ids=lambda weight: weight.hf)
def test_an_activation_is_where_its_weight_puts_it(weight):
    matrix = torch.randn(hf_shape(weight, SIZES), dtype=torch.float64)
    parts = to_canonical(weight, matrix, SIZES)
    for part in weight.parts:
        leaf = part.ours.rpartition(".")[2]
        found = columns(weight, part.ours, SIZES)
        # A matrix times a unit vector is one column of it: the weight itself shows where the activation lies.
        along = matrix.movedim(matrix.shape.index(5), 0)[2]
        assert torch.equal(found.read(along), parts[part.ours].select(D_MODEL_AXIS[leaf], 2))
        assert torch.equal(found.write(along, found.read(along)), along)
        new = torch.randn_like(found.read(along))
        written = found.write(along, new)
        assert torch.equal(found.read(written), new)
        assert int((written != along).sum()) == new.numel()


def test_a_regular_layout_gives_a_view_and_a_tangled_one_a_copy():
    vector = torch.randn(2, 48)
    regular = columns(next(w for w in RULES.values() if "c_attn.weight" in w.hf), "blocks.{layer}.attn.W_K",
                      {**SIZES, "head": 4, "d_head": 4})  # fmt: skip
    assert regular.read(vector).untyped_storage().data_ptr() == vector.untyped_storage().data_ptr()
    tangled = next(w for w in RULES.values() if "qkv_proj.weight" in w.hf and "core" in w.first)
    found = columns(tangled, "blocks.{layer}.attn.W_Q", {**SIZES, "d_head": 2})
    assert found.strides is None
    assert found.read(vector).shape == (2, 8, 2)
