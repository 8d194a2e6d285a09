"""The commands and their options: what `raskrank COMMAND --help` says."""

from collections.abc import Callable, Mapping

from raskrank.bulk.job import BAD_ROWS, PART_ROWS
from raskrank.bulk.job import FORMATS as BULK_FORMATS
from raskrank.checkpoint.registry import DEFAULT_MODEL
from raskrank.cli.parser import Commands, Parser, count, counts, natural, number, price, seconds
from raskrank.cpu import TARGETS
from raskrank.documents import TEXT_FIELDS
from raskrank.process.threads import ENVIRONMENT as THREADS
from raskrank.process.threads import MAX_THREADS
from raskrank.rows import FORMATS
from raskrank.settings import ENVIRONMENT
from raskrank.windows import Windows

BUNDLE = "a bundle's folder, such as ./bge, or owner/name of an exported hub model (default: see raskrank --help)"
CHECKPOINT = "folder of the checkpoint that the bundle was made from (default: where the bundle's manifest says)"
WINDOWS = Windows()
NEEDS_EXPORT = "Needs: pip install 'raskrank[export]'\nor, beside transformers 5: pip install 'raskrank[export-transformers5]'"


def _export(commands: Commands) -> None:
    command = commands.add(
        "export",
        "turn a Hugging Face cross-encoder into a bundle",
        "The bundle is compared with the checkpoint in PyTorch before it is written. Where int8 would rank differently it is "
        "repaired, in fp32 if need be, and the report says how and what that costs; where fp32 would, nothing is written.",
        "raskrank export BAAI/bge-reranker-base\n"
        f'{ENVIRONMENT}=BAAI/bge-reranker-base raskrank rank "Hvem kan Python?" cvs.txt\n'
        "raskrank export ./checkpoints/mine ./bundles/mine",
        "no cross-encoder, or the bundle would rank differently: not written",
        NEEDS_EXPORT,
    )
    command.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help=f"a checkpoint's folder, such as ./mine, or owner/name on the Hugging Face hub (default: {DEFAULT_MODEL})",
    )
    command.add_argument(
        "output",
        metavar="OUTPUT",
        nargs="?",
        help="folder to write the bundle to (default: for a hub model, its place in the cache)",
    )
    command.add_argument("--precision", choices=("int8", "fp32"), default="int8", help="of the weights (default: int8)")
    command.add_argument(
        "--scheme",
        choices=("group", "row", "constant"),
        help="ranges of int8 activations: measured at run time for each 64 channels of a token (group), which our own kernels "
        "run; or, for onnxruntime alone, measured for each token (row), or constant and found on the samples (default: group "
        "where the kernels know the model, else row)",
    )
    command.add_argument(
        "--target",
        choices=TARGETS,
        default="portable",
        help="CPUs that int8 is for: portable is right on all; vnni has finer levels, for x86 with VNNI or AMX and for ARM, "
        "and is refused elsewhere (default: portable)",
    )
    command.add_argument("--revision", metavar="R", help="branch, tag or commit on the hub (default: main)")
    command.add_argument(
        "--max-length",
        metavar="N",
        type=count,
        help="tokens of query and document (default: all that the checkpoint allows; for BAAI/bge-reranker-v2-m3, 512)",
    )
    command.add_argument(
        "--samples",
        metavar="FILE",
        help='judge the bundle on these: {"query": ..., "documents": [...]} a line, or .tsv with query and document a line '
        "(default: a set in Norwegian and English); a repair of int8 needs 8 queries",
    )
    command.add_argument(
        "--trim-vocab",
        metavar="CORPUS",
        nargs="+",
        default=(),
        help="keep only the pieces of the vocabulary that these files use (in any form that `rank` reads): a "
        "smaller bundle, and the same scores for texts of such pieces",
    )
    _documents(command)
    command.add_argument(
        "--accept-license", metavar="L", help="accept by its name a license that restricts use, such as cc-by-nc-4.0"
    )
    command.add_argument(
        "--relevant-label",
        metavar="L",
        help="of a model with two labels, the name or the index of the one that means relevant (default: the one that "
        "config.json calls so)",
    )
    command.add_argument(
        "--min-tau", metavar="T", type=float, help="lowest Kendall tau, -1 to 1, for int8; what falls below it is repaired"
    )
    command.add_argument("--max-drift", metavar="D", type=float, help="largest drift of a score, 0 to 1, for int8")
    command.add_argument("--overwrite", action="store_true", help="replace a bundle at OUTPUT")


