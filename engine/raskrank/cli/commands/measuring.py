"""compare and bench: what measures bundles beside others."""

from raskrank.cli.commands.options import BUNDLE, CHECKPOINT, NEEDS_EXPORT, add_backend, add_documents, add_threads
from raskrank.cli.parser import Commands, count, counts, seconds


def add_compare(commands: Commands) -> None:
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
    add_backend(command)
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


def add_bench(commands: Commands) -> None:
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
    add_backend(command)
    command.add_argument("--checkpoint", metavar="C", help=CHECKPOINT)
    command.add_argument("--texts", metavar="FILE", help="passages, as for `rank`; - is standard input (default: our own)")
    add_documents(command)
    command.add_argument("--query", metavar="Q", help="what they are scored for (default: our own)")
    command.add_argument("--passages", metavar="N", type=count, default=100, help="the most at once (default: 100)")
    add_threads(command)
    command.add_argument(
        "--seconds",
        metavar="S",
        type=seconds,
        default=100.0,
        help="time to take in all, about; slow models get fewer rounds, or fewer passages (default: 100)",
    )
