"""Sparse probes at a certain optimum: as recorded with 4.3, and by laws."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from transformer_lens.tools.analysis import sparse_probing as old

from annotations import unchecked
from transformer_lens.probing.binary_metrics import binary_metrics
from transformer_lens.probing.logistic import ConvergenceError, LogisticOptions, fit_logistic
from transformer_lens.probing.sparse_logistic import Sides, SparseProbeOptions, fit_sparse_probe
from transformer_lens.probing.sparse_sweep import sweep_sparse_probe
from transformer_lens.probing.splits import Split

GOLDEN = Path(__file__).parents[1] / "golden" / "studies"
DATA = load_file(GOLDEN / "sparse_data.safetensors")
RECORDED = json.loads((GOLDEN / "sparse.json").read_text())
FEATURES, LABELS = DATA["features"], DATA["labels"]
# How the optimum was reached: paths differ in rounding, and the certificate is of the optimum only.
PATH = {"gradient_inf_norm", "newton_decrement", "refinement_steps", "iterations", "function_evaluations"}


def as_recorded(result, recorded, but=frozenset()):
    for name, expected in recorded.items():
        if name in PATH | but:
            continue
        found = getattr(result, name)
        if name == "metrics":
            assert vars(found) == pytest.approx(expected)
        elif isinstance(found, torch.Tensor):
            torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), rtol=1e-5, atol=1e-7)
        elif isinstance(expected, float):
            assert found == pytest.approx(expected, rel=1e-9), name
        else:
            assert found == expected, name


@pytest.mark.parametrize("name", RECORDED["fits"])
def test_every_field_is_as_recorded(name):
    options, recorded = RECORDED["fits"][name]["options"], RECORDED["fits"][name]["result"]
    given = options | ({"groups": DATA["groups"]} if "groups" in options else {})
    result = fit_sparse_probe(FEATURES, LABELS, **given)
    as_recorded(result, recorded)
    assert result.newton_decrement <= result.decrement_tolerance
    assert result.gradient_inf_norm < 1e-6
    if result.refinement_steps == recorded["refinement_steps"] == 0:
        assert (result.iterations, result.function_evaluations) == pytest.approx(
            (recorded["iterations"], recorded["function_evaluations"]), abs=2
        )


@pytest.mark.parametrize("name", RECORDED["refused"])
def test_no_certain_optimum_is_an_error(name):
    with pytest.raises(old.SparseProbeConvergenceError, match="nats from its optimum after 0 steps"):
        fit_sparse_probe(FEATURES, LABELS, **RECORDED["refused"][name])


def test_the_old_path_holds_the_same_names():
    assert old.fit_sparse_probe is fit_sparse_probe
    assert old.SparseProbeConvergenceError is ConvergenceError
    assert issubclass(ConvergenceError, RuntimeError)


# --- the sweep --------------------------------------------------------------------------------------------------------

SWEEP = RECORDED["sweep"]


def test_a_sweeps_probes_are_as_recorded_and_each_as_alone():
    found = sweep_sparse_probe(FEATURES, LABELS, ks=[1, 3], seed=5)
    assert (found.ks, found.seed, found.rejections) == ((1, 3), 5, ())
    for k, result, recorded in zip(found.ks, found.results, SWEEP["results"], strict=True):
        as_recorded(result, recorded)
        as_recorded(fit_sparse_probe(FEATURES, LABELS, k=k, seed=5), recorded)


def test_probes_on_the_recorded_random_features_do_as_recorded():
    options = SparseProbeOptions(seed=5)
    sides = Sides.of(FEATURES, LABELS, options)
    for control in SWEEP["random_coordinate_controls"]:
        for repeat, support in enumerate(control["supports"]):
            positive = sides.positive[sides.split.train]
            *_, metrics = sides.fit(torch.tensor(support), positive, options)
            for name in ("accuracy", "precision", "recall", "f1", "roc_auc", "average_precision"):
                assert vars(metrics)[name] == pytest.approx(control[name][repeat]), (support, name)


def test_controls_are_of_one_draw_for_all_k_and_depend_on_nothing_else():
    found = sweep_sparse_probe(FEATURES, LABELS, ks=[1, 3, 8], n_random_subsets=4, n_label_shuffles=2, seed=5)
    random = found.random_coordinate_controls
    assert [control.supports.shape for control in random] == [(4, 1), (4, 3), (4, 8)]
    for one, three in zip(random[0].supports.tolist(), random[1].supports.tolist(), strict=True):
        assert set(one) < set(three)
        assert three == sorted(three)
    # On all features the true labels give the probe itself, whatever the draw.
    assert random[2].roc_auc.tolist() == pytest.approx([found.results[2].metrics.roc_auc] * 4)
    alone = sweep_sparse_probe(FEATURES, LABELS, ks=[3], n_label_shuffles=2, seed=5)
    assert torch.equal(alone.label_shuffle_controls[0].supports, found.label_shuffle_controls[1].supports)
    assert torch.equal(alone.label_shuffle_controls[0].roc_auc, found.label_shuffle_controls[1].roc_auc)
    assert alone.random_coordinate_controls[0].supports.shape == (0, 3)


def test_shuffled_labels_say_nothing_and_planted_features_do():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(400) % 2
    features = torch.randn(400, 10, generator=generator)
    features[:, 4] += 3.0 * labels
    found = sweep_sparse_probe(features, labels, ks=[1], n_random_subsets=5, n_label_shuffles=20)
    assert found.results[0].metrics.roc_auc > 0.95
    assert found.label_shuffle_controls[0].roc_auc.mean() == pytest.approx(0.5, abs=0.15)


def test_controls_that_do_not_reach_an_optimum_are_left_out_and_named():
    # The planted feature is easy to fit; the other is far from zero, and a few iterations do not get there.
    generator, labels = torch.Generator().manual_seed(0), torch.arange(60) % 2
    noise = torch.randn(60, 2, generator=generator)
    features = torch.stack([4 * (labels - 0.5) + 2 * noise[:, 0], 2 * labels + 100 + noise[:, 1]], 1)
    options = {"max_iter": 8, "max_refinement_steps": 0, "decrement_tolerance": 1e-2}
    found = sweep_sparse_probe(features, labels, ks=[1], n_random_subsets=10, **options)
    assert found.results[0].selected_features.tolist() == [0]
    assert found.random_coordinate_controls[0].supports.tolist() == [[0]] * (10 - len(found.rejections))
    assert {(one.arm, one.k, *one.support.tolist()) for one in found.rejections} == {("random_coordinate", 1, 1)}
    assert all("nats from its optimum" in one.reason for one in found.rejections)


# --- the fit, by other means ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balanced", [True, False])
def test_the_optimum_is_scikit_learns(balanced):
    positive, options = LABELS.bool(), LogisticOptions(l2_strength=0.1, balanced=balanced)
    found = fit_logistic(FEATURES, positive, options)
    weight = "balanced" if balanced else None
    other = LogisticRegression(C=1 / (0.1 * len(LABELS)), class_weight=weight, tol=1e-12, max_iter=100_000)
    other.fit(FEATURES.numpy(), LABELS.numpy())
    torch.testing.assert_close(found.coefficients, torch.tensor(other.coef_[0]), rtol=1e-4, atol=1e-5)
    assert float(found.intercept) == pytest.approx(float(other.intercept_[0]), rel=1e-3, abs=1e-6)


def test_the_certificate_bounds_the_gap():
    positive = LABELS.bool()
    near = fit_logistic(
        FEATURES, positive, LogisticOptions(max_iter=4, max_refinement_steps=0, decrement_tolerance=9.0)
    )
    best = fit_logistic(FEATURES, positive, LogisticOptions())
    gap = near.objective - best.objective
    assert gap > 0
    assert near.newton_decrement == pytest.approx(gap, rel=0.5)
    assert best.newton_decrement < 1e-12


def test_nothing_of_the_test_side_reaches_the_fit():
    result = fit_sparse_probe(FEATURES, LABELS, k=3, preprocess="standardize")
    changed = FEATURES.clone()
    changed[result.test_indices] = 1e3
    again = fit_sparse_probe(changed, LABELS, k=3, preprocess="standardize")
    for name in ("selected_features", "coefficients", "intercept", "preprocess_mean", "preprocess_scale"):
        assert torch.equal(getattr(result, name), getattr(again, name))
    assert result.metrics != again.metrics


def test_a_split_of_ones_own():
    split = Split(torch.arange(40), torch.arange(40, 60))
    sides = Sides.of(FEATURES, LABELS, SparseProbeOptions(), split=split)
    assert torch.equal(sides.positive, LABELS.bool())
    assert sides.split is split


def test_metrics_where_a_class_is_absent():
    odds = torch.tensor([1.0, -1.0])
    none = binary_metrics(odds, torch.tensor([False, False]))
    assert math.isnan(none.roc_auc)
    assert math.isnan(none.average_precision)
    every = binary_metrics(odds, torch.tensor([True, True]))
    assert math.isnan(every.roc_auc)
    assert every.average_precision == 1.0
    assert binary_metrics(-torch.ones(2), torch.tensor([True, False])).precision == 0.0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"k": 9}, "k is from 1 to 8, the number of features; got 9"),
        ({"positive_label": 3}, r"the positive one \(3\) among them; got \[0, 1\]"),
        ({"test_fraction": 1.0}, "between 0 and 1; got 1.0"),
        ({"preprocess": "z"}, "one of none, standardize; got 'z'"),
        ({"class_weight": "x"}, "\"balanced\" or None; got 'x'"),
        ({"l2_strength": 0.0}, "l2_strength and decrement_tolerance are positive; got 0"),
        ({"max_iter": 0}, "max_iter is at least 1"),
        ({"std_floor": -1.0}, "std_floor is 0 or more; got -1.0"),
        ({"groups": torch.zeros(60, dtype=torch.long)}, "two groups, one for each side; class False is in 1"),
        ({"groups": torch.zeros(3, dtype=torch.long)}, "3 groups and 60 labels"),
    ],
)
def test_what_is_refused(changed, said):
    with unchecked(), pytest.raises(ValueError, match=said):
        fit_sparse_probe(FEATURES, LABELS, **({"k": 1} | changed))


def test_which_data_are_refused():
    with unchecked(), pytest.raises(ValueError, match=r"two classes, .*; got \[0, 1, 2\]"):
        fit_sparse_probe(FEATURES, torch.arange(60) % 3, k=1)
    with unchecked(), pytest.raises(ValueError, match="not finite"):
        fit_sparse_probe(FEATURES * math.nan, LABELS, k=1)
    with unchecked(), pytest.raises(ValueError, match="integers or true and false; got torch"):
        fit_sparse_probe(FEATURES, LABELS.float(), k=1)
    with unchecked(), pytest.raises(ValueError, match=r"numbers \[example, feature\].*; got torch.int64 \(60, 8\)"):
        fit_sparse_probe(FEATURES.long(), LABELS, k=1)
    with unchecked(), pytest.raises(ValueError, match=r"numbers of features that grow, one at least; got \[3, 1\]"):
        sweep_sparse_probe(FEATURES, LABELS, ks=[3, 1])
    with unchecked(), pytest.raises(ValueError, match="0 controls or more; got -1 and 0"):
        sweep_sparse_probe(FEATURES, LABELS, ks=[1], n_random_subsets=-1)
