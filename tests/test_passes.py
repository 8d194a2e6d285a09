"""Each graph pass alone and all together, on graphs that optimum and onnxruntime really made."""

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from builders import PAIRS, Family, tiny_checkpoint
from raskrank.backend import Float32Array, Int64Array
from raskrank.checkpoint import Checkpoint, read_checkpoint
from raskrank.errors import ExportError
from raskrank.torch_backend import load_model
from raskrank_export import graph, tracing
from raskrank_export.passes import PASSES
from raskrank_export.passes.drop_mask import drop_mask
from raskrank_export.passes.edit import GraphEditor
from raskrank_export.passes.hoist_first_token import hoist_first_token
from raskrank_export.passes.merge_projections import merge_projections

FAMILIES: tuple[Family, ...] = ("bert", "xlm-roberta", "roberta")
LAYERS = (1, 2, 3)
PASS_NAMES = {transform.__name__: transform for transform in PASSES}
# The same sums in another order: logits of about 2 move by some 1e-6 through three layers.
EXACT = 1e-5
HIDDEN = 32


class Graphs:
    """The plain and the fused graph of a tiny checkpoint; each is made when first asked for, and handed out as a copy."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def plain(self, family: Family, layers: int) -> onnx.ModelProto:
        return copy_of(self._made(family, layers)[1])

    def fused(self, family: Family, layers: int) -> onnx.ModelProto:
        return copy_of(self._made(family, layers)[2])

    def checkpoint(self, family: Family, layers: int) -> Checkpoint:
        return self._made(family, layers)[0]

    def plain_file(self, family: Family, layers: int) -> Path:
        self._made(family, layers)
        return self.root / f"{family}-{layers}" / "onnx" / "model.onnx"

    @functools.cache  # noqa: B019  one instance a session
    def _made(self, family: Family, layers: int) -> tuple[Checkpoint, onnx.ModelProto, onnx.ModelProto]:
        folder = tiny_checkpoint(self.root / f"{family}-{layers}", family, layers=layers)
        checkpoint = read_checkpoint(folder)
        file = tracing.export_model(load_model(checkpoint), folder / "onnx")
        return checkpoint, onnx.load(str(file)), graph._fuse(file, checkpoint)

    @functools.cache  # noqa: B019
    def encoded(self, family: Family) -> list[tuple[Int64Array, Int64Array]]:
        """(input_ids, token_type_ids), each (1, L), of pairs of many lengths, and one batch of three of equal length."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.checkpoint(family, 1).folder / "tokenizer.json"))
        encodings = [tokenizer.encode(*pair) for pair in (("", ""), *PAIRS)]
        encodings = [encoding for encoding in encodings if len(encoding.ids) <= 128]
        assert len({len(encoding.ids) for encoding in encodings}) >= 8
        runs = [(np.array([e.ids], np.int64), np.array([e.type_ids], np.int64)) for e in encodings]
        ids, types = runs[-1]
        batch = np.concatenate([ids, ids[:, [0, *range(ids.shape[1] - 2, 0, -1), -1]], np.roll(ids, 3, axis=1)])
        return [*runs, (batch, np.repeat(types, 3, axis=0))]


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    return Graphs(tmp_path_factory.mktemp("graphs"))


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    return other


def run(model: onnx.ModelProto, encoded: list[tuple[Int64Array, Int64Array]]) -> Float32Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    logits = []
    for ids, types in encoded:
        feeds = {"input_ids": ids, "token_type_ids": types, "attention_mask": np.ones_like(ids)}
        logits.append(session.run(["logits"], {name: feeds[name] for name in names})[0].reshape(-1))
    return np.concatenate(logits).astype(np.float32)


def outline(model: onnx.ModelProto) -> tuple[Counter[bytes], set[str], list[str]]:
    """Everything of a graph but the order of its nodes."""
    nodes = Counter(node.SerializeToString(deterministic=True) for node in model.graph.node)
    return nodes, {tensor.name for tensor in model.graph.initializer}, [value.name for value in model.graph.input]


