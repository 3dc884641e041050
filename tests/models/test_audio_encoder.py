"""HookedAudioEncoder against transformers' HuBERT and wav2vec 2.0, and against its own laws."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

from transformer_lens import ActivationCache, HookedAudioEncoder, HookedTransformerConfig
from transformer_lens.errors import ConfigurationError, TransformerLensError
from transformer_lens.hooks.names import describe
from transformer_lens.specs import UnsupportedModelError
from transformer_lens.weights.checkpoints import CheckpointError

GOLDEN = Path(__file__).parent.parent / "golden" / "encoders" / "hubert"
SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24, "conv_dim": (8, 8, 8),
    "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3), "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2, "layer_norm_eps": 1e-4,
}  # fmt: skip
KINDS = {
    "hubert": (HubertModel, HubertConfig, {}),
    "hubert (layer norms)": (HubertModel, HubertConfig, {"feat_extract_norm": "layer", "conv_bias": True}),
    "hubert (batch norm)": (HubertModel, HubertConfig, {"conv_pos_batch_norm": True, "feat_proj_layer_norm": False}),
    "wav2vec2": (Wav2Vec2Model, Wav2Vec2Config, {"hidden_act": "relu"}),
    "hubert with a head": (transformers.HubertForCTC, HubertConfig, {}),
    "wav2vec2 in training": (transformers.Wav2Vec2ForPreTraining, Wav2Vec2Config, {}),
}


@torch.no_grad()
def make_hf(kind="hubert", seed=0):
    """A tiny model with no weight at zero or one."""
    hf_class, config, more = KINDS[kind]
    hf = hf_class(config(**SIZES, **more)).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in hf.named_parameters():
        drawn = 0.3 * torch.randn(parameter.shape, generator=generator)
        parameter.copy_((1 if "norm.weight" in name else 0) + drawn)
    return hf


def load(hf, **arguments):
    return HookedAudioEncoder.from_pretrained("tiny", hf_model=hf, device="cpu", **arguments)


def sounds(*lengths):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(length, generator=generator) for length in lengths]


@pytest.fixture(scope="module", params=KINDS)
def pair(request):
    hf = make_hf(request.param)
    return load(hf), (hf if "Model" in type(hf).__name__ else hf.base_model)


@pytest.fixture(scope="module")
def model():
    return load(make_hf())


def heard(model, given):
    arguments = {"sampling_rate": 16000, "padding": True, "return_attention_mask": True, "return_tensors": "pt"}
    made = model.processor([sound.numpy() for sound in given], **arguments)
    return made["input_values"], made["attention_mask"]


def distance(a, b):
    assert a.shape == b.shape
    return (a - b).abs().max().item()


# --- recorded -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_every_activation_is_as_recorded():
    model = HookedAudioEncoder.from_pretrained(GOLDEN, device="cpu")
    model.cfg.use_attn_result = model.cfg.use_hook_mlp_in = True
    given, raw = (load_file(GOLDEN / f"{name}.safetensors") for name in ("sounds", "ht_raw"))
    frames, mask = model.to_frames([given["long"], given["short"]])
    assert torch.equal(mask, raw.pop("mask"))
    assert distance(frames, raw.pop("frames")) < 2e-5
    output, cache = model.run_with_cache([given["long"], given["short"]])
    assert distance(output, raw.pop("output")) < 2e-5
    assert set(cache) == set(raw)
    # BERT's layers have hook_mlp_in behind ln1; 3.9 had it before ln1, where hook_resid_mid is.
    raw = {name: value for name, value in raw.items() if not name.endswith("hook_mlp_in")}
    # Scores are -inf at padding.
    wrong = {name: distance(cache[name].nan_to_num(0, 0, 0), value.nan_to_num(0, 0, 0)) for name, value in raw.items()}
    assert max(wrong.values()) < 2e-5, wrong


# --- parity ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_streams_are_transformers(pair):
    model, hf = pair
    given = sounds(800, 800)
    wanted = hf(heard(model, given)[0], output_hidden_states=True)
    assert wanted.last_hidden_state.std() > 0.5
    output, cache = model.run_with_cache(torch.stack(given))
    assert distance(output, wanted.last_hidden_state) < 1e-5
    for layer in range(2):
        assert distance(cache[f"blocks.{layer}.hook_resid_pre"], wanted.hidden_states[layer]) < 1e-5
        assert distance(cache["normalized_resid_post", layer], wanted.hidden_states[layer + 1]) < 1e-5
    assert distance(model(given[0]), output[:1]) < 1e-5
    assert distance(output[:1], output[1:]) > 1e-2


@torch.no_grad()
def test_padding_is_hidden(pair):
    model, hf = pair
    given = sounds(800, 390, 611)
    values, mask = heard(model, given)
    wanted = hf(values, attention_mask=mask).last_hidden_state
    frames, seen = model.to_frames(given)
    assert torch.equal(seen.bool(), hf._get_feature_vector_attention_mask(frames.shape[1], mask))
    assert 0 < seen[1].sum() < seen.shape[1]
    output = model(given)
    assert distance(output, wanted) < 1e-5
    assert distance(model.encoder_output(frames, seen), output) == 0
    assert distance(model((frames, seen)), output) == 0
    unmasked = model(frames)
    assert distance(unmasked, hf(values).last_hidden_state) < 1e-5
    assert distance(unmasked[1:], output[1:]) > 1e-3


@torch.no_grad()
def test_frames_are_what_the_convolutions_give(pair):
    model, hf = pair
    values, _ = heard(model, sounds(800))
    features = hf.feature_extractor(values).transpose(1, 2)
    projected = hf.feature_projection(features)
    projected = projected[0] if isinstance(projected, tuple) else projected
    frames, mask = model.to_frames(sounds(800)[0])
    assert distance(frames, projected) == 0
    assert mask.shape == frames.shape[:2]
    assert mask.all()


def test_sound_comes_in_many_forms(model):
    (first, second) = sounds(400, 400)
    together = model.to_frames(torch.stack([first, second]))[0]
    assert distance(model.to_frames([first.numpy(), second])[0], together) == 0
    assert distance(model.to_frames(np.stack([first, second]))[0], together) == 0
    assert distance(model.to_frames(first)[0], together[:1]) < 1e-6


# --- loading --------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_loads_as_the_model_does(kind, tmp_path):
    hf = make_hf(kind)
    hf.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    published = {"mask_channel_selection": "static", "num_feat_extract_layers": 3, "feat_extract_dropout": 0.1}
    (tmp_path / "config.json").write_text(json.dumps(config | published))
    model = HookedAudioEncoder.from_pretrained(tmp_path, device="cpu")
    assert distance(model(sounds(800, 500)), load(hf)(sounds(800, 500))) == 0
    assert model.cfg.original_architecture == type(hf).__name__


@torch.no_grad()
def test_a_checkpoint_of_torch_1(tmp_path):
    hf = make_hf()
    hf.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    conv = "encoder.pos_conv_embed.conv."
    for new, old in (
        ("parametrizations.weight.original0", "weight_g"),
        ("parametrizations.weight.original1", "weight_v"),
    ):
        state[conv + old] = state.pop(conv + new)
    save_file(state, tmp_path / "model.safetensors")
    model = HookedAudioEncoder.from_pretrained(tmp_path, device="cpu")
    assert distance(model(sounds(800)), load(hf)(sounds(800))) == 0
    del state[f"{conv}weight_g"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors lacks .*original0, of shape \(1, 1, 8\)"):
        HookedAudioEncoder.from_pretrained(tmp_path, device="cpu")


def test_the_folder_says_how_sound_is_prepared(tmp_path):
    make_hf().save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False, sampling_rate=8000).save_pretrained(tmp_path)
    model = HookedAudioEncoder.from_pretrained(tmp_path, device="cpu")
    assert not model.processor.do_normalize
    with pytest.raises(ValueError, match="hears 8000 samples per second, and the sound has 16000"):
        model(sounds(800))
    assert model(sounds(800), sampling_rate=8000).shape == (1, 39, 16)
    own = transformers.Wav2Vec2FeatureExtractor()
    assert HookedAudioEncoder.from_pretrained(tmp_path, device="cpu", processor=own).processor is own


def test_memory_is_shared_and_the_given_model_stays():
    hf = make_hf()
    model = load(hf)
    assert model.blocks[1].attn.W_V.data_ptr() == hf.encoder.layers[1].attention.v_proj.weight.data_ptr()
    ours, theirs = (m.feature_projection.projection.weight for m in (model.hubert_model, hf))
    assert ours.data_ptr() == theirs.data_ptr()
    assert len(model.hubert_model.encoder.layers) == 0
    assert len(hf.encoder.layers) == 2
    model.to(torch.float64)
    assert theirs.dtype == torch.float32
    assert model(sounds(800)).dtype == torch.float64
    assert model.cfg.dtype == torch.float64


def test_narrow_weights():
    model = load(make_hf(), dtype=torch.bfloat16)
    output = model(sounds(800))
    assert output.dtype == torch.bfloat16
    assert (output.float() - load(make_hf())(sounds(800))).abs().mean() < 0.1


def test_official_names_belong_to_it():
    from transformer_lens.specs.listing import rows
    from transformer_lens.specs.names import resolve

    names = {"facebook/hubert-base-ls960", "facebook/wav2vec2-base", "facebook/wav2vec2-large"}
    assert {resolve(name) for name in ("hubert-base-ls960", "w2v2-base", "wav2vec2-large")} == names
    assert set(next(row for row in rows("hubert") if "HuBERT" in row.family).names) == names


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (
            HubertConfig,
            {"do_stable_layer_norm": True},
            "do_stable_layer_norm=True .*large.*HookedAudioEncoder. Nothing",
        ),
        (Wav2Vec2Config, {"add_adapter": True}, "add_adapter=True"),
        (Wav2Vec2Config, {"adapter_attn_dim": 4}, "adapter_attn_dim=4"),
        (HubertConfig, {"twist": 3}, "twist=3"),
    ],
)
def test_what_it_does_not_know_is_refused(config, change, message):
    hf_class = HubertModel if config is HubertConfig else Wav2Vec2Model
    with pytest.raises(UnsupportedModelError, match=message):
        load(hf_class(config(**SIZES, **change)))


# --- hooks and weights ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_every_hook_point_acts(model):
    given = sounds(400, 300)
    output = model(given)
    for name in model.hook_dict:

        def edit(x, hook):
            return x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0))

        assert distance(model.run_with_hooks(given, fwd_hooks=[(name, edit)]), output) > 1e-4, name
    assert distance(model(given), output) == 0


INSIDE = (
    "attn.hook_k", "attn.hook_q", "attn.hook_v", "attn.hook_z", "attn.hook_attn_scores", "attn.hook_pattern",
    "attn.hook_result", "ln1.hook_scale", "ln1.hook_normalized", "mlp.hook_pre", "mlp.hook_post",
    "ln2.hook_scale", "ln2.hook_normalized", "hook_q_input", "hook_k_input", "hook_v_input", "hook_attn_out",
    "hook_mlp_in", "hook_mlp_out", "hook_resid_pre", "hook_resid_mid", "hook_resid_post",
    "hook_normalized_resid_post", "hook_attn_in",
)  # fmt: skip


def test_hook_points_are_those_of_before(model):
    """As 3.9 has them, and hook_attn_in."""
    assert set(model.hook_dict) == {f"blocks.{layer}.{name}" for layer in range(2) for name in INSIDE}
    _, cache = model.run_with_cache(sounds(400))
    behind_flags = ("hook_result", "_input", "hook_mlp_in", "hook_attn_in")
    assert set(cache) == {name for name in model.hook_dict if not name.endswith(behind_flags)}
    for name, value in cache.items():
        assert value.ndim == len(describe(name).axes.split()), name
    assert cache["blocks.0.attn.q.hook_out"] is cache["q", 0]


def test_the_cache(model):
    output, cache = model.run_with_cache(sounds(400), remove_batch_dim=True)
    assert isinstance(cache, ActivationCache)
    assert output.shape == (1, 19, 16)
    assert cache["pattern", 1].shape == (4, 19, 19)
    _, plain = model.run_with_cache(sounds(400), return_cache_object=False, names_filter="blocks.0.hook_resid_mid")
    assert list(plain) == ["blocks.0.hook_resid_mid"]
    with pytest.raises(TransformerLensError, match="normalises its stream after each sum"):
        cache.decompose_resid()


def test_weights_are_stacked(model):
    for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O"):
        assert torch.equal(getattr(model, name)[1], getattr(model.blocks[1].attn, name))
    for name in ("W_in", "W_out", "b_in", "b_out"):
        assert torch.equal(getattr(model, name)[1], getattr(model.blocks[1].mlp, name))
    assert model.QK.shape == model.OV.shape == (2, 4, 16, 16)
    assert model.all_head_labels()[-1] == "L1H3"
    with pytest.raises(TransformerLensError, match="no W_U: it hears sound"):
        _ = model.W_U


def test_gradients_reach_the_convolutions(model):
    model(sounds(400)).square().sum().backward()
    assert model.hubert_model.feature_extractor.conv_layers[0].conv.weight.grad.abs().max() > 0
    assert model.blocks[0].attn.W_Q.grad.abs().max() > 0
    model.zero_grad()


# --- errors ---------------------------------------------------------------------------------------------------------

CFG = {"n_layers": 1, "d_model": 16, "d_head": 4, "n_ctx": 64, "attention_dir": "bidirectional", "device": "cpu"}


def test_a_model_of_a_configuration_has_layers_only():
    model = HookedAudioEncoder(HookedTransformerConfig(**CFG), model_name="wav2vec2-base")
    with pytest.raises(TransformerLensError, match=r"no convolutions.*from_pretrained\('wav2vec2-base'\)"):
        model(sounds(400))
    with pytest.raises(TransformerLensError, match="no convolutions"):
        model.encoder_output(torch.zeros(1, 4, 16))
    whole = HookedAudioEncoder(CFG, hubert_model=make_hf(), processor=transformers.Wav2Vec2FeatureExtractor())
    assert whole(sounds(400)).shape == (1, 19, 16)
    with pytest.raises(ConfigurationError, match="attention_dir='causal' is not for an encoder of sound"):
        HookedAudioEncoder({**CFG, "attention_dir": "causal"})


def test_errors_say_what_to_do(model):
    with pytest.raises(ValueError, match="16000 samples per second, and the sound has 44100: resample it"):
        model(sounds(800), sampling_rate=44100)
    with pytest.raises(ValueError, match="20 samples is shorter than one frame"):
        model(sounds(20))
    with pytest.raises(ValueError, match=r"of one channel; got \[\(2, 400\)\]"):
        model([torch.zeros(2, 400)])
    with pytest.raises(ValueError, match="a list of"):
        model([])
    with pytest.raises(ValueError, match=r"shape \(1, 5\), and the frames \(1, 19\)"):
        model(sounds(400), one_zero_attention_mask=torch.ones(1, 5).long())
