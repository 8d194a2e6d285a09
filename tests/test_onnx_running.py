"""How onnxruntime is asked to run a graph; and that neither it nor the kernels copy weights that are mapped."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

import bundles
from backends import needs_kernels
from bundles import backend
from conftest import Tiny
from processes import run_script
from raskrank import Reranker
from raskrank.manifest import WEIGHTS
from raskrank.settings import bundle_path

needs_proc = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
both_backends = pytest.mark.parametrize("name", ["onnx", pytest.param("native", marks=needs_kernels)])


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    """A copy of the embedded model, whose weights are megabytes."""
    return bundles.copy_bundle(bundle_path(None), tmp_path / "nano")


@needs_proc
@both_backends
def test_weights_are_mapped_and_given_back(nano: Path, name: Any) -> None:
    with Reranker.load(nano, backend=name, threads=1) as reranker:
        mapped = _mapped(nano / WEIGHTS)
        vocabulary = bundles.read(nano)["vocab_size"] * bundles.read(nano)["hidden_size"]
        assert vocabulary > 1_500_000
        assert mapped >= vocabulary  # one byte a number: int8
        reranker.score("Hvem kan Python?", ["Python og SQL"])
    assert _mapped(nano / WEIGHTS) == 0


@needs_proc
def test_weights_in_fp32_are_mapped(tiny: Tiny, tmp_path: Path) -> None:
    folder = bundles.copy_bundle(tiny.bundle("bert", "fp32"), tmp_path / "bundle")
    with Reranker.load(folder, threads=1):
        values = bundles.read(folder)
        assert _mapped(folder / WEIGHTS) >= 4 * values["vocab_size"] * values["hidden_size"]


def _mapped(file: Path) -> int:
    """Bytes of a file in this process's address space."""
    lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    ranges = [line[0].split("-") for line in lines if line[-1] == str(file.resolve())]
    return sum(int(end, 16) - int(start, 16) for start, end in ranges)


THREADS = """
    import os, sys
    from pathlib import Path
    from raskrank.errors import Incompatible
    from raskrank.network import Network
    from raskrank.onnx_backend import OnnxBackend

    def threads():
        return len(os.listdir("/proc/self/task"))

    network = Network.read(Path(sys.argv[1]), ("input_ids", "token_type_ids"), hidden_size=32)
    before = threads()
    try:
        backend = OnnxBackend(network, 4)
    except Incompatible:
        print("refused")
        sys.exit()
    print(threads() - before)
    for _ in range(2):
        backend._wide_session()
        print(threads() - before)
"""


@needs_proc
def test_runs_have_a_thread_each_and_from_the_second_spread_one_on_all(folder: Path, tmp_path: Path) -> None:
    assert run_script(tmp_path, THREADS, str(folder)).stdout.split() == ["0", "0", "3"]


@needs_proc
def test_settings_inside_the_model_have_no_effect(folder: Path, tmp_path: Path) -> None:
    settings = {"session_options": {"intra_op_num_threads": 6, "log_severity_level": 0}}
    bundles.edit_graph(folder, lambda model: model.metadata_props.add(key="ort_config", value=json.dumps(settings)))
    assert run_script(tmp_path, THREADS, str(folder)).stdout.split() == ["0", "0", "3"]
    asked = run_script(tmp_path, THREADS, str(folder), env={"ORT_LOAD_CONFIG_FROM_MODEL": "1"})
    assert asked.stdout.split() == ["0", "0", "3"]


