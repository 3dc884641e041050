"""Reading a model of GPT-2 small's shape: decompositions and composition scores, their time and peak memory.

`python -m benchmarks.reading [threads]`. Each question is asked in a process of its own, with a warm model and cache
(12 layers, d_model 768, 8 x 128 tokens); memory is anonymous memory above what there was before, the result included.
The plain way is the obvious sum written out; its time is taken in turns with ours.
"""

import statistics
import subprocess
import sys
import time
from contextlib import nullcontext

import torch

from benchmarks.loading import Peak
from benchmarks.native_forward import GPT2
from transformer_lens import ActivationCache, HookedTransformer
from transformer_lens.lenses import direct_logit_attribution, logit_lens

ROUNDS = 7
TARGETS = {"stack_head_results": "0.3 s, 1 GB", "all_composition_scores": "well under 1 s, 100 MB"}


def plain_heads(model: HookedTransformer, cache: ActivationCache) -> torch.Tensor:
    """Every head's output, layer after layer, then stacked."""
    layers = [torch.einsum("bphk,hkd->hbpd", cache["z", layer], model.W_O[layer]) for layer in range(12)]
    return torch.cat(layers)


def plain_composition(model: HookedTransformer, cache: ActivationCache) -> torch.Tensor:
    """One source head against all later ones, as whole matrices."""
    OV, QK = model.OV, model.QK
    scores = torch.zeros(12, 12, 12, 12)
    for layer in range(1):  # a twelfth of the sources
        for head in range(12):
            write = OV.A[layer, head] @ OV.B[layer, head]
            for later in range(layer + 1, 12):
                read = QK.A[later] @ QK.B[later]
                scores[layer, head, later] = (write @ read).norm(dim=(1, 2)) / (write.norm() * read.norm(dim=(1, 2)))
    return scores


QUESTIONS = {
    "stack_head_results": lambda model, cache: cache.stack_head_results(),
    "heads, the plain way": plain_heads,
    "all_composition_scores": lambda model, cache: model.all_composition_scores("Q"),
    "composition of layer 0, the plain way": plain_composition,
    "logit lens, all layers and positions": logit_lens,
    "neurons' attribution, top 20": lambda model, cache: direct_logit_attribution(model, cache, 5, 7, unit="neuron"),
    "all neurons on one direction": lambda model, cache: cache.stack_neuron_results(
        -1, project_output_onto=model.W_U[:, 5]
    ),
}
FEW = ("composition of layer 0, the plain way", "logit lens, all layers and positions")


@torch.no_grad()
def measure(question: str, threads: int) -> None:
    """Print the median seconds, by the clock and of the processor, and the peak bytes of the first call."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = HookedTransformer(GPT2)
    _, cache = model.run_with_cache(torch.randint(0, 50000, (8, 128)), return_type=None)
    ask = QUESTIONS[question]
    taken, peak = [], Peak()
    for turn in range(1 if question in FEW else ROUNDS):
        with peak if turn == 0 else nullcontext():  # the watching thread would disturb the others
            start = time.perf_counter(), time.process_time()
            answer = ask(model, cache)
            taken.append((time.perf_counter() - start[0], time.process_time() - start[1]))
        del answer
    wall, processor = (statistics.median(column) for column in zip(*taken, strict=True))
    print(wall, min(wall for wall, _ in taken), processor, peak.highest)


def main(threads: int) -> None:
    """Print the table."""
    print(f"{threads} threads; median of {ROUNDS}, the least in brackets")
    for question in QUESTIONS:
        command = [sys.executable, "-m", "benchmarks.reading", "--measure", question, str(threads)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        wall, least, processor, peak = map(float, out[-4:])
        figures = f"{wall:6.2f} s ({least:.2f}), {processor:6.2f} s of processors, {peak / 1e6:6.0f} MB"
        target = f"   (target {TARGETS[question]})" if question in TARGETS else ""
        print(f"{question:40s} {figures}{target}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], int(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
