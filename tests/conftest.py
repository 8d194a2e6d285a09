"""Tiny checkpoints and bundles, made once a session, and folders where a test may change what it likes."""

import functools
import gc
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import settings

import bundles
from backends import note_runs
from builders import Family, native_checkpoint, tiny_checkpoint
from checkpoints import edit_json
from kinds import FAST, NAMES, REAL, Kind, kind_of
from modernbert import modernbert_checkpoint, modular_checkpoint
from paths import NANO_CHECKPOINT, shared
from raskrank import Reranker
from raskrank.gate import Thresholds
from raskrank.manifest import Precision
from raskrank.options import BackendName
from raskrank.samples import read_samples
from raskrank.settings import CACHE, ENVIRONMENT

os.environ.setdefault("OMP_NUM_THREADS", "1")  # on tiny models PyTorch's threads cost more than they save
settings.register_profile("beside others", settings(), deadline=None)  # the tests of other files run at the same time
settings.load_profile("beside others")

# A few words that the tiny tokenizers know, so that every export here takes a second and not ten.
SAMPLES = [
    {"query": "Hvem kan Python?", "documents": ["En utvikler i Oslo", "Python og SQL", "Sykepleier", "", "Jeg søker jobb"]},
    {"query": "nurse night shift", "documents": ["Nurse in Tromsø", "Nattevakt på hotell", "Electrician", "5 år erfaring"]},
    {"query": "Kva er ein båt?", "documents": ["Ein båt er eit fartøy.", "Bil", "A boat on the sea " * 30]},
]

FEW_QUERIES = 12
LOOSE = Thresholds(min_tau=-1, min_top1=0, max_drift=1, max_mean_drift=1)  # seeded weights rank nothing


# The files that take longest come first, so that where files run beside one another none of them is left alone at the end.
LONGEST = ("test_kernels", "test_ray", "test_pages", "test_resources", "test_interrupts", "test_threads", "test_attacks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="module", autouse=True)
def _settled() -> None:
    """What is there before a file's tests is left out of garbage collections. Exports make several, and each would look through
    PyTorch, transformers and thousands of tests: two thirds of the time of a tiny export."""
    gc.collect()
    gc.freeze()


MAKERS: Mapping[Family, Callable[..., Path]] = {"modernbert": modernbert_checkpoint, "ettin": modular_checkpoint}


class Tiny:
    """Folders of tiny models by kind; each is made when first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.samples = root / "samples.jsonl"
        self.samples.write_text("".join(json.dumps(sample) + "\n" for sample in SAMPLES), "utf-8")

    # Defaults are filled in before the caches look: `bundle()` and `bundle("bert", "int8")` are one.
    def checkpoint(self, family: Family = "bert") -> Path:
        return self._checkpoint(family)

    def bundle(self, family: Family = "bert", precision: Precision = "int8") -> Path:
        return self._bundle(family, precision)

    @functools.cache  # noqa: B019  one instance a session
    def _checkpoint(self, family: Family) -> Path:
        folder = self.root / f"checkpoint-{family}"
        return MAKERS[family](folder) if family in MAKERS else native_checkpoint(folder, family)

    @functools.cache  # noqa: B019
    def _bundle(self, family: Family, precision: Precision) -> Path:
        from raskrank_export import export

        folder = self.root / f"bundle-{family}-{precision}"
        export(str(self.checkpoint(family)), folder, precision=precision, samples=self.samples, thresholds=LOOSE)
        return folder


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell starts background jobs with SIGINT ignored, which Python and every child process would keep so."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("tiny"))


BROKEN = "kvittering"  # a word whose embedding is NaN in the bundle below


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Path:
    """A bundle that gives NaN for pairs with BROKEN in them, and the right score for all others."""
    folder = bundles.copy_bundle(tiny.bundle("bert", "fp32"), tmp_path_factory.mktemp("broken") / "bundle")
    return bundles.break_word(folder, BROKEN)


@pytest.fixture
def offline_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The empty folder of the hub's cache on a machine without network."""
    from huggingface_hub import constants, utils

    # By the name that huggingface_hub had for it before 1.0, or has since.
    close: Callable[[], None] = getattr(utils, "reset_sessions" if hasattr(utils, "reset_sessions") else "close_session")
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close()  # one that is open already would try the network
    yield cache
    close()


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Family, Path]:
    """One checkpoint of each family; tests change copies."""
    root = tmp_path_factory.mktemp("checkpoints")
    made = {family: maker(root / family, max_position_embeddings=64) for family, maker in MAKERS.items()}
    families = [family for family in get_args(Family) if family not in made]
    return made | {family: tiny_checkpoint(root / family, family, positions=64) for family in families}


@pytest.fixture
def copy(originals: Mapping[Family, Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a family's checkpoint, with keys of its config.json replaced (and removed where the value is ...)."""

    def make(family: Family = "bert", **updates: object) -> Path:
        folder = tmp_path / family
        shutil.copytree(originals[family], folder)
        edit_json(folder / "config.json", updates)
        return folder

    return make


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, with nothing set that names a model or a cache."""
    for name in (ENVIRONMENT, CACHE, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def project(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: project/service, where nothing names a model. Returns project."""
    folder = tmp_path / "project"
    (folder / "service").mkdir(parents=True)
    monkeypatch.chdir(folder / "service")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where bundles of hub models are looked for; not there yet. Returns it."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(CACHE, str(folder))
    return folder


@pytest.fixture
def no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing names a model, and lines have 80 columns."""
    monkeypatch.delenv("RASKRANK_MODEL", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for what an export writes."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture(params=NAMES)
def kind(request: pytest.FixtureRequest, tiny: Tiny) -> Kind:
    name = request.param
    if name in REAL:
        return kind_of(shared("data", "tokenizers", name), REAL[name])
    if name == "nano":
        return kind_of(NANO_CHECKPOINT, "PreTrainedTokenizerFast")
    return kind_of(tiny.checkpoint(name), FAST[name])


@pytest.fixture(scope="module", autouse=True)
def bundle_backend(request: pytest.FixtureRequest) -> Iterator[BackendName | None]:
    """What runs bundles where a test does not say: onnxruntime, or as `Reranker.load` chooses; see BOTH."""
    name = getattr(request, "param", None)
    load: Any = Reranker.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(load.__func__.__kwdefaults__, "backend", name)
        patch.setenv("BACKEND", name or "")
        yield name


@pytest.fixture(scope="module")
def nano(bundle_backend: BackendName | None) -> Iterator[Reranker]:
    with Reranker.load(threads=2) as reranker:
        yield reranker


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shape of each run that a real backend makes."""
    made: list[tuple[int, ...]] = []
    note_runs(monkeypatch, made.append)
    return made


@pytest.fixture(scope="session")
def few_samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So few of the default samples that a rung of the ladder is scored in a fifth of a second."""
    file = tmp_path_factory.mktemp("samples") / "samples.jsonl"
    lines = [{"query": sample.query, "documents": sample.documents} for sample in read_samples()[:FEW_QUERIES]]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return file


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of a bundle, to change."""
    return bundles.copy_bundle(tiny.bundle("bert", "int8"), tmp_path / "bundle")


@pytest.fixture
def values(tiny: Tiny) -> dict[str, Any]:
    """What the manifest of that bundle says."""
    return bundles.read(tiny.bundle("bert", "int8"))
