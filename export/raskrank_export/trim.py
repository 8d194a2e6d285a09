"""Vocabulary trimming: a tokenizer and an embedding with only the pieces that a corpus uses.

A text whose pieces are all kept gets the same pieces as before, and so the same score:

Unigram takes the path of the highest sum of scores through the pieces found in a text. Trimming removes paths and makes none,
so the best one stays the best if it is there; among equals the first to reach a position wins, which it still does, since
the sums of the others can only fall. A character without a piece of its own costs the lowest score of the vocabulary less
ten: therefore the lowest score is kept.

WordPiece takes the longest piece at each position, and [UNK] for the whole word where none fits. Where the longest is kept,
it is taken. A word that was unknown could become known if its way to the character that fits nothing were another, and the
new one went across that character: therefore no piece is kept that has such a character inside.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tokenizers import Tokenizer

from raskrank.backend import Int64Array
from raskrank.bundle import record
from raskrank.documents import Form, stream_documents
from raskrank.encoding import EncodedPair
from raskrank.errors import ExportError, InputError
from raskrank.manifest import CorpusFile, Coverage, Vocabulary
from raskrank_export.describe import recorded_name
from raskrank_export.passes.edit import GraphEditor
from raskrank_export.tensors import replace_values, values

HELD_BACK = 10  # every tenth text: its pieces are kept too, but the coverage is that of the pieces of the other nine
BATCH_TEXTS = 1000  # tokenized together


@dataclass(frozen=True, kw_only=True, eq=False)
class Trimmed:
    """A trimmed tokenizer. kept: int64 (K), ids of the checkpoint's tokenizer, ascending; kept[i] is i now."""

    tokenizer_json: bytes
    tokenizer: Tokenizer
    kept: Int64Array
    vocabulary: Vocabulary

    def same(self, before: EncodedPair, now: EncodedPair) -> bool:
        """Whether both tokenizers give the same pieces."""
        return np.array_equal(before.input_ids, self.kept[now.input_ids])


def corpus_files(files: object) -> list[Path]:
    """The files of a corpus as a caller named them, or InputError."""
    if isinstance(files, str | os.PathLike) or not isinstance(files, Sequence):
        raise InputError(f"trim_vocab: expected a sequence of files, got {type(files).__name__}; put it in a list")
    return [Path(file) for file in files]


def trim_vocabulary(
    data: bytes, tokenizer: Tokenizer, corpus: Sequence[Path], *, pad_id: int, form: Form | None = None
) -> Trimmed:
    """Keep what the texts of `corpus` use (files as for `raskrank rank`), single characters, special and added tokens.

    data: tokenizer.json, from which `tokenizer` was made. pad_id: it stays as it is, with all ids below it, since XLM-R's graph
    tells positions by comparing ids with that constant. Raises InputError for a file that cannot be read or fewer than ten
    texts, ExportError for a tokenizer that is neither Unigram nor WordPiece.
    """
    document, kind = json.loads(data), type(tokenizer.model).__name__
    if kind not in ("Unigram", "WordPiece"):
        raise ExportError(
            f"a {kind} vocabulary cannot be trimmed: it builds its pieces from smaller ones, so that any text could change. "
            "Only Unigram (XLM-R) and WordPiece (BERT) can; export without trimming"
        )
    unknown = _unknown_id(document["model"])
    always = {unknown, *range(pad_id + 1), *tokenizer.get_added_tokens_decoder()} | _needed(document)
    documents = chain.from_iterable(stream_documents(file, form) for file in corpus)
    used, coverage = _read_corpus(tokenizer, (text.text for text in documents), always, _with_unknown_inside(document["model"]))
    kept = sorted(always | used)
    new = {old: id for id, old in enumerate(kept)}
    tokenizer_json = _renumbered(document, data, tokenizer, new)
    trimmed = Tokenizer.from_buffer(tokenizer_json)
    expected = {piece: new[id] for piece, id in tokenizer.get_vocab(with_added_tokens=True).items() if id in new}
    if trimmed.get_vocab(with_added_tokens=True) != expected:
        raise ExportError("tokenizers does not number the pieces of the trimmed vocabulary as planned; export without trimming")
    return Trimmed(
        tokenizer_json=tokenizer_json,
        tokenizer=trimmed,
        kept=np.array(kept, np.int64),
        vocabulary=Vocabulary(
            kept=len(kept),
            of=tokenizer.get_vocab_size(with_added_tokens=True),
            unknown_id=new[unknown],
            corpus=tuple(CorpusFile(name=recorded_name(file), sha256=record(file).sha256) for file in corpus),
            coverage=coverage,
        ),
    )


def trim_embedding(model: onnx.ModelProto, kept: Int64Array, file: Path) -> None:
    """Let the graph look up only the kept rows of its word embedding, (V, H) -> (K, H). They are put into `file`, which must
    stay until the graph is saved."""
    graph = GraphEditor(model)
    (table,) = {node.input[0] for node in graph.nodes("Gather") if node.input[1] == "input_ids"}
    replace_values(graph.initializers[table], values(graph.initializers[table])[kept], file)


