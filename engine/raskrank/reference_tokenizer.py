"""What transformers' own tokenizer gives the checkpoint: the reference must not be encoded by the engine that it judges."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from raskrank.checkpoint import Checkpoint
from raskrank.checkpoint.families import OF_MODEL_TYPE
from raskrank.checkpoint.files import is_file, read_json, read_whole
from raskrank.encoding import EncodedPair, PairEncoder, kept_tokens
from raskrank.errors import CheckpointError
from raskrank.manifest import TOKENIZER
from raskrank.pieces import convert
from raskrank.process import rayon
from raskrank.quoting import named
from raskrank.tokenizer import unknown_id
from raskrank.tokenizer_classes import class_of, follow, passes_types
from raskrank.tokenizer_parts import differing_parts
from raskrank.torch_backend import quiet

# As transformers' AutoTokenizer chooses where no class is named.
_BY_MODEL_TYPE: Mapping[str, str] = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "electra": "Electra",
    "distilbert": "DistilBert",
    "mpnet": "MPNet",
    "albert": "Albert",
    "deberta-v2": "DebertaV2",
    "new": "XLMRoberta",
    "jina-bert": "Roberta",
    "modernbert": "PreTrained",
}
# transformers' own classes that read tokenizer.json. A name that is not among them may stand for code in the folder.
# fmt: off
OWN = frozenset({
    "Albert", "Bart", "Barthez", "Bert", "BigBird", "Camembert", "ConvBert", "Deberta", "DebertaV2", "DistilBert", "Electra",
    "Funnel", "GPT2", "Herbert", "LayoutLM", "Longformer", "Lxmert", "MBart", "MPNet", "MobileBert", "PreTrained", "RemBert",
    "RoFormer", "Roberta", "Splinter", "SqueezeBert", "T5", "XLMRoberta", "XLNet",
})
# fmt: on
# transformers 5's name for a tokenizer that is nothing but its tokenizer.json.
_RENAMED = {"TokenizersBackend": "PreTrained"}
CONFIG = "tokenizer_config.json"
_SMALL = ("special_tokens_map.json", "added_tokens.json", "config.json")  # that transformers reads, too
PIECES = ".model"  # how the names of SentencePiece vocabularies end
# Beside the sample pairs: nothing at all, and where options of tokenizers differ: case, accents, Chinese, control characters.
PROBES: tuple[tuple[str, str], ...] = (
    ("", ""),
    ("", "a"),
    ("a", ""),
    ("Hvem kan Python?", "Åse Ørbæk: ÆRLIG talt, 3,5 år på café"),
    ("東京 weather\tnow", "naïve\u200b \u0001x  fi ｆｕｌｌ e\u0301 🙂 don't"),
)


class ReferenceEncoder:
    """Encodes pairs as PairEncoder does, cut by the same rule, but with transformers' tokenizer of a checkpoint.

    Its token types are those that transformers passes to the model: zeros where its class passes none.
    """

    def __init__(self, checkpoint: Checkpoint, encoder: PairEncoder) -> None:
        """encoder: whose limits hold here, too.

        Raises CheckpointError where transformers cannot load the tokenizer, InferenceError where it would hang.
        """
        rayon.refuse_dead_threads()
        self._folder, self._types = checkpoint.folder, checkpoint.type_vocab_size > 1
        self._budget, self._query_share, self._most_chars = encoder.budget, encoder.query_share, encoder.most_chars
        stem = _class_stem(checkpoint)
        self._name, self._passes_types = f"{stem}TokenizerFast", passes_types(stem, read_json(checkpoint.folder / CONFIG))
        self._tokenizer = _load(checkpoint)
        self._own = tokenizer_json(checkpoint)
        self._unknown_id = unknown_id(self._tokenizer.backend_tokenizer)

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[EncodedPair]:
        """One EncodedPair for each pair, in order."""
        if not pairs:
            return []
        queries, documents = ([pair[side][: self._most_chars] for pair in pairs] for side in (0, 1))
        found = self._tokenizer(
            queries, documents, truncation=False, padding=False, return_token_type_ids=self._passes_types, verbose=False
        )
        types = found.get("token_type_ids") or [[0] * len(ids) for ids in found["input_ids"]]
        return [
            self._cut(*row, found.sequence_ids(index)) for index, row in enumerate(zip(found["input_ids"], types, strict=True))
        ]

    def check(self, pairs: Sequence[tuple[str, str]], ours: Sequence[EncodedPair]) -> list[EncodedPair]:
        """What transformers gives for the pairs; raises CheckpointError if `ours`, the engine's encodings, are others."""
        theirs = self.encode(pairs)
        both = list(zip(ours, theirs, strict=True))
        where = f"{self._folder / TOKENIZER} and {CONFIG} disagree: transformers' {self._name}"
        advice = "save the tokenizer again with transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        if ids := sum(not np.array_equal(one.input_ids, other.input_ids) for one, other in both):
            raise CheckpointError(f"{where} gives other ids for {ids} of {len(both)} pairs; {advice}")
        if types := sum(self._types and not np.array_equal(one.token_type_ids, other.token_type_ids) for one, other in both):
            raise CheckpointError(
                f"{where} passes other token types to the model for {types} of {len(both)} pairs, so that it would score them "
                f"otherwise; if {TOKENIZER} is right, correct tokenizer_class and model_input_names in {CONFIG}, else save the "
                "tokenizer again with the class that the model was trained with"
            )
        own = Tokenizer.from_str(self._own.decode())
        if parts := differing_parts(own, self._tokenizer.backend_tokenizer):
            raise CheckpointError(f"{where} has other {', '.join(parts)}, which gives other ids for some texts; {advice}")
        if self._tokenizer.truncation_side != "right":
            raise CheckpointError(
                f"{where} cuts texts at their start, and Raskrank at their end; where that is right for the model, set "
                f'"truncation_side" to "right" in {CONFIG}'
            )
        return theirs

    def unknown_share(self, encoded: Sequence[EncodedPair]) -> float:
        """The share of tokens, 0 to 1, that stand for what the vocabulary lacks."""
        tokens = sum(len(pair.input_ids) for pair in encoded)
        unknown = sum(int(np.count_nonzero(pair.input_ids == self._unknown_id)) for pair in encoded)
        return unknown / tokens if tokens and self._unknown_id is not None else 0.0

    def _cut(self, ids: list[int], types: list[int], parts: list[int | None]) -> EncodedPair:
        """parts: None for a special token, 0 for the query's, 1 for the document's."""
        whole = parts.count(0), parts.count(1)
        kept = kept_tokens(*whole, budget=self._budget, query_share=self._query_share)
        places, seen = list[int](), [0, 0]
        for place, part in enumerate(parts):
            if part is None or seen[part] < kept[part]:
                places.append(place)
            if part is not None:
                seen[part] += 1
        return EncodedPair(np.array(ids, np.int64)[places], np.array(types, np.int64)[places], kept != whole)


