"""sentence-transformers: CrossEncoder.predict with its defaults on PyTorch, onnxruntime and OpenVINO."""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness.batches import session_options
from benchmarks.harness.contender import BATCH, Contender, Export, Loaded, Setup

PACKAGES = ("sentence-transformers", "transformers", "torch")
OPENVINO_FILE = "openvino/openvino_model_qint8_quantized.xml"


def contenders(setup: Setup) -> list[Contender]:
    name = "sentence-transformers"
    torch = Contender(
        name=f"{name} torch",
        load=load,
        options={"folder": str(setup.checkpoint), "threads": setup.threads, "backend": "torch", "file": None},
        setting="fp32, batches of 32",
        batching="characters",
        packages=PACKAGES,
        environment="torch",
        cold=True,
    )
    onnx, openvino = onnx_files(setup), openvino_files(setup)
    fp32 = replace(
        torch,
        name=f"{name} onnx fp32",
        options={"folder": str(onnx.folder), "threads": setup.threads, "backend": "onnx", "file": "onnx/model_O3.onnx"},
        setting="export_optimized_onnx_model with O3, batches of 32",
        packages=(*PACKAGES, "onnxruntime"),
        export=onnx,
        cold=False,
    )
    int8 = replace(
        fp32,
        name=f"{name} onnx int8",
        options={**fp32.options, "file": f"onnx/{int8_file(setup)}"},
        setting=f"export_dynamic_quantized_onnx_model with {preset(setup)}, batches of 32",
        cold=True,
    )
    static = replace(
        torch,
        name=f"{name} openvino int8",
        options={**torch.options, "folder": str(openvino.folder), "backend": "openvino", "file": OPENVINO_FILE},
        setting="export_static_quantized_openvino_model, batches of 32",
        packages=(*PACKAGES, "openvino", "nncf"),
        environment="openvino",
        export=openvino,
    )
    return [torch, fp32, int8, static]


def load(folder: str, threads: int, backend: str, file: str | None) -> Loaded:
    """backend: torch, onnx or openvino. file: which of its own exports, None for the checkpoint's weights."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(threads)
    options: dict[str, Any] = {"file_name": file}
    if backend == "onnx":
        options |= {"provider": "CPUExecutionProvider", "session_options": session_options(threads)}
    elif backend == "openvino":
        options["ov_config"] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    encoder = CrossEncoder(
        folder,
        device="cpu",
        backend=backend,
        activation_fn=torch.nn.Identity(),
        model_kwargs=options if file else None,
        local_files_only=True,
    )

    def score(query: str, documents: list[str], batch_size: int | None) -> Iterable[float]:
        pairs = [(query, document) for document in documents]
        scores: Iterable[float] = encoder.predict(pairs, batch_size=batch_size or BATCH, show_progress_bar=False)
        return scores

    return Loaded(score, probabilities=False)


def preset(setup: Setup) -> str:
    """Its int8 preset for this CPU."""
    return next((name for name in ("avx512_vnni", "avx2") if name in setup.instruction_sets), "arm64")


def int8_file(setup: Setup) -> str:
    """The name that it gives the int8 file of that preset, in the folder onnx of `onnx_files`."""
    return f"model_{'quint8' if preset(setup) == 'avx2' else 'qint8'}_{preset(setup)}.onnx"


def onnx_files(setup: Setup) -> Export:
    """onnx/model.onnx, onnx/model_O3.onnx and the int8 file, with the tokenizer beside; other peers run them too."""
    options = {"checkpoint": str(setup.checkpoint), "preset": preset(setup)}
    return Export(folder=setup.files / f"onnx-{preset(setup)}", environment="torch", make=make_onnx, options=options)


def make_onnx(folder: str, checkpoint: str, preset: str) -> None:
    from sentence_transformers import CrossEncoder, export_dynamic_quantized_onnx_model, export_optimized_onnx_model

    options = {"export": True, "provider": "CPUExecutionProvider"}
    encoder = CrossEncoder(checkpoint, backend="onnx", device="cpu", model_kwargs=options, local_files_only=True)
    encoder.save_pretrained(folder)
    export_optimized_onnx_model(encoder, "O3", folder)
    export_dynamic_quantized_onnx_model(encoder, preset, folder)


def openvino_files(setup: Setup) -> Export:
    """openvino/openvino_model.xml, in fp32, and its static int8."""
    options = {"checkpoint": str(setup.checkpoint), "texts": str(setup.calibration)}
    return Export(folder=setup.files / "openvino", environment="openvino", make=make_openvino, options=options)


def make_openvino(folder: str, checkpoint: str, texts: str) -> None:
    from sentence_transformers import CrossEncoder, export_static_quantized_openvino_model

    options = {"export": True}
    encoder = CrossEncoder(checkpoint, backend="openvino", device="cpu", model_kwargs=options, local_files_only=True)
    encoder.save_pretrained(folder)
    calibration = Path(folder) / "calibration"
    calibration.mkdir()
    shutil.copy(texts, calibration / "train.jsonl")
    export_static_quantized_openvino_model(
        encoder,
        None,
        folder,
        dataset_name=str(calibration),
        dataset_config_name="default",
        dataset_split="train",
        column_name="text",
    )