def assert_tidy(model: onnx.ModelProto) -> None:
    """A valid graph in topological order, without a tensor or node that nothing reads."""
    # Kernels of com.microsoft are not known to the checker; it still checks names, order and types of all others.
    onnx.checker.check_model(model)
    read = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    assert [tensor.name for tensor in model.graph.initializer if tensor.name not in read] == []
    assert [node.name for node in model.graph.node if not read & set(node.output)] == []
    assert [value.name for value in model.graph.input if value.name not in read] == []


# Exact, on every family and depth


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_pass_is_exact_and_counts_layers(graphs: Graphs, family: Family, layers: int) -> None:
    encoded = graphs.encoded(family)
    before = run(graphs.fused(family, layers), encoded)
    assert np.ptp(before) > 1  # a graph that says the same of everything would pass any comparison
    for transform, expected in ((drop_mask, layers), (hoist_first_token, 1), (merge_projections, layers)):
        model = graphs.fused(family, layers)
        assert transform(model) == expected
        assert_tidy(model)
        np.testing.assert_allclose(run(model, encoded), before, rtol=0, atol=EXACT, err_msg=transform.__name__)


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_all_passes_in_order(graphs: Graphs, family: Family, layers: int) -> None:
    assert [transform.__name__ for transform in PASSES] == ["drop_mask", "hoist_first_token", "merge_projections"]
    encoded = graphs.encoded(family)
    model = graphs.fused(family, layers)
    assert [transform(model) for transform in PASSES] == [layers, 1, layers]
    assert_tidy(model)
    np.testing.assert_allclose(run(model, encoded), run(graphs.plain(family, layers), encoded), rtol=0, atol=EXACT)


@pytest.mark.parametrize("name", PASS_NAMES)
def test_a_second_time_changes_no_score(graphs: Graphs, name: str) -> None:
    model, encoded = graphs.fused("bert", 2), graphs.encoded("bert")
    first, once = PASS_NAMES[name](model), run(model, encoded)
    second = PASS_NAMES[name](model)
    assert second == (first if name == "hoist_first_token" else 0)
    assert_tidy(model)
    np.testing.assert_array_equal(run(model, encoded), once)


# What each pass is for


def test_drop_mask_takes_the_input_away(graphs: Graphs) -> None:
    model = graphs.fused("bert", 2)
    assert "attention_mask" in {value.name for value in model.graph.input}
    drop_mask(model)
    assert [value.name for value in model.graph.input] == ["input_ids", "token_type_ids"]
    for node in GraphEditor(model).nodes("MultiHeadAttention"):
        assert len(node.input) == 4  # query, key, value, bias


def test_drop_mask_keeps_an_input_that_something_else_reads(graphs: Graphs) -> None:
    model = graphs.fused("bert", 2)
    model.graph.node.append(helper.make_node("Cast", ["attention_mask"], ["seen"], to=TensorProto.FLOAT))
    model.graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, None))
    assert drop_mask(model) == 2
    assert "attention_mask" in {value.name for value in model.graph.input}


@pytest.mark.parametrize("layers", LAYERS)
def test_hoist_leaves_the_last_layer_one_row(graphs: Graphs, layers: int) -> None:
    model = graphs.fused("xlm-roberta", layers)
    hoist_first_token(model)
    rows = traced_rows(model, graphs.encoded("xlm-roberta")[3][0])
    gelus = [rows[node.output[0]] for node in model.graph.node if node.op_type == "Gelu"]
    attentions = [rows[node.output[0]] for node in model.graph.node if node.op_type == "MultiHeadAttention"]
    length = graphs.encoded("xlm-roberta")[3][0].shape[1]
    assert length > 1
    assert gelus == attentions == [length] * (layers - 1) + [1]


