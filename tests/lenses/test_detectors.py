"""Scores of all heads: by slow sums over planted and real models, and the circuit that the demo page names."""

import pytest
import torch
from lens_models import DEMOS, demo_on, small

from toys import TOKENS, randomise, toy
from transformer_lens import demo
from transformer_lens.lenses import IOIPrompts, copying_scores, head_scores, ioi_scores, ov_eigenvalues


def close(found, expected, tolerance=1e-4):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=1e-3)


@pytest.mark.parametrize("host", DEMOS)
def test_head_scores_are_attention_to_the_right_places(host):
    model, length, batch = demo_on(host), 10, 3
    scores = head_scores(model, length=length, batch=batch, seed=3)
    generator = torch.Generator().manual_seed(3)
    half = torch.randint(0, model.cfg.d_vocab, (batch, length), generator=generator)
    tokens = torch.cat([torch.full((batch, 1), model.codec.bos_id), half, half], 1)
    _, cache = model.run_with_cache(tokens)
    for layer, head in ((0, 0), (1, 2), (3, 3)):
        pattern = cache["pattern", layer][:, head]
        queries = range(length + 1, 2 * length + 1)
        for scored, distance in (
            (scores.previous_token, 1),
            (scores.duplicate_token, length),
            (scores.induction, length - 1),
        ):
            expected = torch.stack([pattern[:, q, q - distance] for q in queries]).mean()
            close(scored[layer, head], expected)


@pytest.mark.parametrize("host", DEMOS)
def test_the_induction_circuit_of_demo(host):
    scores = head_scores(demo_on(host))
    assert divmod(int(scores.previous_token.argmax()), 4) == (0, 0)
    assert (scores.induction[1] > 0.7).all()  # the heads of layer 1
    assert scores.induction[0].max() < 0.05
    assert divmod(int(scores.duplicate_token.argmax()), 4) == (0, 2)
    table = scores.table()
    assert table[4]["head"] == "L1H0"
    assert table[4]["induction"] == pytest.approx(scores.induction[1, 0].item())
    assert "Induction score" in scores._repr_html_()


def test_head_scores_say_what_does_not_fit():
    with pytest.raises(ValueError, match="do not fit n_ctx=128"):
        head_scores(demo_on("native"), length=64)


