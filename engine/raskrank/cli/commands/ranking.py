"""rank, score and serve: what ranks with a bundle."""

from raskrank.bulk.job import BAD_ROWS, PART_ROWS
from raskrank.bulk.job import FORMATS as BULK_FORMATS
from raskrank.cli.commands.options import (
    BUNDLE,
    CHECKPOINT,
    add_backend,
    add_documents,
    add_long_documents,
    add_other_cpu,
    add_own_memory,
    add_threads,
)
from raskrank.cli.parser import Commands, count, natural, number, price, seconds


def add_rank(commands: Commands) -> None:
    command = commands.add(
        "rank",
        "rank documents for a query, best first",
        "The input is UTF-8: lines of text, each that is not blank a document; JSON Lines (.jsonl, .ndjson), an object with "
        "a text on each line; a JSON array (.json) of objects or texts; CSV with a header (.csv, between commas, semicolons or "
        "tabs); or TSV with a header (.tsv, without quotes). An id (id, _id, docid or doc_id) is kept in --json's output. What "
        "is none of these is refused; --format text ranks any lines as they stand.",
        'raskrank rank "Hvem kan Python?" cvs.txt --top-k 5\n'
        "cat cvs.jsonl | raskrank rank --json -- \"-5 grader\" - | jq '.[0].id'",
        "the bundle is broken, or a score is no number",
    )
    command.add_argument("query", metavar="QUERY", help="what the documents are ranked for; after -- it may begin with -")
    command.add_argument("file", metavar="FILE", nargs="?", help="the documents; - or nothing: standard input")
    add_documents(command)
    command.add_argument("--bundle", metavar="B", help=BUNDLE)
    command.add_argument("--top-k", metavar="K", type=count, help="print only the K best (default: all)")
    command.add_argument(
        "--raw-scores", action="store_true", help="print logits, before any sigmoid: they differ where scores round to the same"
    )
    command.add_argument("--score-threshold", metavar="X", type=number, help="leave out documents that score less than X")
    command.add_argument(
        "--deadline",
        metavar="S",
        type=seconds,
        help="seconds from when the model is loaded: documents are taken in the order of the input, and those that are not "
        "scored by then follow, without a score",
    )
    add_long_documents(command)
    add_threads(command)
    command.add_argument(
        "--fallback", choices=("torch",), help="let PyTorch score what the bundle cannot; each time it does is a warning"
    )
    command.add_argument(
        "--backend",
        choices=("native", "onnx", "torch"),
        help="run the bundle in our kernels or in onnxruntime, or its checkpoint in PyTorch (default: native where it can)",
    )
    add_other_cpu(command)
    add_own_memory(command)
    command.add_argument("--checkpoint", metavar="C", help=CHECKPOINT)


