"""The files that peers run, made with their own exporters in their own environments.

    PYTHON exports.py onnx CHECKPOINT TARGET PRESET        sentence-transformers: fp32, O3, and int8 with that preset
    PYTHON exports.py openvino CHECKPOINT TARGET TEXTS     its static int8, and NNCF's for calling OpenVINO directly

TEXTS is a JSONL file of {"text", "query", "document"}, to calibrate static int8 with. Stand-alone: no Raskrank.
"""

import json
import shutil
import sys
import warnings
from pathlib import Path

OPENVINO_DIRECT = "direct.xml"  # beside the folder that sentence-transformers wrote
CALIBRATION_TOKENS = 384  # sentence-transformers' own limit when it calibrates


def onnx(checkpoint: str, target: Path, preset: str) -> None:
    from sentence_transformers import CrossEncoder, export_dynamic_quantized_onnx_model, export_optimized_onnx_model

    options = {"export": True, "provider": "CPUExecutionProvider"}
    encoder = CrossEncoder(checkpoint, backend="onnx", device="cpu", model_kwargs=options, local_files_only=True)
    encoder.save_pretrained(str(target))
    export_optimized_onnx_model(encoder, "O3", str(target))
    export_dynamic_quantized_onnx_model(encoder, preset, str(target))


def openvino(checkpoint: str, target: Path, texts: str) -> None:
    from sentence_transformers import CrossEncoder, export_static_quantized_openvino_model

    options = {"export": True}
    encoder = CrossEncoder(checkpoint, backend="openvino", device="cpu", model_kwargs=options, local_files_only=True)
    encoder.save_pretrained(str(target))
    folder = target / "calibration"
    folder.mkdir()
    shutil.copy(texts, folder / "train.jsonl")
    export_static_quantized_openvino_model(
        encoder,
        None,
        str(target),
        dataset_name=str(folder),
        dataset_config_name="default",
        dataset_split="train",
        column_name="text",
    )
    _quantize_directly(target / "openvino" / "openvino_model.xml", Path(checkpoint) / "tokenizer.json", Path(texts), target)


def _quantize_directly(graph: Path, tokenizer: Path, texts: Path, target: Path) -> None:
    """NNCF's recommendation for transformers, calibrated on pairs as they are scored."""
    import nncf
    import numpy as np
    import openvino
    from tokenizers import Tokenizer

    splitter = Tokenizer.from_file(str(tokenizer))
    splitter.enable_truncation(CALIBRATION_TOKENS)
    splitter.no_padding()
    model = openvino.Core().read_model(graph)
    names = {name for port in model.inputs for name in port.get_names()}

    def inputs(line: str) -> dict[str, object]:
        pair = json.loads(line)
        encoding = splitter.encode(pair["query"], pair["document"])
        rows = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask, "token_type_ids": encoding.type_ids}
        return {name: np.array([values], np.int64) for name, values in rows.items() if name in names}

    lines = texts.read_text("utf-8").splitlines()
    quantized = nncf.quantize(model, nncf.Dataset(lines, inputs), model_type=nncf.ModelType.TRANSFORMER)
    openvino.save_model(quantized, target / OPENVINO_DIRECT)


def main() -> None:
    kind, checkpoint, target, argument = sys.argv[1:]
    warnings.simplefilter("ignore")
    {"onnx": onnx, "openvino": openvino}[kind](checkpoint, Path(target), argument)


if __name__ == "__main__":
    main()
