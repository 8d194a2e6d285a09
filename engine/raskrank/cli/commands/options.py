"""The options that several commands have, and what their help says alike."""

from raskrank.cli.parser import Parser, count, natural
from raskrank.documents import TEXT_FIELDS
from raskrank.process.threads import ENVIRONMENT as THREADS
from raskrank.process.threads import MAX_THREADS
from raskrank.rows import FORMATS
from raskrank.windows import Windows

BUNDLE = "a bundle's folder, such as ./bge, or owner/name of an exported hub model (default: see raskrank --help)"
CHECKPOINT = "folder of the checkpoint that the bundle was made from (default: where the bundle's manifest says)"
NEEDS_EXPORT = "Needs: pip install 'raskrank[export]'\nor, beside transformers 5: pip install 'raskrank[export-transformers5]'"
WINDOWS = Windows()


def add_documents(command: Parser) -> None:
    command.add_argument(
        "--field",
        metavar="NAME",
        help=f"the field of documents that has the text (default: {', '.join(TEXT_FIELDS)}, whichever is there)",
    )
    command.add_argument("--title-field", metavar="NAME", help="put this field and a space in front of each text")
    command.add_argument("--format", choices=FORMATS, help="of those documents (default: by its name, else by how it begins)")


def add_long_documents(command: Parser) -> None:
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


def add_threads(command: Parser) -> None:
    command.add_argument(
        "--threads",
        metavar="N",
        type=count,
        help=f"CPUs to use, at most {MAX_THREADS} (default: {THREADS}, else all that this process may)",
    )


def add_backend(command: Parser) -> None:
    command.add_argument(
        "--backend",
        choices=("native", "onnx"),
        help="what runs bundles: our kernels or onnxruntime (default: native where it can)",
    )


def add_other_cpu(command: Parser) -> None:
    command.add_argument(
        "--ignore-target",
        action="store_true",
        help="load a bundle made for another kind of CPU, though it may score wrong",
    )


def add_own_memory(command: Parser) -> None:
    command.add_argument(
        "--no-map-weights",
        action="store_false",
        dest="map_weights",
        help="read the weights into memory instead of mapping their file, which then may be written to",
    )
