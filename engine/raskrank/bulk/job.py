"""What a bulk run is asked to do."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from raskrank import Reranker, Windows
from raskrank.errors import InputError
from raskrank.options import BackendName
from raskrank.quoting import named
from raskrank.texts import positive

Format = Literal["parquet", "jsonl", "csv", "tsv"]
FORMATS: tuple[Format, ...] = get_args(Format)
BadRows = Literal["stop", "null"]
BAD_ROWS: tuple[BadRows, ...] = get_args(BadRows)
# Rows that are lost when a run is killed, at most: with a small model seconds of work, with a large one minutes. Fewer would
# leave more files than file systems and readers like.
PART_ROWS = 10_000


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of columns, or of the fields of JSON objects.

    query, document: that hold the two texts of a pair.
    prefix: what the names of the added columns begin with.
    """

    query: str = "query"
    document: str = "document"
    prefix: str = ""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How rows are scored.

    windows: over documents that are too long; None cuts them.
    raw_scores: logits instead of scores after the activation.
    bad_rows: what a row gets whose query or document is no text: "stop" ends the run with an error, "null" writes a null score.
    """

    columns: Columns = Columns()
    windows: Windows | None = None
    raw_scores: bool = False
    bad_rows: BadRows = "stop"

    def __post_init__(self) -> None:
        query, document = self.columns.query, self.columns.document
        if query == document:
            raise InputError(f'the columns of query and document are one, "{named(query)}"; name two')
        if clash := {query, document} & {*self.added}:
            raise InputError(f'"{named(clash.pop())}" is read, and the name of a column that is added; choose another prefix')
        if self.bad_rows not in BAD_ROWS:
            raise InputError(f"bad_rows: expected one of {', '.join(BAD_ROWS)}")

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the columns that come to those of the input: score, truncated, and with windows span_start and span_end."""
        names = ("score", "truncated", "span_start", "span_end") if self.windows else ("score", "truncated")
        return tuple(self.columns.prefix + name for name in names)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to score, how, and where to.

    inputs: files, and folders of them. output: a folder, which is made.
    format: of the files. Default: by their names.
    part_rows: rows of a part, at most, at least 1.
    """

    inputs: tuple[Path, ...]
    output: Path
    settings: Settings = Settings()
    format: Format | None = None
    part_rows: int = PART_ROWS

    def __post_init__(self) -> None:
        positive(self.part_rows, "part_rows")

    def identity(self) -> dict[str, Any]:
        """What of this decides what stands in the parts, for JSON. Not what becomes of bad rows: who stopped at one may go on
        and leave it out."""
        settings = asdict(self.settings)
        del settings["bad_rows"]
        return {**settings, "part_rows": self.part_rows}


@dataclass(frozen=True, kw_only=True)
class Model:
    """The bundle of a run, in a form that another process loads the same from.

    manifest_sha256: pins it. The rest is as for `Reranker.load`.
    """

    bundle: Path
    manifest_sha256: str
    backend: BackendName | None = None
    ignore_target: bool = False
    map_weights: bool = True

    def load(self, threads: int | None) -> Reranker:
        """Raises as `Reranker.load` does."""
        return Reranker.load(
            self.bundle,
            threads=threads,
            backend=self.backend,
            expected_sha256=self.manifest_sha256,
            ignore_target=self.ignore_target,
            map_weights=self.map_weights,
        )
