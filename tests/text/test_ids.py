import numpy as np
import pytest
import torch

from transformer_lens.text.ids import id_rows, row_ids


@pytest.mark.parametrize(
    ("tokens", "rows", "n_axes"),
    [
        (3, [[3]], 0),
        (np.int64(3), [[3]], 0),
        (torch.tensor(3), [[3]], 0),
        (np.array(3), [[3]], 0),
        ([], [[]], 1),
        ([3, 4], [[3, 4]], 1),
        ((3, 4), [[3, 4]], 1),
        ([torch.tensor(3), np.int32(4)], [[3, 4]], 1),
        (torch.tensor([3, 4], dtype=torch.int32), [[3, 4]], 1),
        (np.array([3, 4]), [[3, 4]], 1),
        (torch.tensor([[3, 4]]), [[3, 4]], 2),
        (torch.zeros(0, 2, dtype=torch.long), [], 2),
        ([[3], [4, 5]], [[3], [4, 5]], 2),
        ([torch.tensor([3]), np.array([4, 5]), []], [[3], [4, 5], []], 2),
    ],
)
def test_every_usual_form_gives_rows(tokens, rows, n_axes):
    assert id_rows(tokens) == (rows, n_axes)


def test_what_is_not_token_ids_is_refused():
    for wrong in ("text", None, 1.0, ["text"], {3}):
        with pytest.raises(TypeError, match="Token ids are ints, or a list"):
            id_rows(wrong)
    for wrong in (torch.tensor([1.0]), np.array([1.0]), torch.tensor([True])):
        with pytest.raises(TypeError, match="must be integers, not"):
            id_rows(wrong)
    with pytest.raises(ValueError, match=r"not the shape \(1, 1, 1\)"):
        id_rows(torch.zeros(1, 1, 1, dtype=torch.long))
    for wrong in ([3, [4]], [torch.tensor([[3]])], [[[3]]]):
        with pytest.raises(ValueError, match="numbers, or rows of numbers"):
            id_rows(wrong)


def test_one_row_is_not_a_batch():
    assert row_ids(torch.tensor([[3, 4]])) == row_ids(np.array([3, 4])) == row_ids([3, 4]) == [3, 4]
    with pytest.raises(ValueError, match=r"not a batch of 2\. Take a row"):
        row_ids(torch.tensor([[3], [4]]))
