"""One type examined in a process of its own, under a limit of processor time and memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import traceback
import warnings
from dataclasses import dataclass, field
from queue import Empty
from typing import Any

import torch
import transformers

SECONDS, BYTES = 120, 8 << 30


@dataclass(frozen=True)
class Row:
    """What was found about one type.

    Attributes:
        model_type: transformers' name of it.
        model: the class of the model; empty: none could be built.
        known_by: "spec" or "resolver".
        passed: the basic statements hold.
        outcomes: statement -> "holds", "fails" or "undefined".
        details: statement -> where it fails.
        untrusted: how many hook points cannot be trusted, and which.
        hook_points: how many there are.
        error: why nothing could be found out.
    """

    model_type: str
    model: str = ""
    known_by: str = ""
    passed: bool = False
    outcomes: dict[str, str] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    untrusted: dict[str, str] = field(default_factory=dict)
    hook_points: int = 0
    error: str = ""


def examine(model_type: str, auto: str) -> Row:
    """Build a tiny model of a type, boot the bridge over it, and verify; in this process."""
    from census.tiny import tiny_model
    from transformer_lens.models.transformer_bridge import TransformerBridge
    from transformer_lens.models.verifying import verify

    try:
        model = tiny_model(model_type, getattr(transformers, auto))
    except Exception as error:  # noqa: BLE001 - a model of any library version may fail in any way; the row says so
        return Row(model_type, error=f"not built: {_short(error)}")
    try:
        bridge = TransformerBridge.boot_transformers(hf_model=model)
        found = verify(bridge)
    except Exception as error:  # noqa: BLE001 - as above
        return Row(model_type, type(model).__name__, error=_short(error))
    return Row(
        model_type,
        found.model,
        found.known_by,
        found.passed,
        {check.statement: check.outcome for check in found.checks},
        {check.statement: check.detail for check in found.checks if check.detail},
        found.untrusted,
        found.hook_points,
    )


def _short(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__} at {os.path.basename(place.filename)}:{place.lineno}: {first[:200]}"


def examine_apart(model_type: str, auto: str) -> Row:
    """The same in a process of its own, which ends when it takes too much of the processor or of memory."""
    context = multiprocessing.get_context("fork")
    queue: Any = context.Queue()
    process = context.Process(target=_work, args=(model_type, auto, queue))
    process.start()
    row = None
    while row is None:
        alive = process.is_alive()  # asked first: what it said last is still read
        try:
            row = queue.get(timeout=1)
        except Empty:
            if not alive:
                row = Row(model_type, error=f"no answer within {SECONDS} s and {BYTES >> 30} GiB")
    process.join(5)
    if process.is_alive():
        process.kill()
    return row


def _work(model_type: str, auto: str, queue: Any) -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of the processor, so that a busy machine changes nothing
    queue.put(examine(model_type, auto))