def traced_rows(model: onnx.ModelProto, ids: Int64Array) -> dict[str, int]:
    """For each tensor of three dimensions that a node makes: how many rows it has for these ids."""
    traced = copy_of(model)
    kinds = {"Gelu", "MultiHeadAttention"}
    names = [node.output[0] for node in traced.graph.node if node.op_type in kinds]
    traced.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(traced.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {item.name: ids if item.name == "input_ids" else np.ones_like(ids) for item in session.get_inputs()}
    return {name: value.shape[1] for name, value in zip(names, session.run(names, feeds), strict=True)}


def test_merge_makes_one_product_a_layer(graphs: Graphs) -> None:
    model = graphs.fused("roberta", 3)
    before = len(GraphEditor(model).nodes("MatMul"))
    merge_projections(model)
    editor = GraphEditor(model)
    assert len(editor.nodes("MatMul")) == before - 2 * 3
    for node in editor.nodes("MultiHeadAttention"):
        producers = [editor.producer(name, "Split") for name in node.input[:3]]
        assert producers[0] is not None
        assert all(producer is producers[0] for producer in producers)
        width = editor.constant(editor.producers[producers[0].input[0]].input[1]).shape[0]
        assert width == 3 * HIDDEN


def test_merge_after_the_hoist_joins_key_and_value_alone(graphs: Graphs) -> None:
    model = graphs.fused("bert", 2)
    hoist_first_token(model)
    merge_projections(model)
    editor = GraphEditor(model)
    kinds = [[editor.producers[name].op_type for name in node.input[:3]] for node in editor.nodes("MultiHeadAttention")]
    assert sorted(kinds) == [["Add", "Split", "Split"], ["Split", "Split", "Split"]]


# What a pass cannot match stays as it is


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PASS_NAMES)
def test_an_unfused_graph_is_left_alone(graphs: Graphs, name: str, family: Family) -> None:
    model = graphs.plain(family, 2)
    assert_unchanged(model, PASS_NAMES[name])


def assert_unchanged(model: onnx.ModelProto, transform: Callable[[onnx.ModelProto], int]) -> None:
    before = outline(model)
    assert transform(model) == 0
    assert outline(model) == before


def selection(model: onnx.ModelProto) -> onnx.NodeProto:
    """The head's choice of the first token."""
    (gather,) = [
        node
        for node in GraphEditor(model).nodes("Gather")
        if any(item.name == "axis" and item.i == 1 for item in node.attribute)
        and not GraphEditor(model).is_constant(node.input[0])
    ]
    return gather


def test_hoist_leaves_another_row_alone(graphs: Graphs) -> None:
    model = graphs.fused("bert", 2)
    selection(model).input[1] = "another"
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "another"))
    drop_mask(model)  # puts the graph in order, so that nothing but the hoist can change it
    assert_unchanged(model, hoist_first_token)


def test_hoist_leaves_a_list_of_rows_alone(graphs: Graphs) -> None:
    model = graphs.fused("bert", 2)
    selection(model).input[1] = "rows"
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "rows"))
    drop_mask(model)
    assert_unchanged(model, hoist_first_token)


def test_hoist_leaves_an_index_that_is_computed_alone(graphs: Graphs) -> None:
    model = graphs.fused("bert", 2)
    selection(model).input[1] = "computed"
    zero = helper.make_tensor("zero", TensorProto.INT64, [1], [0])
    model.graph.initializer.append(zero)
    model.graph.node.insert(0, helper.make_node("ReduceMax", ["zero"], ["computed"], keepdims=0))
    drop_mask(model)
    assert_unchanged(model, hoist_first_token)


def test_hoist_leaves_another_axis_alone(graphs: Graphs) -> None:
    model = graphs.fused("bert", 2)
    (axis,) = [item for item in selection(model).attribute if item.name == "axis"]
    axis.i = 2
    drop_mask(model)
    assert_unchanged(model, hoist_first_token)


def test_hoist_stops_below_what_mixes_rows(graphs: Graphs) -> None:
    # A softmax over the rows, between last layer and head: row 0 of it needs every row, so only the head may be cut.
    model = graphs.fused("bert", 2)
    gather = selection(model)
    model.graph.node.append(helper.make_node("Softmax", [gather.input[0]], ["mixed"], axis=1))
    gather.input[0] = "mixed"
    drop_mask(model)
    assert_unchanged(model, hoist_first_token)


