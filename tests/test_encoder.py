"""Which graphs our own kernels know, what they are told of them, and the layout that they read."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from builders import Family, native_checkpoint, tiny_checkpoint
from conftest import LOOSE, Tiny
from exporting import loose_export
from raskrank import Reranker
from raskrank.bundle import read_manifest
from raskrank.contents import Contents
from raskrank.errors import InputError
from raskrank.external import external_tensors
from raskrank.manifest import MODEL, WEIGHTS, Encoder, HeadActivation
from raskrank.weights import weight_tensors
from raskrank_export import export
from raskrank_export.encoder import Parts, find_encoder
from raskrank_export.passes.edit import GraphEditor
from raskrank_export.spelling import spelled

FAMILIES: tuple[Family, ...] = ("bert", "xlm-roberta", "roberta", "electra", "distilbert")
TYPES: dict[Family, int] = {"bert": 2, "electra": 2, "distilbert": 0}  # of the others 1
HEADS: dict[Family, HeadActivation] = {"electra": "gelu", "distilbert": "relu"}  # of the others tanh


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Callable[..., onnx.ModelProto]:
    """The fp32 graph of a tiny checkpoint that the kernels know, but for the changes given; read anew for each test."""
    root, made = tmp_path_factory.mktemp("encoders"), dict[str, Path]()

    def read(family: Family = "bert", **changes: Any) -> onnx.ModelProto:
        key = f"{family} {sorted(changes.items())}"
        if key not in made:
            checkpoint = tiny_checkpoint(root / f"{len(made)}", family, **{"hidden": 64, "intermediate": 128} | changes)
            made[key] = root / f"{len(made)}-fp32"
            export(str(checkpoint), made[key], precision="fp32", samples=tiny.samples, thresholds=LOOSE)
        return onnx.load(str(made[key] / MODEL))

    return read


# What is known


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_is_known(fp32: Callable[..., onnx.ModelProto], family: Family) -> None:
    parts = find_encoder(fp32(family))
    assert isinstance(parts, Parts), parts
    found, counted = parts.encoder, "roberta" in family
    assert (found.layers, found.intermediate, found.types) == (2, 128, TYPES.get(family, 1))
    assert (found.position_offset, found.skipped_id) == ((2, 1) if counted else (0, None))
    assert found.head_activation == HEADS.get(family, "tanh")
    assert found.positions == 128 + found.position_offset
    assert sorted(parts.products.values()) == [
        *("encoder/0/down", "encoder/0/output", "encoder/0/qkv", "encoder/0/up"),
        *("encoder/1/down", "encoder/1/kv", "encoder/1/output", "encoder/1/q", "encoder/1/up"),
    ]
    tables = ["encoder/positions", *(["encoder/types"] if found.types else []), "encoder/words"]
    assert sorted(parts.tables.values()) == tables
    assert len(parts.tensors) == len(set(parts.tensors.values())) == 2 * 5 + 4


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden": 32}, "its hidden size, 32, is no multiple of 64"),
        ({"intermediate": 96}, "its intermediate size, 96, is no multiple of 64"),
        ({"heads": 8}, "its heads are 8 wide, no multiple of 16"),
    ],
)
def test_a_size_that_is_not_known(fp32: Callable[..., onnx.ModelProto], changes: dict[str, int], reason: str) -> None:
    assert find_encoder(fp32(**changes)) == reason


def relu_for_gelu(graph: GraphEditor) -> None:
    node = graph.nodes("Gelu")[0]
    node.op_type, node.domain = "Relu", ""


def another_token(graph: GraphEditor) -> None:
    gather = next(
        node for node in graph.nodes("Gather") if node.input[0] not in graph.initializers and "Shape" not in node.input[0]
    )
    gather.input[1] = graph.add_initializer("two", np.array(2, np.int64))


def another_epsilon(graph: GraphEditor) -> None:
    graph.nodes("LayerNormalization")[2].attribute.append(onnx.helper.make_attribute("stash_type", 2))


def scaled_attention(graph: GraphEditor) -> None:
    graph.nodes("MultiHeadAttention")[0].attribute.append(onnx.helper.make_attribute("scale", 0.5))


def another_residual(graph: GraphEditor) -> None:
    first, _, second, *_ = graph.nodes("LayerNormalization")
    graph.producers[second.input[0]].input[1] = first.output[0]


def shifted_positions(graph: GraphEditor) -> None:
    gather = next(node for node in graph.nodes("Gather") if "position" in node.input[0])
    graph.append("Abs", [gather.input[1]], ["shifted"])
    gather.input[1] = "shifted"


def words_twice(graph: GraphEditor) -> None:
    typed = next(node for node in graph.nodes("Gather") if "token_type" in node.input[0])
    typed.input[1] = "input_ids"


def sigmoid_head(graph: GraphEditor) -> None:
    graph.nodes("Tanh")[0].op_type = "Sigmoid"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (relu_for_gelu, "it has Relu where they have Gelu"),
        (another_token, "its head reads another token than the first"),
        (another_epsilon, "its LayerNormalization is used otherwise"),
        (scaled_attention, "its MultiHeadAttention is used otherwise"),
        (another_residual, "used otherwise than they know"),
        (shifted_positions, "its positions are found otherwise"),
        (sigmoid_head, "its head has Sigmoid where they have Tanh, Gelu or Relu"),
        (words_twice, "its Add is used otherwise"),
    ],
)
def test_whatever_is_otherwise_is_not_known(
    fp32: Callable[..., onnx.ModelProto], change: Callable[[GraphEditor], None], reason: str
) -> None:
    model = fp32("bert")
    change(GraphEditor(model))
    found = find_encoder(model)
    assert isinstance(found, str)
    assert reason in found


def test_sub_graphs_are_spelled() -> None:
    nodes = [
        onnx.helper.make_node("Shape", ["x"], ["s"]),
        onnx.helper.make_node("Gather", ["s", "i"], ["l"], axis=0),
        onnx.helper.make_node("Concat", ["l", "many", "none", "other"], ["y"], axis=0),
    ]
    tensors: dict[str, npt.NDArray[Any]] = {
        "i": np.array([1]),
        "many": np.arange(9),
        "none": np.zeros(9, np.int64),
        "other": np.arange(9) * 2,
    }
    graph = onnx.helper.make_graph(
        nodes, "g", [], [], [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    )
    text = spelled(GraphEditor(onnx.helper.make_model(graph)), "y")
    assert text == "Concat(Gather(Shape(x), [1], axis=0), counting(9), zeros, values, axis=0)"


# What a bundle holds


def tensors_of(folder: Path) -> dict[str, npt.NDArray[Any]]:
    return weight_tensors((folder / MODEL).read_bytes(), folder, Contents(folder / WEIGHTS))


@pytest.fixture(scope="module", params=["bert", "roberta", "distilbert"])  # with 2, 1 and no types
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> tuple[Path, Encoder]:
    root = tmp_path_factory.mktemp("bundle")
    checkpoint = native_checkpoint(root / "checkpoint", request.param)
    folder = Path(loose_export(tiny, root / "bundle", checkpoint=checkpoint).output)
    encoder = read_manifest(folder)[0].encoder
    assert encoder is not None
    return folder, encoder


def test_all_that_the_kernels_read_lies_in_the_file_at_multiples_of_64(bundle: tuple[Path, Encoder]) -> None:
    folder, encoder = bundle
    graph = onnx.load(str(folder / MODEL), load_external_data=False).graph
    names = {tensor.name for tensor in graph.initializer if tensor.name.startswith("encoder/")}
    found = {tensor.name: tensor for tensor in external_tensors((folder / MODEL).read_bytes())}
    assert names == {name for name in found if name.startswith("encoder/")}
    assert all(found[name].offset % 64 == 0 for name in names)
    shapes = {name: (found[name].dtype, found[name].shape) for name in names}
    vocabulary = read_manifest(folder)[0].vocab_size
    tables = {"words": vocabulary, "positions": encoder.positions} | ({"types": encoder.types} if encoder.types else {})
    for table, rows in tables.items():
        assert shapes.pop(f"encoder/{table}/int8") == ("int8", (rows, 1, 64))
        assert shapes.pop(f"encoder/{table}/scale") == ("float32", (rows, 1, 1))
    widths = {"output": (64, 64), "up": (64, 128), "down": (128, 64)}
    for layer, projections in ((0, {"qkv": (64, 192)}), (1, {"q": (64, 64), "kv": (64, 128)})):
        for role, (inner, columns) in (widths | projections).items():
            stem = f"encoder/{layer}/{role}"
            assert shapes.pop(f"{stem}/weight") == ("uint8", (columns // 16, inner // 4, 16, 4))
            assert shapes.pop(f"{stem}/scale") == ("float32", (inner // 64, columns))
            assert shapes.pop(f"{stem}/bias") == ("float32", (columns,))
    norms = ["encoder/norm", *(f"encoder/{layer}/norm{number}" for layer in (0, 1) for number in (1, 2))]
    for name in (f"{norm}/{part}" for norm in norms for part in ("gamma", "beta")):
        assert shapes.pop(name) == ("float32", (64,))
    assert shapes.pop("encoder/head/weight") == ("float32", (64, 64))
    assert shapes.pop("encoder/logit/weight") == ("float32", (1, 64))
    assert (shapes.pop("encoder/head/bias"), shapes.pop("encoder/logit/bias")) == (("float32", (64,)), ("float32", (1,)))
    assert shapes == {}


def test_the_packed_weights_are_those_of_the_checkpoint(bundle: tuple[Path, Encoder]) -> None:
    from safetensors.numpy import load_file

    folder, _ = bundle
    tensors = tensors_of(folder)
    weights = load_file(folder.parent / "checkpoint" / "model.safetensors")
    first = next(name for name in weights if re.search(r"layer\.0\.attention\.(self\.query|q_lin)\.weight", name))
    stem, parts = first.removesuffix("query.weight"), ("query", "key", "value")
    if first.endswith("q_lin.weight"):  # DistilBERT's
        stem, parts = first.removesuffix("q_lin.weight"), ("q_lin", "k_lin", "v_lin")
    expected = np.concatenate([weights[f"{stem}{part}.weight"] for part in parts]).T  # (K, 3H)
    packed, scale = tensors["encoder/0/qkv/weight"], tensors["encoder/0/qkv/scale"]
    inner, columns = expected.shape
    for k in range(0, inner, 7):
        for n in range(0, columns, 5):
            value = (int(packed[n // 16, k // 4, n % 16, k % 4]) - 128) * scale[k // 64, n]
            assert abs(value - expected[k, n]) <= 0.55 * scale[k // 64, n] + 0.05 * abs(expected[k, n])
    bias = np.concatenate([weights[f"{stem}{part}.bias"] for part in parts])
    np.testing.assert_array_equal(tensors["encoder/0/qkv/bias"], bias)


# What is asked for, and what is said


def test_a_graph_that_is_not_known_is_int8_by_rows_and_the_report_says_why(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", hidden=32, intermediate=64)
    report = loose_export(tiny, tmp_path / "bundle", checkpoint=checkpoint)
    assert (report.manifest.recipe.scheme, report.manifest.encoder) == ("row", None)
    assert report.onnxruntime_alone == "its hidden size, 32, is no multiple of 64"
    assert report.onnxruntime_alone in " ".join(str(report).split())
    assert json.loads(json.dumps(report.to_dict()))["onnxruntime_alone"] == report.onnxruntime_alone


def test_groups_can_be_asked_for_where_the_graph_is_not_known(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", hidden=32, intermediate=96)
    report = loose_export(tiny, tmp_path / "bundle", checkpoint=checkpoint, scheme="group")
    assert (report.manifest.recipe.scheme, report.manifest.encoder) == ("group", None)
    with Reranker.load(report.output) as reranker:
        assert reranker.info().backend == "onnx"


def test_rows_can_be_asked_for_where_it_is(tiny: Tiny, tmp_path: Path) -> None:
    checkpoint = native_checkpoint(tmp_path / "checkpoint")
    report = loose_export(tiny, tmp_path / "bundle", checkpoint=checkpoint, scheme="row")
    assert (report.manifest.recipe.scheme, report.manifest.encoder) == ("row", None)
    assert report.onnxruntime_alone == "it was made as row, which they do not run"


def test_groups_have_no_target(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raskrank.cpu.suits", lambda *_: True)
    with pytest.raises(InputError, match="scheme 'group' is right and the same on every CPU"):
        export(tiny.checkpoint(), tmp_path / "bundle", samples=tiny.samples, scheme="group", target="vnni")
