import pytest
import torch

from transformer_lens import HookedTransformer
from transformer_lens.errors import UnknownNameError
from transformer_lens.models import training_text

TEXTS = [{"text": "The keys are here."}, {"text": "Mary was tired because she worked."}]


@pytest.fixture
def model():
    return HookedTransformer.from_pretrained("demo")


def test_a_text_of_ones_own_dataset(model):
    model.dataset = TEXTS
    torch.manual_seed(0)
    drawn = {model.sample_datapoint() for _ in range(20)}
    assert drawn == {item["text"] for item in TEXTS}
    tokens = model.sample_datapoint(tokenize=True, prepend_bos=False)
    assert model.to_string(tokens[0]) in drawn


def test_what_a_model_was_trained_on(model, monkeypatch):
    with pytest.raises(UnknownNameError, match=r"what 'demo' was trained on. Set model.dataset"):
        model.sample_datapoint()
    asked = []
    monkeypatch.setattr(training_text, "get_dataset", lambda name, **kwargs: asked.append((name, kwargs)) or TEXTS)
    model.cfg.model_name = "pythia-70m"
    assert model.load_sample_training_dataset(revision="main") is TEXTS
    assert model.dataset is TEXTS
    assert asked == [("pile", {"revision": "main"})]
    assert training_text.training_set("GPT2-xl") == "openwebtext"
