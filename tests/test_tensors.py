"""Small questions about tensors, against slow answers."""

import numpy as np
import pytest
import torch

from transformer_lens import tensors
from transformer_lens.nested import filter_dict_by_prefix, get_nested_attr, set_nested_attr


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int32, torch.bool])
def test_to_numpy_keeps_values(dtype):
    values = torch.tensor([0, 1, 1, 0]).to(dtype)
    assert tensors.to_numpy(values).tolist() == values.tolist()


def test_to_numpy_of_other_things():
    assert tensors.to_numpy([1, 2]).tolist() == [1, 2]
    assert tensors.to_numpy(3.5) == 3.5
    assert tensors.to_numpy(np.float32(2)).dtype == np.float32
    with pytest.raises(TypeError, match="got str"):
        tensors.to_numpy("text")


def test_check_structure_prints_what_differs(capsys):
    falling, rising = torch.tensor([[3.0, 2], [1, 0]]), torch.tensor([[0.0, 1], [2, 3]])
    tensors.check_structure(falling, rising)
    assert capsys.readouterr().out == "row mismatch: 0-1\ncolumn mismatch: 0-1\n"
    tensors.check_structure(falling, 2 * falling + 1, verbose=True)
    assert capsys.readouterr().out.splitlines()[-1] == "PASSED"
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(3, 3\)"):
        tensors.check_structure(torch.eye(2), torch.eye(3))


def test_position_ids_count_tokens_only():
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 0]])
    expected = [[sum(row[: i + 1]) - 1 if sum(row[: i + 1]) else 0 for i in range(4)] for row in mask.tolist()]
    assert tensors.get_offset_position_ids(0, mask).tolist() == expected
    assert tensors.get_offset_position_ids(3, mask).tolist() == [row[3:] for row in expected]


@pytest.mark.parametrize("reverse", [False, True])
def test_running_sums(reverse):
    values = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    sums = tensors.get_cumsum_along_dim(values, 1, reverse)
    for i in range(5):
        part = values[:, i:] if reverse else values[:, : i + 1]
        assert torch.allclose(sums[:, i], part.sum(1), atol=1e-6)


def test_repeated_streams_are_copies_or_views():
    stream = torch.zeros(1, 2, 3)
    copies, views = (tensors.repeat_along_head_dimension(stream, 4, clone_tensor=clone) for clone in (True, False))
    copies[:, :, 0] = 1.0
    assert copies.shape == views.shape == (1, 2, 4, 3)
    assert stream.sum() == copies[:, :, 1:].sum() == 0
    assert views.data_ptr() == stream.data_ptr()


def test_shapes():
    assert not tensors.is_square(torch.ones(2, 2, 2))
    assert not tensors.is_lower_triangular(torch.ones(2, 3).tril())
    assert tensors.is_lower_triangular(torch.zeros(2, 2))
    assert torch.equal(tensors.transpose(torch.arange(6).reshape(1, 2, 3)), torch.arange(6).reshape(1, 2, 3).mT)


def test_attributes_by_path():
    layers = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(2, 3)))
    assert get_nested_attr(layers, "0.0.weight").shape == (3, 2)
    set_nested_attr(layers, "0.0", torch.nn.Identity())
    assert isinstance(layers[0][0], torch.nn.Identity)
    set_nested_attr(layers, "label", "one")
    assert layers.label == "one"
    with pytest.raises(AttributeError, match="nothing"):
        get_nested_attr(layers, "0.nothing.weight")
    assert filter_dict_by_prefix({"a.b": 1, "ab": 2}, "a.") == {"b": 1}
    assert filter_dict_by_prefix({"a.b": 1, "ab": 2}, "") == {"a.b": 1, "ab": 2}
