"""The tables and the chart of `raskrank compare`."""

from pathlib import Path
from typing import Any

from raskrank.measure.chart import draw_chart
from raskrank.measure.compare import About, Agreement, Judged, Overlap, Result
from raskrank.measure.compare_report import to_markdown
from raskrank.measure.fresh import FreshProcess
from raskrank.measure.quality import Quality
from raskrank.measure.timing import Timing


def _result(name: str, runs: str, ndcg: float, ms: float, **more: Any) -> Result:
    judged = Judged(quality=Quality(queries=200, ndcg=ndcg, mrr=0.5, top1=0.333), tokens=123.45)
    known: dict[str, Any] = {
        "license": None,
        "parameters": 2_410_000,
        "disk_bytes": 2_850_000,
        "languages": {},
        "non_finite": 0,
        "agreement": None,
        "overlap": None,
        "fresh": FreshProcess(first_score_s=0.234, resident_bytes=85_100_000, private_bytes=None),
    }
    calls = {10: Timing((ms / 1e4,) * 20), 100: Timing((ms / 1e3,) * 20)}
    return Result(name=name, runs=runs, origin=name, overall=judged, calls=calls, **{**known, **more})


ABOUT = About(
    data="norquad",
    queries=200,
    candidates=20,
    machine="AMD EPYC, 2 usable CPUs",
    date="2026-11-25",
    versions={"Python": "3.11"},
)


def test_tables_read_as_text() -> None:
    judged = Judged(quality=Quality(queries=100, ndcg=0.8, mrr=0.7, top1=1.0), tokens=99.5)
    int8 = _result(
        "nano", "onnx int8", 0.8123, 350.4, languages={"nb": judged, "nn": judged}, agreement=Agreement(tau=0.9919, top1=1.0)
    )
    other = _result("blå|bær", "bi-encoder", 0.75, 12.34, non_finite=7, disk_bytes=None, fresh=None)
    assert to_markdown([int8, other], ABOUT) == TABLES


TABLES = """\
## Quality: 200 queries with up to 20 candidates each

| model    | runs       | nDCG@10 | MRR@10 | top-1 | tokens/passage | not finite |
|----------|------------|--------:|-------:|------:|---------------:|-----------:|
| nano     | onnx int8  |  0.8123 | 0.5000 | 33.3% |          123.5 |          0 |
| blå\\|bær | bi-encoder |  0.7500 | 0.5000 | 33.3% |          123.5 |          7 |

## By language

| model | runs      | language | queries | nDCG@10 | MRR@10 |  top-1 | tokens/passage |
|-------|-----------|----------|--------:|--------:|-------:|-------:|---------------:|
| nano  | onnx int8 | nb       |     100 |  0.8000 | 0.7000 | 100.0% |           99.5 |
| nano  | onnx int8 | nn       |     100 |  0.8000 | 0.7000 | 100.0% |           99.5 |

## Against the checkpoint

| model | runs      | Kendall tau | same best passage |
|-------|-----------|------------:|------------------:|
| nano  | onnx int8 |      0.9919 |            100.0% |

## Size and speed

| model    | runs       | M params | MB disk | MB memory | s to score |   ms for 10 |  ms for 100 |
|----------|------------|---------:|--------:|----------:|-----------:|------------:|------------:|
| nano     | onnx int8  |     2.41 |    2.85 |      85.1 |       0.23 | 35.0 / 35.0 |   350 / 350 |
| blå\\|bær | bi-encoder |     2.41 |       – |         – |          – | 1.23 / 1.23 | 12.3 / 12.3 |

ms for 10 and 100 passages: median / 95th percentile of at least 20 calls, the models taking turns.
In fresh processes: s to score, from start to first score; MB memory, resident after 100 passages.

Data: norquad. 2026-11-25, AMD EPYC, 2 usable CPUs, Python 3.11."""


def test_a_cascade_is_shown_beside_its_last_model() -> None:
    small = _result("nano", "onnx int8", 0.81, 100.0)
    strong = _result("bge", "onnx int8", 0.95, 3_000.0)
    cascade = _result("nano → 30 → bge", "cascade", 0.94, 1_000.0, overlap=Overlap(alone=1, top=0.9123, top1=0.98), fresh=None)
    printed = to_markdown([small, strong, cascade], ABOUT)
    (table,) = [part for part in printed.split("## ") if part.startswith("In a cascade")]
    assert table == CASCADE


CASCADE = """\
In a cascade, against the last model alone

| model           | nDCG@10 | same top 10 | same best passage | ms for 10 | ms for 100 | times as fast for 100 |
|-----------------|--------:|------------:|------------------:|----------:|-----------:|----------------------:|
| bge             |  0.9500 |      100.0% |            100.0% |       300 |       3000 |                  1.00 |
| nano → 30 → bge |  0.9400 |       91.2% |             98.0% |       100 |       1000 |                  3.00 |

"""


def test_a_chart_of_models_at_one_place(tmp_path: Path) -> None:
    results = [_result(f"model {number} $x$", "onnx int8", 0.9, 100.0) for number in range(6)]
    draw_chart(results, ABOUT, tmp_path / "same.png")
    draw_chart(results[:1], ABOUT, tmp_path / "one.png")
    assert (tmp_path / "same.png").stat().st_size > (tmp_path / "one.png").stat().st_size
