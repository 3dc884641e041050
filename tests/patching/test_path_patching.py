"""Path patching gives the numbers of three plain passes for each pair, on both hosts."""

import itertools

import pytest
import torch

from models.families import hf_model
from models.families import tokens as family_tokens
from toys import TOKENS, toy
from transformer_lens import HookedTransformer, TransformerBridge, demo
from transformer_lens.errors import UnknownNameError
from transformer_lens.patching import At, LogitDifference, path_patch

OTHER = (TOKENS * 7 + 3) % 31
KINDS = ["plain", "parallel_rotary", "gated_grouped", "norms_around", "attn_only"]
FAMILIES = ["gpt_neox", "gemma2", "llama", "bloom"]
METRIC = LogitDifference(3, 5)


def slow_path_patch(model, tokens, caches, sender, receiver, freeze_mlps):
    """Three passes, as the paper tells them: the other run, one with the sender changed, one that is measured."""
    send_hook, send_head, send_pos = sender
    receive_hook, receive_head = receiver
    plain, other = caches

    def hold(activation, hook, name):
        activation[:] = plain[name] if "resid" not in name else activation
        if name == send_hook:
            where = (slice(None), send_pos) if send_head is None else (slice(None), send_pos, send_head)
            activation[where] = other[name][where]
        return activation

    names = {f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)} | {send_hook}
    if freeze_mlps and not model.cfg.attn_only:
        names |= {f"blocks.{layer}.hook_mlp_out" for layer in range(model.cfg.n_layers)}
    with model.hooks(fwd_hooks=[(name, lambda x, hook, name=name: hold(x, hook, name)) for name in names]):
        _, arrived = model.run_with_cache(tokens, names_filter=[receive_hook], return_type=None)

    def receive(activation, hook):
        where = slice(None) if receive_head is None else (slice(None), slice(None), receive_head)
        activation[where] = arrived[receive_hook][where]
        return activation

    return METRIC(model.run_with_hooks(tokens, fwd_hooks=[(receive_hook, receive)]))


def pairs(model):
    last = model.cfg.n_layers - 1
    senders = {
        "input": ("blocks.0.hook_resid_pre", None, slice(None)),
        "L0H1": ("blocks.0.attn.hook_z", 1, slice(None)),
        At("L0H3", (2, 4)): ("blocks.0.attn.hook_z", 3, [2, 4]),
        At("resid1", -2): ("blocks.1.hook_resid_pre", None, -2),
    }
    grouped = model.cfg.n_key_value_heads not in (None, model.cfg.n_heads)
    receivers = {
        "L1H2.q": ("blocks.1.hook_q_input", 2),
        "L1G0.k" if grouped else "L1H0.k": ("blocks.1.hook_k_input", 0),
        "L1G0.v" if grouped else "L1H0.v": ("blocks.1.hook_v_input", 0),
        "resid1": ("blocks.1.hook_resid_pre", None),
        "logits": (f"blocks.{last}.hook_resid_post", None),
    }
    if not model.cfg.attn_only:
        senders["MLP0"] = ("blocks.0.hook_mlp_out", None, slice(None))
        receivers["MLP1"] = ("blocks.1.hook_mlp_in", None)
    return senders, receivers


