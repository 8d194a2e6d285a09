"""fastembed: TextCrossEncoder on sentence-transformers' int8 file."""

from benchmarks.harness.contender import Contender, Loaded, Setup
from benchmarks.peers.sentence_transformers import int8_file, onnx_files

BATCH = 64  # its default, in the order given


def contenders(setup: Setup) -> list[Contender]:
    files = onnx_files(setup)
    fastembed = Contender(
        name="fastembed int8",
        load=load,
        options={"folder": str(files.folder), "threads": setup.threads, "file": f"onnx/{int8_file(setup)}"},
        setting=f"TextCrossEncoder on sentence-transformers' int8 file; batches of {BATCH}",
        batching="given",
        size=BATCH,
        packages=("fastembed", "onnxruntime", "tokenizers"),
        environment="light",
        export=files,
        cold=True,
    )
    return [fastembed]


def load(folder: str, threads: int, file: str) -> Loaded:
    """On a model of one's own."""
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    name = "local/benchmark"
    TextCrossEncoder.add_custom_model(model=name, sources=ModelSource(hf=name), model_file=file)
    encoder = TextCrossEncoder(name, threads=threads, cuda=False, specific_model_path=folder)
    return Loaded(lambda query, documents, _: list(encoder.rerank(query, documents)), probabilities=False)