def _rank(commands: Commands) -> None:
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
    _documents(command)
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
    _long_documents(command)
    _threads(command)
    command.add_argument(
        "--fallback", choices=("torch",), help="let PyTorch score what the bundle cannot; each time it does is a warning"
    )
    command.add_argument(
        "--backend",
        choices=("native", "onnx", "torch"),
        help="run the bundle in our kernels or in onnxruntime, or its checkpoint in PyTorch (default: native where it can)",
    )
    _other_cpu(command)
    _own_memory(command)
    command.add_argument("--checkpoint", metavar="C", help=CHECKPOINT)


def _score(commands: Commands) -> None:
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
    _long_documents(command)
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
    _threads(command)
    _backend(command)
    _other_cpu(command)
    _own_memory(command)
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


def _info(commands: Commands) -> None:
    command = commands.add(
        "info",
        "say what runs, on what, and why",
        "Loads the bundle as `rank` does, and adds what its export measured against the checkpoint.",
        "raskrank info --bundle ./bundles/bge-reranker-base",
        "the bundle is broken",
    )
    command.add_argument("--bundle", metavar="B", help=BUNDLE)
    _backend(command)
    _other_cpu(command)


def _verify(commands: Commands) -> None:
    command = commands.add(
        "verify",
        "compare a bundle with its checkpoint in PyTorch",
        "Scores the same pairs with both, PyTorch on what transformers' own tokenizer makes of them, and holds the differences "
        "against the thresholds in the bundle's manifest.",
        "raskrank verify --bundle ./bundles/bge-reranker-base --pairs pairs.jsonl",
        "the bundle fails a threshold or is broken, or the checkpoint is another",
        NEEDS_EXPORT,
    )
    command.add_argument("--bundle", metavar="B", help=BUNDLE)
    command.add_argument("--checkpoint", metavar="C", help=CHECKPOINT)
    _backend(command)
    command.add_argument(
        "--pairs",
        metavar="FILE",
        help='{"query": ..., "documents": [...]} a line, or .tsv with query and document a line (default: the samples that '
        "exports are judged on)",
    )


def _compare(commands: Commands) -> None:
    command = commands.add(
        "compare",
        "compare models on data: size, speed and quality side by side",
        "The models rank the same candidates: of each query the relevant passages, and what BM25 finds best. Then they take "
        "turns on the clock. Prints Markdown.",
        "raskrank compare ./bundles/bge-int8 ./bundles/bge-fp32 --against torch \\\n  --data norquad --chart bge.png\n"
        "raskrank compare ./bundles/minilm ./bundles/bge --cascade 30 --candidates 100",
        "a model is broken or no cross-encoder",
        "Needs: pip install 'raskrank[compare]'; for checkpoints also 'raskrank[export]'",
    )
    command.add_argument("models", metavar="MODEL", nargs="*", help=f"{BUNDLE}; or a checkpoint's folder, to run in PyTorch")
    command.add_argument(
        "--data",
        metavar="D",
        help="a folder as BEIR has them (corpus.jsonl, queries.jsonl, qrels/test.tsv), or a file with "
        '{"query": ..., "positives": [...], "negatives": [...]} a line; with "language" there are numbers for each '
        "(default: 68 searches of our own)",
    )
    command.add_argument("--queries", metavar="N", type=count, default=200, help="at most so many (default: 200)")
    command.add_argument("--candidates", metavar="N", type=count, default=20, help="documents of each query (default: 20)")
    command.add_argument("--against", choices=("torch",), help="also the checkpoint that each bundle was made from")
    _backend(command)
    command.add_argument(
        "--cascade",
        metavar="K",
        type=counts,
        default=(),
        help="also the models in a row, from the fastest to the strongest: each but the last passes on the K documents that it "
        "finds best (for three models, two numbers: 100,30), and what that loses and gains beside the last one alone",
    )
    command.add_argument(
        "--bi-encoder",
        metavar="M",
        help="also this model of sentence-transformers, hub id or folder (pip install 'raskrank[bi-encoder]')",
    )
    command.add_argument("--bm25", action="store_true", help="also BM25, a search by words: what a reranker has to beat")
    command.add_argument("--chart", metavar="PNG", help="also draw quality against time")


