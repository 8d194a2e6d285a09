"""pytest-benchmark suite, to compare commits: make bench-suite BENCH=--benchmark-save=NAME, then BENCH=--benchmark-compare."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness import workloads
from benchmarks.harness.models import bundle, plain_tokenizer
from raskrank import Reranker
from raskrank.encoding import PairEncoder
from raskrank.manifest import Precision

MODELS = ("nano", "minilm")
ROUNDS = 5


@pytest.fixture(scope="module", params=[(model, precision) for model in MODELS for precision in ("int8", "fp32")], ids="-".join)
def reranker(request: pytest.FixtureRequest) -> Iterator[Reranker]:
    with Reranker.load(_bundle(*request.param)) as loaded:
        yield loaded


@pytest.mark.parametrize("count", [1, 10, 100])
@pytest.mark.parametrize("kind", ["short", "mixed", "long"])
def test_score(benchmark: BenchmarkFixture, reranker: Reranker, kind: workloads.Kind, count: int) -> None:
    documents = workloads.passages(count, kind)
    benchmark.group = f"{count} {kind} passages"
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        reranker.score, (workloads.query(kind), documents), rounds=ROUNDS, warmup_rounds=1
    )


@pytest.mark.parametrize("model", MODELS)
def test_load(benchmark: BenchmarkFixture, model: str) -> None:
    folder = _bundle(model, "int8")
    benchmark.group = "load"
    benchmark(lambda: Reranker.load(folder).close())


@pytest.mark.parametrize("model", [*MODELS, "bge"])
def test_tokenize_100_passages(benchmark: BenchmarkFixture, model: str) -> None:
    pairs = [(workloads.QUERY, document) for document in workloads.passages(100)]
    try:
        encoder = PairEncoder(plain_tokenizer(model), 512)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    benchmark.group = "tokenizing"
    benchmark(encoder.encode, pairs)


def _bundle(model: str, precision: Precision) -> Path:
    try:
        return bundle(model, precision)
    except FileNotFoundError as error:
        pytest.skip(str(error))
