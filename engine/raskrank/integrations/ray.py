"""Raskrank in pipelines of Ray Data.

import ray
from raskrank.integrations.ray import Scorer

scored = ray.data.read_parquet("pairs/").map_batches(
    Scorer, fn_constructor_kwargs={"bundle": "/models/bge"}, num_cpus=8, compute=ray.data.ActorPoolStrategy(size=4)
)

`raskrank score --ray` does it for files, and goes on where it was.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raskrank import Reranker
from raskrank.bulk import cores
from raskrank.bulk.job import BadRows, Columns, Settings
from raskrank.bulk.part import Added
from raskrank.bulk.scoring import score_batch
from raskrank.errors import InputError
from raskrank.extras import need
from raskrank.options import BackendName
from raskrank.windows import LongDocuments, as_windows


class Scorer:
    """A class for `Dataset.map_batches`: each actor loads a bundle, and adds score and truncated to the rows that it is given.

    bundle: a folder on every machine, or what else `Reranker.load` takes.
    query_column, document_column: that have the two texts.
    prefix: what the names of the added columns begin with.
    threads: of an actor. Default: as many as `num_cpus` of `map_batches` gives it, which is 1 unless said otherwise. Where a
        machine has several NUMA nodes, an actor stays on one.
    raw_scores, long_documents: as for `Reranker.score`. With windows, columns span_start and span_end come too.
    bad_rows: "stop" raises InputError for a row whose query or document is no text; "null" gives it a null in a table of
        pyarrow, and NaN, False and a span of -1 in arrays of NumPy.
    backend, expected_sha256, ignore_target, map_weights: as for `Reranker.load`.
    """

    def __init__(
        self,
        bundle: str | Path | None = None,
        *,
        query_column: str = "query",
        document_column: str = "document",
        prefix: str = "",
        threads: int | None = None,
        raw_scores: bool = False,
        long_documents: LongDocuments = "truncate",
        bad_rows: BadRows = "stop",
        backend: BackendName | None = None,
        expected_sha256: str | None = None,
        ignore_target: bool = False,
        map_weights: bool = True,
    ) -> None:
        self._settings = Settings(
            columns=Columns(query=query_column, document=document_column, prefix=prefix),
            windows=as_windows(long_documents),
            raw_scores=raw_scores,
            bad_rows=bad_rows,
        )
        number = _assigned() if threads is None else threads
        cores.stay_on_a_node(number)
        self._reranker = Reranker.load(
            bundle,
            threads=number,
            backend=backend,
            expected_sha256=expected_sha256,
            ignore_target=ignore_target,
            map_weights=map_weights,
        )

    def __call__(self, batch: Any) -> Any:
        """The batch with more columns. batch: a dict of NumPy arrays (n), as is Ray's default, or a table of pyarrow."""
        arrays = isinstance(batch, Mapping)
        if not arrays and not hasattr(batch, "append_column"):
            raise InputError(f'batch: expected batch_format="numpy" or "pyarrow", got {type(batch).__name__}')
        names: Sequence[str] = [*batch] if arrays else batch.column_names
        rows = _Rows(
            *(self._texts(batch, names, name) for name in (self._settings.columns.query, self._settings.columns.document))
        )
        if clash := [name for name in self._settings.added if name in names]:
            raise InputError(f'batch: has a column "{clash[0]}" already; prefix="..." renames what is added')
        added = score_batch(self._reranker, rows, self._settings).added
        return self._with_arrays(batch, added) if arrays else self._with_columns(batch, added)

    def _texts(self, batch: Any, names: Sequence[str], name: str) -> list[object]:
        if name not in names:
            raise InputError(f'batch: no column is called "{name}"; see query_column and document_column')
        column = batch[name]
        values: list[object] = column.to_pylist() if hasattr(column, "to_pylist") else column.tolist()
        return values

    def _with_arrays(self, batch: Mapping[str, Any], added: Sequence[Added]) -> dict[str, Any]:
        spans = [one.span or (-1, -1) for one in added]
        columns = (
            np.array([np.nan if one.score is None else one.score for one in added], np.float32),
            np.array([bool(one.truncated) for one in added], bool),
            np.array([start for start, _ in spans], np.int32),
            np.array([end for _, end in spans], np.int32),
        )
        return {**batch, **dict(zip(self._settings.added, columns, strict=False))}

    def _with_columns(self, table: Any, added: Sequence[Added]) -> Any:
        from raskrank.bulk.parquet import columns_of

        for field, column in columns_of(self._settings, added):
            table = table.append_column(field, column)
        return table


class _Rows:
    """A batch for `score_batch`."""

    def __init__(self, queries: list[object], documents: list[object]) -> None:
        self.queries: Sequence[object] = queries
        self.documents: Sequence[object] = documents

    def place(self, index: int) -> str:
        return f"batch, row {index} (counted from 0)"


def _assigned() -> int:
    """CPUs that Ray has given this actor."""
    need("a Scorer without threads", "ray", "ray")
    import ray

    found = ray.get_runtime_context().get_assigned_resources() if ray.is_initialized() else {}
    return cores.whole(found.get("CPU", 1))
