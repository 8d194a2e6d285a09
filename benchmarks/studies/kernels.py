"""Where the time of one run goes: by operator, and for each matrix product beside the machine's peak.

    python -m benchmarks.studies.kernels [--model minilm] [--tokens 128] [--pairs 1] [--precision int8]

One thread, onnxruntime's own profiler, which adds a little to each node. Times are those of the fastest tenth of the runs, as
the peaks are: the machine is shared.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks.harness import limits
from benchmarks.harness.limits import Dimensions, measure_peaks
from benchmarks.harness.models import HELP, bundle, checkpoint
from benchmarks.harness.results import undisturbed
from raskrank import cpu
from raskrank.backend import INPUT_IDS
from raskrank.bundle import open_bundle
from raskrank.manifest import Precision
from raskrank.measure.timing import interleaved
from raskrank.onnx_backend import make_session, session_options

ROUNDS = 300
SECONDS = 5.0  # for as many of them as fit
OPERATORS = 12  # are printed one by one, the rest in one line
INT8 = {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits"}
PRODUCTS = INT8 | {"MatMul", "FusedMatMul", "Gemm"}


@dataclass(frozen=True)
class Node:
    """A node of the optimized graph. milliseconds: of a run. given, made: the shapes of its first input and of its output."""

    operator: str
    milliseconds: float
    given: tuple[int, ...]
    made: tuple[int, ...]

    @property
    def operations(self) -> int:
        """Of a product with weights, (..., inner) @ (inner, columns): 2 * all elements of the input * columns."""
        return 2 * math.prod(self.given) * self.made[-1]


def profile(model: str, precision: Precision, pairs: int, tokens: int) -> tuple[float, list[Node]]:
    """Milliseconds of an unprofiled run, and the nodes of a profiled one; the two take turns."""
    opened = open_bundle(bundle(model, precision))
    ids = np.random.default_rng(tokens).integers(1000, 4000, (pairs, tokens))
    feeds = {name: ids if name == INPUT_IDS else np.zeros_like(ids) for name in opened.manifest.inputs}
    with tempfile.TemporaryDirectory() as folder:
        plain, profiled = (_session(opened.graph, opened.folder, prefix) for prefix in (None, str(Path(folder) / "run")))
        functions = {"plain": lambda: plain.run(None, feeds), "profiled": lambda: profiled.run(None, feeds)}
        timing = interleaved(functions, rounds=ROUNDS, budget_s=SECONDS)["plain"]
        events = json.loads(Path(profiled.end_profiling()).read_text("utf-8"))
    return 1e3 * undisturbed(timing.seconds), _nodes(events)


def _session(graph: bytes, folder: Path, profile_to: str | None) -> Any:
    options = session_options(folder, threads=1)
    if profile_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_to
    return make_session(graph, options)


def _nodes(events: Iterable[dict[str, Any]]) -> list[Node]:
    """The weights of a product are not among its inputs there, once onnxruntime has packed them."""
    times: dict[str, list[float]] = {}
    about: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            arguments = event["args"]
            given, made = (_shape(arguments[kind]) for kind in ("input_type_shape", "output_type_shape"))
            times.setdefault(event["name"], []).append(event["dur"] / 1e3)  # microseconds
            about[event["name"]] = arguments["op_name"], given, made
    return [Node(about[name][0], undisturbed(found[1:]), about[name][1], about[name][2]) for name, found in times.items()]


def _shape(tensors: list[dict[str, list[int]]]) -> tuple[int, ...]:
    """Of the first one; () where there is none."""
    return tuple(next(iter(tensors[0].values()))) if tensors else ()


def print_operators(nodes: list[Node]) -> None:
    total = sum(node.milliseconds for node in nodes)
    by_operator: dict[str, list[float]] = {}
    for node in nodes:
        by_operator.setdefault(node.operator, []).append(node.milliseconds)
    rows = sorted(by_operator.items(), key=lambda row: -sum(row[1]))
    rest = [time for _, times in rows[OPERATORS:] for time in times]
    print(f"{'operator':<28}{'nodes':>7}{'ms':>9}{'share':>8}")
    for name, times in [*rows[:OPERATORS], *([("others", rest)] if rest else [])]:
        print(f"{name:<28}{len(times):7}{sum(times):9.2f}{sum(times) / total:8.1%}")
    print(f"{'all':<28}{len(nodes):7}{total:9.2f}")


def print_products(nodes: list[Node], peaks: limits.Peaks) -> None:
    groups: dict[tuple[str, str], list[Node]] = {}
    for node in nodes:
        if node.operator in PRODUCTS:
            name = " -> ".join("x".join(map(str, shape)) for shape in (node.given, node.made))
            groups.setdefault((node.operator, name), []).append(node)
    print(f"\n{'product':<54}{'nodes':>7}{'ms':>9}{'Gop/s':>8}{'of peak':>9}")
    for (operator, name), found in sorted(groups.items(), key=lambda row: -sum(node.milliseconds for node in row[1])):
        spent = sum(node.milliseconds for node in found)
        rate = sum(node.operations for node in found) / spent / 1e6
        peak = peaks.int8 if operator in INT8 else peaks.fp32
        print(f"{f'{operator} {name}':<54}{len(found):7}{spent:9.2f}{rate:8.0f}{rate / peak:9.0%}")


def print_limit(model: str, pairs: int, tokens: int, run: float, nodes: list[Node], peaks: limits.Peaks) -> None:
    dimensions = Dimensions.read(checkpoint(model))
    products = pairs * limits.product_operations(dimensions, tokens) / peaks.int8 / 1e6
    attention = pairs * limits.attention_operations(dimensions, tokens) / peaks.fp32 / 1e6
    spent = sum(node.milliseconds for node in nodes if node.operator in INT8)
    attended = sum(node.milliseconds for node in nodes if node.operator == "MultiHeadAttention")
    other = sum(node.milliseconds for node in nodes) - spent - attended
    print(f"\npeaks on one thread: int8 {peaks.int8:.0f}, fp32 {peaks.fp32:.0f} billion operations a second")
    print(f"{'':<28}{'limit ms':>9}{'ms':>9}{'share of limit':>16}")
    for name, limit, time_spent in (("int8 products", products, spent), ("attention", attention, attended)):
        print(f"{name:<28}{limit:9.2f}{time_spent:9.2f}{limit / time_spent if time_spent else 0:16.0%}")
    print(f"{'everything else':<28}{0:9.2f}{other:9.2f}")
    print(f"{'a run, not profiled':<28}{products + attention:9.2f}{run:9.2f}{(products + attention) / run:16.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help=HELP)
    parser.add_argument("--precision", choices=get_args(Precision), default="int8")
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=128)
    arguments = parser.parse_args()
    model, pairs, tokens = arguments.model, arguments.pairs, arguments.tokens
    run, nodes = profile(model, arguments.precision, pairs, tokens)
    peaks = measure_peaks(1)
    print(f"{model} {arguments.precision}, {pairs} x {tokens} tokens, one thread; {cpu.model_name()}, ", end="")
    print(f"{', '.join(cpu.instruction_sets())}\n")
    print_operators(nodes)
    print_products(nodes, peaks)
    if arguments.precision == "int8":
        print_limit(model, pairs, tokens, run, nodes, peaks)


if __name__ == "__main__":
    main()
