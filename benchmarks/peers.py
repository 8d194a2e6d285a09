"""The contenders: Raskrank and its peers on the same checkpoint, each at its documented best setting for a CPU."""

import json
from dataclasses import dataclass, replace
from typing import Any

import artefacts
from exports import OPENVINO_DIRECT
from models import bundle, checkpoint, manifest
from padding import Batching

OURS = "Raskrank int8"
# Agreement is measured against the first of these that runs.
REFERENCES = ("transformers torch", "sentence-transformers torch")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """What is measured, how it is run, and what a reader has to know of it.

    adapter, options: a function of adapters.py and its arguments. environment: "" is Raskrank's own. export: the peer's files
    that it needs. size: of the batches that it makes by itself. batch_sizes: tried for each workload, the fastest is measured;
    () where it is not asked. cold: measured in fresh processes too. problem: why it cannot take this checkpoint.
    """

    name: str
    adapter: str
    options: dict[str, Any]
    setting: str
    batching: Batching
    packages: tuple[str, ...]
    environment: str = ""
    export: artefacts.Kind | None = None
    size: int = 32
    batch_sizes: tuple[int, ...] = ()
    cold: bool = False
    problem: str | None = None


def contenders(model: str, threads: int) -> list[Contender]:
    """All of them, ours first."""
    max_length = manifest(bundle(model, "int8")).max_length
    return [
        *_raskrank(model, threads),
        *_sentence_transformers(model, threads),
        *_openvino(model, threads, max_length),
        *_light(model, threads, max_length),
        *_transformers(model, threads, max_length),
    ]


def _raskrank(model: str, threads: int) -> list[Contender]:
    int8, fp32 = bundle(model, "int8"), bundle(model, "fp32")
    ours = Contender(
        name=OURS,
        adapter="raskrank",
        options={"folder": str(int8), "threads": threads},
        setting=f"defaults; scheme {manifest(int8).recipe.scheme}",
        batching="unpadded",
        packages=("raskrank", "onnxruntime", "tokenizers", "numpy"),
        cold=True,
    )
    options = {"folder": str(fp32), "threads": threads}
    return [ours, replace(ours, name="Raskrank fp32", options=options, setting="defaults", cold=False)]


def _sentence_transformers(model: str, threads: int) -> list[Contender]:
    name, packages = "sentence-transformers", ("sentence-transformers", "transformers", "torch")
    torch = Contender(
        name=f"{name} torch",
        adapter="sentence_transformers",
        options={"folder": str(checkpoint(model)), "threads": threads, "backend": "torch", "file": None},
        setting="fp32, batches of 32",
        batching="characters",
        packages=packages,
        environment="torch",
        cold=True,
    )
    folder = str(artefacts.folder(model, "onnx"))
    fp32 = replace(
        torch,
        name=f"{name} onnx fp32",
        options={"folder": folder, "threads": threads, "backend": "onnx", "file": "onnx/model_O3.onnx"},
        setting="export_optimized_onnx_model with O3, batches of 32",
        packages=(*packages, "onnxruntime"),
        export="onnx",
        cold=False,
    )
    int8 = replace(
        fp32,
        name=f"{name} onnx int8",
        options={**fp32.options, "file": f"onnx/{artefacts.int8_file()}"},
        setting=f"export_dynamic_quantized_onnx_model with {artefacts.preset()}, batches of 32",
        cold=True,
    )
    file = "openvino/openvino_model_qint8_quantized.xml"
    openvino = replace(
        torch,
        name=f"{name} openvino int8",
        options={
            "folder": str(artefacts.folder(model, "openvino")),
            "threads": threads,
            "backend": "openvino",
            "file": file,
        },
        setting="export_static_quantized_openvino_model, batches of 32",
        packages=(*packages, "openvino", "nncf"),
        environment="openvino",
        export="openvino",
    )
    return [torch, fp32, int8, openvino]


def _openvino(model: str, threads: int, max_length: int) -> list[Contender]:
    direct = Contender(
        name="OpenVINO int8 direct",
        adapter="openvino",
        options={
            "file": str(artefacts.folder(model, "openvino") / OPENVINO_DIRECT),
            "tokenizer": str(checkpoint(model) / "tokenizer.json"),
            "threads": threads,
            "max_length": max_length,
            "streams": 1,
        },
        setting=f"NNCF static int8; sorted by tokens, best batch size, {threads} threads for a batch",
        batching="tokens",
        packages=("openvino", "nncf", "tokenizers"),
        environment="openvino",
        export="openvino",
        batch_sizes=(1, 4, 8, 16, 32),
        cold=True,
    )
    if threads == 1:
        return [direct]
    streams = replace(
        direct,
        name="OpenVINO int8 direct, streams",
        options={**direct.options, "streams": threads},
        setting=f"the same with {threads} batches in flight, a core each",
        cold=False,
    )
    return [direct, streams]


def _light(model: str, threads: int, max_length: int) -> list[Contender]:
    folder = artefacts.folder(model, "onnx")
    kind = json.loads((checkpoint(model) / "config.json").read_text("utf-8"))["model_type"]
    flashrank = Contender(
        name="FlashRank int8",
        adapter="flashrank",
        options={"folder": str(folder / artefacts.FLASHRANK_NAME), "max_length": max_length},
        setting="Ranker on sentence-transformers' int8 file; all passages in one batch",
        batching="one",
        packages=("FlashRank", "onnxruntime", "tokenizers"),
        environment="light",
        export="onnx",
        cold=True,
        problem=None if kind == "bert" else f"of rerankers with one logit it takes BERT, this is {kind}",
    )
    fastembed = Contender(
        name="fastembed int8",
        adapter="fastembed",
        options={"folder": str(folder), "threads": threads, "file": f"onnx/{artefacts.int8_file()}"},
        setting="TextCrossEncoder on sentence-transformers' int8 file; batches of 64",
        batching="given",
        size=64,
        packages=("fastembed", "onnxruntime", "tokenizers"),
        environment="light",
        export="onnx",
        cold=True,
    )
    return [flashrank, fastembed]


def _transformers(model: str, threads: int, max_length: int) -> list[Contender]:
    plain = Contender(
        name="transformers torch",
        adapter="transformers",
        options={"folder": str(checkpoint(model)), "threads": threads, "max_length": max_length},
        setting="fp32, inference_mode; sorted by tokens, batches of 32",
        batching="tokens",
        packages=("transformers", "torch"),
        environment="torch",
    )
    options = {"folder": str(artefacts.folder(model, "onnx")), "threads": threads, "max_length": max_length}
    fp32 = replace(
        plain,
        name="optimum fp32",
        adapter="optimum",
        options={**options, "file": "model_O3.onnx"},
        setting="ORTModelForSequenceClassification with O3; sorted by tokens, batches of 32",
        packages=("optimum-onnx", "onnxruntime", "transformers"),
        export="onnx",
    )
    int8 = replace(
        fp32,
        name="optimum int8",
        options={**options, "file": artefacts.int8_file()},
        setting=f"ORTModelForSequenceClassification with {artefacts.preset()}; sorted by tokens, batches of 32",
    )
    return [plain, fp32, int8]
