"""The public surface, pinned: a change here is a change for every user, so it is made on purpose."""

import dataclasses
import inspect
import json
import os
import pickle
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import raskrank
import raskrank_export
from raskrank import Cascade, Info, Limits, NonFiniteScore, Ranked, Ranking, Reranker, Verification, Windows
from raskrank.backend import Float32Array
from raskrank.extras import need
from raskrank.parity import compare

ERRORS = {  # name -> its bases
    "RaskrankError": ("Exception",),
    "InputError": ("RaskrankError", "ValueError"),
    "LimitError": ("InputError",),
    "BundleError": ("RaskrankError",),
    "MissingFile": ("BundleError",),
    "Corrupt": ("BundleError",),
    "Incompatible": ("BundleError",),
    "MissingExtra": ("RaskrankError", "ImportError"),
    "CheckpointError": ("RaskrankError",),
    "NotACrossEncoder": ("CheckpointError",),
    "ExportError": ("RaskrankError",),
    "ParityError": ("ExportError",),
    "InferenceError": ("RaskrankError",),
    "NonFiniteScore": ("InferenceError",),
    "ClosedError": ("RaskrankError",),
    "ForkError": ("RaskrankError",),
    "RaskrankWarning": ("UserWarning",),
}


def shape(function: object) -> str:
    """Names, order, kinds and defaults of the parameters, as `def` has them."""
    signature = inspect.signature(function)  # type: ignore[arg-type]
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def test_the_names_of_the_engine() -> None:
    others = ["Cascade", "Info", "Limits", "Parity", "Ranked", "Ranking", "Reranker", "Verification", "Windows", "__version__"]
    assert raskrank.__all__ == sorted([*ERRORS, *others])


def test_the_names_of_the_exporter() -> None:
    assert raskrank_export.__all__ == ["ExportReport", "Form", "Progress", "Thresholds", "export"]


@pytest.mark.parametrize("package", [raskrank, raskrank_export])
def test_every_name_is_there(package: object) -> None:
    for name in package.__all__:  # type: ignore[attr-defined]
        assert getattr(package, name) is not None


RANK = (
    "(self, query, documents, top_k=None, *, raw_scores=False, score_threshold=None, long_documents='truncate', deadline=None)"
)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (
            Reranker.load,
            "(bundle=None, *, threads=None, backend=None, fallback=None, checkpoint=None, expected_sha256=None, "
            "ignore_target=False, map_weights=True, limits=None, cache_bytes=0)",
        ),
        *((method, RANK) for method in (Reranker.rank, Reranker.arank, Cascade.rank, Cascade.arank)),
        (Reranker.score, "(self, query, documents, *, raw_scores=False, long_documents='truncate')"),
        (Reranker.ascore, "(self, query, documents, *, raw_scores=False, long_documents='truncate')"),
        (Reranker.score_pairs, "(self, pairs, *, raw_scores=False, long_documents='truncate')"),
        (Reranker.assess, "(self, pairs, *, raw_scores=False, long_documents='truncate')"),
        (Reranker.verify, "(self, pairs=None)"),
        (Reranker.info, "(self)"),
        (Reranker.progress, "(self, advance)"),
        (Reranker.close, "(self)"),
        (Cascade, "(rerankers, keep)"),
        (Cascade.info, "(self)"),
        (Cascade.close, "(self)"),
        (Limits, "(*, max_documents=1000000, max_text_chars=10000000)"),
        (Windows, "(*, max_windows=16, overlap=64)"),
        (Ranked, "(index, score, truncated, span=None)"),
        (Ranking, "(hits=(), *, partial=False, tokens=0, tokenize_seconds=0.0, score_seconds=0.0)"),
        (
            raskrank_export.export,
            "(model, output, *, precision='int8', revision=None, max_length=None, samples=None, "
            "scheme=None, target='portable', trim_vocab=(), trim_form=None, accept_license=None, relevant_label=None, "
            "thresholds=None, overwrite=False, progress=None)",
        ),
    ],
)
def test_signatures(function: object, expected: str) -> None:
    assert shape(function) == expected


