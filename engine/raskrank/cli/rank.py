"""`raskrank rank`."""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from contextlib import nullcontext

from raskrank import license
from raskrank.cli.shared import EXPORTER, choose, form_of, progress_bar
from raskrank.documents import TITLE_FIELD, Document, read_documents
from raskrank.errors import NonFiniteScore
from raskrank.extras import need
from raskrank.ranking import Ranked
from raskrank.reranker import Reranker
from raskrank.terminal import columns, say, show, table, to_json

PROGRESS_DOCUMENTS = 200  # fewer are ranked before a bar says anything


def run(arguments: argparse.Namespace) -> int:
    if arguments.backend == "torch":
        need("--backend torch", *EXPORTER)
    name, documents = read_documents(arguments.file, form_of(arguments))
    if any(document.untold_title for document in documents):
        say(f'note: "{TITLE_FIELD}" is not ranked; --title-field {TITLE_FIELD} puts it in front of each text')
    texts = [document.text for document in documents]
    checkpoint_alone = arguments.backend == "torch" and arguments.bundle is None and arguments.checkpoint is not None
    with Reranker.load(
        None if checkpoint_alone else choose(arguments),
        threads=arguments.threads,
        backend=arguments.backend,
        fallback=arguments.fallback,
        checkpoint=arguments.checkpoint,
        ignore_target=arguments.ignore_target,
        map_weights=arguments.map_weights,
    ) as reranker:
        with progress_bar(reranker, "ranking", len(texts)) if len(texts) > PROGRESS_DOCUMENTS else nullcontext():
            try:
                hits = reranker.rank(arguments.query, texts, top_k=arguments.top_k, raw_scores=arguments.raw_scores)
            except NonFiniteScore as error:
                raise NonFiniteScore(f"{name}: {_broken(error, documents)}", error.indices) from error
        info = reranker.info()
        if note := license.note(info.name, info.license):
            say(note)
        if arguments.json:
            show(_ranking_json(hits, documents))
        elif hits:
            show("\n".join(_ranking_table(hits, documents, info.max_length)))
        else:
            say(f"{name} holds no document")
    return 0


def _ranking_json(hits: Sequence[Ranked], documents: Sequence[Document]) -> str:
    """A JSON array with one object a line."""
    rows = []
    for rank, hit in enumerate(hits, 1):
        document = documents[hit.index]
        row = {"rank": rank, "index": hit.index, document.unit: document.number, **document.extra}
        rows.append(to_json({**row, "score": hit.score, "truncated": hit.truncated, "text": document.text}))
    return "[\n" + ",\n".join(rows) + "\n]" if rows else "[]"


def _ranking_table(hits: Sequence[Ranked], documents: Sequence[Document], max_length: int) -> list[str]:
    limit, truncated = columns(sys.stdout), any(hit.truncated for hit in hits)
    marks = {False: [""], True: ["*"]} if truncated else {False: []}  # the column is there only if it says something
    rows = [
        [
            str(rank),
            f"{hit.score:.4f}",
            str(documents[hit.index].number),
            *marks[hit.truncated],
            documents[hit.index].text,
        ]
        for rank, hit in enumerate(hits, 1)
    ]
    lines = table(["rank", "score", documents[0].unit, *marks[False], "text"], rows, limit)
    if truncated:
        note = f"* not read to its end: the model reads {max_length} tokens of query and document"
        lines += ["", *textwrap.wrap(note, limit, subsequent_indent="  ")]
    return lines


def _broken(error: NonFiniteScore, documents: Sequence[Document]) -> str:
    numbers = ", ".join(str(documents[index].number) for index in error.indices[:10])
    return f"scores are NaN or infinite on {documents[0].unit}s {numbers}{', ...' if len(error.indices) > 10 else ''}"