def test_a_spread_run_gives_the_same_bits(nano: Path) -> None:
    wide = backend(nano, concurrency=3)
    dice = np.random.default_rng(0)
    for length in (3, 92, 200, 512):
        ids = dice.integers(5, 12_000, (1, length))
        types = (np.arange(length) > length // 3).astype(np.int64)[None]
        assert wide.logits(ids, types, threads=2) == wide.logits(ids, types)
    assert wide._wide is not None


@pytest.mark.parametrize("content", [None, b"", bytes(2_531_200)], ids=["no file", "empty", "as large"])
def test_other_weights_in_the_same_place_are_not_read(nano: Path, content: bytes | None) -> None:
    # The session for spread runs is made when it is first needed, whatever then lies in the folder.
    old = backend(nano, concurrency=2)
    ids = np.arange(100, 300)[None]
    expected = old.logits(ids, np.zeros_like(ids))
    (nano / WEIGHTS).unlink()
    if content is not None:
        (nano / WEIGHTS).write_bytes(content)
    for _ in range(2):
        assert old.logits(ids, np.zeros_like(ids), threads=2) == expected
    assert content is None or old._wide is not old._single


WRITTEN_OVER = """
    import os, sys
    from pathlib import Path
    from raskrank import Reranker, onnx_backend

    onnx_backend.SPREAD_ALONE, onnx_backend.OnnxBackend.min_share = 0, 1  # the second session at the first run alone
    folder, name, documents = Path(sys.argv[1]), sys.argv[2], ["Python og SQL", "Sykepleier", "ord " * 300]
    with Reranker.load(folder, backend=name, threads=2) as reranker:
        expected = reranker.score("Hvem kan Python?", documents)
    with Reranker.load(folder, backend=name, threads=2, map_weights=False) as reranker:
        size = (folder / "model.onnx.data").stat().st_size
        for content in (bytes(size), bytes([255]) * size, b""):
            with (folder / "model.onnx.data").open("r+b") as file:  # in place, as cp and rsync --inplace write
                file.truncate(0)
                file.write(content)
            for number in (1, 2, 3, 1):
                scores = reranker.score("Hvem kan Python?", documents[-number:])
                assert scores.tobytes() == expected[-number:].tobytes()
        backend = reranker._loaded.backend
        print(backend.name, name == "native" or backend._wide is not backend._single)
"""


@both_backends
def test_weights_that_are_read_outlive_a_file_that_is_written_over(nano: Path, tmp_path: Path, name: Any) -> None:
    # In a process of its own: over a mapping, the first access to what is gone ends the process (SIGBUS).
    assert run_script(tmp_path, WRITTEN_OVER, str(nano), name).stdout.split() == [name, "True"]


@needs_proc
@both_backends
def test_weights_that_are_read_are_not_mapped(nano: Path, name: Any) -> None:
    with Reranker.load(nano, backend=name, threads=1, map_weights=False) as reranker:
        assert _mapped(nano / WEIGHTS) == 0
        assert reranker.score("a", ["b"]).shape == (1,)


@needs_proc
def test_weights_are_not_copied(tiny: Tiny, nano: Path, tmp_path: Path) -> None:
    # A table of 64 MB that is looked up, and not packed for products, costs no memory of this process.
    source = """
        import sys
        from pathlib import Path
        from raskrank.measure import probe
        from raskrank.network import Network
        from raskrank.onnx_backend import OnnxBackend
        network = Network.read(Path(sys.argv[1]), ("input_ids", "token_type_ids"), hidden_size=8)
        before = probe.memory()["Private_Dirty"]
        backend = OnnxBackend(network, 2)
        backend._make_wide()
        print(probe.memory()["Private_Dirty"] - before)
    """

    def enlarge(model: ModelProto) -> None:
        table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[1 << 20, 16], data_location=TensorProto.EXTERNAL)
        for key, value in (("location", WEIGHTS), ("offset", "0"), ("length", str(64 << 20))):
            table.external_data.add(key=key, value=value)
        model.graph.initializer.append(table)
        model.graph.node.insert(0, helper.make_node("Gather", ["table", "input_ids"], ["looked_up"]))
        model.graph.node.insert(1, helper.make_node("ReduceMax", ["looked_up"], ["largest"], keepdims=0))
        for node in model.graph.node:
            node.output[:] = ["single" if name == "logits" else name for name in node.output]
        model.graph.node.append(helper.make_node("Add", ["single", "largest"], ["logits"]))

    os.truncate(nano / WEIGHTS, 64 << 20)
    bundles.edit_graph(nano, enlarge)
    assert int(run_script(tmp_path, source, str(nano)).stdout) < 32 << 20
