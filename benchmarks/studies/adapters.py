"""What ranking 100 documents through an adapter costs beside `Reranker.rank`, everyone in turns.

    make test-applications    once: it makes the environment that has the frameworks
    .venv-applications/bin/python -m benchmarks.studies.adapters [--bundle FOLDER] [--documents 100] [--rounds 12]

"In turns": an adapter's time as a multiple of the library's in the same round, the median of the rounds. On a machine that
others use it varies by more than an adapter costs, as the line of the library beside itself shows. "Its own": the milliseconds
of a call that are spent outside the library, and what share that is of the library's; that holds on any machine.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from haystack import Document as HaystackDocument
from langchain_core.documents import Document as LangChainDocument
from llama_index.core.schema import NodeWithScore, TextNode

from benchmarks.harness import workloads
from raskrank import Ranking, Reranker, cpu
from raskrank.backend import Float32Array
from raskrank.integrations.haystack import RaskrankRanker
from raskrank.integrations.langchain import RaskrankCrossEncoder
from raskrank.integrations.langchain import RaskrankRerank as LangChainRerank
from raskrank.integrations.llama_index import RaskrankRerank as LlamaIndexRerank
from raskrank.integrations.sentence_transformers import CrossEncoder
from raskrank.measure.timing import interleaved

LIBRARY = "Reranker.rank"
META = {"source": "cv.pdf", "page": 3}  # as retrievers give it


class Timed(Reranker):
    """Adds up the seconds that are spent in it."""

    inside = 0.0

    def rank(self, *args: Any, **kwargs: Any) -> Ranking:
        with self._timed():
            return super().rank(*args, **kwargs)

    async def arank(self, *args: Any, **kwargs: Any) -> Ranking:
        with self._timed():
            return await super().arank(*args, **kwargs)

    def score_pairs(self, *args: Any, **kwargs: Any) -> Float32Array:
        with self._timed():
            return super().score_pairs(*args, **kwargs)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.inside += time.perf_counter() - start

    def outside(self, call: Callable[[], object], calls: list[float]) -> None:
        """Make the call, and note what of its seconds was not spent in here."""
        start, before = time.perf_counter(), self.inside
        call()
        calls.append(time.perf_counter() - start - (self.inside - before))


def callers(reranker: Reranker, texts: list[str], loop: asyncio.AbstractEventLoop) -> dict[str, Callable[[], object]]:
    """By name: what ranks the same texts, all of which are wanted. What a framework makes before it ranks is made already."""
    query, count = workloads.QUERY, len(texts)
    pairs = [(query, text) for text in texts]
    documents = [LangChainDocument(page_content=text, metadata=dict(META)) for text in texts]
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in texts]
    contents = [HaystackDocument(content=text, meta=dict(META)) for text in texts]
    model, scorer = CrossEncoder(reranker), RaskrankCrossEncoder(bundle=reranker)
    compressor, postprocessor = LangChainRerank(bundle=reranker, top_n=count), LlamaIndexRerank(bundle=reranker, top_n=count)
    ranker = RaskrankRanker(reranker, top_k=count)
    return {
        LIBRARY: lambda: reranker.rank(query, texts),
        f"{LIBRARY} again": lambda: reranker.rank(query, texts),
        "Reranker.arank": lambda: loop.run_until_complete(reranker.arank(query, texts)),
        "sentence-transformers: rank": lambda: model.rank(query, texts),
        "sentence-transformers: predict": lambda: model.predict(pairs),
        "LangChain: cross-encoder": lambda: scorer.score(pairs),
        "LangChain: compressor": lambda: compressor.compress_documents(documents, query),
        "LangChain: compressor, async": lambda: loop.run_until_complete(compressor.acompress_documents(documents, query)),
        "LlamaIndex: postprocessor": lambda: postprocessor.postprocess_nodes(nodes, query_str=query),
        "LlamaIndex: postprocessor, async": lambda: loop.run_until_complete(
            postprocessor.apostprocess_nodes(nodes, query_str=query)
        ),
        "Haystack: ranker": lambda: ranker.run(query=query, documents=contents),
        "Haystack: ranker, async": lambda: loop.run_until_complete(ranker.run_async(query=query, documents=contents)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", help="a bundle's folder; by default the embedded model")
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    with Timed.load(arguments.bundle) as reranker, asyncio.Runner() as runner:
        calls = callers(reranker, workloads.passages(arguments.documents), runner.get_loop())
        own: dict[str, list[float]] = {name: [] for name in calls}
        turns = {name: partial(reranker.outside, call, own[name]) for name, call in calls.items()}
        times = {name: timing.seconds for name, timing in interleaved(turns, rounds=arguments.rounds).items()}
        info = reranker.info()
    base = times.pop(LIBRARY)
    whole = statistics.median(base)
    print(f"{info.name} {info.precision} on {info.backend}, {arguments.documents} mixed passages, {arguments.rounds} rounds")
    print(f"{cpu.model_name()}, {info.threads} threads; {LIBRARY}: {1e3 * whole:.1f} ms\n")
    print(f"{'':<34}{'in turns':>10}{'its own':>12}")
    for name, seconds in times.items():
        ratio = statistics.median(other / library for other, library in zip(seconds, base, strict=True))
        outside = statistics.median(own[name])
        print(f"{name:<34}{ratio - 1:>+10.1%}{1e3 * outside:>9.2f} ms{outside / whole:>8.2%}")


if __name__ == "__main__":
    main()
