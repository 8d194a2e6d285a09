"""Trimmed vocabularies: a text whose pieces are all kept has the same pieces as beside the whole vocabulary.

python tests/attacks/trimmed.py [--count N] [--seed S]

Trims each tokenizer that can be on some texts, and reads others of the same words, with hostile ones between; of many texts
published tokenizers get a part, too. Exits with 1 if a text has other pieces.
"""

import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))

from attacking import count_and_seed
from attacks.texts import random_text, tokenizers
from builders import SENTENCES
from raskrank_export.trim import Trimmed, trim_vocabulary

WORDS = sorted({word for sentence in SENTENCES for word in sentence.split()})
CORPUS = 200  # texts that a vocabulary is trimmed on
ROUND = 5000  # texts that are read beside it, until it is trimmed on others


def text(dice: random.Random, words: list[str]) -> str:
    """Words of the corpus, now and then with others, or with no text that anybody meant, between."""
    parts = dice.choices(words, k=dice.randrange(20))
    if dice.random() < 0.3:
        parts.insert(dice.randrange(len(parts) + 1), dice.choice((random_text(dice), dice.choice(WORDS))))
    return dice.choice((" ", "", "\t ")).join(parts)


def trimmed_on(tokenizer: Tokenizer, texts: list[str], folder: Path) -> Trimmed:
    file = folder / "corpus.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return trim_vocabulary(tokenizer.to_str().encode(), tokenizer, [file], pad_id=1)


def main() -> int:
    count, seed = count_and_seed(__doc__, 2000, "texts")
    dice, start = random.Random(seed), time.monotonic()
    every = tokenizers(published=count > ROUND)
    found = {name: each for name, each in every.items() if type(each.model).__name__ in ("Unigram", "WordPiece")}
    read = kept = 0
    wrong = list[str]()
    with tempfile.TemporaryDirectory() as folder:
        while read < count:
            name = dice.choice([*found])
            whole, words = found[name], dice.sample(WORDS, len(WORDS) // 2)
            trimmed = trimmed_on(whole, [text(dice, words) for _ in range(CORPUS)], Path(folder))
            pieces = set(trimmed.kept.tolist())
            for _ in range(min(ROUND, max(1, count // 10))):
                given = text(dice, words)
                before, now = (each.encode(given, add_special_tokens=False).ids for each in (whole, trimmed.tokenizer))
                read += 1
                if pieces.issuperset(before):
                    kept += 1
                    if trimmed.kept[now].tolist() != before:
                        wrong.append(f"{name}, text {read} of seed {seed}")
    for which in wrong[:20]:
        print(which)
    took = f"{time.monotonic() - start:.0f} s"
    print(f"{read:,} texts, {len(found)} vocabularies, {kept:,} of them all kept, {took}: {len(wrong)} with other pieces")
    return 1 if wrong or not kept else 0


if __name__ == "__main__":
    sys.exit(main())