def assert_equals_three_passes(model, tokens, other, freeze_mlps):
    senders, receivers = pairs(model)
    found = path_patch(
        model,
        tokens,
        other,
        senders=list(senders),
        receivers=list(receivers),
        metric=METRIC,
        freeze_mlps=freeze_mlps,
        max_rows=2 * len(tokens),
    )
    caches = [model.run_with_cache(run)[1] for run in (tokens, other)]
    senders, receivers = list(senders.values()), list(receivers.values())
    # Two diagonals of the table: each sender and each receiver twice.
    for shift, row in itertools.product((0, 2), range(len(receivers))):
        s, r = row % len(senders), (row + shift) % len(receivers)
        expected = slow_path_patch(model, tokens, caches, senders[s], receivers[r], freeze_mlps)
        torch.testing.assert_close(found[s, r], expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("freeze_mlps", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_three_passes_on_the_native_host(kind, freeze_mlps):
    assert_equals_three_passes(toy(kind), TOKENS, OTHER, freeze_mlps)


@pytest.mark.parametrize("row", FAMILIES)
def test_equals_three_passes_on_a_wrapped_model(row):
    bridge = TransformerBridge.boot_transformers(hf_model=hf_model(row), device="cpu")
    tokens = family_tokens(2, 7)
    assert_equals_three_passes(bridge, tokens, (tokens * 7 + 3) % 61, freeze_mlps=False)


def test_sets_are_patched_together():
    model = toy()
    both = path_patch(model, TOKENS, OTHER, senders=[["L0H0", "L0H1"]], receivers=[["L1H0.q", "L1H0.k"]], metric=METRIC)
    _, plain = model.run_with_cache(TOKENS)
    _, other = model.run_with_cache(OTHER)
    W_O = model.blocks[0].attn.W_O
    change = torch.einsum("bphk,hkd->bpd", (other["z", 0] - plain["z", 0])[:, :, :2], W_O[:2])
    mid = plain["resid_mid", 0] + change
    stream = mid + model.blocks[0].mlp(model.blocks[0].ln2(mid))

    def receive(activation, hook):
        activation[:, :, 0] = stream
        return activation

    hooks = [(f"blocks.1.hook_{x}_input", receive) for x in "qk"]
    expected = METRIC(model.run_with_hooks(TOKENS, fwd_hooks=hooks))
    torch.testing.assert_close(both[0, 0], expected, atol=2e-4, rtol=1e-4)


def test_a_sender_after_its_receiver_changes_nothing():
    model = toy()
    found = path_patch(model, TOKENS, OTHER, senders=["L1H0", "MLP1"], receivers=["L1H0.q", "MLP0"], metric=METRIC)
    torch.testing.assert_close(found, METRIC(model(TOKENS)).expand(2, 2, 2), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("host", ["native", "wrapped"])
def test_the_s2_reader_moves_the_query_of_the_name_mover(host):
    """On the embedded model L0H0 at the end tells L1H0's query (and nobody else's) where not to look."""
    boots = {"native": HookedTransformer.from_pretrained, "wrapped": TransformerBridge.boot_transformers}
    model, prompts = boots[host]("demo", device="cpu"), demo.ioi(16)
    metric = LogitDifference(prompts.answer_tokens, prompts.wrong_tokens)
    receivers = ["L1H0.q", "L1H0.k", "L1H0.v", "L2H0.q"]
    found = path_patch(
        model, prompts.tokens, prompts.corrupted_tokens, senders=["L0H0"], receivers=receivers, metric=metric
    )
    effect = (found - metric(model(prompts.tokens))).mean(-1)[0]
    assert effect[0] < -2
    assert effect[1:].abs().max() < 0.5


@pytest.mark.parametrize(
    ("senders", "receivers", "error", "message"),
    [
        (["L9H0"], ["logits"], UnknownNameError, "no sender 'L9H0' in this model. Nearest: L1H0"),
        (["head 3"], ["logits"], UnknownNameError, "'head 3' is no sender"),
        (["resid7"], ["logits"], UnknownNameError, "no 'resid7' in a model of 2 layers"),
        (["L0H0"], ["L0H0"], UnknownNameError, "'L0H0' is no receiver"),
        (["L0H0"], ["L1G0.k"], UnknownNameError, "no receiver 'L1G0.k' in this model"),
        ([At("L0H0", 7)], ["logits"], ValueError, "Position 7 is outside the 7 positions"),
    ],
)
def test_what_is_wrong_is_said(senders, receivers, error, message):
    with pytest.raises(error, match=message):
        path_patch(toy(), TOKENS, OTHER, senders=senders, receivers=receivers, metric=METRIC)


def test_runs_of_different_length_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        path_patch(toy(), TOKENS, OTHER[:, 1:], senders=["L0H0"], receivers=["logits"], metric=METRIC)
