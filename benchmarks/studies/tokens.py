"""Tokens a word, in Norwegian and in English, of each published tokenizer that is here: what a model has to read of a text.

    python -m benchmarks.studies.tokens

Needs ../shared. Norwegian is the passages and questions of NorQuAD's validation set, English those of XQuAD; a word is what
stands between white space. Special tokens are not counted. Prints Markdown.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

import raskrank
from benchmarks.harness.models import SHARED

SETS = {"Norwegian": SHARED / "norquad" / "validation", "English": SHARED / "xquad"}
# Published models that have the same pieces, by the folder of one of them.
SAME = {
    "bge-reranker-base-BAAI": "bge-reranker-base, -large",
    "mmarco-mMiniLMv2-L12-H384-v1": "mmarco-mMiniLMv2-L12-H384-v1",
    "jina-reranker-v2-base-multilingual": "jina-reranker-v2-base-multilingual",
    "ms-marco-MiniLM-L-6-v2": "ms-marco-MiniLM and -TinyBERT",
}


def texts(folder: Path) -> list[str]:
    """Passages and queries of a data set."""
    files = (folder / "passages.jsonl", folder / "queries.jsonl")
    return [json.loads(line)["text"] for file in files for line in file.read_text("utf-8").splitlines()]


def tokens_per_word(tokenizer: Tokenizer, sample: Sequence[str]) -> float:
    """Over all of the texts together."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokens = sum(len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(sample), add_special_tokens=False))
    return tokens / sum(len(text.split()) for text in sample)


def main() -> None:
    published = {name: SHARED / "tokenizers" / folder / "tokenizer.json" for folder, name in SAME.items()}
    files = published | {"the embedded model": Path(raskrank.__file__).parent / "nano" / "tokenizer.json"}
    samples = {language: texts(folder) for language, folder in SETS.items()}
    print("| tokenizer of | pieces | tokens a Norwegian word | tokens an English word |")
    print("|---|---:|---:|---:|")
    for name, file in files.items():
        tokenizer = Tokenizer.from_file(str(file))
        ratios = " | ".join(f"{tokens_per_word(tokenizer, sample):.2f}" for sample in samples.values())
        print(f"| {name} | {tokenizer.get_vocab_size():,} | {ratios} |")


if __name__ == "__main__":
    main()