def test_hoist_stops_at_a_normalization_over_rows(graphs: Graphs) -> None:
    model = graphs.fused("bert", 2)
    last = GraphEditor(model).producers[selection(model).input[0]]
    assert last.op_type == "LayerNormalization"
    (axis,) = [item for item in last.attribute if item.name == "axis"]
    axis.i = 1
    drop_mask(model)
    assert_unchanged(model, hoist_first_token)


def test_merge_leaves_projections_of_a_computed_weight_alone(graphs: Graphs) -> None:
    model = graphs.fused("bert", 1)
    editor = GraphEditor(model)
    (attention,) = editor.nodes("MultiHeadAttention")
    product = editor.producers[attention.input[1]]
    model.graph.node.append(helper.make_node("Identity", [product.input[1]], ["computed"]))
    product.input[1] = "computed"
    drop_mask(model)
    assert_unchanged(model, merge_projections)


def test_merge_takes_an_attention_without_bias(graphs: Graphs) -> None:
    model, encoded = graphs.fused("bert", 2), graphs.encoded("bert")
    for node in GraphEditor(model).nodes("MultiHeadAttention"):
        node.input[3] = ""
    drop_mask(model)
    before = run(model, encoded)
    assert merge_projections(model) == 2
    assert_tidy(model)
    np.testing.assert_allclose(run(model, encoded), before, rtol=0, atol=EXACT)


# From file to lean graph


def test_lean_graph_is_fused_and_has_every_pass(graphs: Graphs) -> None:
    model, passes, left, _ = graph.lean_graph(graphs.plain_file("bert", 3), graphs.checkpoint("bert", 3))
    assert left == ()
    assert passes == {"drop_mask": 3, "hoist_first_token": 1, "merge_projections": 3}
    assert_tidy(model)
    assert [(entry.key, entry.value) for entry in model.metadata_props] == [("max_length", "128")]
    kinds = Counter(node.op_type for node in model.graph.node)
    assert (kinds["MultiHeadAttention"], kinds["Gelu"], kinds["LayerNormalization"]) == (3, 3, 7)
    assert {"SkipLayerNormalization", "BiasGelu", "Erf", "Softmax"}.isdisjoint(kinds)


def test_lean_graph_refuses_a_graph_of_other_depth(graphs: Graphs) -> None:
    with pytest.raises(ExportError, match=r"did not fuse every layer.*'MultiHeadAttention': 2.*'MultiHeadAttention': 3"):
        graph.lean_graph(graphs.plain_file("bert", 2), graphs.checkpoint("bert", 3))


def test_an_activation_that_is_not_fused_is_named_and_stays_right(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxruntime.transformers import optimizer

    monkeypatch.setattr(optimizer.MODEL_TYPES["bert"][0], "fuse_gelu", lambda _: None)
    model, _, left, _ = graph.lean_graph(graphs.plain_file("bert", 2), graphs.checkpoint("bert", 2))
    assert left == ("fusion of gelu: several operators in some layers",)
    encoded = graphs.encoded("bert")
    np.testing.assert_allclose(run(model, encoded), run(graphs.fused("bert", 2), encoded), rtol=0, atol=EXACT)


def test_what_a_pass_leaves_is_named_and_stays_right(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    def hoist_first_token(model: onnx.ModelProto) -> int:
        return 0

    def merge_projections(model: onnx.ModelProto) -> int:
        return 0

    whole = graph.lean_graph(graphs.plain_file("bert", 2), graphs.checkpoint("bert", 2))
    assert whole.left == ()
    monkeypatch.setattr(graph, "PASSES", (drop_mask, hoist_first_token, merge_projections))
    lean = graph.lean_graph(graphs.plain_file("bert", 2), graphs.checkpoint("bert", 2))
    attentions = [node.name for node in GraphEditor(lean.model).nodes("MultiHeadAttention")]
    assert len(attentions) == 2
    assert lean.left == (
        *(f"merge_projections: {name}" for name in attentions),
        "hoist_first_token: no choice of the first token above an attention",
    )
    encoded = graphs.encoded("bert")
    np.testing.assert_allclose(run(lean.model, encoded), run(whole.model, encoded), rtol=0, atol=EXACT)
