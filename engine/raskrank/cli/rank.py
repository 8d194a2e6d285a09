"""`raskrank rank`."""

import argparse
import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from raskrank import license
from raskrank.cli.shared import choose, form_of, progress_bar, windows_of
from raskrank.documents import TITLE_FIELD, Document, read_documents
from raskrank.errors import NonFiniteScore
from raskrank.extras import need_exporter
from raskrank.printable import ELLIPSIS, table
from raskrank.ranking import Ranked
from raskrank.reranker import Reranker
from raskrank.terminal import columns, say, show, to_json
from raskrank.windows import Windows

PROGRESS_DOCUMENTS = 200  # fewer are ranked before a bar says anything
UNSCORED = "–"  # in the place of a score


def run(arguments: argparse.Namespace) -> int:
    if arguments.backend == "torch":
        need_exporter("--backend torch")
    windows = windows_of(arguments)
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
                hits = reranker.rank(
                    arguments.query,
                    texts,
                    top_k=arguments.top_k,
                    raw_scores=arguments.raw_scores,
                    score_threshold=arguments.score_threshold,
                    long_documents=windows or "truncate",
                    deadline=arguments.deadline,
                )
            except NonFiniteScore as error:
                raise NonFiniteScore(f"{name}: {_broken(error, documents)}", error.indices) from error
        info = reranker.info()
        if note := license.note(info.name, info.license):
            say(note)
        if hits.partial and (arguments.json or not any(math.isnan(hit.score) for hit in hits)):
            say(f"note: not all of {len(documents)} documents were scored within {arguments.deadline:g} s")
        if arguments.json:
            show(_ranking_json(hits, documents))
        elif hits:
            notes = {"*": _unread(info.max_length, windows), UNSCORED: f"not scored within {arguments.deadline or 0:g} s"}
            show("\n".join(_ranking_table(hits, documents, notes)))
        elif documents:
            say(f"{name}: none of {len(documents)} documents scores {arguments.score_threshold:g} or more")
        else:
            say(f"{name} holds no document")
    return 0


def _ranking_json(hits: Sequence[Ranked], documents: Sequence[Document]) -> str:
    """A JSON array with one object a line."""
    rows = []
    for rank, hit in enumerate(hits, 1):
        document = documents[hit.index]
        row = {"rank": rank, "index": hit.index, document.unit: document.number, **document.extra}
        read = {"truncated": hit.truncated} if hit.span is None else {"truncated": hit.truncated, "span": hit.span}
        rows.append(to_json({**row, "score": hit.score, **read, "text": document.text}))
    return "[\n" + ",\n".join(rows) + "\n]" if rows else "[]"


def _ranking_table(hits: Sequence[Ranked], documents: Sequence[Document], notes: Mapping[str, str]) -> list[str]:
    """notes: what the mark of a truncated document says, and that of one without a score."""
    limit, truncated = columns(sys.stdout), any(hit.truncated for hit in hits)
    marks = {False: [""], True: ["*"]} if truncated else {False: []}  # the column is there only if it says something
    rows = [
        [
            str(rank),
            UNSCORED if math.isnan(hit.score) else f"{hit.score:.4f}",
            str(documents[hit.index].number),
            *marks[hit.truncated],
            _beginning(documents[hit.index].text, hit.span),
        ]
        for rank, hit in enumerate(hits, 1)
    ]
    lines = table(["rank", "score", documents[0].unit, *marks[False], "text"], rows, limit)
    used = {"*": truncated, UNSCORED: any(math.isnan(hit.score) for hit in hits)}
    for mark in (mark for mark, there in used.items() if there):
        lines += ["", *textwrap.wrap(f"{mark} {notes[mark]}", limit, subsequent_indent="  ")]
    return lines


def _beginning(text: str, span: tuple[int, int] | None) -> str:
    """What a line shows the beginning of: the best window, or the text where it begins with that."""
    start = 0 if span is None else span[0]
    return f"{ELLIPSIS} {text[start:]}" if text[:start].strip() else text


def _unread(max_length: int, windows: Windows | None) -> str:
    if windows is None:
        return f"not read to its end: the model reads {max_length} tokens of query and document"
    return f"not read to its end: {windows.max_windows} windows of {max_length} tokens, the query in each"


def _broken(error: NonFiniteScore, documents: Sequence[Document]) -> str:
    numbers = ", ".join(str(documents[index].number) for index in error.indices[:10])
    return f"scores are NaN or infinite on {documents[0].unit}s {numbers}{', ...' if len(error.indices) > 10 else ''}"
