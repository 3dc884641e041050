"""The Jacobian lens against what TransformerLens 4.3.0 says of the same tiny models (see golden/jacobian_lens)."""

import dataclasses
import json
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from transformer_lens import HookedTransformer, TransformerBridge
from transformer_lens.lenses import (
    JacobianLens,
    estimate_occupancy,
    get_sparse_decomposition,
    solve_coordinate_patch,
    solve_coordinate_patch_positions,
)

FOLDER = Path(__file__).parents[1] / "golden" / "jacobian_lens"
FAMILIES = ["gpt2", "llama"]
HOSTS = ["bridge", "native"]
MODELS = [(family, host) for family in FAMILIES for host in HOSTS]
NAMES = {"gpt2": "gpt2", "llama": "meta-llama/Llama-2-7b-hf"}


def words(count, seed):
    drawn = torch.randint(4, 97, (count,), generator=torch.Generator().manual_seed(seed))
    return " ".join(f"w{word}" for word in drawn.tolist())


PROMPTS = [words(24, 0), words(30, 1), words(19, 2)]
PROMPT, OTHER = words(8, 3), words(8, 4)


@cache
def recorded(name):
    """A file's entries by name, tensors and others."""
    return load_file(FOLDER / f"{name}.safetensors") | json.loads((FOLDER / f"{name}.json").read_text())