def tokenizer_json(checkpoint: Checkpoint) -> bytes:
    """The checkpoint's tokenizer.json, or what transformers would write there from its vocabulary.

    Raises CheckpointError where there is neither, or transformers cannot read it.
    """
    file = checkpoint.folder / TOKENIZER
    if is_file(file):
        return read_whole(file)
    made: str = _load(checkpoint).backend_tokenizer.to_str()
    return made.encode()


def _load(checkpoint: Checkpoint) -> Any:
    folder, stem = checkpoint.folder, _class_stem(checkpoint)
    options = read_json(folder / CONFIG)
    try:
        with quiet(), _complete(checkpoint, stem) as whole:
            kind = class_of(stem, whole=is_file(whole / TOKENIZER))
            if kind is None:
                raise LookupError(f"tokenizer_class {stem!r} is not in transformers {version('transformers')}")
            made = kind.from_pretrained(whole, local_files_only=True, trust_remote_code=False)
            follow(stem, options, made.backend_tokenizer)
            return made
    except Exception as error:  # whatever a strange tokenizer_config.json makes it raise
        raise CheckpointError(f"{folder}: transformers cannot load this tokenizer: {named(error)}") from error


@contextmanager
def _complete(checkpoint: Checkpoint, stem: str) -> Iterator[Path]:
    """The checkpoint's folder, or one with its tokenizer's small files and the tokenizer.json that its pieces make."""
    folder = checkpoint.folder
    pieces = next((name for name in OF_MODEL_TYPE[checkpoint.model_type].vocabulary if name.endswith(PIECES)), None)
    if is_file(folder / TOKENIZER) or pieces is None:
        yield folder
        return
    with TemporaryDirectory() as made:
        for name in (CONFIG, *_SMALL):
            if is_file(folder / name):
                Path(made, name).write_bytes(read_whole(folder / name))
        convert(folder / pieces, stem, read_json(folder / CONFIG)).save(str(Path(made, TOKENIZER)))
        yield Path(made)


def _class_stem(checkpoint: Checkpoint) -> str:
    """Of the fast class that AutoTokenizer would take: of a fixed list, never code that the folder brings."""
    folder = checkpoint.folder
    stated = next((value for file in (CONFIG, "config.json") if (value := _stated(folder / file)) is not None), None)
    if stated is None:
        return _BY_MODEL_TYPE[checkpoint.model_type]
    stem = _RENAMED.get(str(stated), str(stated).removesuffix("Fast").removesuffix("Tokenizer"))
    if stem not in OWN:
        raise CheckpointError(
            f"{folder / CONFIG}: tokenizer_class {str(stated)[:64]!r} is none of transformers' own that read {TOKENIZER}; for "
            f"this model it would be {_BY_MODEL_TYPE[checkpoint.model_type]}Tokenizer"
        )
    return stem


def _stated(file: Path) -> object:
    return read_json(file).get("tokenizer_class")
