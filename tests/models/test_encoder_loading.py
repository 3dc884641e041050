"""HookedEncoder from folders and names, and back; models that are for another class."""

import json
import re

import berts
import families
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformer_lens.loading_from_pretrained import get_official_model_name, get_pretrained_model_config

from transformer_lens import HookedEncoder, HookedTransformer, list_supported_models
from transformer_lens.errors import ConfigurationError, UnknownNameError
from transformer_lens.models import hub
from transformer_lens.models.saving import NotRepresentableError
from transformer_lens.specs import UnsupportedModelError
from transformer_lens.weights.checkpoints import CheckpointError

GIVEN = {"token_type_ids": berts.TYPES, "one_zero_attention_mask": berts.MASK}


def load(folder, **options):
    return HookedEncoder.from_pretrained(folder, device="cpu", **options)


@pytest.fixture
def folder(tmp_path):
    berts.bert().save_pretrained(tmp_path)
    return tmp_path


def rewrite(folder, change):
    path = folder / "model.safetensors"
    tensors = change(load_file(path))
    path.unlink()
    save_file(tensors, path)


def change_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["BertForPreTraining", "BertForMaskedLM", "BertForNextSentencePrediction"])
def test_there_and_back_bit_by_bit(tmp_path, kind):
    hf = berts.bert(kind)
    hf.save_pretrained(tmp_path / "one")
    berts.tokenizer().save_pretrained(tmp_path / "one")
    model = load(tmp_path / "one")
    model.save_pretrained(tmp_path / "two")
    again = getattr(transformers, kind).from_pretrained(tmp_path / "two")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in hf.state_dict().items())
    second = load(str(tmp_path / "two"))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in model.state_dict().items())
    assert second.to_tokens("the cat")[0].tolist() == [[2, 5, 6, 3]]
    assert (second.cfg.original_architecture, second.cfg.act_fn, second.cfg.eps) == (kind, "gelu", 1e-12)


@torch.no_grad()
@pytest.mark.parametrize("edited", ["blocks.1.attn.W_O", "embed.embed.W_E", "unembed.W_U", "unembed.b_U", "pooler.W"])
def test_edits_survive(folder, tmp_path, edited):
    model = load(folder)
    before = model(berts.TOKENS, **GIVEN), model(berts.TOKENS, **GIVEN, head="nsp")
    model.get_parameter(edited).data[..., 0] += 0.7
    hf = model.to_hf()
    said = hf(berts.TOKENS, attention_mask=berts.MASK, token_type_ids=berts.TYPES)
    ours = model(berts.TOKENS, **GIVEN), model(berts.TOKENS, **GIVEN, head="nsp")
    torch.testing.assert_close((said.prediction_logits, said.seq_relationship_logits), ours, atol=1e-5, rtol=0)
    assert max((a - b).abs().max() for a, b in zip(before, ours, strict=True)) > 1e-3
    model.save_pretrained(tmp_path / "edited")
    assert torch.equal(load(tmp_path / "edited")(berts.TOKENS, **GIVEN), ours[0])


def test_a_model_without_a_class_of_its_own_cannot_be_saved(tmp_path):
    model = HookedEncoder.from_pretrained("x", hf_model=berts.bert("BertModel"), device="cpu")
    with pytest.raises(NotRepresentableError, match="no model class for BERT with the heads that its checkpoint holds"):
        model.to_hf()
    with pytest.raises(NotRepresentableError, match="made from a configuration"):
        HookedEncoder(berts.OURS).to_hf()


@torch.no_grad()
def test_a_checkpoint_of_2018(folder):
    wanted = load(folder)(berts.TOKENS, **GIVEN)

    def old(tensors):
        renamed = {name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): value
                   for name, value in tensors.items()}  # fmt: skip
        return {**renamed, "bert.embeddings.position_ids": torch.arange(12)[None]}

    rewrite(folder, old)
    assert torch.equal(load(folder)(berts.TOKENS, **GIVEN), wanted)


@torch.no_grad()
def test_a_checkpoint_of_the_bare_model(tmp_path):
    hf = berts.bert("BertModel")
    hf.save_pretrained(tmp_path)
    model = load(tmp_path)
    assert (model.mlm_head, model.unembed, model.nsp_head) == (None, None, None)
    assert "unembed.hook_in" not in model.hook_dict
    wanted = hf(berts.TOKENS, attention_mask=berts.MASK, token_type_ids=berts.TYPES)
    torch.testing.assert_close(
        model.encoder_output(berts.TOKENS, *GIVEN.values()), wanted.last_hidden_state, atol=1e-5, rtol=0
    )
    torch.testing.assert_close(model.pooler(wanted.last_hidden_state), wanted.pooler_output, atol=1e-5, rtol=0)


