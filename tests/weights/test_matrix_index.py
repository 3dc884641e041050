import numpy as np
import pytest
import torch
from torch.testing import assert_close

from transformer_lens.weights.factored_matrix import FactoredMatrix
from transformer_lens.weights.matrix_index import WeightsError

M = FactoredMatrix(torch.randn(2, 3, 7, 4), torch.randn(2, 3, 4, 5))
AB = M.AB


@pytest.mark.parametrize(
    "index",
    [
        0,
        -1,
        np.int64(1),
        torch.tensor(1),
        slice(None),
        slice(0, 1),
        ...,
        None,
        [0, 1, 1],
        range(2),
        np.array([1, 0]),
        torch.tensor([1, 0, 1]),
        torch.tensor([True, False]),
        torch.rand(2, 3) > 0.5,
        (0,),
        (1, 2),
        (0, ...),
        (..., 0, slice(None), slice(None)),
        (slice(None), 1),
        (slice(None), [0, 2]),
        (torch.tensor([0, 1]), torch.tensor([2, 0])),
        (0, None),
        (None, 0, None, 1),
        (0, 0, slice(1, 6, 2)),
        (slice(None), slice(None), slice(1, 3), slice(None, None, 2)),
        (..., slice(0, 2), slice(None)),
        (..., slice(-2, None)),
        (0, ..., slice(2)),
        (1, 2, [1, 2]),
        (1, 2, slice(None), torch.tensor([4, 0])),
        (1, 2, torch.arange(7) > 3),
        ([1, 0], slice(None), [1, 1]),
        (slice(None), slice(None), [], slice(None)),
    ],
)
def test_parts_equal_parts_of_the_full_matrix(index):
    part = M[index]
    assert isinstance(part, FactoredMatrix)
    if isinstance(index, tuple) and index[0] == [1, 0]:
        assert_close(part.AB, AB[[1, 0]][:, :, [1, 1]])  # rows are selected by themselves, after the leading axes
        return
    assert_close(part.AB, AB[index])


@pytest.mark.parametrize(
    ("index", "same"),
    [
        ((1, 2, 3), (1, 2, slice(3, 4))),
        ((1, 2, -1), (1, 2, slice(6, 7))),
        ((1, 2, slice(None), -1), (1, 2, slice(None), slice(4, 5))),
        ((1, 2, 3, 4), (1, 2, slice(3, 4), slice(4, 5))),
        ((..., 3), (slice(None), slice(None), slice(None), slice(3, 4))),
        ((None, 0, 0, 0), (None, 0, 0, slice(0, 1))),
        ((0, 0, torch.tensor(2)), (0, 0, slice(2, 3))),
        ((0, [0, 1], np.int32(2), slice(None)), (0, [0, 1], slice(2, 3))),
    ],
)
def test_one_row_or_column_keeps_its_axis(index, same):
    assert_close(M[index].AB, AB[same])


def test_rows_and_columns_make_a_grid():
    assert_close(M[0, 0, [1, 2, 6], [3, 4]].AB, AB[0, 0][[1, 2, 6]][:, [3, 4]])


def test_a_matrix_without_leading_axes():
    assert_close(M[0, 0][3].AB, AB[0, 0, 3:4])
    assert_close(M[0, 0][None].AB, AB[0, 0][None])
    assert_close(M[0, 0][None, None, 2:5].AB, AB[0, 0][None, None, 2:5])
    assert_close(M[1, 1, None, 2:5].AB, AB[1, 1, None, 2:5])


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ((0, 0, 0, 0, 0), r"too many indices for a FactoredMatrix of shape \(2, 3, 7, 5\): \(0, 0, 0, 0, 0\)"),
        ((..., None), "new axes and boolean masks must stand among the leading axes"),
        ((0, 0, slice(None), None), "must stand among the leading axes"),
        ((0, torch.rand(3, 7) > 0), "must stand among the leading axes"),
        ((0, 0, torch.rand(7, 5) > 0), "must stand among the leading axes"),
        ((0, 0, [[0, 1]]), r"one-axis selection, not one of shape \(1, 2\)"),
        ((..., 0, ...), "only one ellipsis"),
        (True, "True and False are no index"),
    ],
)
def test_what_cannot_stay_factored(index, message):
    with pytest.raises(WeightsError, match=message):
        M[index]


@pytest.mark.parametrize("index", [2, -3, (0, 0, 7), (0, 0, -8), (0, 0, 0, 5), (0, 0, [9])])
def test_out_of_range(index):
    with pytest.raises(IndexError):
        M[index]


@pytest.mark.parametrize("index", ["rows", 1.5, (0, {})])
def test_no_index_at_all(index):
    with pytest.raises(TypeError, match="no index for a FactoredMatrix"):
        M[index]
