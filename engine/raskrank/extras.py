"""Packages that only some features need: one message for all that are missing."""

import importlib.util
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from raskrank.errors import MissingExtra

EXPORT, EXPORT_5 = "export", "export-transformers5"
# Two extras make graphs, each beside another transformers. The packages of each, as they are imported; optimum alone, which
# others bring too, has no exporter.
EXPORTERS: Mapping[str, tuple[str, ...]] = {
    EXPORT: ("huggingface_hub", "onnx", "optimum.exporters.onnx", "safetensors", "torch", "transformers"),
    EXPORT_5: ("huggingface_hub", "onnx", "onnxscript", "safetensors", "torch", "transformers"),
}


def exporter() -> str:
    """The extra that exports beside the transformers which is installed: EXPORT_5 from 5 on, else EXPORT."""
    try:
        major = version("transformers").partition(".")[0]
    except PackageNotFoundError:
        return EXPORT
    return EXPORT_5 if int(major) >= 5 else EXPORT


def need(what: str, extra: str, *modules: str) -> None:
    """Raises MissingExtra unless all modules can be imported. what: the feature or option that needs them.

    They are looked up, not imported, so that this can be asked before anything slow begins.
    """
    if missing := [module for module in modules if not _is_there(module)]:
        message = f"{what} needs {', '.join(missing)}; install it with: pip install 'raskrank[{extra}]'"
        raise MissingExtra(message, name=missing[0])


def need_exporter(what: str, *modules: str) -> None:
    """The same for packages of the extra that exports. modules: some of them. Default: all."""
    extra = exporter()
    need(what, extra, *(modules or EXPORTERS[extra]))


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False
