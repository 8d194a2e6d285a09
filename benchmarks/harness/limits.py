"""What this machine could do at best: matrix peaks through onnxruntime, and the time that a model's operations take at them."""

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness.results import undisturbed

SHAPES = ((128, 384, 1536), (128, 768, 3072), (512, 1024, 4096))  # rows, inner, columns: the models' own, and a large one
SECONDS = 1.0  # of each measurement


@dataclass(frozen=True)
class Dimensions:
    """What a BERT-like encoder's products depend on."""

    layers: int
    hidden: int
    intermediate: int

    @classmethod
    def read(cls, checkpoint: Path) -> "Dimensions":
        config = json.loads((checkpoint / "config.json").read_text("utf-8"))
        return cls(config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"])


@dataclass(frozen=True)
class Peaks:
    """Billions of operations a second, of all threads together."""

    int8: float
    fp32: float


def product_operations(dimensions: Dimensions, length: int) -> int:
    """Operations of the products with weights for one pair of `length` tokens (L); a multiplication and an addition are two.

    A layer has four H x H products (query, key, value, output) and two H x I ones: 2 L (4 H H + 2 H I). The score is read
    from the first token, so the last layer needs key and value for all tokens, the rest for one: 2 L (2 H H) + 2 (2 H H +
    2 H I). The head, two products on one row, is left out.
    """
    square, wide = dimensions.hidden**2, dimensions.hidden * dimensions.intermediate
    full = 2 * length * (4 * square + 2 * wide)
    last = 2 * length * 2 * square + 2 * (2 * square + 2 * wide)
    return (dimensions.layers - 1) * full + last


def attention_operations(dimensions: Dimensions, length: int) -> int:
    """Operations of attention for one pair: two products of L x L x H a layer; the last layer has one query row."""
    return 4 * length * dimensions.hidden * ((dimensions.layers - 1) * length + 1)


def limit_seconds(dimensions: Dimensions, lengths: Sequence[int], peaks: Peaks) -> float:
    """The time that no engine with int8 products and fp32 attention can beat for these pairs, without any padding:

    limit = int8 product operations / int8 peak + fp32 attention operations / fp32 peak

    The share of the limit that a contender reaches is this over its time, which has to be an `undisturbed` one, as the peaks
    are. Everything else (quantizing, GELU, layer norms, softmax, embeddings, tokenizing) is taken to cost nothing.
    """
    products = sum(product_operations(dimensions, length) for length in lengths)
    attention = sum(attention_operations(dimensions, length) for length in lengths)
    return products / (peaks.int8 * 1e9) + attention / (peaks.fp32 * 1e9)


def measure_peaks(threads: int) -> Peaks:
    """The best of SHAPES, with a product of its own in each thread, as Raskrank runs pairs."""
    int8, fp32 = (max(matrix_rate(*shape, int8=int8, threads=threads) for shape in SHAPES) for int8 in (True, False))
    return Peaks(int8=int8, fp32=fp32)


def matrix_rate(rows: int, inner: int, columns: int, *, int8: bool, threads: int) -> float:
    """Billions of operations a second of (rows, inner) @ (inner, columns): 2 * rows * inner * columns / time.

    time: of the slowest call among each thread's fastest tenth, while all threads run; the threads' rates are summed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # heeded at the first import alone
    import onnxruntime

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
        times: list[float] = []
        end = time.perf_counter() + SECONDS
        while (start := time.perf_counter()) < end:
            session.run(None, {"x": values})
            times.append(time.perf_counter() - start)
        return 2e-9 * rows * inner * columns / undisturbed(times)

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(rate, range(threads)))