def _bench(commands: Commands) -> None:
    command = commands.add(
        "bench",
        "measure speed, start and memory on this machine",
        "Scores 1, 10 and 100 passages of a query, and reports times, rates, and what a fresh process needs. Several models "
        "take turns, so that their ratios hold on a busy machine too. No text of yours is printed. --against plain "
        "makes, in a temporary folder, what others make of the checkpoint: optimum's export in fp32, or beside transformers 5 "
        "that of torch.onnx, without our passes, fusions and kernels. Where transformers has no class for a model, torch.onnx "
        "exports our own in PyTorch. onnxruntime runs it as it runs a bundle: the same tokens on the same threads, unpadded.",
        "raskrank bench ./bundles/bge --against torch --texts cvs.txt\nraskrank bench ./bundles/bge --against plain",
        "a model is broken, a checkpoint is not there, or a score is no number",
        NEEDS_EXPORT.replace("Needs", "--against needs"),
    )
    command.add_argument("models", metavar="BUNDLE", nargs="*", help=f"{BUNDLE}; the others are compared with the first")
    command.add_argument(
        "--against",
        choices=("torch", "plain"),
        action="append",
        help="also the checkpoint of the first bundle, in PyTorch or as a plain export; may be given for both",
    )
    _backend(command)
    command.add_argument("--checkpoint", metavar="C", help=CHECKPOINT)
    command.add_argument("--texts", metavar="FILE", help="passages, as for `rank`; - is standard input (default: our own)")
    _documents(command)
    command.add_argument("--query", metavar="Q", help="what they are scored for (default: our own)")
    command.add_argument("--passages", metavar="N", type=count, default=100, help="the most at once (default: 100)")
    _threads(command)
    command.add_argument(
        "--seconds",
        metavar="S",
        type=seconds,
        default=100.0,
        help="time to take in all, about; slow models get fewer rounds, or fewer passages (default: 100)",
    )


def _serve(commands: Commands) -> None:
    command = commands.add(
        "serve",
        "rank over HTTP, for clients of Cohere, Jina, vLLM, infinity, TEI and Voyage",
        "Answers POST /rerank, /v1/rerank and /v2/rerank in the shape of the request; GET /info, /health, /ready, /metrics and "
        "/docs; and a page at / to try it on. What would wait too long is refused with 429. SIGTERM ends the calls in flight. "
        "With --json it prints the address when it is ready.",
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
    _threads(command)
    command.add_argument(
        "--fallback", choices=("torch",), help="let PyTorch score what the bundle cannot; each time it does is a warning"
    )
    _backend(command)
    _other_cpu(command)
    _own_memory(command)


def _backend(command: Parser) -> None:
    command.add_argument(
        "--backend",
        choices=("native", "onnx"),
        help="what runs bundles: our kernels or onnxruntime (default: native where it can)",
    )


def _other_cpu(command: Parser) -> None:
    command.add_argument(
        "--ignore-target",
        action="store_true",
        help="load a bundle made for another kind of CPU, though it may score wrong",
    )


def _own_memory(command: Parser) -> None:
    command.add_argument(
        "--no-map-weights",
        action="store_false",
        dest="map_weights",
        help="read the weights into memory instead of mapping their file, which then may be written to",
    )


def _documents(command: Parser) -> None:
    command.add_argument(
        "--field",
        metavar="NAME",
        help=f"the field of documents that has the text (default: {', '.join(TEXT_FIELDS)}, whichever is there)",
    )
    command.add_argument("--title-field", metavar="NAME", help="put this field and a space in front of each text")
    command.add_argument("--format", choices=FORMATS, help="of those documents (default: by its name, else by how it begins)")


def _long_documents(command: Parser) -> None:
    command.add_argument(
        "--long-documents",
        choices=("truncate", "windows"),
        default="truncate",
        help="what becomes of a document that is too long for the model: its end is not read, or it is read in overlapping "
        "windows and the best of them counts (default: truncate)",
    )
    command.add_argument(
        "--max-windows", metavar="N", type=count, help=f"windows of one document at most (default: {WINDOWS.max_windows})"
    )
    command.add_argument(
        "--overlap",
        metavar="N",
        type=natural,
        help=f"tokens that neighbouring windows share, at least (default: {WINDOWS.overlap})",
    )


def _threads(command: Parser) -> None:
    command.add_argument(
        "--threads",
        metavar="N",
        type=count,
        help=f"CPUs to use, at most {MAX_THREADS} (default: {THREADS}, else all that this process may)",
    )


COMMANDS: Mapping[str, Callable[[Commands], None]] = {
    "export": _export,
    "rank": _rank,
    "score": _score,
    "info": _info,
    "verify": _verify,
    "compare": _compare,
    "bench": _bench,
    "serve": _serve,
}
