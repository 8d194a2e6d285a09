"""Functions of peers' files, called in another environment. Stand-alone.

PYTHON -m benchmarks.harness.calls FILE FUNCTION OPTIONS    OPTIONS are its keyword arguments as a JSON object
"""

import importlib.util
import inspect
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple


class Call(NamedTuple):
    """What names a function to another process."""

    file: str
    function: str

    @classmethod
    def of(cls, function: Callable[..., Any]) -> "Call":
        """Of a function at the top of its file. Raises ValueError for another, which no other process could find."""
        if function.__qualname__ != function.__name__ or function.__name__ == "<lambda>":
            raise ValueError(f"{function.__qualname__} has to stand at the top of its file")
        return cls(str(Path(inspect.getfile(function)).resolve()), function.__name__)

    def find(self) -> Callable[..., Any]:
        """Raises AttributeError where the file has no such function."""
        found: Callable[..., Any] = getattr(load_file(Path(self.file)), self.function)
        return found


def load_file(file: Path) -> ModuleType:
    """A module from its file, wherever that is. It is not kept in sys.modules."""
    spec = importlib.util.spec_from_file_location(f"peer_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    file, function, options = sys.argv[1:]
    warnings.simplefilter("ignore")
    Call(file, function).find()(**json.loads(options))


if __name__ == "__main__":
    main()
