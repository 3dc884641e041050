"""Loading a checkpoint: peak anonymous memory against its size, and time against transformers.

`python -m benchmarks.loading [width]`. Each measurement is a fresh process; memory is RssAnon above what it had before
loading, so mapped file pages do not count. Files are mapped and read later, so each weight is touched once. Peaks are
taken in processes of their own: a thread that watches memory slows its first touch many times.
Runs are interleaved; the median of five is shown, and beside it the ratio of processor time, which other work on the
machine disturbs less, and that of the fastest runs, which it disturbs least. "copied" is transformers' way with one
fresh copy of those weights that processing changes: what any loader pays that writes them.
"""

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

REPEATS = 5
WAYS = ("transformers", "copied", "no processing", "processed", "hf_model", "bridge")


def anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not say RssAnon")


class Peak:
    """The highest anonymous memory while it runs."""

    def __enter__(self) -> "Peak":
        self.start, self.highest, self.running = anonymous_bytes(), 0, True
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while self.running:
            self.highest = max(self.highest, anonymous_bytes())
            time.sleep(0.001)

    def __exit__(self, *_: object) -> None:
        self.running = False
        self.thread.join()
        self.highest = max(self.highest, anonymous_bytes()) - self.start


def load(way: str, folder: str) -> torch.nn.Module:
    from transformer_lens import HookedTransformer, TransformerBridge

    if way == "bridge":
        return TransformerBridge.boot_transformers(folder, device="cpu")
    if way == "transformers":
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if way == "copied":
        hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        if hf.config.model_type == "gpt2":
            hf.lm_head.weight = torch.nn.Parameter(hf.lm_head.weight.data)  # centred and folded, so no longer tied
        kept = (
            () if hf.config.model_type == "gpt2" else ("embed_tokens", "o_proj", "down_proj")
        )  # RMS norms do not centre
        for name, parameter in hf.named_parameters():
            if not any(part in name for part in kept):
                parameter.data = parameter.data * 0.5
        return hf
    if way == "hf_model":
        hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return HookedTransformer.from_pretrained_no_processing(folder, hf_model=hf, device="cpu")
    if way == "processed":
        return HookedTransformer.from_pretrained(folder, device="cpu")
    return HookedTransformer.from_pretrained_no_processing(folder, device="cpu")


def measure(what: str, way: str, folder: str) -> None:
    """In a process of its own: import everything with a tiny model, then load and print seconds, or bytes."""
    with tempfile.TemporaryDirectory() as tiny:
        save(tiny, 64, "llama")
        load(way, tiny)
    if what == "peak":
        with Peak() as peak:
            touch(load(way, folder))
        print(peak.highest)
        return
    begin, processor = time.perf_counter(), time.process_time()
    touch(load(way, folder))
    print(time.perf_counter() - begin, time.process_time() - processor)


def touch(model: torch.nn.Module) -> None:
    """Read every weight once, in the order of memory."""
    for parameter in model.parameters():
        parameter.data.as_strided((parameter.numel(),), (1,)).sum()


def save(folder: str, width: int, kind: str) -> None:
    """A random checkpoint in several shards: llama (untied) or gpt2 (tied, Conv1D)."""
    if kind == "llama":
        config: object = LlamaConfig(
            vocab_size=32 * width, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=6,
            num_attention_heads=8, num_key_value_heads=4,
        )  # fmt: skip
    else:
        config = GPT2Config(vocab_size=24 * width, n_embd=width, n_layer=6, n_head=8, n_positions=128)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder, max_shard_size="200MB")


def main(width: int) -> None:
    print(f"{'model':8} {'way':14} {'seconds':>8} {'x transformers: median, processor, fastest':>42} {'peak':>9} "
          f"{'x checkpoint':>13}")  # fmt: skip
    for kind in ("llama", "gpt2"):
        with tempfile.TemporaryDirectory() as folder:
            save(folder, width, kind)
            size = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
            results: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
            for _ in range(REPEATS):
                for way in WAYS:
                    seconds, processor = _fresh("time", way, folder)
                    results[way].append((seconds, processor))
            peaks = {way: _fresh("peak", way, folder)[0] for way in WAYS}
            base = _columns(results["transformers"])
            for way, runs in results.items():
                own = _columns(runs)
                ratios = " ".join(f"{x / y:13.2f}" for x, y in zip(own, base, strict=True))
                print(
                    f"{kind:8} {way:14} {own[0]:8.2f} {ratios} {peaks[way] / 2**20:6.0f} MB {peaks[way] / size:13.2f}"
                )


def _fresh(what: str, way: str, folder: str) -> list[float]:
    """What a fresh process measures."""
    command = [sys.executable, "-m", "benchmarks.loading", "--measure", what, way, folder]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [float(number) for number in output.splitlines()[-1].split()]


def _columns(runs: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Median seconds, median processor time, fewest seconds."""
    seconds, processor = zip(*runs, strict=True)
    return statistics.median(seconds), statistics.median(processor), min(seconds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(*sys.argv[2:])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024)