def add_score(commands: Commands) -> None:
    command = commands.add(
        "score",
        "score the pairs of large files, on one machine or many",
        "Each row of the input is a pair: columns query and document, or fields of JSON objects. The output has all columns of "
        "the input, in the same format, with score and truncated, and with windows span_start and span_end: the characters of "
        "the document that the score is of. It is a folder of parts, each of which is there whole or not at all. What was "
        "stopped goes on with the same command, and loses at most the parts that were in work. Memory does not grow with the "
        "input.",
        "raskrank score pairs.parquet scored/ --bundle ./bge\n"
        "raskrank score pairs/ more.parquet scored/ --bundle ./bge --ray=auto",
        "the bundle is broken, a score is no number, or the output cannot be written",
        "Parquet needs: pip install 'raskrank[bulk]'; --ray needs: pip install 'raskrank[ray]'",
    )
    command.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="INPUT... OUTPUT: files and folders of .parquet, .jsonl, .csv or .tsv, with a header, and a folder for the output",
    )
    command.add_argument("--query-column", metavar="NAME", default="query", help="that has the queries (default: query)")
    command.add_argument(
        "--document-column", metavar="NAME", default="document", help="that has the documents (default: document)"
    )
    command.add_argument(
        "--prefix",
        metavar="P",
        default="",
        help="put this in front of the names of the columns that are added (default: nothing)",
    )
    command.add_argument("--format", choices=BULK_FORMATS, help="of the input (default: by the files' names)")
    command.add_argument("--bundle", metavar="B", help=BUNDLE)
    command.add_argument("--raw-scores", action="store_true", help="logits, before any sigmoid")
    add_long_documents(command)
    command.add_argument(
        "--bad-rows",
        choices=BAD_ROWS,
        default="stop",
        help="what a row gets whose query or document is null or no text, or whose score is no number: stop ends with an error "
        "that says where, null writes a null score (default: stop)",
    )
    command.add_argument(
        "--part-rows", metavar="N", type=count, default=PART_ROWS, help=f"rows of a part, at most (default: {PART_ROWS})"
    )
    add_threads(command)
    add_backend(command)
    add_other_cpu(command)
    add_own_memory(command)
    command.add_argument(
        "--price-per-hour", metavar="X", type=price, help="of one machine: the summary says what a million pairs cost"
    )
    command.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const="",
        help="score on the cluster of Ray at ADDRESS, or auto for the one that this machine is of; without ADDRESS that of "
        "RAY_ADDRESS, else one that is started here; --threads is then for each actor (default: the cores of a machine in "
        "groups of at most 8). All machines need the input, the output and the bundle at the same paths",
    )


def add_serve(commands: Commands) -> None:
    command = commands.add(
        "serve",
        "rank over HTTP, for clients of Cohere, Jina, vLLM, infinity, TEI and Voyage",
        "Answers POST /rerank, /v1/rerank and /v2/rerank in the shape of the request, and /infinity/rerank in infinity's; GET "
        "/info, /health, /ready, /metrics and /docs; and a page at / to try it on. What would wait too long is refused with "
        "429. SIGTERM ends the calls in flight. With --json it prints the address when it is ready.",
        "raskrank serve --bundle ./bge --port 8000 --api-key-file key.txt",
        "the bundle is broken",
        "Needs: pip install 'raskrank[server]'",
    )
    command.add_argument("--bundle", metavar="B", help=BUNDLE)
    command.add_argument(
        "--host", metavar="H", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)"
    )
    command.add_argument("--port", metavar="P", type=natural, default=8000, help="0 for any that is free (default: 8000)")
    command.add_argument(
        "--api-key-file", metavar="FILE", help="one key a line; requests need one in their header Authorization (default: none)"
    )
    command.add_argument(
        "--deadline", metavar="S", type=seconds, help="of each request; an answer that is late is partial (default: none)"
    )
    command.add_argument(
        "--max-wait",
        metavar="S",
        type=seconds,
        default=10.0,
        help="seconds of work that may be waiting; what comes then is refused with 429 (default: 10)",
    )
    command.add_argument("--max-tokens", metavar="N", type=count, help="the same in tokens (default: by --max-wait)")
    command.add_argument("--max-requests", metavar="N", type=count, default=256, help="the same in requests (default: 256)")
    command.add_argument(
        "--max-body", metavar="BYTES", type=count, default=2**23, help="of a request; else 413 (default: 8 MiB)"
    )
    command.add_argument(
        "--max-documents", metavar="N", type=count, default=1000, help="of a request; else 422 (default: 1000)"
    )
    command.add_argument(
        "--max-text-chars", metavar="N", type=count, default=200_000, help="of a text; else 422 (default: 200000)"
    )
    command.add_argument(
        "--grace", metavar="S", type=count, default=30, help="seconds that calls in flight get after SIGTERM (default: 30)"
    )
    command.add_argument(
        "--cache-bytes", metavar="N", type=natural, default=0, help="memory for scores of pairs that come again (default: 0)"
    )
    add_threads(command)
    command.add_argument(
        "--fallback", choices=("torch",), help="let PyTorch score what the bundle cannot; each time it does is a warning"
    )
    add_backend(command)
    add_other_cpu(command)
    add_own_memory(command)
