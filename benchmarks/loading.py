"""Loading a checkpoint: peak anonymous memory against its size, and time against transformers.

`python -m benchmarks.loading [width]`. Each measurement is a fresh process; memory is RssAnon above what it had before
loading, so mapped file pages do not count. Files are mapped and read later, so each weight is touched once.
Runs are interleaved; the median of five is shown, and beside it the ratio of processor time, which other work on the
machine disturbs less, and that of the fastest runs, which it disturbs least.
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
WAYS = ("transformers", "no processing", "processed", "hf_model", "bridge")


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
    if way == "hf_model":
        hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return HookedTransformer.from_pretrained_no_processing(folder, hf_model=hf, device="cpu")
    if way == "processed":
        return HookedTransformer.from_pretrained(folder, device="cpu")
    return HookedTransformer.from_pretrained_no_processing(folder, device="cpu")


def measure(way: str, folder: str) -> None:
    """In a process of its own: import everything with a tiny model, then load and print seconds and bytes."""
    with tempfile.TemporaryDirectory() as tiny:
        save(tiny, 64, "llama")
        load(way, tiny)
    with Peak() as peak:
        begin, processor = time.perf_counter(), time.process_time()
        for parameter in load(way, folder).parameters():
            parameter.data.as_strided((parameter.numel(),), (1,)).sum()  # in the order of memory
        seconds, processor = time.perf_counter() - begin, time.process_time() - processor
    print(seconds, processor, peak.highest)


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
            results: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
            for _ in range(REPEATS):
                for way in WAYS:
                    command = [sys.executable, "-m", "benchmarks.loading", "--measure", way, folder]
                    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
                    results[way].append((float(out[-3]), float(out[-2]), float(out[-1])))
            base = _columns(results["transformers"])
            for way, runs in results.items():
                own = _columns(runs)
                ratios = " ".join(f"{x / y:13.2f}" for x, y in zip(own[:3], base[:3], strict=True))
                print(f"{kind:8} {way:14} {own[0]:8.2f} {ratios} {own[3] / 2**20:6.0f} MB {own[3] / size:13.2f}")


def _columns(runs: list[tuple[float, float, float]]) -> tuple[float, float, float, float]:
    """Median seconds, median processor time, fewest seconds, median bytes."""
    seconds, processor, peak = zip(*runs, strict=True)
    return statistics.median(seconds), statistics.median(processor), min(seconds), statistics.median(peak)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], sys.argv[3])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024)
