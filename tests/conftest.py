"""Tiny checkpoints and bundles, made once a session."""

import functools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import bundles
from builders import Family, tiny_checkpoint
from raskrank.gate import Thresholds
from raskrank.manifest import Precision

os.environ.setdefault("OMP_NUM_THREADS", "1")  # on tiny models PyTorch's threads cost more than they save

# A few words that the tiny tokenizers know, so that every export here takes a second and not ten.
SAMPLES = [
    {"query": "Hvem kan Python?", "documents": ["En utvikler i Oslo", "Python og SQL", "Sykepleier", "", "Jeg søker jobb"]},
    {"query": "nurse night shift", "documents": ["Nurse in Tromsø", "Nattevakt på hotell", "Electrician", "5 år erfaring"]},
    {"query": "Kva er ein båt?", "documents": ["Ein båt er eit fartøy.", "Bil", "A boat on the sea " * 30]},
]

LOOSE = Thresholds(min_tau=-1, min_top1=0, max_drift=1, max_mean_drift=1)  # seeded weights rank nothing


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
        return tiny_checkpoint(self.root / f"checkpoint-{family}", family)

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
    from huggingface_hub import constants
    from huggingface_hub.utils import reset_sessions  # type: ignore[attr-defined]

    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    reset_sessions()  # one that is open already would try the network
    yield cache
    reset_sessions()
