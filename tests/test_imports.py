"""What the engine imports, when, and where its source may do so."""

import ast
import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends import needs_kernels
from conftest import Tiny
from paths import NANO_CHECKPOINT, ROOT
from processes import run_script

ENGINE = ROOT / "engine" / "raskrank"
FILES = {file.relative_to(ENGINE).as_posix(): file for file in sorted(ENGINE.rglob("*.py"))}
HEAVY = {
    "huggingface_hub",
    "onnx",
    "optimum",
    "pandas",
    "pyarrow",
    "raskrank_export",
    "ray",
    "safetensors",
    "scipy",
    "torch",
    "transformers",
}
# A framework is imported by the adapter for it, and by nothing else.
FRAMEWORKS = {
    "integrations/haystack.py": {"haystack"},
    "integrations/langchain.py": {"langchain_core", "pydantic"},
    "integrations/llama_index.py": {"llama_index"},
}
LAZY_PLACES = {
    "cli/bench.py",  # a plain export
    "bulk/cluster.py",
    "bulk/parquet.py",
    "integrations/ray.py",
    "torch_backend.py",
    "torch_modules.py",
    "reference_tokenizer.py",
    "pieces.py",
    "tokenizer_classes.py",
    "loading.py",
    "integrations/cross_encoder_arguments.py",
    "cli/export.py",
    "measure/contenders.py",
}
# Folders whose modules may import an extra's packages at once: only a command or a user that needs them imports these.
EXTRAS = {"server/": {"prometheus_client", "starlette", "uvicorn"}}
# Of classes that are PyTorch's own; `reimplemented.build` imports them, within a function.
OF_TORCH = {"reimplemented/gte.py", "reimplemented/jina_bert.py", "reimplemented/parts.py"}
# They may name the standard streams: those of the command line, or of a process that is started to be measured.
COMMAND_LINE = {
    "__main__.py",
    *(name for name in FILES if name.startswith("cli/")),
    "measure/fresh.py",
    "measure/probe.py",
    "terminal.py",
}


def test_import_alone_loads_no_runtime(tmp_path: Path) -> None:
    assert not _loaded_by(tmp_path, "import raskrank") & (HEAVY | {"onnxruntime", "tqdm"}.union(*FRAMEWORKS.values()))


def test_the_command_line_alone_loads_no_runtime(tmp_path: Path) -> None:
    assert not _loaded_by(tmp_path, "import raskrank.cli.main") & (HEAVY | {"onnxruntime", "tqdm"})


def test_ranking_needs_the_base_install_alone(tmp_path: Path) -> None:
    load = "import raskrank; r = raskrank.Reranker.load(backend='onnx')"
    loaded = _loaded_by(tmp_path, f"{load}; r.rank('Hvem?', ['En', 'To']); r.info()")
    assert {"raskrank", "onnxruntime", "tokenizers"} <= loaded
    assert not loaded & HEAVY


@needs_kernels
def test_the_kernels_do_without_onnxruntime(tmp_path: Path) -> None:
    load = "import raskrank; r = raskrank.Reranker.load(backend='native')"
    loaded = _loaded_by(tmp_path, f"{load}; r.rank('Hvem?', ['En', 'To']); r.info()")
    assert {"raskrank", "tokenizers"} <= loaded
    assert not loaded & (HEAVY | {"onnxruntime"})


def test_the_command_line_ranks_with_the_base_install_alone(tmp_path: Path) -> None:
    (tmp_path / "documents.txt").write_text("En\nTo\n")
    loaded = _loaded_by(tmp_path, "from raskrank.cli.main import main; assert main(['rank', 'Hvem?', '../documents.txt']) == 0")
    assert {"raskrank", "tokenizers"} <= loaded
    assert not loaded & (HEAVY | {"tqdm"})  # which shows progress on a terminal


def test_a_checkpoint_is_read_with_the_base_install_alone(tmp_path: Path) -> None:
    imports = "from pathlib import Path; from raskrank.checkpoint import read_checkpoint"
    loaded = _loaded_by(tmp_path, f"{imports}; read_checkpoint(Path({str(NANO_CHECKPOINT)!r}))")
    assert not loaded & (HEAVY | {"onnxruntime"})