def test_public_classes_are_named_as_they_are_imported() -> None:
    classes = [item for name in raskrank.__all__ if isinstance(item := getattr(raskrank, name), type)]
    assert {item.__module__ for item in classes} == {"raskrank"}
    assert {Cascade, Reranker, Ranked, Ranking, Windows, raskrank.RaskrankError} <= set(classes)
    hit = Ranked(0, 0.5, truncated=False)
    assert pickle.loads(pickle.dumps(hit)) == hit


def test_types() -> None:
    hints = typing.get_type_hints
    for rank in (Reranker.rank, Reranker.arank, Cascade.rank, Cascade.arank):
        assert hints(rank) == {
            "query": str,
            "documents": Collection[str],
            "top_k": int | None,
            "raw_scores": bool,
            "score_threshold": float | None,
            "long_documents": Literal["truncate", "windows"] | Windows,
            "deadline": float | None,
            "return": Ranking,
        }
    asked = {"raw_scores": bool, "long_documents": Literal["truncate", "windows"] | Windows}
    scores = {**asked, "return": Float32Array}
    for score in (Reranker.score, Reranker.ascore):
        assert hints(score) == {"query": str, "documents": Collection[str], **scores}
    assert hints(Reranker.score_pairs) == {"pairs": Collection[tuple[str, str]], **scores}
    assert hints(Reranker.assess) == {"pairs": Collection[tuple[str, str]], **asked, "return": Ranking}
    assert hints(Reranker.verify) == {"pairs": Collection[tuple[str, str]] | None, "return": Verification}
    assert hints(Reranker.info) == {"return": Info}
    assert hints(Cascade.info) == {"return": tuple[Info, ...]}
    assert hints(Reranker.load) == {
        "bundle": str | os.PathLike[str] | None,
        "threads": int | None,
        "backend": Literal["native", "onnx", "torch"] | None,
        "fallback": Literal["torch"] | None,
        "checkpoint": str | Path | None,
        "expected_sha256": str | None,
        "ignore_target": bool,
        "map_weights": bool,
        "limits": Limits | None,
        "cache_bytes": int,
        "return": typing.Self,
    }


def test_the_public_methods_of_a_reranker() -> None:
    public = {name for name in dir(Reranker) if not name.startswith("_")}
    assert public == {
        *("arank", "ascore", "assess", "close", "info", "load", "progress", "rank", "score", "score_pairs", "verify")
    }
    assert {name for name in dir(Cascade) if not name.startswith("_")} == {"arank", "close", "info", "rank"}


def test_the_fields_of_a_hit() -> None:
    hit = Ranked(index=3, score=0.5, truncated=True)
    assert Ranked._fields == ("index", "score", "truncated", "span")
    assert hit == (3, 0.5, True, None)
    assert typing.get_type_hints(Ranked) == {
        "index": int,
        "score": float,
        "truncated": bool,
        "span": tuple[int, int] | None,
    }


def test_a_ranking_is_a_list_that_knows_what_it_took() -> None:
    hits = [Ranked(1, 0.9, truncated=False), Ranked(0, 0.2, truncated=True, span=(3, 9))]
    ranking = Ranking(hits, partial=True, tokens=12, tokenize_seconds=0.5, score_seconds=1.5)
    assert ranking == hits
    assert isinstance(ranking, list)
    again = pickle.loads(pickle.dumps(ranking))
    assert type(again) is Ranking
    assert again == ranking
    assert vars(again) == {"partial": True, "tokens": 12, "tokenize_seconds": 0.5, "score_seconds": 1.5}


def test_the_keys_of_a_parity_summary() -> None:
    logits = np.zeros(1, np.float32)
    assert list(compare([("q", "d")], ("a", logits), ("b", logits)).summary()) == [
        "reference",
        "candidate",
        "part",
        "pairs",
        "queries",
        "logit_spread",
        "rounding",
        "max_logit_difference",
        "mean_logit_difference",
        "max_drift",
        "mean_drift",
        "tau",
        "top1",
    ]


