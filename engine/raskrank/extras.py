"""Packages that only some features need: one message for all that are missing."""

import importlib.util

from raskrank.errors import MissingExtra


def need(what: str, extra: str, *modules: str) -> None:
    """Raises MissingExtra unless all modules can be imported. what: the feature or option that needs them.

    They are looked up, not imported, so that this can be asked before anything slow begins.
    """
    if missing := [module for module in modules if importlib.util.find_spec(module) is None]:
        message = f"{what} needs {', '.join(missing)}; install it with: pip install 'raskrank[{extra}]'"
        raise MissingExtra(message, name=missing[0])
