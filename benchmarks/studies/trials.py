"""Settings of a session and rewrites of the graph that were tried beside what ships: time to load, time of a run, memory.

    python -m benchmarks.studies.trials [--model minilm]

One thread. Runs take turns; memory is that of a fresh process after runs of all LENGTHS. "difference" is the largest to the
logits of what ships, over pairs of random tokens.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from benchmarks.harness.models import HELP, bundle, manifest
from benchmarks.studies import scale
from raskrank import Reranker, cpu
from raskrank.backend import INPUT_IDS
from raskrank.manifest import MODEL, WEIGHTS
from raskrank.measure.timing import interleaved
from raskrank.onnx_backend import make_session, session_options

LENGTHS = (16, 32, 128, 256, 512)
LOADS = 7
ROUNDS = 200
SECONDS = 2.0  # for each variant and length, as many rounds as fit
PAIRS = 8  # for the difference


@dataclass(frozen=True, kw_only=True)
class Variant:
    """folder: with a graph and its weights. entries: of the session's configuration, beside the engine's."""

    name: str
    folder: Path
    entries: dict[str, str] = field(default_factory=dict)
    arena: bool = True
    pattern: bool = False
    optimize: bool = True


def session(variant: Variant, save_to: Path | None = None) -> Any:
    """As the engine makes it, but for what the variant changes. save_to: also write the optimized graph."""
    options = session_options(variant.folder, threads=1)
    options.enable_mem_pattern = variant.pattern
    options.enable_cpu_mem_arena = variant.arena
    if not variant.optimize:
        options.graph_optimization_level = type(options.graph_optimization_level).ORT_DISABLE_ALL
    for name, value in variant.entries.items():
        options.add_session_config_entry(name, value)
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
    return make_session((variant.folder / MODEL).read_bytes(), options)


def variants(model: str, work: Path) -> Iterator[tuple[str, Callable[[], Variant]]]:
    """Names, and what makes each; what ships first."""
    ships = Variant(name="as shipped", folder=_folder(work / "ships", bundle(model, "int8")))
    packed = {"session.save_external_prepacked_constant_initializers": "1"}
    for variant in (
        ships,
        replace(ships, name="no memory arena", arena=False),
        replace(ships, name="memory pattern", pattern=True),
        replace(ships, name="no prepacking", entries={"session.disable_prepacking": "1"}),
    ):
        yield variant.name, partial(replace, variant)
    for name, entries in (("optimized graph", {}), ("optimized graph, prepacked", packed)):
        yield name, partial(_optimized, ships, name, work / name, entries)
    for name, rewrite in (
        ("tanh Gelu", _tanh_gelu),
        ("standard Attention operator", _standard_attention),
        ("attention of MatMul and Softmax", _unfused_attention),
    ):
        yield name, partial(_rewritten, ships, name, work / name, rewrite)


def _folder(target: Path, source: Path) -> Path:
    """A copy of the two model files: onnxruntime refuses weights outside a graph's folder."""
    target.mkdir()
    for name in (MODEL, WEIGHTS):
        shutil.copyfile(source / name, target / name)
    return target


def _optimized(ships: Variant, name: str, target: Path, entries: dict[str, str]) -> Variant:
    """The graph as onnxruntime optimizes it for this CPU, saved; loading it optimizes nothing."""
    target.mkdir()
    saving = {"session.optimized_model_external_initializers_file_name": WEIGHTS, **entries}
    saving["session.optimized_model_external_initializers_min_size_in_bytes"] = "1024"
    session(replace(ships, entries=saving), target / MODEL)
    return Variant(name=name, folder=target, optimize=False)


def _rewritten(ships: Variant, name: str, target: Path, rewrite: Callable[[onnx.ModelProto], None]) -> Variant:
    model = onnx.load(str(_folder(target, ships.folder) / MODEL), load_external_data=False)
    rewrite(model)
    (target / MODEL).write_bytes(model.SerializeToString())
    return Variant(name=name, folder=target)


def _tanh_gelu(model: onnx.ModelProto) -> None:
    for node in _nodes(model, "Gelu"):
        node.op_type, node.domain = "FastGelu", "com.microsoft"


def _standard_attention(model: onnx.ModelProto) -> None:
    """The operator of opset 23."""
    for node in _nodes(model, "MultiHeadAttention"):
        heads = _heads(node)
        inputs, outputs = list(node.input[:3]), list(node.output)
        node.CopyFrom(helper.make_node("Attention", inputs, outputs, q_num_heads=heads, kv_num_heads=heads))
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = 23