@pytest.mark.parametrize(("own", "expected"), [(None, "1"), ("0", "0"), ("", "")])
def test_telemetry_is_off_before_onnxruntime_is_imported(tmp_path: Path, own: str | None, expected: str) -> None:
    # The hook ends the process where onnxruntime would start its telemetry, which with "0" it would.
    source = """
    import os, sys
    def hook(event, arguments):
        if event == "import" and arguments[0] == "onnxruntime":
            print(repr(os.environ.get("ORT_DISABLE_TELEMETRY")), flush=True)
            os._exit(0)
    sys.addaudithook(hook)
    import raskrank
    raskrank.Reranker.load(backend="onnx")
    """
    env = {} if own is None else {"ORT_DISABLE_TELEMETRY": own}
    assert run_script(tmp_path, source, env=env).stdout.strip() == repr(expected)


EXPORT_AND_VERIFY = """
    import sys
    from raskrank.cli.main import main

    checkpoint, samples, bundle = sys.argv[1:]
    loose = ["--min-tau", "-1", "--max-drift", "1", "--scheme", "constant", "--samples", samples]
    assert main(["export", checkpoint, bundle, *loose]) == 0
    assert main(["verify", "--bundle", bundle, "--pairs", samples]) in (0, 1)
"""


def test_an_export_and_a_verify_leave_nothing_in_home_and_tmpdir(tiny: Tiny, tmp_path: Path) -> None:
    # onnxruntime's telemetry writes .cache/Microsoft below HOME, and .ses below TMPDIR, as soon as it is imported.
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    arguments = (str(tiny.checkpoint("bert")), str(tiny.samples), str(tmp_path / "bundle"))
    run_script(tmp_path, EXPORT_AND_VERIFY, *arguments, env={"TMPDIR": str(temporary)}, deadline=120, silent=False, warnings=())
    assert (tmp_path / "bundle" / "manifest.json").is_file()
    for folder in (tmp_path / "home", temporary):
        assert [path.relative_to(tmp_path) for path in folder.rglob("*")] == []


@pytest.mark.parametrize("module", ["raskrank_export", "raskrank.onnx_backend", "raskrank_export.graph", "raskrank.cli.main"])
def test_whichever_part_is_imported_first_telemetry_is_off(tmp_path: Path, module: str) -> None:
    source = f"""
    import os, {module}
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    """
    run_script(tmp_path, source, warnings=())


def test_sessions_are_made_in_one_place() -> None:
    # With the engine's settings, the exporter's too: no telemetry, no log, no settings from inside a graph.
    for folder in (ENGINE, ROOT / "export" / "raskrank_export"):
        making = {file.name for file in folder.rglob("*.py") if _references(file)[1] & {"InferenceSession", "SessionOptions"}}
        assert making == ({"onnx_backend.py"} if folder == ENGINE else set())


def test_importing_changes_no_environment_variable_of_the_user(tmp_path: Path) -> None:
    source = """
    import os
    before = dict(os.environ)
    import raskrank
    raskrank.Reranker.load(backend="onnx").score("a", ["b"])
    changed = {name for name in {*before, *os.environ} if before.get(name) != os.environ.get(name)}
    assert changed == {"ORT_DISABLE_TELEMETRY"}, changed
    """
    run_script(tmp_path, source)


def test_a_subinterpreter_is_refused_in_plain_words(tmp_path: Path) -> None:
    source = """
import sys
try:
    import _interpreters as interpreters
    run = interpreters.exec
except ImportError:
    import _xxsubinterpreters as interpreters
    run = interpreters.run_string

lines = [
    f"import sys; sys.path[:] = {sys.path!r}",
    "try:",
    "    import raskrank",
    "except ImportError as error:",
    "    print('subinterpreter' in str(error), 'numpy' in sys.modules, flush=True)",
]
run(interpreters.create(), chr(10).join(lines))
import raskrank
"""
    assert run_script(tmp_path, source).stdout == "True False\n"


@pytest.mark.parametrize("name", FILES)
def test_heavy_imports_stay_in_functions_of_the_lazy_files(name: str) -> None:
    tree = ast.parse(FILES[name].read_text("utf-8"))
    eager = {package for node in _outside_functions(tree) for package in _imports(node)}
    anywhere = {package for node in ast.walk(tree) for package in _imports(node)}
    assert eager & HEAVY == ({"torch"} if name in OF_TORCH else set())
    assert name in LAZY_PLACES | OF_TORCH or not (anywhere - _type_checking(tree)) & HEAVY


