"""What the native backend has of its own: when it is taken, what it refuses, and how near it is to onnxruntime."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import bundles
from backends import needs_kernels
from builders import PAIRS, Family
from callers import DOCUMENTS, QUERY
from conftest import Tiny
from raskrank import Incompatible, InferenceError, InputError, RaskrankWarning, Reranker, kernels
from raskrank.backend import Float32Array
from raskrank.bundle import open_bundle, read_manifest
from raskrank.external import external_tensors
from raskrank.kernels import EMULATED, TILED
from raskrank.manifest import WEIGHTS
from raskrank.native_backend import NativeBackend, why_not
from raskrank.network import Network
from raskrank.samples import as_pairs, read_samples
from raskrank.settings import bundle_path

FAMILIES: tuple[Family, ...] = ("bert", "xlm-roberta", "roberta", "electra", "distilbert")
# Of a logit. The kernels round what attention multiplies to bf16; that, and the order of sums, move an integer here and there.
ROUNDING = 0.3


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> str:
    """As in an installation that came without them. Returns the reason."""
    reason = "this installation has none"
    monkeypatch.setattr(kernels, "unavailable", lambda: reason)
    return reason


# Which backend runs


@needs_kernels
def test_a_bundle_runs_in_the_kernels_where_they_can(tiny: Tiny) -> None:
    with Reranker.load(tiny.bundle("bert", "int8")) as reranker:
        info = reranker.info()
        assert repr(reranker) == "<Reranker checkpoint-bert on native>"
    assert (info.backend, info.reason) == ("native", "this bundle and this CPU allow it")
    assert info.kernels == kernels.engines()[0]
    assert "onnxruntime" not in info.versions


def test_without_kernels_it_runs_in_onnxruntime_and_says_why(tiny: Tiny, no_kernels: str) -> None:
    with Reranker.load(tiny.bundle("bert", "int8")) as reranker:
        info = reranker.info()
        assert len(reranker.score(QUERY, DOCUMENTS)) == len(DOCUMENTS)
    assert (info.backend, info.reason, info.kernels) == ("onnx", f"not native: {no_kernels}", no_kernels)
    assert "onnxruntime" in info.versions


@needs_kernels
def test_a_bundle_in_fp32_runs_in_onnxruntime(tiny: Tiny) -> None:
    with Reranker.load(tiny.bundle("bert", "fp32")) as reranker:
        assert reranker.info().backend == "onnx"
        assert reranker.info().reason == "not native: the bundle was made for onnxruntime alone"


@needs_kernels
@pytest.mark.parametrize("backend", ["native", "onnx"])
def test_the_backend_that_is_asked_for_is_taken(tiny: Tiny, backend: Any) -> None:
    with Reranker.load(tiny.bundle("bert", "int8"), backend=backend) as reranker:
        assert (reranker.info().backend, reranker.info().reason) == (backend, f"backend={backend!r} was asked for")


@needs_kernels
def test_a_bundle_that_the_kernels_cannot_run_is_refused_where_they_are_asked_for(tiny: Tiny) -> None:
    with pytest.raises(Incompatible, match="backend='native' was asked for: the bundle was made for onnxruntime alone"):
        Reranker.load(tiny.bundle("bert", "fp32"), backend="native")


def test_a_machine_without_kernels_refuses_where_they_are_asked_for(tiny: Tiny, no_kernels: str) -> None:
    with pytest.raises(Incompatible, match=f"{no_kernels}; backend='onnx' runs it"):
        Reranker.load(tiny.bundle("bert", "int8"), backend="native")
    with (
        pytest.warns(RaskrankWarning, match="PyTorch takes its place"),
        Reranker.load(tiny.bundle("bert", "int8"), backend="native", fallback="torch") as reranker,
    ):
        assert reranker.info().backend == "torch"


def test_another_name_is_refused() -> None:
    with pytest.raises(InputError, match="backend: expected None, 'native', 'onnx' or 'torch', got 'fast'"):
        Reranker.load(backend="fast")  # type: ignore[arg-type]


# What it computes


@needs_kernels
@pytest.mark.parametrize("family", [*FAMILIES, "nano"])
def test_it_differs_from_onnxruntime_by_rounding(tiny: Tiny, family: Any) -> None:
    folder = bundle_path(None) if family == "nano" else tiny.bundle(family, "int8")
    with Reranker.load(folder, backend="native") as native, Reranker.load(folder, backend="onnx") as onnx:
        found, expected = (reranker.score_pairs(PAIRS, raw_scores=True) for reranker in (native, onnx))
    assert np.abs(found - expected).max() < ROUNDING
    assert np.ptp(expected) > 10 * ROUNDING


@needs_kernels
def test_verifying_measures_what_the_export_recorded_of_the_kernels(tiny: Tiny) -> None:
    folder, pairs = tiny.bundle("bert", "int8"), as_pairs(read_samples(tiny.samples))
    recorded = read_manifest(folder)[0].parity
    with Reranker.load(folder, backend="native", checkpoint=tiny.checkpoint("bert")) as reranker:
        found = reranker.verify(pairs).summary()
    assert found["candidate"] == recorded["native"]["candidate"] == "native int8"
    for name in ("tau", "top1", "max_drift", "mean_drift", "max_logit_difference", "mean_logit_difference"):
        assert found[name] == pytest.approx(recorded["native"][name], abs=1e-4), name  # PyTorch pads at the export
    assert recorded["native"]["max_logit_difference"] != recorded["int8"]["max_logit_difference"]


@needs_kernels
@pytest.mark.parametrize("family", [*FAMILIES, "nano"])
def test_instruction_sets_give_the_same_bits_and_those_with_tiles_nearly_so(tiny: Tiny, family: Any) -> None:
    opened = open_bundle(bundle_path(None) if family == "nano" else tiny.bundle(family, "int8"))
    dice, logits = np.random.default_rng(1), dict[str, list[Float32Array]]()
    runs = [dice.integers(5, opened.manifest.vocab_size, shape) for shape in ((1, 3), (5, 17), (1, 126), (3, 64))]
    for engine in {*kernels.engines(), *EMULATED}:
        backend = NativeBackend(Network.of(opened), 2, engine=engine)
        assert backend.engine == engine
        logits[engine] = [backend.logits(ids, np.zeros_like(ids), threads=2) for ids in runs]
        backend.close()
    for engine, found in logits.items():
        same = logits["scalar-tiles" if engine in TILED else "scalar"]
        assert [run.tobytes() for run in found] == [run.tobytes() for run in same], engine
    for plain, tiled in zip(logits["scalar"], logits["scalar-tiles"], strict=True):
        assert np.abs(plain - tiled).max() < ROUNDING


@needs_kernels
def test_types_count_where_the_model_has_them_and_nowhere_else(tiny: Tiny) -> None:
    ids = np.arange(5, 25)[None]
    counts: dict[Family, int] = {"bert": 2, "xlm-roberta": 1, "electra": 2, "distilbert": 1}
    for family, count in counts.items():
        backend = NativeBackend(Network.of(open_bundle(tiny.bundle(family, "int8"))), 1)
        logits = {backend.logits(ids, np.full_like(ids, kind)).tobytes() for kind in (0, 1)}
        assert len(logits) == count, family
        backend.close()


# What it refuses


@needs_kernels
@pytest.mark.parametrize("token", [-1, 1 << 40])
def test_a_token_without_an_embedding_is_an_error(tiny: Tiny, token: int) -> None:
    backend = NativeBackend(Network.of(open_bundle(tiny.bundle("bert", "int8"))), 1)
    ids = np.full((1, 8), token)
    with pytest.raises(InferenceError, match="the kernels failed on a run of 1 x 8 tokens: a token without an embedding"):
        backend.logits(ids, np.zeros_like(ids))
    backend.close()


def _renamed(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "encoder/norm/gamma":
            tensor.name = "encoder/norm/delta"


def _as_bytes(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "encoder/norm/gamma":
            tensor.data_type, tensor.dims[:] = onnx.TensorProto.UINT8, [4 * tensor.dims[0]]


@needs_kernels
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_renamed, "the tensor 'encoder/norm/gamma' is missing"),
        (_as_bytes, r"encoder/norm/gamma: expected float32 of shape \(64,\), got uint8 of shape \(256,\)"),
    ],
)
def test_weights_of_another_model_are_refused(folder: Path, change: Callable[[onnx.ModelProto], None], message: str) -> None:
    bundles.edit_graph(folder, change)
    with pytest.raises(Incompatible, match=f"model.onnx is not the encoder that its manifest describes: {message}"):
        Reranker.load(folder, backend="native")


@needs_kernels
@pytest.mark.parametrize(
    "updates",
    [
        {"encoder__layers": 3},
        {"encoder__intermediate": 256},
        {"encoder__positions": 1 << 20},
        {"encoder__types": 9},
        {"encoder__types": 0},
        {"encoder__head_activation": "relu"},
        {"encoder__heads": 3},
        {"encoder__heads": 0},
        {"hidden_size": 1 << 20},
        {"vocab_size": 1 << 40},
    ],
)
def test_a_manifest_that_describes_another_encoder_is_refused(folder: Path, updates: dict[str, object]) -> None:
    bundles.edit(folder, **updates)
    with pytest.raises(Incompatible):
        Reranker.load(folder, backend="native")


@needs_kernels
def test_a_bundle_whose_encoder_is_left_out_runs_in_onnxruntime(folder: Path) -> None:
    bundles.edit(folder, encoder=None)
    assert why_not(open_bundle(folder).manifest.encoder) == "the bundle was made for onnxruntime alone"
    with Reranker.load(folder) as reranker:
        assert reranker.info().backend == "onnx"


# Files


@pytest.mark.skipif(os.name != "posix", reason="a mapped file cannot be cut elsewhere")
@pytest.mark.parametrize("backend", ["onnx", pytest.param("native", marks=needs_kernels)])
def test_weights_that_were_cut_under_the_map_are_an_error_and_no_crash(folder: Path, backend: Any) -> None:
    size = (folder / WEIGHTS).stat().st_size
    whole = (folder / WEIGHTS).read_bytes()
    with Reranker.load(folder, backend=backend) as reranker:
        expected = reranker.score(QUERY, DOCUMENTS).tobytes()
        os.truncate(folder / WEIGHTS, 100)
        with pytest.raises(InferenceError, match=f"written over while it was mapped: it has 100 bytes, and had {size}"):
            reranker.score(QUERY, DOCUMENTS)
        with (folder / WEIGHTS).open("r+b") as file:
            file.write(whole)
        assert reranker.score(QUERY, DOCUMENTS).tobytes() == expected
    os.truncate(folder / WEIGHTS, size)


@pytest.mark.parametrize("backend", ["onnx", pytest.param("native", marks=needs_kernels)])
def test_a_bundle_that_is_replaced_by_renaming_goes_on_as_it_was(folder: Path, tmp_path: Path, backend: Any) -> None:
    with Reranker.load(folder, backend=backend) as reranker:
        expected = reranker.score(QUERY, DOCUMENTS).tobytes()
        shutil.copyfile(folder / WEIGHTS, tmp_path / "new")
        os.truncate(tmp_path / "new", 100)
        (tmp_path / "new").replace(folder / WEIGHTS)
        assert reranker.score(QUERY, DOCUMENTS).tobytes() == expected


@needs_kernels
def test_the_kernels_use_the_weights_where_they_are(folder: Path) -> None:
    # What is written into the mapped file, as it should not be, shows in the next logit: nothing was copied.
    opened = open_bundle(folder)
    backend = NativeBackend(Network.of(opened), 1)
    ids = np.arange(5, 25)[None]
    before = backend.logits(ids, np.zeros_like(ids))
    (place,) = (tensor for tensor in external_tensors(opened.graph) if tensor.name == "encoder/head/bias")
    with (folder / WEIGHTS).open("r+b") as file:
        file.seek(place.offset)
        file.write(np.ones(place.shape, np.float32).tobytes())
    assert backend.logits(ids, np.zeros_like(ids)) != before
    backend.close()
