"""Raskrank itself: Reranker.load with its defaults, int8 and fp32."""

from dataclasses import replace

from benchmarks.harness.contender import OURS, Contender, Loaded, Setup


def contenders(setup: Setup) -> list[Contender]:
    from benchmarks.harness.models import bundle, manifest

    int8, fp32 = bundle(setup.model, "int8"), bundle(setup.model, "fp32")
    ours = Contender(
        name=OURS,
        load=load,
        options={"folder": str(int8), "threads": setup.threads},
        setting=f"defaults; scheme {manifest(int8).recipe.scheme}",
        batching="unpadded",
        packages=("raskrank", "onnxruntime", "tokenizers", "numpy"),
        cold=True,
    )
    options = {**ours.options, "folder": str(fp32)}
    return [ours, replace(ours, name="Raskrank fp32", options=options, setting="defaults", cold=False)]


def load(folder: str, threads: int) -> Loaded:
    """folder: a bundle."""
    from raskrank import Reranker

    reranker = Reranker.load(folder, threads=threads)
    return Loaded(lambda query, documents, _: reranker.score(query, documents), reranker.info().activation == "sigmoid")
