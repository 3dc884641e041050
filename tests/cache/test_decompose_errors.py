"""What is refused, and in which words."""

import pytest
import torch
from cache_models import cache_of, run_of

from annotations import unchecked
from toys import TOKENS, toy
from transformer_lens.cache.errors import UndefinedDecompositionError
from transformer_lens.errors import UnknownNameError


def test_experts_have_no_neurons():
    _, cache = run_of("experts")
    for question in (
        cache.get_full_resid_decomposition,
        lambda: cache.stack_neuron_results(-1),
        lambda: cache.get_neuron_results(0),
    ):
        with pytest.raises(UndefinedDecompositionError, match=r"mixture of experts.*0_mlp_out.*expand_neurons=False"):
            question()


def test_attention_alone_has_no_mlp():
    _, cache = run_of("attn_only")
    with pytest.raises(UndefinedDecompositionError, match="Layer 0 has no neurons: it has no MLP"):
        cache.get_neuron_results(0)
    with pytest.raises(UndefinedDecompositionError, match="layer 1 of this model has no MLP"):
        cache.decompose_resid(1, mlp_input=True)
    with pytest.raises(UndefinedDecompositionError, match=r"incl_mid=True: .* layer 0, for it has no MLP"):
        cache.accumulated_resid(incl_mid=True)
    assert cache.decompose_resid(mode="mlp", return_labels=True)[1] == ["embed", "pos_embed"]


def test_parallel_blocks_have_no_stream_between():
    _, cache = run_of("parallel_rotary")
    with pytest.raises(UndefinedDecompositionError, match="layer 0, for attention and MLP read the same one"):
        cache.accumulated_resid(incl_mid=True)


def test_a_module_that_nobody_knows():
    class Other(torch.nn.Module):
        def forward(self, x):
            return x

    model = toy("plain")
    model.blocks[1].mlp = Other()
    model.setup()
    with torch.no_grad():
        _, cache = model.run_with_cache(TOKENS)
    with pytest.raises(UndefinedDecompositionError, match=r"Layer 1 .* was replaced by a module"):
        cache.stack_neuron_results(2)
    stack = cache.get_full_resid_decomposition(expand_neurons=False)
    torch.testing.assert_close(stack.sum(0), cache["resid_post", 1], atol=2e-5, rtol=2e-5)


def test_layers_that_do_not_exist():
    _, cache = run_of("plain")
    for layer in (3, -4):
        with pytest.raises(ValueError, match=rf"layer is from 0 to 2 .*; got {layer}"):
            cache.decompose_resid(layer)
    with pytest.raises(ValueError, match="mlp_input=True needs a layer whose MLP is meant, from 0 to 1; got None"):
        cache.decompose_resid(mlp_input=True)
    for layer in (2, -3):
        with pytest.raises(ValueError, match=rf"layer is from 0 to 1, .*; got {layer}"):
            cache.get_neuron_results(layer)
    for layer in (0, 3):
        with pytest.raises(ValueError, match=rf"how many layers to stack, from 1 to 2 .*; got {layer}"):
            cache.stack_activation("q", layer)


def test_arguments_that_mean_nothing():
    _, cache = run_of("plain")
    with unchecked():
        with pytest.raises(ValueError, match='mode is "all", "mlp" or "attn"; got \'heads\''):
            cache.decompose_resid(mode="heads")
        with pytest.raises(ValueError, match=r"shape \[16\] or \[16, out\]; got \(3,\)"):
            cache.stack_neuron_results(1, project_output_onto=torch.ones(3))
    single = cache_of("plain").apply_slice_to_batch_dim(0)
    with pytest.raises(ValueError, match="batch axis of this cache was removed"):
        single.apply_ln_to_stack(single.decompose_resid(), batch_slice=0)


@pytest.mark.parametrize(
    ("missing", "question"),
    [
        ("hook_embed", lambda c: c.decompose_resid()),
        ("hook_pos_embed", lambda c: c.get_full_resid_decomposition()),
        ("blocks.0.hook_attn_out", lambda c: c.decompose_resid()),
        ("blocks.1.hook_mlp_out", lambda c: c.get_full_resid_decomposition(expand_neurons=False)),
        ("blocks.1.attn.hook_z", lambda c: c.stack_head_results()),
        ("blocks.1.attn.hook_z", lambda c: c.compute_head_results()),
        ("blocks.1.mlp.hook_post", lambda c: c.stack_neuron_results(-1)),
        ("blocks.1.hook_resid_post", lambda c: c.stack_head_results(incl_remainder=True)),
        ("ln_final.hook_scale", lambda c: c.logit_attrs(c.decompose_resid(), 3)),
        ("ln_final.hook_scale", lambda c: c.decompose_resid(apply_ln=True)),
        ("blocks.1.ln1.hook_scale", lambda c: c.stack_head_results(1, apply_ln=True)),
        ("blocks.1.attn.hook_pattern", lambda c: c.stack_activation("pattern")),
    ],
)
def test_what_was_not_cached_is_named(missing, question):
    cache = cache_of("plain")
    del cache.cache_dict[missing]
    with pytest.raises(UnknownNameError, match=rf"holds no '{missing}'.*run again with it in names_filter"):
        question(cache)


def test_embeddings_that_were_not_cached_can_be_left_out():
    cache = cache_of("plain")
    del cache.cache_dict["hook_embed"]
    with pytest.raises(UnknownNameError, match="incl_embeds=False"):
        cache.decompose_resid()
    assert len(cache.decompose_resid(incl_embeds=False)) == 4


def test_the_scale_of_a_norm_behind_which_layers_write():
    cache = cache_of("norms_around")
    del cache.cache_dict["blocks.0.ln1_post.hook_scale"]
    with pytest.raises(UnknownNameError, match=r"blocks\.0\.ln1_post\.hook_scale"):
        cache.stack_head_results()


def test_heads_that_read_their_own_inputs_share_no_scale():
    with torch.no_grad():
        _, cache = toy("plain", use_split_qkv_input=True).run_with_cache(TOKENS)
    with pytest.raises(UndefinedDecompositionError, match=r"ln1\.hook_scale has shape.*use_split_qkv_input"):
        cache.decompose_resid(1, apply_ln=True)
    assert cache.decompose_resid(1, mlp_input=True, apply_ln=True).shape == (5, 2, 7, 16)
