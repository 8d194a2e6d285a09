"""Where the packages of `make test-applications` are not installed, a file of tests is skipped, by the names of what it lacks.

With RASKRANK_APPLICATIONS=require, which that target sets, nothing is: a missing package is an error there.
"""

import ast
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # importing litellm fetches prices unless this is set


class ModuleOrSkipped(pytest.Module):
    """A file of tests that is skipped where a package which it imports at its top is not installed."""

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        if missing := lacking(self.path.read_text("utf-8")):
            pytest.skip(f"{self.path.name} needs {', '.join(missing)}: make test-applications", allow_module_level=True)
        return list(super().collect())


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> ModuleOrSkipped:
    return ModuleOrSkipped.from_parent(parent, path=module_path)


def lacking(source: str) -> list[str]:
    """The top-level packages that this source imports outside functions and that are not installed, in order of their names."""
    if os.environ.get("RASKRANK_APPLICATIONS") == "require":
        return []
    imported = set[str]()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    return sorted(package for package in imported if find_spec(package) is None)
