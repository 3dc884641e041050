import json

import numpy as np
import pytest
import torch

from transformer_lens.viz.arrays import annotations, as_array, as_complex_array, as_json_numbers, checked_labels


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.bool]
)
def test_tensors_of_every_real_dtype_become_float64(dtype):
    array = as_array(torch.ones(2, 3, requires_grad=dtype.is_floating_point, dtype=dtype), "values", "row column")
    assert array.dtype == np.float64
    assert array.tolist() == [[1.0] * 3] * 2


def test_a_conjugate_view_becomes_its_values():
    values = torch.tensor([[1 + 2j, 3 - 1j]]).conj()
    assert as_complex_array(values, "values", "head eigenvalue").tolist() == [[1 - 2j, 3 + 1j]]


def test_the_callers_array_is_not_changed():
    values = np.array([[1.0, 2.0]])
    as_array(values, "values", "row column")[0, 0] = 5
    assert values[0, 0] == 1.0


def test_a_list_is_refused_by_type():
    with pytest.raises(TypeError, match="values must be a torch tensor or a numpy array, not list"):
        as_array([[1.0]], "values", "row column")


def test_complex_values_are_refused_where_the_picture_is_real():
    with pytest.raises(TypeError, match=r"values is complex.*\.real"):
        as_array(torch.ones(1, 1, dtype=torch.complex64), "values", "row column")


def test_the_wrong_number_of_axes_says_both_numbers():
    with pytest.raises(ValueError, match=r"patterns has shape \(2, 3\): 2 axes; this picture needs 3: head query key"):
        as_array(np.ones((2, 3)), "patterns", "head query key")


def test_no_values_are_refused():
    with pytest.raises(ValueError, match=r"values has shape \(0, 3\): there is nothing to draw"):
        as_array(np.ones((0, 3)), "values", "row column")


def test_labels_and_length_must_agree():
    with pytest.raises(ValueError, match="row_labels has 3 entries, but there are 2 rows of values"):
        checked_labels(["a", "b", "c"], "row_labels", 2, "rows of values")


def test_one_string_is_not_a_sequence_of_labels():
    with pytest.raises(TypeError, match="tokens is one string"):
        checked_labels("ab", "tokens", 2, "values")


def test_a_label_must_be_a_string():
    with pytest.raises(TypeError, match=r"tokens holds 5 \(int\)"):
        checked_labels(["a", 5], "tokens", 2, "values")


def test_json_numbers_are_rounded_and_have_names_for_what_json_lacks():
    numbers = as_json_numbers(np.array([2.0, 1 / 3, 1.23456789e-9, np.nan, np.inf, -np.inf]))
    assert numbers == [2, 0.333333, 1.23457e-9, None, "inf", "-inf"]
    assert json.dumps(numbers, allow_nan=False).startswith("[2, 0.333333")


def test_many_values_keep_fewer_digits():
    assert as_json_numbers(np.full(20_001, 1 / 3))[0] == 0.3333


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5, 0.123], ["0.50", "0.12"]),
        ([3.14159, -0.5], ["3.14", "-0.50"]),
        ([314.2, 1.0], ["314", "1"]),
        ([0.012, 0.0], ["0.012", "0.000"]),
        ([0.0, np.nan], ["0.00", ""]),
        ([3e-7, 1e-8], ["3.0e-07", "1.0e-08"]),
    ],
)
def test_annotations_share_their_decimals(values, expected):
    assert annotations(np.array(values)) == expected
