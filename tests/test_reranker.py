"""The main path: ranking, and what info says."""

import copy
import json
import os
from types import NoneType

import numpy as np
import pytest

from backends import note_runs
from builders import ENGLISH, SENTENCES
from callers import DOCUMENTS, QUERY
from conftest import Tiny
from raskrank import Ranked, Reranker
from raskrank.bundle import record
from raskrank.manifest import MANIFEST
from raskrank.scoring import CHUNK_PAIRS

# Ranking


def test_best_first_with_the_scores_of_score(nano: Reranker) -> None:
    hits = nano.rank(QUERY, DOCUMENTS)
    scores = nano.score(QUERY, DOCUMENTS)
    assert scores.dtype == np.float32
    assert scores.shape == (len(DOCUMENTS),)
    assert [hit.index for hit in hits] == np.argsort(-scores, kind="stable").tolist()
    assert [hit.score for hit in hits] == [float(scores[hit.index]) for hit in hits]
    assert DOCUMENTS[hits[0].index] == "Kari har skrevet Python i ti år og lærer gjerne bort det hun kan."


def test_a_hit_is_made_of_plain_values(nano: Reranker) -> None:
    (hit,) = nano.rank(QUERY, ["Python"])
    assert type(hit) is Ranked
    assert [type(value) for value in hit] == [int, float, bool, NoneType]
    assert json.loads(json.dumps(hit._asdict()))["index"] == 0


def test_ties_keep_the_order_of_the_input(nano: Reranker) -> None:
    documents = ["Bil", "Python", "Bil", "Python", "Bil"]
    hits = nano.rank(QUERY, documents)
    assert [hit.index for hit in hits] in ([1, 3, 0, 2, 4], [0, 2, 4, 1, 3])
    assert len({hit.score for hit in hits}) == 2


@pytest.mark.parametrize("top_k", [1, 2, len(DOCUMENTS) - 1, len(DOCUMENTS), len(DOCUMENTS) + 1, 10**12])
def test_top_k_is_the_head_of_the_ranking(nano: Reranker, top_k: int) -> None:
    assert nano.rank(QUERY, DOCUMENTS, top_k=top_k) == nano.rank(QUERY, DOCUMENTS)[:top_k]


def test_top_k_may_be_a_numpy_integer(nano: Reranker) -> None:
    assert len(nano.rank(QUERY, DOCUMENTS, top_k=np.int64(2))) == 2  # type: ignore[arg-type]


def test_no_documents_need_no_run(nano: Reranker, runs: list[tuple[int, ...]]) -> None:
    assert nano.rank(QUERY, []) == []
    assert nano.rank(QUERY, [], top_k=3) == []
    for scores in (nano.score(QUERY, []), nano.score_pairs([])):
        assert scores.dtype == np.float32
        assert scores.shape == (0,)
    assert runs == []
    nano.score(QUERY, ["Python"])
    assert len(runs) == 1


def test_score_pairs_is_score_with_a_query_each(nano: Reranker) -> None:
    pairs = [(query, document) for query in (QUERY, ENGLISH[0], "") for document in DOCUMENTS]
    expected = np.concatenate([nano.score(query, DOCUMENTS) for query in (QUERY, ENGLISH[0], "")])
    assert nano.score_pairs(pairs).tobytes() == expected.tobytes()


def test_sequences_of_other_kinds_score_the_same(nano: Reranker) -> None:
    expected = nano.score(QUERY, DOCUMENTS)
    assert nano.score(QUERY, tuple(DOCUMENTS)).tobytes() == expected.tobytes()
    assert nano.score(np.str_(QUERY), [np.str_(text) for text in DOCUMENTS]).tobytes() == expected.tobytes()
    assert nano.rank(QUERY, tuple(DOCUMENTS)) == nano.rank(QUERY, DOCUMENTS)


def test_more_pairs_than_a_chunk_keep_their_order(nano: Reranker, runs: list[tuple[int, ...]]) -> None:
    documents = [f"Dokument {number}" for number in range(CHUNK_PAIRS + 100)]
    parts = [nano.score("nummer", documents[start : start + 100]) for start in range(0, len(documents), 100)]
    many = nano.score("nummer", documents)
    assert many.tobytes() == np.concatenate(parts).tobytes()
    assert sum(rows for rows, _ in runs) == 2 * len(documents)
    assert max(rows for rows, _ in runs) > 1  # equal lengths share runs
    hits = nano.rank("nummer", documents)
    assert sorted(hit.index for hit in hits) == list(range(len(documents)))
    assert [(hit.score, -hit.index) for hit in hits] == sorted(((hit.score, -hit.index) for hit in hits), reverse=True)


def test_truncated_says_which_documents_were_not_read_whole(nano: Reranker) -> None:
    long = " ".join(SENTENCES * 4)
    hits = sorted(nano.rank("Hva er kort?", ["kort", long, "", long + "!"]))
    assert [hit.truncated for hit in hits] == [False, True, False, True]
    # What lies behind the cut does not matter.
    assert hits[1].score == hits[3].score


def test_nothing_of_the_callers_is_changed(nano: Reranker) -> None:
    documents, pairs = list(DOCUMENTS), [[QUERY, document] for document in DOCUMENTS]
    kept = copy.deepcopy((documents, pairs))
    nano.rank(QUERY, documents, top_k=2)
    nano.score(QUERY, documents)
    nano.score_pairs(pairs)  # type: ignore[arg-type]
    assert (documents, pairs) == kept


def test_what_a_caller_changes_during_a_call_does_not_matter(nano: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, documents = nano.score(QUERY, DOCUMENTS), list(DOCUMENTS)
    note_runs(monkeypatch, lambda _: documents.clear())
    assert nano.score(QUERY, documents).tobytes() == expected.tobytes()
    assert documents == []


def test_scores_belong_to_the_caller(nano: Reranker) -> None:
    scores = nano.score(QUERY, DOCUMENTS)
    kept = scores.copy()
    scores += 1
    assert nano.score(QUERY, DOCUMENTS).tobytes() == kept.tobytes()


# info


def test_info_says_what_runs(tiny: Tiny) -> None:
    bundle = tiny.bundle("bert", "int8")
    with Reranker.load(bundle, threads=3) as reranker:
        info = reranker.info()
        assert repr(reranker) == f"<Reranker checkpoint-bert on {info.backend}>"
    assert (info.threads, info.threads_reason) == (3, "as asked for")
    assert (info.precision, info.activation, info.max_length) == ("int8", "sigmoid", 128)
    assert info.manifest_sha256 == record(bundle / MANIFEST).sha256
    assert info.source == str(tiny.checkpoint("bert"))
    assert info.rescued_pairs == 0
    text = str(info)
    for part in ("checkpoint-bert", "int8", "BertForSequenceClassification", str(bundle), info.cpu, "as asked for"):
        assert part in text
    assert "None" not in text
    labels = [line.split("  ")[0].strip() for line in text.splitlines()]
    assert labels[0] == "name"
    assert "rescued pairs" in labels
    assert "fallback" not in labels


def test_info_counts_the_cpus(nano: Reranker) -> None:
    with Reranker.load() as reranker:
        info = reranker.info()
    assert 1 <= info.threads <= (os.cpu_count() or 1)
    assert info.threads_reason == "CPUs that affinity and cgroup quota allow"
