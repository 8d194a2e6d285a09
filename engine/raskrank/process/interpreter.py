"""Which of the process's Python interpreters this is."""


def require_main() -> None:
    """Raises ImportError in a subinterpreter. Before numpy is imported, which only warns there; loading a model then hangs."""
    try:
        import _interpreters as interpreters  # type: ignore[import-not-found, unused-ignore]  # Python 3.13 and later
    except ImportError:
        try:
            import _xxsubinterpreters as interpreters  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            return  # this Python makes none
    if interpreters.get_current() != interpreters.get_main():
        raise ImportError(
            "raskrank cannot be used in a subinterpreter, since numpy and onnxruntime cannot: use the main interpreter "
            "(for mod_wsgi: WSGIApplicationGroup %{GLOBAL}), or processes"
        )
