"""What is measured beside Raskrank: each peer on the same checkpoint, at its documented setting for a CPU."""

import contextlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from models import WORK, bundle, checkpoint
from raskrank import Reranker, cpu

Score = Callable[[str, Sequence[str]], object]


@dataclass(frozen=True)
class Peer:
    """A name and a function that scores the documents of a query."""

    name: str
    score: Score


def raskrank(model: str, precision: str) -> Peer:
    reranker = Reranker.load(bundle(model, "fp32" if precision == "fp32" else "int8"))
    return Peer(f"raskrank {precision}", reranker.score)


def raskrank_torch(model: str) -> Peer:
    reranker = Reranker.load(backend="torch", checkpoint=checkpoint(model))
    return Peer("raskrank backend='torch'", reranker.score)


def sentence_transformers(model: str, kind: str) -> Peer:
    """CrossEncoder with its defaults (batches of 32). kind: torch, "onnx fp32" or "onnx int8".

    int8 uses its own exporter with the preset for this CPU: avx512_vnni or avx2, or arm64.
    """
    from sentence_transformers import CrossEncoder

    folder = checkpoint(model)
    with _quiet():
        if kind == "torch":
            encoder = CrossEncoder(str(folder), device="cpu")
        else:
            path, int8 = onnx_folder(folder)
            file = "onnx/model.onnx" if kind == "onnx fp32" else int8
            options = {"file_name": file, "provider": "CPUExecutionProvider"}
            encoder = CrossEncoder(str(path), backend="onnx", device="cpu", model_kwargs=options)

    def score(query: str, documents: Sequence[str]) -> object:
        return encoder.predict([(query, document) for document in documents], show_progress_bar=False)

    return Peer(f"sentence-transformers {kind}", score)


def preset() -> str:
    sets = cpu.instruction_sets()
    return next((name for name in ("avx512_vnni", "avx2") if name in sets), "arm64")


def _preset_file() -> str:
    return {"avx2": "quint8_avx2", "avx512_vnni": "qint8_avx512_vnni", "arm64": "qint8_arm64"}[preset()]


def onnx_folder(folder: Path) -> tuple[Path, str]:
    """A folder with the peer's own ONNX export, made when first asked for, and the name of its int8 file there."""
    target, int8 = WORK / f"{folder.name}-sentence-transformers", f"onnx/model_{_preset_file()}.onnx"
    if not (target / int8).is_file():
        from sentence_transformers import CrossEncoder, export_dynamic_quantized_onnx_model

        shutil.rmtree(target, ignore_errors=True)
        options = {"export": True, "provider": "CPUExecutionProvider"}
        encoder = CrossEncoder(str(folder), backend="onnx", device="cpu", model_kwargs=options)
        encoder.save_pretrained(str(target))
        export_dynamic_quantized_onnx_model(encoder, preset(), str(target))
    return target, int8


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), Path(os.devnull).open("w", encoding="utf-8") as sink:
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            yield
