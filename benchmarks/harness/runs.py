"""Runs of one pair, each in a process of its own: seconds of CPU, and memory. And checkpoints of published sizes, which are
described and not there: the graphs that are written of them have seeded weights. Memory is read from /proc, so on Linux."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from raskrank.checkpoint import Checkpoint

LEAST_SECONDS = 2.0  # of runs in a process, which are 5 at most
SEED = 0


class Cost(NamedTuple):
    """seconds: of CPU, of the fastest run, which what else runs on the machine changes least. megabytes: that runs take at
    most beside what is loaded. reserved: megabytes of address space, which a limit on that counts; what loading took of it,
    where that was more."""

    seconds: float
    megabytes: float
    reserved: float


def measure(run: Callable[[], object]) -> None:
    """Print what `run` costs, in this process, for the one that started it by `in_fresh_process`."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    loaded, size = _status("VmRSS"), _status("VmSize")
    seconds = list[float]()
    while len(seconds) < 2 or (sum(seconds) < LEAST_SECONDS and len(seconds) < 5):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    print(min(seconds), (_status("VmHWM") - loaded) / 1e3, (_status("VmPeak") - size) / 1e3)


def in_fresh_process(module: str, *arguments: str) -> Cost:
    """What `python -m module ARGUMENTS` prints, which calls `measure`."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=True)
    return Cost(*map(float, done.stdout.split()))


def _status(name: str) -> int:
    """kB of this process."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def described(architecture: str, model_type: str, config: Mapping[str, object], **others: Any) -> Checkpoint:
    """What a checkpoint says of itself. config: with BERT's names. others: fields of Checkpoint that are not those below."""
    numbers = {key: value for key, value in config.items() if isinstance(value, int)}
    fields: dict[str, Any] = {
        "folder": Path(),
        "layout": "transformers",
        "hidden_act": "gelu",
        "relevant": None,
        "layers": numbers["num_hidden_layers"],
        "heads": numbers["num_attention_heads"],
        "hidden_size": numbers["hidden_size"],
        "vocab_size": numbers["vocab_size"],
        "type_vocab_size": numbers.get("type_vocab_size", 1),
        "activation": "sigmoid",
        "license": None,
        "languages": (),
        "parameters": 0,
    }
    return Checkpoint(
        architecture=architecture, model_type=model_type, config=dict(config), numbers=numbers, **(fields | others)
    )


def seeded_weights(tensors: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, Any]:
    """fp32 tensors of these names and shapes, drawn so that activations keep their size from layer to layer."""
    import torch

    generator = torch.Generator().manual_seed(SEED)
    return {
        name: torch.randn(shape, generator=generator) / (shape[-1] ** 0.5 if len(shape) > 1 and "embeddings" not in name else 1)
        for name, shape in tensors
    }
