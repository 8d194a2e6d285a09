"""Folders of a project whose settings name a model."""

from pathlib import Path

import bundles
from raskrank.settings import Choice, choose_for_command

QUERY, DOCUMENTS = "Hvem kan Python?", ["Sykepleier i turnus", "Utvikler med erfaring i Python", "Dyrepasser"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def copy_nano(folder: Path) -> Path:
    return bundles.copy_bundle(Choice(folder=None, named_by="").path, folder)


def chosen() -> Choice:
    """What the command line loads where no --bundle is given."""
    return choose_for_command(None, lambda _: None)


def pyproject(model: str) -> str:
    return f'[project]\nname = "søk"\n\n[tool.raskrank]\nmodel = "{model}"\n'