def test_the_fields_of_info() -> None:
    names = [field.name for field in dataclasses.fields(Info)]
    assert names == [
        *("name", "backend", "reason", "kernels", "bundle", "model_from", "manifest_sha256", "source", "revision", "license"),
        *("accepted_license", "languages", "architecture", "parameters", "precision", "instruction_set", "activation"),
        *("max_length", "normalization", "threads", "threads_reason", "cpu", "cpu_instruction_sets", "fallback"),
        *(
            "rescued_pairs",
            "cache_bytes",
            "cache_used_bytes",
            "cache_hits",
            "cache_misses",
            "kept_pieces",
            "unknown_texts",
            "versions",
        ),
    ]
    with Reranker.load() as reranker:
        info = reranker.info()
    assert list(json.loads(json.dumps(dataclasses.asdict(info)))) == names


@pytest.mark.parametrize("name", ERRORS)
def test_the_error_tree(name: str) -> None:
    error = getattr(raskrank, name)
    assert tuple(base.__name__ for base in error.__bases__) == ERRORS[name]


def test_a_non_finite_score_carries_its_indices_through_pickle() -> None:
    error = pickle.loads(pickle.dumps(NonFiniteScore("2 of 5", [1, 4])))
    assert (str(error), error.indices) == ("2 of 5", (1, 4))


def public_objects() -> dict[str, object]:
    found: dict[str, object] = {"raskrank": raskrank, "raskrank_export": raskrank_export}
    for package in (raskrank, raskrank_export):
        for name in package.__all__:
            value = getattr(package, name)
            if not inspect.isclass(value) and not inspect.isfunction(value):
                continue
            found[f"{package.__name__}.{name}"] = value
            if inspect.isclass(value) and value.__module__.startswith("raskrank"):
                own = [kind for kind in value.__mro__[::-1] if kind.__module__.startswith("raskrank")]
                entries = {key: entry for kind in own for key, entry in vars(kind).items() if not key.startswith("_")}
                members = {key: entry for key, entry in entries.items() if callable(entry)}
                members |= {key: entry.__func__ for key, entry in entries.items() if isinstance(entry, classmethod)}
                found |= {f"{package.__name__}.{name}.{key}": entry for key, entry in members.items()}
    return found


@pytest.mark.parametrize("name", public_objects())
def test_everything_public_is_documented(name: str) -> None:
    value = public_objects()[name]
    own = value.__doc__ or ""
    assert len(own.split()) >= 4, "a docstring of its own"
    # What dataclasses and NamedTuple write for whoever writes none.
    assert not own.startswith(f"{name.rpartition('.')[2]}(")


def test_the_docstrings_name_what_is_raised_and_the_shapes() -> None:
    scoring = (Reranker.rank, Reranker.arank, Reranker.score, Reranker.ascore, Reranker.score_pairs, Reranker.assess)
    for method in (Reranker.load, *scoring, Reranker.verify, Cascade.__init__, Cascade.rank, Cascade.arank):
        assert "aises" in (method.__doc__ or "")
    for method in (Reranker.score, Reranker.ascore, Reranker.score_pairs):
        assert "float32 (n)" in (method.__doc__ or "")


def test_the_version_is_a_version() -> None:
    assert all(part.isdigit() for part in raskrank.__version__.split("."))


def test_a_missing_package_is_an_import_error_with_the_line_that_installs_it() -> None:
    with pytest.raises(
        ImportError, match=r"^reading minds needs no_such_module; install it with: pip install 'raskrank\[mind\]'$"
    ):
        need("reading minds", "mind", "json", "no_such_module")
    need("reading files", "mind", "json", "pathlib")


@pytest.mark.parametrize("error", [name for name in ERRORS if name != "RaskrankWarning"])
def test_every_error_is_caught_as_raskranks_own(error: str) -> None:
    assert issubclass(getattr(raskrank, error), raskrank.RaskrankError)
