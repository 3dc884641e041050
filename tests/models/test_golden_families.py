"""What an earlier implementation and transformers themselves recorded for tiny models of twelve families."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from transformer_lens.models.hooked_transformer import HookedTransformer
from transformer_lens.weights.processing.process import ProcessingWarning

GOLDEN = Path(__file__).parent.parent / "golden"
FAMILIES = sorted(path.parent.name for path in GOLDEN.glob("*/ht_raw.safetensors"))
SINKS = "fold_value_biases is left out"


class Recorded:
    def __init__(self, family):
        self.folder = GOLDEN / family
        self.tokens = torch.from_numpy(np.load(self.folder / "tokens.npy"))
        self.hf_logits = self.read("hf_logits")["hf_logits"]

    def read(self, name):
        return load_file(self.folder / f"{name}.safetensors")

    def model(self, processed):
        steps = {} if processed else dict.fromkeys(STEPS, False)
        return HookedTransformer.from_pretrained(str(self.folder), device="cpu", **steps)


STEPS = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")


def distance(a, b):
    assert a.shape == b.shape
    return (a.double() - b.double()).nan_to_num(0, 0, 0).abs().amax().item() if a.numel() else 0.0


@pytest.fixture(scope="module", params=FAMILIES)
def recorded(request):
    return Recorded(request.param)


@torch.no_grad()
def test_every_activation_is_as_recorded(recorded):
    logits, cache = recorded.model(processed=False).run_with_cache(recorded.tokens)
    assert distance(logits, recorded.hf_logits) < 2e-5
    raw = recorded.read("ht_raw")
    assert distance(logits, raw.pop("logits")) < 2e-5
    assert set(cache) == set(raw)
    wrong = {name: distance(cache[name], value) for name, value in raw.items()}
    assert max(wrong.values()) < 2e-5, wrong


@torch.no_grad()
@pytest.mark.filterwarnings(f"ignore:{SINKS}")
def test_processing_keeps_log_probabilities(recorded):
    logits = recorded.model(processed=True)(recorded.tokens)
    assert distance(logits.log_softmax(-1), recorded.hf_logits.log_softmax(-1)) < 1e-5


def test_processed_weights_are_as_recorded(recorded):
    if recorded.folder.name == "gpt_oss":
        with pytest.warns(ProcessingWarning, match=SINKS):
            recorded.model(processed=True)
        return
    state = recorded.model(processed=True).state_dict()
    wrong = {name: distance(state[name], value) for name, value in recorded.read("ht_processed_weights").items()}
    assert max(wrong.values()) < 2e-5, wrong
