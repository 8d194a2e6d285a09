"""Which of the process's Python interpreters this is."""

import importlib


def require_main() -> None:
    """Raises ImportError in a subinterpreter. Before numpy is imported, which only warns there; loading a model then hangs."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # of Python 3.13 and later, and of those before
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        if interpreters.get_current() != interpreters.get_main():
            raise ImportError(
                "raskrank cannot be used in a subinterpreter, since numpy and onnxruntime cannot: use the main interpreter "
                "(for mod_wsgi: WSGIApplicationGroup %{GLOBAL}), or processes"
            )
        return