def test_half_a_head_and_unknown_tensors(folder):
    rewrite(folder, lambda tensors: {n: x for n, x in tensors.items() if n != "cls.predictions.transform.dense.bias"})
    with pytest.raises(CheckpointError, match=r"lacks cls.predictions.transform.dense.bias"):
        load(folder)
    rewrite(folder, lambda tensors: {**tensors, "cls.predictions.transform.dense.bias": torch.zeros(16),
                                     "bert.twist": torch.zeros(1)})  # fmt: skip
    with pytest.raises(CheckpointError, match=r"holds bert.twist, which BERT .* does not have"):
        load(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"is_decoder": True}, r"is_decoder=True \(attention to what came before only\) is not for HookedEncoder"),
        ({"type_vocab_size": 4}, r"type_vocab_size=4 \(a number of token types other than two\)"),
        ({"position_embedding_type": "relative_key"}, r"relative_key.*TransformerBridge takes it"),
        ({"twisted": 3}, "BERT: the configuration sets twisted=3"),
    ],
)
def test_a_configuration_that_is_not_understood(folder, fields, message):
    change_config(folder, **fields)
    with pytest.raises(UnsupportedModelError, match=message):
        load(folder)


def test_models_of_another_class(folder):
    with pytest.raises(
        UnsupportedModelError, match=r"'demo' \(GPT-2\) is not for HookedEncoder but for Hooked"
    ) as said:
        load("demo")
    assert "HookedTransformer.from_pretrained. TransformerBridge" in str(said.value)
    with pytest.raises(UnsupportedModelError, match=r"'bert' \(BERT\) is not for HookedTransformer") as said:
        HookedTransformer.from_pretrained(folder)
    assert re.search(r"HookedEncoder\.from_pretrained\. TransformerBridge", str(said.value))
    hf = families.hf_model("llama")
    with pytest.raises(UnsupportedModelError, match=r"not for HookedEncoder but for HookedTransformer"):
        HookedEncoder.from_pretrained("x", hf_model=hf)
    change_config(folder, model_type="berd")
    with pytest.raises(UnsupportedModelError, match=r"HookedEncoder knows no family with .* 'berd'. Nearest: bert"):
        load(folder)


def test_names_of_another_class_are_refused_before_anything_is_fetched(monkeypatch):
    monkeypatch.setattr(hub, "fetch", lambda *args, **kwargs: pytest.fail("fetched"))
    with pytest.raises(UnsupportedModelError, match=r"'bert-base-cased' \(BERT\) is not for HookedTransformer but"):
        HookedTransformer.from_pretrained("bert-base-cased")
    with pytest.raises(UnsupportedModelError, match=r"'gpt2' \(GPT-2\) is not for HookedEncoder but for HookedTr"):
        load("gpt2")


def test_names_and_arguments_that_are_not():
    with pytest.raises(UnknownNameError, match=r"No model is called 'bert-base-casd'.*bert-base-cased"):
        load("bert-base-casd")
    with pytest.raises(ConfigurationError, match="from_pretrained has no argument 'fold_lm'"):
        load("demo", fold_lm=True)


def test_official_names():
    assert get_official_model_name("bert-base-cased") == "google-bert/bert-base-cased"
    berts_here = list_supported_models("BertForPreTraining")
    assert berts_here == [
        f"google-bert/bert-{size}-{case}" for size in ("base", "large") for case in ("cased", "uncased")
    ]


def test_a_configuration_alone(folder):
    cfg = get_pretrained_model_config(str(folder), device="cpu")
    assert (cfg.n_layers, cfg.n_ctx, cfg.attention_dir) == (2, 12, "bidirectional")


@torch.no_grad()
def test_fewer_layers(folder):
    model = load(folder, first_n_layers=1)
    hf = berts.bert()(berts.TOKENS, attention_mask=berts.MASK, token_type_ids=berts.TYPES, output_hidden_states=True)
    stream = model.encoder_output(berts.TOKENS, *GIVEN.values())
    torch.testing.assert_close(stream, hf.hidden_states[1], atol=1e-5, rtol=0)
    assert (model.cfg.n_layers, model.to_hf().config.num_hidden_layers) == (1, 1)
    with pytest.raises(ConfigurationError, match="first_n_layers=3, and the model has 2 layers"):
        load(folder, first_n_layers=3)


@torch.no_grad()
def test_the_encoder_inside_a_classifier():
    classifier = berts.bert("BertForSequenceClassification")
    with pytest.raises(CheckpointError, match=r"holds classifier.bias, classifier.weight, which BERT"):
        HookedEncoder.from_pretrained("x", hf_model=classifier)
    model = HookedEncoder.from_pretrained("x", hf_model=classifier.bert, device="cpu")
    pooled = model.pooler(model.encoder_output(berts.TOKENS, *GIVEN.values()))
    wanted = classifier(berts.TOKENS, attention_mask=berts.MASK, token_type_ids=berts.TYPES).logits
    torch.testing.assert_close(classifier.classifier(pooled), wanted, atol=1e-5, rtol=0)


def test_fewer_positions(folder):
    model = load(folder, n_ctx=8)
    assert (model.W_pos.shape, model.to_hf().config.max_position_embeddings) == ((8, 16), 8)