def _unknown_id(model: dict[str, Any]) -> int:
    id: int | None = model["vocab"].get(model["unk_token"]) if _is_wordpiece(model) else model["unk_id"]
    if id is None:
        raise ExportError("the tokenizer has no piece for what it does not know; such a vocabulary cannot be trimmed")
    return id


def _is_wordpiece(model: dict[str, Any]) -> bool:
    return isinstance(model["vocab"], dict)  # piece -> id; Unigram has [piece, score], in the order of ids


def _needed(document: dict[str, Any]) -> set[int]:
    """Ids of single characters, of what the post-processor adds, and of Unigram's lowest score."""
    model = document["model"]
    added = {place[index] for place, index in _id_slots(document["post_processor"])}
    if _is_wordpiece(model):
        prefix = model["continuing_subword_prefix"]
        return added | {id for piece, id in model["vocab"].items() if len(piece.removeprefix(prefix)) == 1}
    lowest, _ = min(enumerate(model["vocab"]), key=lambda entry: entry[1][1])
    return {lowest} | added | {id for id, (piece, _) in enumerate(model["vocab"]) if len(piece) == 1}


def _with_unknown_inside(model: dict[str, Any]) -> set[int]:
    """Ids of WordPiece's pieces with a character, after their first, that has no ## piece of its own."""
    if not _is_wordpiece(model):
        return set()
    prefix, vocabulary = model["continuing_subword_prefix"], model["vocab"]
    return {
        id
        for piece, id in vocabulary.items()
        if any(prefix + character not in vocabulary for character in piece.removeprefix(prefix)[1:])
    }


def _id_slots(processor: dict[str, Any]) -> Iterator[tuple[list[Any], int]]:
    """Where a post-processor's JSON holds token ids: lists, and places in them."""
    if processor["type"] == "Sequence":
        for part in processor["processors"]:
            yield from _id_slots(part)
    elif processor["type"] == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            yield from ((token["ids"], index) for index in range(len(token["ids"])))
    elif processor["type"] in ("BertProcessing", "RobertaProcessing"):
        yield from ((processor[name], 1) for name in ("cls", "sep"))  # [token, id]


def _read_corpus(tokenizer: Tokenizer, texts: Iterable[str], always: set[int], never: set[int]) -> tuple[set[int], Coverage]:
    """The ids that the texts use but for `never`, and how well those of nine in ten, with `always`, cover the tenth."""
    seen, of_held_back, doubtful = set(always), set[int](), list[Counter[int]]()
    tokens = number = 0
    for number, ids in enumerate(_token_ids(tokenizer, texts), 1):
        if number % HELD_BACK:
            seen.update(set(ids) - never)
            continue
        tokens += len(ids)
        doubtful.append(Counter(id for id in ids if id not in seen))  # a later text may use them yet
        of_held_back.update(set(ids) - never)
    if number < HELD_BACK:
        raise InputError(f"the corpus to trim the vocabulary on holds {number} texts, at least {HELD_BACK} are needed")
    missing = [sum(count for id, count in counts.items() if id not in seen) for counts in doubtful]
    coverage = Coverage(
        texts=number,
        held_back=len(missing),
        whole_texts=round(missing.count(0) / len(missing), 6),
        tokens=round(1 - sum(missing) / max(tokens, 1), 6),
    )
    return seen | of_held_back, coverage


def _token_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[list[int]]:
    waiting = iter(texts)
    while batch := list(islice(waiting, BATCH_TEXTS)):
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            yield encoding.ids


def _renumbered(document: dict[str, Any], data: bytes, tokenizer: Tokenizer, new: dict[int, int]) -> bytes:
    """tokenizer.json, of which `data` is the text and `document` the values, with only the ids in `new`."""
    for place, index in _id_slots(document["post_processor"]):
        place[index] = new[place[index]]
    for token in document["added_tokens"]:
        token["id"] = new[tokenizer.token_to_id(token["content"])]
    document["truncation"] = document["padding"] = None  # the engine uses neither, and padding holds an id
    model = document.pop("model")
    pieces = model.pop("vocab")
    if isinstance(pieces, dict):
        vocabulary = json.dumps({piece: new[id] for piece, id in pieces.items() if id in new}, ensure_ascii=False)
    else:
        model["unk_id"] = new[model["unk_id"]]
        # Scores spelled as they are in the file: the reader in tokenizers may miss the last bit, depending on the spelling.
        spelled = json.loads(data, parse_float=str, parse_int=str)["model"]["vocab"]
        kept = (f"[{json.dumps(piece, ensure_ascii=False)},{score}]" for id, (piece, score) in enumerate(spelled) if id in new)
        vocabulary = f"[{','.join(kept)}]"
    return _extended(document, "model", _extended(model, "vocab", vocabulary)).encode()


def _extended(values: dict[str, Any], key: str, json_value: str) -> str:
    """An object as JSON, with one more key whose value is JSON already."""
    return f'{json.dumps(values, ensure_ascii=False, separators=(",", ":"))[:-1]},"{key}":{json_value}}}'
