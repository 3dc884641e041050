"""Files of Jacobian lenses: what is written comes back, what others wrote is read, and nothing else."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from transformer_lens.errors import UnknownNameError
from transformer_lens.lenses import JacobianLens
from transformer_lens.lenses.jacobian import files

GENERATOR = torch.Generator().manual_seed(0)
MATRICES = {layer: torch.randn(6, 6, generator=GENERATOR) for layer in (0, 3)}
ABOUT = {"corpus": "texts", "processing": {"normalization_type": "LN"}, "skip": None, "sizes": [1, 2.5]}
LENS = JacobianLens(MATRICES, n_prompts=7, d_model=6, metadata=ABOUT, embedding=torch.eye(6))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_what_is_saved_comes_back(tmp_path, dtype, tolerance):
    LENS.save(tmp_path / "lens.safetensors", dtype=dtype)
    assert {tensor.dtype for tensor in load_file(tmp_path / "lens.safetensors").values()} == {dtype}
    lens = JacobianLens.load(tmp_path / "lens.safetensors")
    assert (lens.n_prompts, lens.d_model, lens.metadata, lens.source_layers) == (7, 6, ABOUT, [0, 3])
    torch.testing.assert_close(lens.jacobians, LENS.jacobians, rtol=0, atol=tolerance)
    assert torch.equal(lens.embedding, torch.eye(6))
    assert {matrix.dtype for matrix in lens.jacobians.values()} == {torch.float32}


def test_another_name_is_safetensors_too_and_said(tmp_path):
    with pytest.warns(UserWarning, match=r"lens.pt is written as safetensors.*name it lens.safetensors"):
        LENS.save(tmp_path / "lens.pt", dtype=torch.float32)
    torch.testing.assert_close(JacobianLens.load(tmp_path / "lens.pt").jacobians, MATRICES)
    assert load_file(tmp_path / "lens.pt").keys() == {"J.0", "J.3", "embedding"}


def test_checkpoints_of_a_fit(tmp_path):
    payload = {
        "jacobian_sum": {2: 6 * torch.eye(4)}, "n_done": 3, "next_idx": 4, "source_layers": [2], "target_layer": 5,
        "skip_first": 4, "model_name": "x", "corpus": "y",
        "metadata": {"a": 1, "dim_batch": 2, "t": torch.ones(2)},
    }  # fmt: skip
    torch.save(payload, tmp_path / "checkpoint.pt")
    lens = JacobianLens.load(tmp_path / "checkpoint.pt")
    assert torch.equal(lens.jacobians[2], 2 * torch.eye(4))
    assert (lens.n_prompts, lens.d_model) == (3, 4)
    assert lens.metadata == {  # as recorded with TransformerLens 4.3.0 of such a checkpoint
        "a": 1, "corpus": "y", "model_name": "x", "target_layer": 5, "converted_from": "jacobian_lens_checkpoint",
        "dropped_fields": ["t: shape=(2,) dtype=torch.float32"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"a": 1}, r"holds \['a'\]. A Jacobian lens has matrices under J"),
        ([1, 2], "holds list"),
        ({"J": {0: torch.eye(2)}, "n_prompts": 1}, "it has no d_model"),
        ({"jacobian_sum": {0: torch.eye(2)}}, "it has no n_done"),
        ({"jacobian_sum": {0: torch.eye(2)}, "n_done": 0}, "n_done=0 prompts"),
    ],
)
def test_files_of_something_else(tmp_path, payload, said):
    torch.save(payload, tmp_path / "lens.pt")
    with pytest.raises(ValueError, match=said):
        JacobianLens.load(tmp_path / "lens.pt")


def test_other_safetensors_and_pickles_with_code(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="it has no n_prompts, d_model, metadata"):
        JacobianLens.load(tmp_path / "model.safetensors")
    torch.save({"J": GENERATOR.__class__}, tmp_path / "code.pt")
    with pytest.raises(Exception, match="Weights only load failed"):
        JacobianLens.load(tmp_path / "code.pt")
    with pytest.raises(FileNotFoundError):
        JacobianLens.load(tmp_path / "nothing.pt")


def refuse(*arguments, **options):
    raise AssertionError("the hub was asked")


def test_local_names_never_ask_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "list_files", refuse)
    monkeypatch.setattr(files, "fetch_file", refuse)
    monkeypatch.chdir(tmp_path)
    LENS.save(tmp_path / "lens.safetensors", dtype=torch.float32)
    for name in (str(tmp_path), str(tmp_path / "lens.safetensors"), ".", "lens.safetensors"):
        torch.testing.assert_close(JacobianLens.from_pretrained(name).jacobians, MATRICES)
    with pytest.raises(FileNotFoundError, match=r"has no other.pt, nor as .safetensors; it has \['lens.safetensors'\]"):
        JacobianLens.from_pretrained(str(tmp_path), filename="other.pt")
    for name in (str(tmp_path / "nothing"), "./nothing", "a/b/c", "~/nothing", "nothing.pt"):
        with pytest.raises(FileNotFoundError, match="There is no file or folder"):
            JacobianLens.from_pretrained(name)


PUBLISHED = [
    "README.md", "gpt2-small/jlens/wiki/gpt2_jacobian_lens.pt", "gemma-2-2b/jlens/wiki/gemma-2-2b_jacobian_lens.pt",
    "two/jlens/wiki/two_jacobian_lens.pt", "two/jlens/web/two_jacobian_lens_n10.pt",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "repository", "file"),
    [
        ("someone/lenses", "someone/lenses", "lens.pt"),
        ("gpt2-small", files.COLLECTION, PUBLISHED[1]),
        ("openai-community/gpt2", files.COLLECTION, PUBLISHED[1]),
        ("google/gemma-2-2b", files.COLLECTION, PUBLISHED[2]),
    ],
)
def test_lenses_on_the_hub(tmp_path, monkeypatch, name, repository, file):
    LENS.save(tmp_path / "lens.safetensors", dtype=torch.float32)
    asked = []

    def fetch(*place, **options):
        asked.append((*place, options))
        return tmp_path / "lens.safetensors"

    held = {"someone/lenses": ["lens.pt"], files.COLLECTION: PUBLISHED}
    monkeypatch.setattr(files, "list_files", lambda name, **options: held.get(name, ["config.json"]))
    monkeypatch.setattr(files, "fetch_file", fetch)
    assert JacobianLens.from_pretrained(name, revision="main").source_layers == [0, 3]
    assert asked == [(repository, file, {"revision": "main"})]


@pytest.mark.parametrize(("name", "said"), [("gpt9", "there is none of gpt9"), ("two", "of two there are several")])
def test_lenses_that_the_collection_has_not(name, said):
    with pytest.raises(UnknownNameError, match=f"has lenses of gemma-2-2b, gpt2-small, two; {said}"):
        files.published(name, PUBLISHED)
