"""FlashRank: a Ranker, which puts all passages into one batch, on sentence-transformers' int8 file."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.contender import Contender, Export, Loaded, Setup
from benchmarks.peers.sentence_transformers import int8_file, onnx_files

# It knows its own downloads only: the name of one that is a BERT, and of its file.
NAME, FILE = "ms-marco-MiniLM-L-12-v2", "flashrank-MiniLM-L-12-v2_Q.onnx"
TOKENIZER = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def contenders(setup: Setup) -> list[Contender]:
    files = imitation(setup)
    flashrank = Contender(
        name="FlashRank int8",
        load=load,
        options={"folder": str(files.folder / NAME), "max_length": setup.max_length},
        setting="Ranker on sentence-transformers' int8 file; all passages in one batch",
        batching="one",
        packages=("FlashRank", "onnxruntime", "tokenizers"),
        environment="light",
        export=files,
        cold=True,
        problem=None
        if setup.model_type == "bert"
        else f"of rerankers with one logit it takes BERT, this is {setup.model_type}",
    )
    return [flashrank]


def load(folder: str, max_length: int) -> Loaded:
    """folder: looks like one of its downloads. It takes no options for a session."""
    from flashrank import Ranker, RerankRequest

    path = Path(folder)
    ranker = Ranker(path.name, cache_dir=str(path.parent), max_length=max_length, log_level="ERROR")

    def score(query: str, documents: list[str], _: int | None) -> Sequence[float]:
        passages = [{"id": index, "text": document} for index, document in enumerate(documents)]
        ranked = ranker.rerank(RerankRequest(query=query, passages=passages))
        return [float(passage["score"]) for passage in sorted(ranked, key=lambda passage: passage["id"])]

    return Loaded(score, probabilities=True)


def imitation(setup: Setup) -> Export:
    onnx = onnx_files(setup)
    return Export(
        folder=onnx.folder.with_name(f"flashrank-{onnx.folder.name}"),
        environment="light",
        make=imitate,
        options={"source": str(onnx.folder), "file": f"onnx/{int8_file(setup)}"},
        after=onnx,
    )


def imitate(folder: str, source: str, file: str) -> None:
    """A folder such as FlashRank downloads, with another's file under the name that it looks for."""
    target = Path(folder) / NAME
    target.mkdir()
    for name in TOKENIZER:
        if (Path(source) / name).is_file():
            shutil.copy(Path(source) / name, target)
    (target / FILE).hardlink_to(Path(source) / file)