def _unfused_attention(model: onnx.ModelProto) -> None:
    width = _width(model)
    graph = model.graph
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes += _products(node) if node.op_type == "MultiHeadAttention" else [node]
    heads = _heads(_nodes(model, "MultiHeadAttention")[0])
    scale = (width // heads) ** -0.5
    graph.initializer.append(numpy_helper.from_array(np.array([0, 0, heads, width // heads], np.int64), "trial_heads"))
    graph.initializer.append(numpy_helper.from_array(np.array([0, 0, width], np.int64), "trial_width"))
    graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), "trial_scale"))
    del graph.node[:]
    graph.node.extend(nodes)


def _products(node: NodeProto) -> list[NodeProto]:
    """Attention over (B, L, H) inputs, head by head."""
    out = node.output[0]
    made = []
    for name, source, order in zip("qkv", node.input[:3], ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)), strict=True):
        made.append(helper.make_node("Reshape", [source, "trial_heads"], [f"{out}_{name}_split"]))
        made.append(helper.make_node("Transpose", [f"{out}_{name}_split"], [f"{out}_{name}"], perm=order))
    return [
        *made,
        helper.make_node("MatMul", [f"{out}_q", f"{out}_k"], [f"{out}_raw"]),  # (B, heads, L, L)
        helper.make_node("Mul", [f"{out}_raw", "trial_scale"], [f"{out}_scaled"]),
        helper.make_node("Softmax", [f"{out}_scaled"], [f"{out}_weights"], axis=-1),
        helper.make_node("MatMul", [f"{out}_weights", f"{out}_v"], [f"{out}_mixed"]),
        helper.make_node("Transpose", [f"{out}_mixed"], [f"{out}_rows"], perm=(0, 2, 1, 3)),
        helper.make_node("Reshape", [f"{out}_rows", "trial_width"], [out]),
    ]


def _width(model: onnx.ModelProto) -> int:
    """The hidden size, from the scale of the first LayerNormalization."""
    scale = _nodes(model, "LayerNormalization")[0].input[1]
    return int(next(tensor for tensor in model.graph.initializer if tensor.name == scale).dims[0])


def _heads(node: NodeProto) -> int:
    return next(int(attribute.i) for attribute in node.attribute if attribute.name == "num_heads")


def _nodes(model: onnx.ModelProto, operator: str) -> list[NodeProto]:
    found = [node for node in model.graph.node if node.op_type == operator]
    if not found:
        raise ValueError(f"the bundle's graph has no {operator}")
    return found


def feeds(length: int, inputs: tuple[str, ...], pairs: int = 1) -> dict[str, np.ndarray[Any, Any]]:
    ids = np.random.default_rng(length).integers(1000, 4000, (pairs, length))
    return {name: ids if name == INPUT_IDS else np.zeros_like(ids) for name in inputs}


def resident(variant: Variant, inputs: tuple[str, ...]) -> int:
    """Bytes that making the session and running it add to the process that calls this, so that it has to be a fresh one."""
    before, candidate = scale.resident(), session(variant)
    for length in LENGTHS:
        candidate.run(None, feeds(length, inputs))
    return scale.resident() - before


def report(tried: Sequence[Variant], inputs: tuple[str, ...]) -> None:
    sessions = {variant.name: session(variant) for variant in tried}
    runs = {
        length: interleaved(
            {name: partial(candidate.run, None, feeds(length, inputs)) for name, candidate in sessions.items()},
            rounds=ROUNDS,
            budget_s=SECONDS * len(tried),
        )
        for length in LENGTHS
    }
    logits = {name: candidate.run(None, feeds(64, inputs, PAIRS))[0] for name, candidate in sessions.items()}
    sessions.clear()
    loads = interleaved({variant.name: partial(session, variant) for variant in tried}, rounds=LOADS)
    print(f"{'':<36}{'load ms':>8}", *(f"{length:>8}" for length in LENGTHS), f"{'MB':>7}{'difference':>12}")
    for variant in tried:
        times = " ".join(f"{1e3 * runs[length][variant.name].median:8.2f}" for length in LENGTHS)
        difference = float(np.abs(logits[variant.name] - logits[tried[0].name]).max())
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            memory = pool.submit(resident, variant, inputs).result()
        load = 1e3 * loads[variant.name].median
        print(f"{variant.name:<36}{load:8.1f} {times} {memory / 1e6:7.0f}{difference:12.2g}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help=HELP)
    model = parser.parse_args().model
    versions = Reranker.load(backend="onnx").info().versions
    print(f"{model} int8; {cpu.model_name()}, {', '.join(cpu.instruction_sets())}; {versions}\n")
    with tempfile.TemporaryDirectory() as work:
        tried, refused = [], []
        for name, make in variants(model, Path(work)):
            try:
                tried.append(variant := make())
                session(variant)
            except Exception as error:  # noqa: BLE001  whatever onnxruntime says of it is its result
                tried = [entry for entry in tried if entry.name != name]
                refused.append(f"{name}: {' '.join(str(error).split())[:200]}")
        report(tried, manifest(bundle(model, "int8")).inputs)
        print(*refused, sep="\n")


if __name__ == "__main__":
    main()
