"""Long documents: what ranking in windows finds that cutting them loses, and what it costs.

    python -m benchmarks.studies.long_documents [--bundle FOLDER] [--queries 100] [--joined 15]

NorQuAD's validation passages (../shared), about 90 words each, are joined in the order of the file, so that those of an article
stay together, into documents of so many passages. Relevant to a question is the document that has its passage, wherever in it
that stands; the other candidates are those that BM25 finds best. All ways rank the same candidates, one after the other.
"""

import argparse
import time
from collections.abc import Sequence

from benchmarks.harness.models import SHARED
from raskrank import Ranking, Reranker, Windows
from raskrank.measure.bm25 import Bm25
from raskrank.measure.candidates import Task, make_tasks
from raskrank.measure.data import Data, Query, read_data
from raskrank.measure.quality import quality
from raskrank.windows import LongDocuments

WAYS: dict[str, LongDocuments] = {
    "truncate": "truncate",
    "windows, max_windows=2": Windows(max_windows=2),
    "windows": "windows",
    "windows, overlap=0": Windows(overlap=0),
    "windows, overlap=128": Windows(overlap=128),
}


def joined(data: Data, count: int) -> Data:
    """Documents of `count` passages each, the last of fewer, with the grades of the passages in them."""
    names = list(data.passages)
    of_passage = {name: f"d{place // count}" for place, name in enumerate(names)}
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(of_passage[name], []).append(data.passages[name])
    queries = [
        Query(
            id=query.id,
            text=query.text,
            language=query.language,
            grades={of_passage[name]: grade for name, grade in query.grades.items()},
            negatives=None,
        )
        for query in data.queries
    ]
    return Data(passages={name: "\n\n".join(texts) for name, texts in parts.items()}, queries=tuple(queries))


def report(
    name: str, tasks: Sequence[Task], orders: Sequence[Sequence[int]], seconds: float, rankings: Sequence[Ranking]
) -> None:
    """orders: of each task's documents. rankings: the same, of a model that says more of them."""
    found = quality([[task.grades[index] for index in order] for task, order in zip(tasks, orders, strict=True)])
    hits = [hit for ranking in rankings for hit in ranking]
    cut = f"{sum(hit.truncated for hit in hits) / len(hits):10.0%}" if hits else f"{'':10}"
    tokens = sum(ranking.tokens for ranking in rankings) / len(tasks)
    print(
        f"{name:<24}{found.ndcg:8.3f}{found.mrr:8.3f}{found.top1:8.3f}{cut}{tokens:12,.0f}{1e3 * seconds / len(tasks):12,.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", help="folder or id (default: the embedded model)")
    parser.add_argument("--queries", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument("--candidates", type=int, default=10, help="of each (default: %(default)s)")
    parser.add_argument("--joined", type=int, default=15, help="passages of a document (default: %(default)s)")
    arguments = parser.parse_args()
    data = joined(read_data(SHARED / "norquad" / "validation"), arguments.joined)
    tasks = make_tasks(data, queries=arguments.queries, candidates=arguments.candidates)
    words = sum(len(document.split()) for task in tasks for document in task.documents)
    with Reranker.load(arguments.bundle) as reranker:
        info, count = reranker.info(), len(tasks) * len(tasks[0].documents)
        print(
            f"{info.name} ({info.precision}, {info.backend}), max_length {info.max_length}, {info.threads} threads; {info.cpu}"
        )
        print(f"{len(tasks)} questions, {count // len(tasks)} candidates each of {words // count:,} words\n")
        print(f"{'':24}{'nDCG@10':>8}{'MRR':>8}{'top-1':>8}{'cut':>10}{'tokens':>12}{'CPU ms':>12}")
        search = Bm25(data.passages)
        report("BM25", tasks, [search.rank(task.query, task.documents).order for task in tasks], 0.0, [])
        for name, way in WAYS.items():
            start = time.process_time()
            rankings = [reranker.rank(task.query, task.documents, long_documents=way) for task in tasks]
            seconds = time.process_time() - start
            report(name, tasks, [[hit.index for hit in ranking] for ranking in rankings], seconds, rankings)
        print("\ncut: documents not read to their ends. tokens, CPU ms: that a question takes, all candidates together.")


if __name__ == "__main__":
    main()
