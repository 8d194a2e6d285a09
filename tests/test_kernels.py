"""The kernels by themselves, built with AddressSanitizer and UndefinedBehaviorSanitizer, and what Python hands to them."""

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from backends import needs_kernels
from raskrank import Reranker, kernels
from raskrank.bundle import open_bundle
from raskrank.kernels import EMULATED, STAGES, Kernels
from raskrank.manifest import Encoder, Manifest
from raskrank.settings import bundle_path
from raskrank.weights import weight_tensors

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "kernels-sanitized"  # kept, since it takes half a minute
SEED = 1


def run(*command: str, seconds: float) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """engine/kernels/test.cpp, built with the sanitizers."""
    compiler, cmake = shutil.which("c++"), shutil.which("cmake")
    if compiler is None or cmake is None:
        pytest.skip("no C++ compiler or no CMake")
    source = tmp_path_factory.mktemp("sanitizers") / "main.cpp"
    source.write_text("int main() {}")
    flags = ("-fsanitize=address,undefined", str(source), "-o", str(source.with_suffix("")))
    if subprocess.run([compiler, *flags], capture_output=True, check=False).returncode:
        pytest.skip("the compiler has no sanitizers")
    options = ("-DKERNELS_SANITIZE=ON", "-DKERNELS_TESTS=ON")
    run(cmake, "-S", str(ROOT / "engine" / "kernels"), "-B", str(BUILD), *options, seconds=60)
    run(cmake, "--build", str(BUILD), "--target", "kernels_test", "--parallel", "2", seconds=280)
    return BUILD / "kernels_test"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("models", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_every_instruction_set_gives_the_same_bits_and_reads_nothing_else(program: Path, models: int) -> None:
    printed = run(str(program), str(SEED), str(models), seconds=600)
    assert f"{models} models: all bits equal" in printed
    (tested,) = (line.removeprefix("engines: ").split() for line in printed.splitlines() if line.startswith("engines: "))
    assert {*EMULATED, *kernels.engines()} == set(tested)


@pytest.fixture(scope="module")
def nano() -> tuple[Manifest, dict[str, npt.NDArray[Any]]]:
    bundle = open_bundle(bundle_path(None))
    return bundle.manifest, weight_tensors(bundle.graph, bundle.folder, bundle.weights)


def make(manifest: Manifest, tensors: dict[str, npt.NDArray[Any]], **changes: Any) -> Kernels:
    assert manifest.encoder is not None
    encoder = Encoder(**{**vars(manifest.encoder), **changes})
    return Kernels(encoder, manifest.hidden_size, manifest.vocab_size, tensors)


@needs_kernels
def test_a_tensor_that_is_missing_is_named(nano: tuple[Manifest, dict[str, npt.NDArray[Any]]]) -> None:
    manifest, tensors = nano
    for name in [name for name in tensors if name.startswith("encoder/")]:
        with pytest.raises(ValueError, match=f"the tensor '{name}' is missing"):
            make(manifest, {key: value for key, value in tensors.items() if key != name})


@needs_kernels
def test_a_tensor_of_another_size_or_type_is_named(nano: tuple[Manifest, dict[str, npt.NDArray[Any]]]) -> None:
    manifest, tensors = nano
    for name, array in tensors.items():
        if not name.startswith("encoder/"):
            continue
        for other in (array[:-1], array.astype(np.float16), array[..., ::-1] if array.shape[-1] > 1 else array[:-1]):
            with pytest.raises(ValueError, match=f"{name}: expected"):
                make(manifest, {**tensors, name: other})


@needs_kernels
@pytest.mark.parametrize("changes", [{"heads": 3}, {"heads": 16}, {"layers": 0}, {"layers": 65}, {"intermediate": 500}])
def test_a_shape_that_the_kernels_do_not_know_is_refused(
    nano: tuple[Manifest, dict[str, npt.NDArray[Any]]], changes: dict[str, int]
) -> None:
    manifest, tensors = nano
    with pytest.raises(ValueError, match=r"encoder/|cannot run a model of this shape"):
        make(manifest, tensors, **changes)


@needs_kernels
def test_what_no_embedding_has_is_refused(nano: tuple[Manifest, dict[str, npt.NDArray[Any]]]) -> None:
    manifest, tensors = nano
    made = make(manifest, tensors)
    fine = np.full((2, 4), 5)
    try:
        for ids, types in (
            (np.full((2, 4), manifest.vocab_size), fine * 0),
            (np.full((2, 4), -1), fine * 0),
            (fine, np.full((2, 4), 9)),
            (np.full((1, 513), 5), np.zeros((1, 513), np.int64)),
        ):
            with pytest.raises(ValueError, match="a token without an embedding"):
                made.logits(ids, types)
        for ids, types in ((np.zeros((0, 4), np.int64),) * 2, (np.zeros((2, 0), np.int64),) * 2):
            with pytest.raises(ValueError, match="not one pair"):
                made.logits(ids, types)
        with pytest.raises(ValueError, match="two dimensions"):
            made.logits(fine, fine[:1])
        assert np.isfinite(made.logits(fine, fine * 0)).all()
    finally:
        made.close()
        made.close()
    with pytest.raises(ValueError, match="closed"):
        made.logits(fine, fine * 0)


@needs_kernels
def test_a_model_without_types_reads_no_table_of_them_and_takes_type_0_alone(
    nano: tuple[Manifest, dict[str, npt.NDArray[Any]]],
) -> None:
    manifest, tensors = nano
    ids = np.arange(5, 25)[None]
    logits = []
    for changes in ({}, {"types": 0}):
        made = make(
            manifest, {name: array for name, array in tensors.items() if not changes or "/types/" not in name}, **changes
        )
        try:
            logits.append(made.logits(ids, ids * 0))
            if changes:
                with pytest.raises(ValueError, match="a token without an embedding"):
                    made.logits(ids, ids * 0 + 1)
        finally:
            made.close()
    assert logits[0] != logits[1]
    assert np.isfinite(logits).all()


@needs_kernels
def test_threads_that_expected_a_call_sleep_again_where_none_comes(nano: tuple[Manifest, dict[str, npt.NDArray[Any]]]) -> None:
    made, pause = make(*nano), 0.5
    try:
        made.expect(2)
        start = time.process_time()
        time.sleep(pause)
        assert time.process_time() - start < pause / 2  # both threads awake all the time would take twice as long as the pause
    finally:
        made.close()
    made.expect(2)  # closed: nothing to wake


@needs_kernels
def test_the_time_of_each_stage_is_told_on_request(nano: tuple[Manifest, dict[str, npt.NDArray[Any]]]) -> None:
    made, ids, ticks = make(*nano), np.full((2, 40), 5), np.zeros(len(STAGES), np.uint64)
    try:
        made.logits(ids, ids * 0, ticks=ticks)
    finally:
        made.close()
    found = dict(zip(STAGES, ticks, strict=True))
    assert all(found[name] > 0 for name in STAGES if name != "wait")


@pytest.mark.parametrize("code", ["", 'extern "C" int rk_layout() { return 1; }'], ids=["without a layout", "another layout"])
def test_a_library_of_another_version_is_not_used(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    source, library = tmp_path / "other.cpp", tmp_path / "other.so"
    source.write_text(code)
    run(compiler, "-shared", "-fPIC", str(source), "-o", str(library), seconds=60)
    monkeypatch.setattr(kernels, "LIBRARY", library)
    kernels._load.cache_clear()
    try:
        assert kernels.engines() == ()
        assert str(kernels.unavailable()).endswith("built from another version of Raskrank; install it again")
        with Reranker.load() as reranker:
            assert reranker.info().backend == "onnx"
    finally:
        kernels._load.cache_clear()
