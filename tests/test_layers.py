"""Who imports whom: no cycle, and arrows downward only, in the engine and between engine and exporter.

Imports within functions count, since they too make one module need the other.
"""

import ast
from pathlib import Path

import pytest

from paths import ROOT

FOLDERS = {"raskrank": ROOT / "engine" / "raskrank", "raskrank_export": ROOT / "export" / "raskrank_export"}
# From the top. A module may import from its own layer and from those below it.
LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(names.split())
    for names in (
        "raskrank.__main__",
        "raskrank.cli",
        "raskrank_export",
        "raskrank.integrations",
        "raskrank.measure raskrank.bulk raskrank.server",
        "raskrank",  # the public names
        "raskrank.cascade",
        "raskrank.reranker",
        "raskrank.session raskrank.info",
        "raskrank.verifying raskrank.wanted",
        "raskrank.scoring",
        "raskrank.loading",
        "raskrank.reference raskrank.options",
        "raskrank.reference_tokenizer raskrank.torch_backend raskrank.samples raskrank.pieces",
        "raskrank.torch_modules",
        "raskrank.gate raskrank.running raskrank.settings raskrank.native_backend raskrank.onnx_backend raskrank.tokenizer "
        "raskrank.documents",
        "raskrank.network raskrank.kernels",
        "raskrank.checkpoint raskrank.bundle raskrank.parity raskrank.rows raskrank.kernel_model raskrank.weights "
        "raskrank.cache raskrank.reimplemented",
        "raskrank.manifest raskrank.scored raskrank.encoding raskrank.reading raskrank.terminal raskrank.settings_files",
        "raskrank.process raskrank.activation raskrank.extras raskrank.tokenizer_classes raskrank.tokenizer_parts "
        "raskrank.prefixes raskrank.layout raskrank.strict_json raskrank.windows",
        "raskrank.backend raskrank.contents raskrank.cpu raskrank.errors raskrank.external raskrank.license raskrank.pace "
        "raskrank.planning raskrank.printable raskrank.quoting raskrank.ranking raskrank.texts",
    )
)


def _modules() -> dict[str, Path]:
    found = {}
    for package, folder in FOLDERS.items():
        for file in folder.rglob("*.py"):
            parts = file.relative_to(folder.parent).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = file
        assert package in found
    return found


MODULES = _modules()


def _imported(file: Path) -> set[str]:
    """The modules of ours that a file's statements name; a name that is no module is one in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                found.add(module if module in MODULES else node.module)
    return found


GRAPH = {name: _imported(file) - {name} for name, file in MODULES.items()}


def _layer(module: str) -> int:
    """The number of the layer that names the module, or else the nearest package around it."""
    name = module
    while True:
        for number, names in enumerate(LAYERS):
            if name in names and (name != "raskrank" or module == "raskrank"):
                return number
        if "." not in name:
            raise LookupError(f"{module} is in no layer: add it to LAYERS")
        name = name.rpartition(".")[0]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_arrows_point_downward(module: str) -> None:
    upward = {name for name in GRAPH[module] if _layer(name) < _layer(module)}
    assert upward == set()


def test_there_is_no_cycle() -> None:
    graph, order = {name: set(imported) for name, imported in GRAPH.items()}, list[str]()
    while ready := [name for name, imported in graph.items() if not imported & graph.keys()]:
        order += ready
        for name in ready:
            del graph[name]
    assert graph == {}, "each of these needs another of them"
    assert len(order) == len(MODULES)


def test_the_engine_does_not_need_the_exporter() -> None:
    needing = {
        name
        for name, imported in GRAPH.items()
        if name.startswith("raskrank.") and any("_export" in other for other in imported)
    }
    assert needing == {"raskrank.cli.bench", "raskrank.cli.export"}


def test_each_layer_is_of_modules_that_exist() -> None:
    named = [name for names in LAYERS for name in names]
    assert sorted(named) == sorted(set(named))
    assert set(named) <= MODULES.keys()