@pytest.mark.parametrize("name", FILES)
def test_module_level_imports_are_dependencies(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    dependencies = {requirement.partition(">=")[0] for requirement in project["dependencies"]}
    eager = {package for node in _outside_functions(ast.parse(FILES[name].read_text("utf-8"))) for package in _imports(node)}
    extra = next((packages for folder, packages in EXTRAS.items() if name.startswith(folder)), set[str]())
    extra |= {"torch"} if name in OF_TORCH else set()
    assert eager <= dependencies | extra | FRAMEWORKS.get(name, set()) | sys.stdlib_module_names | {"raskrank"}


def test_the_packages_of_extras_are_those_of_the_project() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for folder, packages in EXTRAS.items():
        named = {requirement.partition(">=")[0].replace("-", "_") for requirement in extras[folder.removesuffix("/")]}
        assert packages == named


def test_nothing_but_the_command_serve_imports_the_server() -> None:
    importing = {name for name, file in FILES.items() if "raskrank.server" in file.read_text("utf-8")}
    assert {name for name in importing if not name.startswith("server/")} == {"cli/serve.py"}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_an_adapter_without_its_framework_says_how_to_install_it(tmp_path: Path, name: str) -> None:
    module = name.removesuffix(".py").replace("/", ".")
    source = f"""
    import sys
    sys.modules.update(dict.fromkeys({sorted(FRAMEWORKS[name])!r}))  # as if they were not installed
    try:
        import raskrank.{module}
    except ImportError as error:
        print(type(error).__name__, error)
    """
    extra = module.rpartition(".")[2].replace("_", "-")
    said = run_script(tmp_path, source).stdout
    assert said.startswith(f"MissingExtra raskrank.{module} needs ")
    assert said.endswith(f"; install it with: pip install 'raskrank[{extra}]'\n")


def test_classes_of_torch_are_imported_by_one_function() -> None:
    def eagerly(file: Path) -> set[str]:
        nodes = _outside_functions(ast.parse(file.read_text("utf-8")))
        return {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}

    theirs = {f"raskrank.{name.removesuffix('.py').replace('/', '.')}" for name in OF_TORCH}
    assert {name for name, file in FILES.items() if eagerly(file) & theirs} <= OF_TORCH


def test_only_the_command_line_knows_the_exporter() -> None:
    knowing = {name for name, file in FILES.items() if "raskrank_export" in file.read_text("utf-8")}
    assert knowing == {"cli/bench.py", "cli/export.py"}


def test_only_one_file_imports_onnxruntime() -> None:
    importing = {
        name
        for name, file in FILES.items()
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if "onnxruntime" in _imports(node)
    }
    assert importing == {"onnx_backend.py"}


@pytest.mark.parametrize("name", FILES)
def test_nothing_imports_by_a_name_it_made_up(name: str) -> None:
    names, attributes = _references(FILES[name])
    assert not names & {"__import__", "eval", "exec", "import_module"}
    assert "import_module" not in attributes


@pytest.mark.parametrize("name", [name for name in FILES if name not in COMMAND_LINE])
def test_the_library_prints_nothing(name: str) -> None:
    names, attributes = _references(FILES[name])
    assert "print" not in names
    assert not attributes & {"basicConfig", "stderr", "stdout"}


def _loaded_by(folder: Path, source: str) -> set[str]:
    """Top-level modules that a fresh process has after it ran one line, whatever that printed."""
    report = "import json, sys; print(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    return set(json.loads(run_script(folder, f"{source}\n{report}").stdout.splitlines()[-1]))


def _references(file: Path) -> tuple[set[str], set[str]]:
    """The names and the attributes that a file's code mentions."""
    nodes = list(ast.walk(ast.parse(file.read_text("utf-8"))))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return names, {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def _imports(node: ast.AST) -> set[str]:
    """Top-level packages that one statement imports."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        return {(node.module or "").partition(".")[0]}
    return set()


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_type_checking(child):
            continue
        yield child
        yield from _outside_functions(child)


def _type_checking(tree: ast.AST) -> set[str]:
    blocks = [node for node in ast.walk(tree) if _is_type_checking(node)]
    return {package for block in blocks for node in ast.walk(block) for package in _imports(node)}


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
