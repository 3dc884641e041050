"""The Readout: what a native model gives, and how another kind of model gives one."""

import torch
from cache_models import close, model_of, run_of

from toys import toy
from transformer_lens.cache.activation_cache import ActivationCache
from transformer_lens.cache.readout import LayerReadout, NormReadout, Readout, readout_of


def test_what_a_native_model_gives():
    readout = readout_of(model_of("norms_around"))
    assert readout.d_model == 16
    assert readout.logit_cap == 2.0
    assert readout.embeddings == ("embed",)
    first = readout.layers[0]
    assert (first.heads, first.mlp, first.parallel) == (4, "neurons", False)
    names = [norm.name for norm in (first.ln1, first.ln2, first.ln1_post, first.ln2_post)]
    assert names == [f"blocks.0.{name}" for name in ("ln1", "ln2", "ln1_post", "ln2_post")]
    assert {norm.kind for norm in (readout.ln_final, first.ln1, first.ln1_post)} == {"RMS"}
    assert readout_of(toy("plain", final_rms=True)).ln_final.kind == "RMS"
    folded = readout_of(model_of("plain folded"))
    assert folded.ln_final.w is folded.ln_final.b is None
    experts, alone = readout_of(model_of("experts")).layers[1], readout_of(model_of("attn_only")).layers[1]
    assert (experts.mlp, experts.W_out, alone.mlp, alone.ln1) == ("experts", None, None, None)


def test_a_readout_refers_to_weights_and_asks_for_no_gradient():
    model = model_of("plain")
    readout = readout_of(model)
    assert readout.W_U.data_ptr() == model.W_U.data_ptr()
    assert readout.layers[1].W_O.data_ptr() == model.blocks[1].attn.W_O.data_ptr()
    assert not readout.W_U.requires_grad


def test_another_kind_of_model_registers_its_own():
    class Bigram:
        """One attention head over embeddings; the stream is normalised by its root mean square at the end."""

        def __init__(self):
            self.W_O, self.W_U = torch.randn(1, 2, 8), torch.randn(8, 5)

    @readout_of.register
    def _(model: Bigram) -> Readout:
        layer = LayerReadout(heads=1, W_O=model.W_O)
        return Readout(8, (layer,), ln_final=NormReadout("RMS", "ln_final"), W_U=model.W_U)

    model = Bigram()
    model.cfg = type("Sizes", (), {"n_layers": 1})
    embed, z = torch.randn(1, 3, 8), torch.randn(1, 3, 1, 2)
    out = (z[:, :, 0, None] @ model.W_O[0])[:, :, 0]
    final = embed + out
    scale = (final.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    activations = {
        "hook_embed": embed,
        "blocks.0.hook_resid_pre": embed,
        "blocks.0.attn.hook_z": z,
        "blocks.0.hook_attn_out": out,
        "blocks.0.hook_resid_post": final,
        "ln_final.hook_scale": scale,
    }
    cache = ActivationCache(activations, model)
    parts, labels = cache.get_full_resid_decomposition(return_labels=True)
    assert labels == ["L0H0", "embed", "bias"]
    close(parts.sum(0), final)
    close(cache.logit_attrs(parts, 3).sum(0), (final / scale @ model.W_U)[..., 3])


def test_the_whole_norm_is_the_models():
    for name in ("plain", "final_rms", "rms"):
        stream = run_of(name)[1]["resid_post", 1]
        close(readout_of(model_of(name)).normed(stream), model_of(name).ln_final(stream).detach())
