"""Direct paths between heads, against hooks that add the difference by hand."""

import pytest
import torch
from tests.models.families import hf_model

from transformer_lens import HookedTransformer, TransformerBridge
from transformer_lens.errors import ConfigurationError
from transformer_lens.patching import get_act_patch_direct_path, get_act_patch_direct_path_all_sources


def model_of(host, row="demo"):
    if row == "demo" and host == "native":
        return HookedTransformer.from_pretrained("demo")
    if row == "demo":
        return TransformerBridge.boot_transformers("demo", device="cpu")
    if host == "native":
        return HookedTransformer.from_pretrained_no_processing(row, hf_model=hf_model(row))
    return TransformerBridge.boot_transformers(hf_model=hf_model(row))


def metric(logits):
    return logits[:, -1, 5].mean() - logits[:, -2, 6].mean()


def runs(model):
    clean = torch.arange(22).view(2, 11) % 50 + 3
    corrupted = clean.clone()
    corrupted[:, 4:] = clean[:, 4:].flip(1)
    with torch.no_grad():
        return corrupted, model.run_with_cache(clean)[1], model.run_with_cache(corrupted)[1]


@pytest.mark.parametrize("component", ["q", "k", "v"])
@pytest.mark.parametrize(
    ("host", "row"),
    [("native", "demo"), ("bridge", "demo"), ("native", "llama"), ("bridge", "llama"), ("bridge", "gptj")],
)
def test_only_the_receiver_reads_what_the_source_writes(host, row, component):
    model = model_of(host, row)
    corrupted, clean, other = runs(model)
    source, head = 0, 1
    found = get_act_patch_direct_path(model, corrupted, clean, other, metric, source, head, component)
    grouped = row == "llama" and component != "q"
    assert found.shape == (model.cfg.n_layers, 2 if grouped else 4)
    z = clean[f"blocks.{source}.attn.hook_z"] - other[f"blocks.{source}.attn.hook_z"]
    change = z[:, :, head] @ model.blocks[source].attn.W_O[head]
    with torch.no_grad():
        plain = metric(model(corrupted))
        for layer, receiver in ((1, 0), (2, 1)):

            def send(stream, hook, receiver=receiver):
                stream[:, :, receiver] += change
                return stream

            hooks = [(f"blocks.{layer}.hook_{component}_input", send)]
            expected = metric(model.run_with_hooks(corrupted, fwd_hooks=hooks))
            assert expected != plain
            torch.testing.assert_close(found[layer, receiver], expected, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(found[: source + 1], plain.expand(source + 1, found.shape[1]), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("host", ["native", "bridge"])
def test_all_sources_are_the_single_ones(host):
    model = model_of(host)
    corrupted, clean, other = runs(model)
    found = get_act_patch_direct_path_all_sources(model, corrupted, clean, other, metric, "k")
    assert found.shape == (4, 4, 4, 4)
    for layer, head in ((0, 0), (1, 3), (3, 2)):
        single = get_act_patch_direct_path(model, corrupted, clean, other, metric, layer, head, "k")
        torch.testing.assert_close(found[layer, head], single, atol=2e-4, rtol=1e-4)


def test_what_is_no_path_is_refused():
    model = model_of("native")
    corrupted, clean, other = runs(model)
    with pytest.raises(ValueError, match=r"no head 4\.0: layers 0 to 3, heads to 3"):
        get_act_patch_direct_path(model, corrupted, clean, other, metric, 4, 0)
    with pytest.raises(ValueError, match='"q", "k" or "v"; got "z"'.replace('"z"', "'z'")):
        get_act_patch_direct_path(model, corrupted, clean, other, metric, 0, 0, "z")
    with pytest.raises(ValueError, match="Take its mean"):
        get_act_patch_direct_path(model, corrupted, clean, other, lambda logits: logits[:, -1, 0], 0, 0)
    gemma = model_of("native", "gemma2")
    corrupted, clean, other = runs(gemma)
    with pytest.raises(ConfigurationError, match="no direct path from one head"):
        get_act_patch_direct_path(gemma, corrupted, clean, other, metric, 0, 0)
