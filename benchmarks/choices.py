"""The measurements behind choices in the engine and the exporter: docs/performance.md is made from what this prints.

    python benchmarks/choices.py [--model minilm]

1. One pair: one core, or the run spread over all cores. Same bits?
2. 7-bit and 8-bit weights: error on the trained nano model, on this CPU.
3. Matrix products of this machine in fp32 and int8: the limit of what any engine on onnxruntime can reach.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from models import MODELS, bundle, checkpoint
from raskrank import Reranker, cpu
from raskrank.bundle import open_bundle
from raskrank.onnx_backend import OnnxBackend
from raskrank_export import Thresholds, export, quantize

LENGTHS = (8, 16, 32, 64, 128, 256, 512)


def interleaved(functions: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median milliseconds of each function, called in turn."""
    times: list[list[float]] = [[] for _ in functions]
    for number in range(rounds + 2):
        for row, function in zip(times, functions, strict=True):
            start = time.perf_counter()
            function()
            if number > 1:
                row.append(time.perf_counter() - start)
    return [statistics.median(row) * 1e3 for row in times]


def compare_runs(model: str) -> None:
    opened = open_bundle(bundle(model, "int8"))
    manifest, cores = opened.manifest, cpu.usable_cpus()
    backend = OnnxBackend(opened.graph, opened.folder, manifest.inputs, concurrency=cores, hidden_size=manifest.hidden_size)
    print(f"{model} int8, one pair, median ms\n")
    print(f"{'tokens':>8}{'one core':>12}{f'{cores} cores':>12}{'same bits':>12}{'tokens * hidden_size ** 2':>28}")
    for length in LENGTHS:
        ids = np.random.default_rng(length).integers(10, manifest.vocab_size, (1, length))
        types = np.zeros_like(ids)
        backend.logits(ids, types, spread=True)  # from the second on it is spread
        same = backend.logits(ids, types).tobytes() == backend.logits(ids, types, spread=True).tobytes()
        one, spread = interleaved(
            [
                lambda ids=ids, types=types: backend.logits(ids, types),  # type: ignore[misc]
                lambda ids=ids, types=types: backend.logits(ids, types, spread=True),  # type: ignore[misc]
            ],
            rounds=max(15, 2000 // length),
        )
        work = length * manifest.hidden_size**2
        print(f"{length:8}{one:12.2f}{spread:12.2f}{'yes' if same else 'NO':>12}{work:28,}")


def matrix_rate(rows: int, inner: int, columns: int, *, int8: bool, threads: int) -> float:
    """Billions of operations a second of (rows, inner) @ (inner, columns): 2 * rows * inner * columns / time.

    A product of its own in each thread, as Raskrank runs pairs; the sum of their rates over two seconds.
    """
    dice = np.random.default_rng(0)
    kind, operator = (TensorProto.UINT8, "MatMulInteger") if int8 else (TensorProto.FLOAT, "MatMul")
    weights = dice.integers(-64, 64, (inner, columns)).astype(np.int8 if int8 else np.float32)
    values = dice.integers(0, 255, (rows, inner)).astype(np.uint8 if int8 else np.float32)
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", kind, [rows, inner])],
        [helper.make_tensor_value_info("y", TensorProto.INT32 if int8 else TensorProto.FLOAT, [rows, columns])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def rate(_: int) -> float:
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < 2:
            session.run(None, {"x": values})
            count += 1
        return 2e-9 * rows * inner * columns * count / (time.perf_counter() - start)

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(rate, range(threads)))


def compare_peaks() -> None:
    print("\nmatrix products through onnxruntime, billions of operations a second\n")
    print(f"{'shape':>20}{'fp32, 1 thread':>18}{'all cores':>12}{'int8, 1 thread':>18}{'all cores':>12}")
    for shape in ((128, 384, 1536), (128, 768, 3072)):
        rates = [
            matrix_rate(*shape, int8=int8, threads=threads) for int8 in (False, True) for threads in (1, cpu.usable_cpus())
        ]
        print(f"{'x'.join(map(str, shape)):>20}{rates[0]:18.0f}{rates[1]:12.0f}{rates[2]:18.0f}{rates[3]:12.0f}")


def compare_weight_bits() -> None:
    loose = Thresholds(min_tau=-1, min_top1=0, max_drift=1, max_mean_drift=1)
    print("\nnano, weights of the products, against PyTorch on the exporter's samples\n")
    print(f"{'bits':>8}{'tau':>10}{'top-1':>10}{'max drift':>12}{'mean drift':>12}{'max logit':>12}{'mean logit':>12}")
    original = quantize.WEIGHT_MAX
    for bits, limit in ((7, 64), (8, 127)):
        quantize.WEIGHT_MAX = limit
        with tempfile.TemporaryDirectory() as folder:
            parity = export(str(checkpoint("nano")), Path(folder) / "bundle", thresholds=loose).parity
        print(
            f"{bits:8}{parity.tau:10.4f}{parity.top1:10.4f}{parity.max_drift:12.4f}{parity.mean_drift:12.4f}"
            f"{parity.max_logit_difference:12.3f}{parity.mean_logit_difference:12.3f}"
        )
    quantize.WEIGHT_MAX = original


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help=f"one of {', '.join(MODELS)}, or a checkpoint folder")
    arguments = parser.parse_args()
    print(f"{cpu.model_name()}, {cpu.usable_cpus()} cores, {', '.join(cpu.instruction_sets())}")
    print(f"{Reranker.load().info().versions}\n")
    for model in (arguments.model, "nano"):
        compare_runs(model)
        print()
    compare_weight_bits()
    compare_peaks()


if __name__ == "__main__":
    main()
