"""`raskrank score` on Parquet: types and columns survive, parts are of row groups, and memory holds."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import dataset, parquet

from builders import SENTENCES
from command import SECRET, error_line
from pairs import MEGABYTE, grown, parts, rows, states
from raskrank import Reranker
from raskrank.bulk import parquet as bulk_parquet
from raskrank.bulk.job import Settings
from raskrank.bulk.part import Part
from raskrank.bulk.plan import reader_of
from raskrank.bulk.sources import find
from raskrank.cli.main import main

pytestmark = pytest.mark.usefixtures("no_surroundings")


def table(count: int) -> Any:
    """With columns of many types."""
    items = rows(count)
    return pa.table(
        {
            "id": pa.array([item["id"] for item in items], pa.uint16()),
            "query": pa.array([item["query"] for item in items]).dictionary_encode(),
            "document": pa.array([item["document"] for item in items], pa.large_string()),
            "tags": [[{"name": "æ", "weight": 0.5}] * (number % 3) for number in range(count)],
            "when": pa.array(
                [number * 1000 if number % 5 else None for number in range(count)], pa.timestamp("ms", "Europe/Oslo")
            ),
        },
        metadata={"made by": "a test"},
    )


def write(file: Path, rows: Any, **options: Any) -> Path:
    parquet.write_table(rows, file, **options)
    return file


def test_all_columns_survive_with_their_types(nano: Reranker, tmp_path: Path) -> None:
    before, out = table(250), tmp_path / "out"
    file = write(tmp_path / "pairs.parquet", before, row_group_size=100, compression="zstd")
    assert main(["score", str(file), str(out), "--part-rows", "60"]) == 0
    assert [part.name[5:-8] for part in parts(out)] == [
        f"00000-{group:05}-{piece:05}" for group, piece in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0))
    ]
    after = pa.concat_tables([parquet.read_table(part) for part in parts(out)])
    assert after.select(before.column_names).equals(before)
    assert after.schema.metadata[b"made by"] == b"a test"
    assert [after.schema.field(name).type for name in ("score", "truncated")] == [pa.float32(), pa.bool_()]
    pairs = list(zip(before["query"].to_pylist(), before["document"].to_pylist(), strict=True))
    assert np.array_equal(after["score"].to_numpy(), nano.score_pairs(pairs))
    assert {parquet.read_metadata(part).row_group(0).column(0).compression for part in parts(out)} == {"ZSTD"}


def test_the_output_is_a_folder_that_others_read_at_once(tmp_path: Path) -> None:
    for language in ("nb", "en"):
        (tmp_path / "in" / f"language={language}").mkdir(parents=True)
        write(tmp_path / "in" / f"language={language}" / "a.parquet", table(5))
    assert main(["score", str(tmp_path / "in"), str(tmp_path / "out"), "--long-documents", "windows"]) == 0
    whole = dataset.dataset(tmp_path / "out", partitioning="hive").to_table()
    assert whole.num_rows == 10
    assert sorted(set(whole["language"].to_pylist())) == ["en", "nb"]
    spans = zip(whole["span_start"].to_pylist(), whole["span_end"].to_pylist(), whole["document"].to_pylist(), strict=True)
    assert all((start, end) == (0, len(document)) for start, end, document in spans)


def test_a_row_group_is_read_once_for_all_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "pairs.parquet", table(100), row_group_size=50)
    (source,) = find([file], tmp_path / "out", None)
    reader: Any = reader_of(source, Settings())
    assert isinstance(reader, bulk_parquet.Parquet)
    opened, real = list[int](), reader._opened
    monkeypatch.setattr(reader, "_opened", lambda: opened.append(1) or real())  # type: ignore[func-returns-value]
    found = [batch.rows["id"].to_pylist() for part in reader.parts(0, 7) for batch in reader.batches(part)]
    assert [number for ids in found for number in ids] == [*range(100)]
    assert max(map(len, found)) == 7
    assert len(opened) == 2
    (batch,) = reader.batches(Part(0, 0, 3, 7, 21, 0))  # one that was there already
    assert batch.rows["id"].to_pylist() == [*range(21, 28)]
    assert batch.place(2) == "pairs.parquet, row group 0, row 23 of it (both counted from 0)"


def changed(rows: Any, name: str, values: Any) -> Any:
    return rows.set_column(rows.column_names.index(name), name, values)


@pytest.mark.parametrize("statistics", [True, False], ids=["seen before", "seen when it is read"])
def test_a_null_is_found_by_row_group_and_row(
    statistics: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], nano: Reranker
) -> None:
    rows = table(30)
    texts = [SECRET if number else text for number, text in enumerate(rows["document"].to_pylist())]
    texts[17] = None
    rows = changed(rows, "document", pa.array(texts))
    file, out = write(tmp_path / "p.parquet", rows, row_group_size=10, write_statistics=statistics), tmp_path / "out"
    assert main(["score", str(file), str(out)]) == 2
    said = capsys.readouterr().err
    assert 'p.parquet, row group 1, row 7 of it (both counted from 0): "document" is null' in said
    assert SECRET not in said
    assert out.exists() is not statistics  # nothing was begun
    assert main(["score", str(file), str(out), "--bad-rows", "null"]) == 0
    scores = pa.concat_tables([parquet.read_table(part) for part in parts(out)])["score"].to_pylist()
    assert [number for number, score in enumerate(scores) if score is None] == [17]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: rows.drop_columns(["query"]), 'no column is called "query"; it has id, document, tags, when; say which'),
        (lambda rows: rows.append_column("score", [[1.0] * 3]), 'has a column "score" already; --prefix P puts'),
        (lambda rows: changed(rows, "query", [[1, 2, 3]]), 'column "query" holds int64; expected text (string)'),
        (lambda rows: changed(rows, "query", [[b"a", b"b", b"c"]]), 'column "query" holds binary; expected text (string)'),
    ],
    ids=["missing", "taken", "numbers", "bytes"],
)
def test_columns_are_checked_before_anything_begins(
    change: Any, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(write(tmp_path / "p.parquet", change(table(3)))), str(tmp_path / "out")]) == 2
    assert f"p.parquet: {says}" in error_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"query,document\n", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_what_is_no_parquet_is_said(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.parquet").write_bytes(content)
    assert main(["score", str(tmp_path / "p.parquet"), str(tmp_path / "out")]) == 2
    assert "p.parquet: cannot be read" in error_line(capsys)


def test_a_file_that_breaks_in_the_middle_leaves_what_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = write(tmp_path / "p.parquet", table(300), row_group_size=100, compression="gzip"), tmp_path / "out"
    offset = parquet.read_metadata(file).row_group(1).column(2).data_page_offset
    content = bytearray(file.read_bytes())
    content[offset + 40 : offset + 200] = bytes(160)
    file.write_bytes(content)
    assert main(["score", str(file), str(out)]) == 2
    assert "p.parquet: cannot be read" in capsys.readouterr().err
    before = states(out)
    assert [*before] == ["part-00000-00000-00000.parquet"]
    assert main(["score", str(file), str(out)]) == 2
    assert states(out) == before


def test_one_row_group_that_is_far_larger_than_what_is_held(tmp_path: Path) -> None:
    rng = random.Random(1)

    def texts(count: int) -> Any:
        documents = [" ".join(rng.choices(SENTENCES, k=3000)) for _ in range(count)]  # 180 kB each
        return pa.table({"query": ["a"] * count, "document": documents})

    small, large = write(tmp_path / "small.parquet", texts(100), use_dictionary=False), tmp_path / "large.parquet"
    with parquet.ParquetWriter(
        large, pa.schema({"query": pa.string(), "document": pa.string()}), use_dictionary=False
    ) as writer:
        writer.write_table(pa.concat_tables([texts(150)] * 10), row_group_size=1500)
    assert parquet.read_metadata(large).num_row_groups == 1
    assert parquet.read_metadata(large).row_group(0).total_byte_size > 250 * MEGABYTE
    # A batch of 16 MB as it was read, as text of Python's, and as it waits for a row group of 32 MB; a page and buffers.
    assert grown(small, large, tmp_path) < 150 * MEGABYTE