@pytest.mark.parametrize("name", ["plain", "gated_grouped", "no_weights_in_norms", "llama bridge", "llama native"])
@torch.no_grad()
def test_eigenvalues_are_those_of_the_circuit_written_out(name):
    model = small(name)
    values = ov_eigenvalues(model)
    readout = model.run_with_cache(TOKENS)[1].readout
    for layer in range(2):
        for head in range(4):
            attn = model.blocks[layer].attn
            W_V = attn.W_V[head * len(attn.W_V) // 4]
            norm = readout.layers[layer].ln1
            ones = torch.ones(16)
            centre = torch.eye(16) - (ones[:, None] @ ones[None] / 16 if norm.kind == "LN" else 0)
            into = model.W_E @ centre @ torch.diag(ones if norm.w is None else norm.w) @ W_V
            final = readout.ln_final
            out = attn.W_O[head] @ centre @ torch.diag(ones if final.w is None else final.w) @ model.W_U
            circuit = into @ (out - out.mean(1, keepdim=True))  # [d_vocab, d_vocab]
            expected = torch.linalg.eigvals(circuit)
            largest = expected[expected.abs().argsort(descending=True)[:4]]
            close(values[layer, head].abs().sort().values, largest.abs().sort().values, 1e-3)
            close(values[layer, head].sum().real, circuit.trace(), 1e-3)
            close(copying_scores(model)[layer, head], expected.real.sum() / expected.abs().sum(), 1e-2)


@torch.no_grad()
def test_copying_is_the_same_on_both_hosts_and_after_folding():
    native, trained, bridge = (copying_scores(demo_on(host)) for host in DEMOS)
    close(native, trained, 1e-3)
    close(bridge, trained, 1e-3)


@torch.no_grad()
def test_planted_copying_and_its_opposite():
    model = toy("plain", normalization_type=None, d_vocab=16)
    model.W_E.copy_(torch.eye(16))
    model.W_U.copy_(torch.eye(16))
    attn = model.blocks[0].attn
    for head, sign in ((0, 1), (1, -1)):
        attn.W_V[head] = torch.randn(16, 4, generator=torch.Generator().manual_seed(head))
        attn.W_O[head] = sign * attn.W_V[head].T
    scores = copying_scores(model)
    assert scores[0, 0] > 0.999
    assert scores[0, 1] < -0.999
    assert scores[1].abs().max() < 0.99


def test_one_vocabulary_is_needed():
    with pytest.raises(ValueError, match="31 tokens go in and 7 logits come out"):
        copying_scores(toy("plain", d_vocab_out=7))


@pytest.mark.parametrize("host", DEMOS)
def test_the_ioi_circuit_of_demo(host):
    """The name mover L1H0 and the head that reads the second subject, L0H0, as docs/demo-model.md names them."""
    model, prompts = demo_on(host), demo.ioi(30, seed=0)
    scores = ioi_scores(model, prompts)
    assert scores.name_mover_head == (1, 0)
    assert scores.copying[1, 0] > 0.9
    assert scores.attention_to_IO[1, 0] > 0.6 > 0.25 > scores.attention_to_S[1, 0]
    assert divmod(int(scores.attention_to_S2.argmax()), 4) == (0, 0)
    assert divmod(int(scores.s_inhibition.nan_to_num(-1).argmax()), 4) == (0, 0)
    assert scores.s_inhibition[0, 0] > 0.7 * scores.preference  # without it the preference is nearly lost
    assert scores.s_inhibition[1:].isnan().all()
    _, cache = model.run_with_cache(prompts.tokens)
    rows, at = torch.arange(30), prompts.positions
    close(scores.duplicate[0, 2], cache["pattern", 0][rows, 2, at["S2"], at["S1"]].mean())
    html = scores._repr_html_()
    assert "Name mover score" in html
    assert "Fall of L1H0" in html
    assert scores.table()[4]["name_mover"] == pytest.approx(scores.name_mover[1, 0].item())


@torch.no_grad()
def test_s_inhibition_is_an_ablation_by_hand():
    model, prompts, head = demo_on("native"), demo.ioi(8, seed=5), 2
    scores = ioi_scores(model, prompts, name_mover=(1, 3))
    rows, at = torch.arange(8), prompts.positions
    _, cache = model.run_with_cache(prompts.tokens)

    def preference(pattern):
        to = {role: pattern[rows, 3, at["end"], at[role]].mean() for role in ("IO", "S1", "S2")}
        return to["IO"] - to["S1"] - to["S2"]

    def edit(z, hook):
        z[:, -1, head] = cache["z", 0][:, -1, head].mean(0)

    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", edit)]):
        _, without = model.run_with_cache(prompts.tokens)
    expected = preference(cache["pattern", 1]) - preference(without["pattern", 1])
    assert expected.abs() > 1e-4
    close(scores.s_inhibition[0, head], expected, 1e-5)
    assert scores.preference == pytest.approx(preference(cache["pattern", 1]).item(), abs=1e-5)


@torch.no_grad()
def test_copying_share_is_that_of_heads_run_alone():
    model, prompts = demo_on("native, as trained"), demo.ioi(6, seed=4)
    _, cache = model.run_with_cache(prompts.tokens)
    kept, layer, head = [], 2, 1
    for row in range(6):
        for role, token in (("IO", prompts.answer_tokens[row]), ("S1", prompts.wrong_tokens[row])):
            stream = cache["resid_pre", 1][row, prompts.positions[role][row]]
            attn = model.blocks[layer].attn
            value = model.blocks[layer].ln1(stream[None, None])[0, 0] @ attn.W_V[head] + attn.b_V[head]
            logits = model((value @ attn.W_O[head])[None, None], start_at_layer=model.cfg.n_layers)[0, 0]
            kept.append(int(token) in logits.topk(5).indices.tolist())
    close(ioi_scores(model, prompts).copying[layer, head], torch.tensor(sum(kept) / len(kept)))


def test_rows_that_end_at_different_places_are_scored_as_rows_alone():
    model, prompts = demo_on("native"), demo.ioi(4, seed=2)
    end = prompts.positions["end"].clone()
    end[:2] -= 1
    moved = IOIPrompts(prompts.tokens, {**prompts.positions, "end": end}, prompts.answer_tokens, prompts.wrong_tokens)
    together = ioi_scores(model, moved, name_mover=(1, 0))
    halves = [
        ioi_scores(
            model,
            IOIPrompts(
                moved.tokens[rows],
                {role: places[rows] for role, places in moved.positions.items()},
                moved.answer_tokens[rows],
                moved.wrong_tokens[rows],
            ),
            name_mover=(1, 0),
        )
        for rows in (slice(0, 2), slice(2, 4))
    ]
    close(together.name_mover, torch.stack([half.name_mover for half in halves]).mean(0))


def test_what_is_refused():
    model, prompts = demo_on("native"), demo.ioi(4)
    positions = {role: prompts.positions[role] for role in ("IO", "end")}
    few = IOIPrompts(prompts.tokens, positions, prompts.answer_tokens, prompts.wrong_tokens)
    with pytest.raises(ValueError, match="lacks S1, S2; it has IO, end"):
        ioi_scores(model, few)
    with pytest.raises(ValueError, match=r"head of the model; got \(1, 4\)"):
        ioi_scores(model, prompts, name_mover=(1, 4))


def test_randomised_heads_are_no_induction_heads():
    model = toy("plain", n_ctx=64)
    randomise(model, 3)
    assert head_scores(model, length=20).induction.max() < 0.5
