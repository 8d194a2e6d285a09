"""What to do with a checkpoint that transformers can load and Raskrank does not read: a command that writes one it reads."""

import json
import shlex
from pathlib import Path
from typing import NamedTuple

from raskrank.checkpoint.files import is_file
from raskrank.checkpoint.modules import module_folders

# They name license and activation, and transformers would not save them.
_COPIED = ("README.md", "config_sentence_transformers.json")


class Origin(NamedTuple):
    """Where a checkpoint is from, as one would tell transformers: a hub id with a revision, or a folder."""

    name: str
    revision: str | None = None


def conversion(folder: Path, origin: Origin, *, pickled: bool = False) -> str:
    """How to get a checkpoint with tokenizer.json and safetensors from one that transformers can load.

    pickled: its weights are; transformers reads them with weights_only=True, which calls nothing that a pickle names.
    """
    target = Path(origin.name).resolve().name + "-converted"
    given = json.dumps(origin.name, ensure_ascii=False)
    if origin.revision is not None:
        given += f", revision={json.dumps(origin.revision, ensure_ascii=False)}"
    if module_folders(folder):  # whose weights only sentence-transformers puts together
        written = json.dumps(target, ensure_ascii=False)
        program = f"import sentence_transformers; sentence_transformers.CrossEncoder({given}).save_pretrained({written})"
        return _advice("sentence-transformers", program, target, pickled=pickled)
    kept = [str(folder / name) for name in _COPIED if is_file(folder / name)]
    program = "; ".join(
        [
            "import shutil, transformers",
            f"target = {json.dumps(target, ensure_ascii=False)}",
            f"transformers.AutoTokenizer.from_pretrained({given}).save_pretrained(target)",
            f"transformers.AutoModelForSequenceClassification.from_pretrained({given}).save_pretrained(target)",
            *(f"shutil.copy({json.dumps(file, ensure_ascii=False)}, target)" for file in kept),
        ]
    )
    return _advice("transformers", program, target, pickled=pickled)


def _advice(library: str, program: str, target: str, *, pickled: bool) -> str:
    safely = ", which reads a pickle's numbers and runs none of its code," if pickled else ""
    return (
        f"Where you trust it, and {library} can load it, let that{safely} write the missing file: "
        f"python -c {shlex.quote(program)} and then: raskrank export {shlex.quote(f'./{target}')} OUTPUT"
    )
