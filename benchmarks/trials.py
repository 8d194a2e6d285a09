"""Settings of onnxruntime and forms of the graph that were tried: time of a run, time to a session, memory.

    python benchmarks/trials.py [--model minilm|bge|FOLDER]

One thread; every round runs each variant once. Memory is what a fresh process holds after runs of 16 to 512 tokens.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from models import HELP, bundle
from raskrank import cpu
from raskrank.manifest import MODEL, WEIGHTS
from raskrank_export.tensors import write_model

LENGTHS = (32, 128, 400)
ROUNDS = 15
MEMORY = """
import json, sys
sys.path.insert(0, {folder!r})
import numpy, trials
session = trials.session({path!r}, **json.loads({options!r}))
for length in (16, 512, 64, 256, 16):
    trials.run(session, numpy.full((1, length), 1000))
print(int(open("/proc/self/statm").read().split()[1]) * 4096)
"""
# name -> options of `session`, for the graph as the engine runs it
SETTINGS: dict[str, dict[str, bool]] = {
    "as the engine": {},
    "no memory arena": {"arena": False},
    "memory pattern": {"pattern": True},
    "no prepacking": {"prepack": False},
    "spinning threads": {"spin": True},
}


def session(
    path: str, *, arena: bool = True, pattern: bool = False, prepack: bool = True, spin: bool = False, save: str = ""
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena, options.enable_mem_pattern = arena, pattern
    options.add_session_config_entry("session.disable_prepacking", str(int(not prepack)))
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    if save:
        options.optimized_model_filepath = save
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(loaded: onnxruntime.InferenceSession, ids: "np.typing.NDArray[np.int64]") -> None:
    feeds = {"input_ids": ids.astype(np.int64), "token_type_ids": np.zeros_like(ids, np.int64)}
    loaded.run(None, {item.name: feeds[item.name] for item in loaded.get_inputs()})


def tanh_gelu(source: Path, target: Path) -> Path:
    """The graph with Gelu's approximation by tanh, which changes scores."""
    model = onnx.load(str(source / MODEL))
    for node in model.graph.node:
        if node.op_type == "Gelu":
            node.op_type = "FastGelu"
    target.mkdir()
    write_model(model, target / MODEL, target / WEIGHTS)
    return target / MODEL


def resident(path: str, options: dict[str, bool]) -> float:
    """Megabytes of a fresh process."""
    script = MEMORY.format(folder=str(Path(__file__).parent), path=path, options=json.dumps(options))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    return int(done.stdout) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help=HELP)
    model = parser.parse_args().model
    folder = bundle(model, "int8")
    print(f"{model} int8; {cpu.model_name()}, {', '.join(cpu.instruction_sets())}; onnxruntime {onnxruntime.__version__}\n")
    with tempfile.TemporaryDirectory() as scratch:
        optimised = Path(scratch) / "optimised.onnx"
        session(str(folder / MODEL), save=str(optimised))
        variants = {name: (str(folder / MODEL), options) for name, options in SETTINGS.items()}
        variants["Gelu by tanh"] = (str(tanh_gelu(folder, Path(scratch) / "tanh")), {})
        variants["optimised before"] = (str(optimised), {})
        loading: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(5):
            for name, (path, options) in variants.items():
                start = time.perf_counter()
                session(path, **options)
                loading[name].append(time.perf_counter() - start)
        sessions = {name: session(path, **options) for name, (path, options) in variants.items()}
        seconds: dict[str, dict[int, list[float]]] = {name: {length: [] for length in LENGTHS} for name in variants}
        for length in LENGTHS:
            ids = np.random.default_rng(length).integers(1000, 4000, (1, length))
            for _ in range(ROUNDS + 1):
                for name, loaded in sessions.items():
                    start = time.perf_counter()
                    run(loaded, ids)
                    seconds[name][length].append(time.perf_counter() - start)
        print(f"{'':20}", *(f"{f'1 x {length} ms':>12}" for length in LENGTHS), f"{'session ms':>12}{'resident MB':>14}")
        for name, (path, options) in variants.items():
            medians = [1e3 * statistics.median(seconds[name][length][1:]) for length in LENGTHS]
            load = 1e3 * statistics.median(loading[name])
            print(f"{name:20}", *(f"{median:12.2f}" for median in medians), f"{load:12.0f}{resident(path, options):14.0f}")


if __name__ == "__main__":
    main()
