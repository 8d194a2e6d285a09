"""export, info and verify: what makes bundles and looks at them."""

from raskrank.checkpoint.registry import DEFAULT_MODEL
from raskrank.cli.commands.options import BUNDLE, CHECKPOINT, NEEDS_EXPORT, add_backend, add_documents, add_other_cpu
from raskrank.cli.parser import Commands, count
from raskrank.cpu import TARGETS
from raskrank.settings import ENVIRONMENT


def add_export(commands: Commands) -> None:
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
    add_documents(command)
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


def add_info(commands: Commands) -> None:
    command = commands.add(
        "info",
        "say what runs, on what, and why",
        "Loads the bundle as `rank` does, and adds what its export measured against the checkpoint.",
        "raskrank info --bundle ./bundles/bge-reranker-base",
        "the bundle is broken",
    )
    command.add_argument("--bundle", metavar="B", help=BUNDLE)
    add_backend(command)
    add_other_cpu(command)


def add_verify(commands: Commands) -> None:
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
    add_backend(command)
    command.add_argument(
        "--pairs",
        metavar="FILE",
        help='{"query": ..., "documents": [...]} a line, or .tsv with query and document a line (default: the samples that '
        "exports are judged on)",
    )