@cache
def model_of(family, host):
    hf = AutoModelForCausalLM.from_pretrained(FOLDER / family, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    if host == "bridge":
        return TransformerBridge.boot_transformers(NAMES[family], hf_model=hf, tokenizer=tokenizer, device="cpu")
    return HookedTransformer.from_pretrained_no_processing(
        NAMES[family], hf_model=hf, tokenizer=tokenizer, device="cpu"
    )


@cache
def fitted(family, host):
    model = model_of(family, host)
    return JacobianLens.fit(model, PROMPTS, corpus="words", skip_first_positions=4, show_progress=False)


@cache
def published(family):
    """The lens that the other package saved."""
    return JacobianLens.load(FOLDER / f"{family}.lens.pt")


def assert_same(value, name, family, rtol=1e-4, atol=2e-5):
    """A result (tensor, number, dict or dataclass) is what was recorded under a name."""
    found = recorded(family)
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        for key, entry in value.items():
            assert_same(entry, f"{name}.{key}", family, rtol, atol)
    elif isinstance(value, torch.Tensor):
        torch.testing.assert_close(
            value.detach(), found[name], rtol=rtol, atol=atol, msg=lambda text: f"{name}: {text}"
        )
    elif isinstance(value, float):
        assert value == pytest.approx(found[name], rel=rtol, abs=atol), name
    else:
        assert value == found[name], name


@pytest.mark.parametrize(("family", "host"), MODELS)
def test_a_fit(family, host):
    lens = fitted(family, host)
    assert lens.n_prompts == 3
    assert_same(lens.jacobians, "lens", family)
    cut = JacobianLens.fit(
        model_of(family, host), PROMPTS, corpus="words", skip_first_positions=2, max_seq_len=12, source_layers=[-2],
        dim_batch=5, show_progress=False,
    )  # fmt: skip
    assert_same(cut.jacobians, "cut", family)
    assert cut.embedding is None
    assert set(recorded(family)["metadata.keys"]) - lens.metadata.keys() == {"model_revision"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lens_that_the_other_package_saved(family):
    lens = published(family)
    assert_same(lens.jacobians, "lens", family, rtol=0, atol=0)
    assert (lens.n_prompts, lens.d_model, lens.metadata["corpus"]) == (3, 16, "words")


@pytest.mark.parametrize(("family", "host"), MODELS)
def test_readouts(family, host):
    model, lens = model_of(family, host), published(family).validate_model(model_of(family, host))
    read = lens.readout(model, PROMPT, positions=[-1, 2], top_k=5, return_full_logits=True)
    assert_same(read, "readout", family)
    assert_same(read.top_tokens(model.tokenizer, k=2), "top_tokens", family)
    assert_same(lens.readout(model, PROMPT, layers=[0], use_jacobian=False, top_k=5).lens_topk_values,
                "logit_lens.lens_topk_values", family)  # fmt: skip
    assert_same(lens.transport(recorded(family)["stream"], 1), "transport", family)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lens_reads_processed_weights_alike(family):
    hf = AutoModelForCausalLM.from_pretrained(FOLDER / family, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    model = HookedTransformer.from_pretrained(NAMES[family], hf_model=hf, tokenizer=tokenizer, device="cpu")
    read = published(family).readout(model, PROMPT, positions=[-1, 2], return_full_logits=True)
    for layer, logits in read.lens_logits.items():
        plain = recorded(family)[f"readout.lens_logits.{layer}"]
        torch.testing.assert_close(logits.log_softmax(-1), plain.log_softmax(-1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("family", "host"), MODELS)
def test_decompositions(family, host):
    model, lens = model_of(family, host), published(family)
    stream, source = recorded(family)["stream"], recorded(family)["source"]
    assert_same(lens.lens_vectors(model, ["w9", 10], -2), "lens_vectors", family)
    assert_same(lens.lens_vector_dictionary(model, 1), "dictionary", family)
    assert_same(lens.decompose(model, PROMPT, 1, position=5, k=6), "decomposed", family)
    assert_same(lens.decompose(model, stream, 1, k=6, algorithm="gradient_pursuit"), "pursued", family)
    patched = lens.coordinate_patch(model, PROMPT, 1, source, 10, position=5, k=6)
    assert_same(patched, "patched", family)
    found = lens.occupancy(model, PROMPT, 1, position=5, max_atoms=8, num_control_dictionaries=4, seed=3)
    assert_same(found, "occupancy", family)
    assert_same(lens.fraction_of_variance(model, PROMPTS[:2], k=5), "variance", family)
    at = lens.fraction_of_variance(model, model.to_tokens(PROMPT), layers=[-2], k=3, positions=[-1, 3])
    assert_same(at, "variance_at", family)


@pytest.mark.parametrize(("family", "host"), MODELS)
def test_what_hooks_do_to_logits(family, host):
    model, lens = model_of(family, host), published(family)
    tokens = model.to_tokens([PROMPT, OTHER])
    _, other = model.run_with_cache(tokens.flip(0))
    hooks = {
        "none": [],
        "steered": lens.steering_hooks(model, "w9", [0, 1], alpha=1.5),
        "steered_at": lens.steering_hooks(model, 9, [1], alpha=1.5, positions=[2, -1]),
        "ablated": lens.ablation_hooks(model, ["w9", "w10", "w9"], [0, -2]),
        "ablated_at": lens.ablation_hooks(model, 9, [1], positions=[4]),
        "swapped": lens.swap_hooks(model, "w9", "w10", [0, 1], alpha=2.0),
        "clamped": lens.swap_hooks(model, "w9", "w10", [0, 1], alpha=0.5, positions=[-1, 3], clamp_to=other),
    }
    plain = recorded(family)["logits.none"]
    for kind, given in hooks.items():
        logits = model.run_with_hooks(tokens, fwd_hooks=given)
        assert_same(logits, f"logits.{kind}", family)
        assert kind == "none" or (logits - plain).abs().max() > 1e-2
    source = recorded(family)["source"]
    given = lens.coordinate_patch_hooks(model, source, 10, [1], positions=[5], k=6, mode="swap")
    logits = model.run_with_hooks(tokens[:1], fwd_hooks=given)
    assert_same(logits, "logits.coordinates", family)
    assert (logits - plain[:1]).abs().max() > 1e-2


@pytest.mark.parametrize("case", "01234")
def test_vectors_in_dictionaries(case):
    held = recorded("dictionaries")
    x, dictionary, k = (held[f"{case}.{name}"] for name in ("x", "dictionary", "k"))
    for algorithm in ("nonnegative_orthogonal_matching_pursuit", "gradient_pursuit"):
        found = get_sparse_decomposition(x, dictionary, k, algorithm=algorithm)
        assert_same(found, f"{case}.{algorithm}", "dictionaries")
    found = estimate_occupancy(x, dictionary, max_atoms=len(x) - 2, num_control_dictionaries=6, seed=int(case))
    assert_same(found, f"{case}.occupancy", "dictionaries")


def test_edited_coordinates():
    held = recorded("dictionaries")
    x, dictionary, source = held["0.x"], held["0.dictionary"], held["source"]
    names = [name.removesuffix(".target") for name in held if name.startswith("patches.") and name.endswith(".target")]
    assert len(names) == 16
    for name in names:
        mode, alpha, _ = name.removeprefix("patches.").split()
        target = held[f"{name}.target"]
        edit = {"k": 6, "mode": mode, "alpha": float(alpha)}
        if not held[f"{name}.result.coordinates_after_nonnegative"]:
            with pytest.warns(UserWarning, match="a coordinate is below zero"):
                patch = solve_coordinate_patch(x, dictionary, source, target, **edit)
        else:
            patch = solve_coordinate_patch(x, dictionary, source, target, **edit)
        assert_same(patch, f"{name}.result", "dictionaries")
    absent = held["patches.swap 1.0 absent.target"]
    patched, patches = solve_coordinate_patch_positions(held["rows"], dictionary, [7, 3], source, absent, layer=4, k=6)
    assert_same(patched, "patched_rows", "dictionaries")
    assert list(patches) == [(4, 0, 7), (4, 0, 3), (4, 1, 7), (4, 1, 3)]
