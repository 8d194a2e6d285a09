"""Tiny checkpoints and tokenizers, built in memory: real architectures, seeded weights, scores that spread."""

import functools
import json
import math
import shutil
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

if TYPE_CHECKING:
    from torch import Generator, Tensor

Family = Literal[
    "bert",
    "xlm-roberta",
    "roberta",
    "camembert",
    "electra",
    "distilbert",
    "mpnet",
    "albert",
    "deberta-v2",
    "new",
    "jina-bert",
    "modernbert",  # this and the next are made by modernbert.py
    "ettin",
]

NORWEGIAN = (
    "Hvor mange innbyggere har Oslo?",
    "Oslo hadde 717 710 innbyggere ved inngangen til 2024.",
    "Når går den siste bussen fra sentrum?",
    "Den siste bussen går klokken 23.45 fra torget ved rådhuset.",
    "Hva koster det å fornye et pass?",
    "Et nytt pass for voksne koster 800 kroner, og for barn 480 kroner.",
    "Hvem kan hjelpe meg med Python?",
    "Kari har skrevet Python i ti år og lærer gjerne bort det hun kan.",
    "Hvilken fisk er vanligst i Mjøsa?",
    "I Mjøsa lever blant annet ørret, harr, sik og lågåsild.",
    "Hvordan søker jeg om barnehageplass?",
    "Søknaden om barnehageplass sendes kommunen innen 1. mars hvert år.",
    "Hvor høyt er Galdhøpiggen?",
    "Galdhøpiggen er 2469 meter over havet og det høyeste fjellet i Norge.",
    "Kva er skilnaden på bokmål og nynorsk?",
    "Nynorsk byggjer på dialektane, medan bokmål har røter i dansk skriftspråk.",
    "Kan jeg levere tilbake en vare uten kvittering?",
    "Butikken bytter varer innen 30 dager når du viser kvitteringen.",
    "Hvordan koker man egg?",
    "Legg eggene i kokende vann og vent i sju minutter for en myk plomme.",
    "Bilen trenger nye bremser før vinteren kommer.",
    "Møtet er flyttet til torsdag klokken 14.00 i det store rommet.",
    "Jenta på øya så en rev ved sjøen tidlig om morgenen.",
    "Strømprisen falt med 12,5 prosent i april og steg igjen i mai.",
    "Bestemor bakte brød med rug, havre og litt sirup.",
    "Fotballkampen ble avlyst på grunn av snø og sterk vind.",
    "Legen skrev ut medisin mot høyt blodtrykk og ba om en ny time.",
    "Biblioteket er åpent fra 8 til 20 på hverdager og stengt på søndager.",
    "Regjeringen la fram et nytt forslag til statsbudsjett i oktober.",
    "Toget til Bergen bruker nesten sju timer over fjellet.",
    "Nøkkelen ligger under den røde krukken ved døra.",
    "Eleven løste oppgaven på tavla uten hjelp fra læreren.",
    "Hytta har ikke innlagt vann, men brønnen er bare ti meter unna.",
)
ENGLISH = (
    "How many people live in Oslo?",
    "Oslo had 717,710 inhabitants at the start of 2024.",
    "When does the last bus leave from the centre?",
    "The last bus leaves at 11:45 pm from the square by the town hall.",
    "What does it cost to renew a passport?",
    "A new passport costs 800 kroner for adults and 480 kroner for children.",
    "Who can help me with Python?",
    "Kari has written Python for ten years and likes to teach what she knows.",
    "Which fish is the most common in the lake?",
    "Trout, grayling and whitefish are among the fish that live in the lake.",
    "How do I apply for a place in a kindergarten?",
    "Applications for kindergarten are sent to the council before 1 March each year.",
    "How high is the highest mountain in Norway?",
    "At 2469 metres above the sea, Galdhøpiggen is the highest mountain in Norway.",
    "What is the difference between a cross-encoder and a bi-encoder?",
    "A cross-encoder reads the question and the passage together and gives one score.",
    "Can I return something that I bought without a receipt?",
    "The shop takes things back within 30 days when you show the receipt.",
    "How long should an egg boil?",
    "Put the eggs into boiling water and wait seven minutes for a soft yolk.",
    "The car needs new brakes before the winter comes.",
    "The meeting was moved to Thursday at 2 pm in the large room.",
    "A fox was seen near the water early in the morning.",
    "The price of power fell by 12.5 percent in April and rose again in May.",
    "Grandmother baked bread with rye, oats and a little syrup.",
    "The match was called off because of snow and strong wind.",
    "The doctor wrote a prescription for high blood pressure.",
    "The library is open from 8 to 20 on weekdays and closed on Sundays.",
    "The government proposed a new budget for the coming year in October.",
    "The train to Bergen takes almost seven hours across the mountains.",
    "The key is under the red pot beside the door.",
    "The pupil solved the problem on the board without help from the teacher.",
)
SENTENCES = NORWEGIAN + ENGLISH
# Relevant, irrelevant, crossed in language, short and long: what the scores are spread over.
PAIRS = (
    (NORWEGIAN[0], NORWEGIAN[1]),
    (NORWEGIAN[0], NORWEGIAN[13]),
    (NORWEGIAN[2], NORWEGIAN[3]),
    (NORWEGIAN[4], NORWEGIAN[24]),
    (NORWEGIAN[6], ENGLISH[7]),
    (NORWEGIAN[14], NORWEGIAN[15]),
    (ENGLISH[0], ENGLISH[1]),
    (ENGLISH[0], NORWEGIAN[29]),
    (ENGLISH[8], ENGLISH[9]),
    (ENGLISH[14], ENGLISH[15] + " " + ENGLISH[25]),
    (ENGLISH[16], ENGLISH[29]),
    (ENGLISH[18], " ".join(NORWEGIAN[18:24])),
)
ALPHABET = string.ascii_letters + string.digits + "æøåÆØÅéüö.,:;!?-()%/'\""
SPREAD = 2.0  # standard deviation of the logits over PAIRS, about that of a trained reranker over mixed pairs

_ARCHITECTURES: Mapping[str, str] = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "xlm-roberta": "XLMRobertaForSequenceClassification",
    "camembert": "CamembertForSequenceClassification",
    "electra": "ElectraForSequenceClassification",
    "distilbert": "DistilBertForSequenceClassification",
    "mpnet": "MPNetForSequenceClassification",
    "albert": "AlbertForSequenceClassification",
    "deberta-v2": "DebertaV2ForSequenceClassification",
    "new": "NewForSequenceClassification",
    "jina-bert": "JinaBertForSequenceClassification",
}
_TOKENIZER_FILES = ("tokenizer", "special_tokens_map", "vocab")
_BERT_TOKENS = {name: f"[{name[:-6].upper()}]" for name in ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")}
_ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": {"content": "<mask>", "single_word": False, "lstrip": True, "rstrip": False, "normalized": False},
}
_MPNET_TOKENS = _ROBERTA_TOKENS | {"unk_token": "[UNK]"}
_ALBERT_TOKENS = {
    "bos_token": "[CLS]",
    "eos_token": "[SEP]",
    "unk_token": "<unk>",
    "sep_token": "[SEP]",
    "pad_token": "<pad>",
    "cls_token": "[CLS]",
    "mask_token": {"content": "[MASK]", "single_word": False, "lstrip": True, "rstrip": False, "normalized": False},
}


def wordpiece_tokenizer(specials: Sequence[str] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")) -> Tokenizer:
    """BERT's layout: [PAD]=0 [UNK] [CLS] [SEP] [MASK]; lowercased, accents kept; [CLS] A [SEP] B [SEP], B of type 1."""
    normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    splitter = pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for sentence in SENTENCES:
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(sentence)):
            for start, piece in _substrings(word):
                counts[piece if start == 0 else "##" + piece] += 1
    alphabet = sorted({mark + character.lower() for mark in ("", "##") for character in ALPHABET})
    pieces = [*specials, *alphabet, *_best(counts, 600, without=alphabet)]
    tokenizer = Tokenizer(models.WordPiece({piece: id for id, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    if "[CLS]" in specials:
        _join_as_bert(tokenizer)
    return tokenizer


def mpnet_tokenizer() -> Tokenizer:
    """MPNet's layout: <s>=0 <pad>=1 </s>=2 [UNK]=3 <mask>; BERT's pieces; <s> A </s></s> B </s>, every type 0."""
    tokenizer = wordpiece_tokenizer(("<s>", "<pad>", "</s>", "[UNK]", "<mask>"))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    return tokenizer


def camembert_tokenizer() -> Tokenizer:
    """CamemBERT's layout: XLM-R's, whose first ids are not used: <pad>=1 <unk>=3 <s>=5 </s>=6."""
    specials = ("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>")
    return unigram_tokenizer(specials)


def _join_as_bert(tokenizer: Tokenizer) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )


def albert_tokenizer() -> Tokenizer:
    """ALBERT's layout: <pad>=0 <unk> [CLS] [SEP] [MASK]; XLM-R's kind of pieces without accents, and BERT's template."""
    tokenizer = unigram_tokenizer(("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"), unk_id=1)
    quotes = [normalizers.Replace(quote, '"') for quote in ("``", "''")]
    tokenizer.normalizer = normalizers.Sequence(
        [
            *quotes,
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    _join_as_bert(tokenizer)
    return tokenizer


def deberta_tokenizer() -> Tokenizer:
    """DeBERTa-v3's layout: [PAD]=0 [CLS] [SEP] [UNK]=3, [MASK] last; XLM-R's kind of pieces, and BERT's template."""
    specials = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
    vocabulary = json.loads(unigram_tokenizer((*specials, "[MASK]")).to_str())["model"]["vocab"]
    tokenizer = Tokenizer(models.Unigram([(piece, score) for piece, score in vocabulary if piece != "[MASK]"], unk_id=3))
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    for token in (*specials, "[MASK]"):
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Strip(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="always")])
    _join_as_bert(tokenizer)
    return tokenizer


def unigram_tokenizer(specials: Sequence[str] = ("<s>", "<pad>", "</s>", "<unk>"), unk_id: int = 3) -> Tokenizer:
    """XLM-R's layout: <s>=0 <pad>=1 </s>=2 <unk>=3, <mask> last; <s> A </s></s> B </s>, every type 0."""
    counts = Counter(piece for text in SENTENCES for word in text.split() for _, piece in _substrings("\u2581" + word))
    alphabet = sorted({"\u2581", *ALPHABET})
    chosen = [*alphabet, *_best(counts, 600, without=alphabet)]
    total = counts.total()
    scores = {piece: round(math.log(max(counts[piece], 0.1) / total), 4) for piece in chosen}
    vocabulary = [(token, 0.0) for token in specials]
    vocabulary += sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))
    vocabulary += [] if "[MASK]" in specials else [("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=unk_id))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    if "[MASK]" in specials:
        return tokenizer
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(token, specials.index(token)) for token in ("<s>", "</s>")],
    )
    return tokenizer


def bytelevel_tokenizer() -> Tokenizer:
    """RoBERTa's layout: byte-level BPE, <s>=0 <pad>=1 </s>=2 <unk>=3, <mask> last; <s> A </s></s> B </s>."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False, special=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    return tokenizer


TOKENIZERS: Mapping[Family, Callable[[], Tokenizer]] = {
    "bert": wordpiece_tokenizer,
    "xlm-roberta": unigram_tokenizer,
    "roberta": bytelevel_tokenizer,
    "camembert": camembert_tokenizer,
    "electra": wordpiece_tokenizer,
    "distilbert": wordpiece_tokenizer,
    "mpnet": mpnet_tokenizer,
    "albert": albert_tokenizer,
    "deberta-v2": deberta_tokenizer,
    "new": unigram_tokenizer,
    "jina-bert": bytelevel_tokenizer,
}
# Of published code that is not run: transformers has no class for them.
REIMPLEMENTED: tuple[Family, ...] = ("new", "jina-bert")
# Two rows of their position embeddings are before the first token's, and its type is the only one.
ROBERTA_LIKE: frozenset[Family] = frozenset({"xlm-roberta", "roberta", "camembert", "mpnet"})


def _substrings(word: str) -> Iterator[tuple[int, str]]:
    """Every part of `word` of at most 12 characters, with where it starts."""
    for start in range(len(word)):
        for end in range(start + 1, min(len(word), start + 12) + 1):
            yield start, word[start:end]


def _best(counts: Counter[str], size: int, *, without: list[str]) -> list[str]:
    """The pieces that cover most text. The library's trainers choose differently in each process."""
    known = set(without)
    candidates = (piece for piece in counts if piece not in known)
    return sorted(candidates, key=lambda piece: (-counts[piece] * len(piece.removeprefix("##")), piece))[:size]


def tiny_checkpoint(
    folder: Path,
    family: Family = "bert",
    *,
    seed: int = 0,
    layers: int = 2,
    hidden: int = 32,
    heads: int = 4,
    intermediate: int = 64,
    labels: int = 1,
    positions: int = 128,
    embedding: int | None = None,
    config_updates: Mapping[str, object] = {},
    tokenizer: Tokenizer | None = None,
) -> Path:
    """Write a checkpoint folder as the hub has them, and return it.

    `positions` is the number of usable tokens, specials included; RoBERTa's kinds get their two rows more.
    `embedding` is the width of ELECTRA's, by default that of its layers.
    `config_updates` are written over config.json after the weights are made, so they may contradict them.
    """
    roberta_like = family in ROBERTA_LIKE
    if tokenizer is None:
        tokenizer = TOKENIZERS[family]()
    config: dict[str, object] = {
        "architectures": [_ARCHITECTURES[family]],
        "attention_probs_dropout_prob": 0.1,
        "classifier_dropout": None,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": hidden,
        "id2label": {str(label): f"LABEL_{label}" for label in range(labels)},
        "initializer_range": 0.02,
        "intermediate_size": intermediate,
        "label2id": {f"LABEL_{label}": label for label in range(labels)},
        "layer_norm_eps": 1e-05 if roberta_like else 1e-12,
        "max_position_embeddings": positions + 2 if roberta_like else positions,
        "model_type": family,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "pad_token_id": 1 if roberta_like else 0,
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
        "transformers_version": "4.57.6",
        "type_vocab_size": 1 if roberta_like else 2,
        "use_cache": True,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    if roberta_like:
        config |= {"bos_token_id": 0, "eos_token_id": 2}
    config = _of_family(family, config, positions, embedding)
    save_tokenizer(folder, family, tokenizer, positions)
    _save_weights(folder / "model.safetensors", config, tokenizer, seed)
    write_json(folder / "config.json", config | dict(config_updates))
    return folder


DEBERTA: dict[str, object] = {
    "layer_norm_eps": 1e-07,
    "max_relative_positions": -1,
    "norm_rel_ebd": "layer_norm",
    "pooler_dropout": 0,
    "pooler_hidden_act": "gelu",
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "position_buckets": 16,  # so that tiny pairs have distances with a bucket of their own and others that share one
    "relative_attention": True,
    "share_att_key": True,
    "type_vocab_size": 0,
}


GTE: dict[str, object] = {
    "auto_map": {
        "AutoConfig": "configuration.NewConfig",
        "AutoModel": "modeling.NewModel",
        "AutoModelForSequenceClassification": "modeling.NewForSequenceClassification",
    },
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "logn_attention_clip1": False,
    "logn_attention_scale": False,
    "model_type": "new",
    "pack_qkv": True,
    "position_embedding_type": "rope",
    "rope_scaling": {"factor": 8.0, "type": "ntk"},
    "rope_theta": 20000,
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
}
JINA_BERT: dict[str, object] = {
    "attn_implementation": None,
    "auto_map": {
        "AutoConfig": "configuration_bert.JinaBertConfig",
        "AutoModel": "modeling_bert.JinaBertModel",
        "AutoModelForMaskedLM": "modeling_bert.JinaBertForMaskedLM",
        "AutoModelForSequenceClassification": "modeling_bert.JinaBertForSequenceClassification",
    },
    "emb_pooler": "mean",
    "feed_forward_type": "geglu",
    "model_type": "bert",
    "position_embedding_type": "alibi",
}


def _of_family(family: Family, config: dict[str, object], positions: int, embedding: int | None) -> dict[str, object]:
    """config.json as the family's own class writes it."""
    if family == "electra":
        return config | {"embedding_size": embedding or config["hidden_size"], "summary_type": "first"}
    if family == "albert":
        shared = {"num_hidden_groups": 1, "inner_group_num": 1, "hidden_act": "gelu_new", "classifier_dropout_prob": 0.1}
        return config | shared | {"embedding_size": int(str(config["hidden_size"])) // 2}
    if family == "new":
        return config | {"max_position_embeddings": positions, "type_vocab_size": 1, "pad_token_id": 1} | GTE
    if family == "jina-bert":
        return config | JINA_BERT
    if family == "deberta-v2":
        return {key: value for key, value in config.items() if key != "position_embedding_type"} | DEBERTA
    without = {key: value for key, value in config.items() if key not in ("type_vocab_size", "position_embedding_type")}
    if family == "mpnet":
        return without | {"relative_attention_num_buckets": 32}
    if family == "distilbert":
        names = {
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_act": "activation",
        }
        named = {names.get(key, key): value for key, value in without.items() if key != "layer_norm_eps"}
        return named | {"sinusoidal_pos_embds": False, "seq_classif_dropout": 0.2}
    return config


# Of widths that our own kernels run, with two groups of channels in a product.
native_checkpoint = functools.partial(tiny_checkpoint, hidden=64, intermediate=128)


def save_tokenizer(folder: Path, family: Family, tokenizer: Tokenizer, length: int) -> None:
    """Write tokenizer.json, and beside it what makes transformers load the same; `length` is its model_max_length."""
    own: dict[Family, Mapping[str, object]] = {
        **dict.fromkeys(("xlm-roberta", "roberta", "new", "jina-bert"), _ROBERTA_TOKENS),
        "camembert": _ROBERTA_TOKENS | {"additional_special_tokens": ["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"]},
        "mpnet": _MPNET_TOKENS,
        "albert": _ALBERT_TOKENS,
    }
    tokens = dict(own.get(family, _BERT_TOKENS))
    lowercased: dict[str, object] = {"do_lower_case": True, "strip_accents": False}
    specific: dict[Family, dict[str, object]] = {
        "bert": lowercased | {"tokenizer_class": "BertTokenizer"},
        "xlm-roberta": {"tokenizer_class": "XLMRobertaTokenizer"},
        "roberta": {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": False, "trim_offsets": True},
        "camembert": {"tokenizer_class": "CamembertTokenizer"},
        "electra": lowercased | {"tokenizer_class": "ElectraTokenizer"},
        "distilbert": lowercased | {"tokenizer_class": "DistilBertTokenizer"},
        "mpnet": lowercased | {"tokenizer_class": "MPNetTokenizer"},
        "albert": {"tokenizer_class": "AlbertTokenizer", "do_lower_case": True, "keep_accents": False},
        "deberta-v2": {"tokenizer_class": "DebertaV2Tokenizer", "do_lower_case": False, "split_by_punct": False},
        "new": {"tokenizer_class": "XLMRobertaTokenizer"},
        "jina-bert": {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": False, "trim_offsets": True},
    }
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "special_tokens_map.json", tokens)
    # transformers tells an AddedToken from a plain dictionary by "__type", in this file alone.
    marked = {k: {**v, "__type": "AddedToken"} if isinstance(v, dict) else v for k, v in tokens.items()}
    write_json(folder / "tokenizer_config.json", marked | {"model_max_length": length} | specific[family])


def seeded_checkpoint(folder: Path, config_folder: Path, *, seed: int = 0, tokenizer_folder: Path | None = None) -> Path:
    """Write a published model's own config and tokenizer files with seeded float32 weights; returns `folder`.

    `tokenizer_folder` is where the tokenizer files are, if not in `config_folder`. Peak memory is about twice
    the weights, which are 4 bytes a parameter.
    """
    config = json.loads((config_folder / "config.json").read_text("utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(config_folder.iterdir()) + sorted((tokenizer_folder or config_folder).iterdir()):
        if tokenizer_folder is not None and (path.parent == tokenizer_folder) != path.name.startswith(_TOKENIZER_FILES):
            continue
        if path.suffix in {".json", ".txt", ".md"} and ".variant-" not in path.name:
            shutil.copyfile(path, folder / path.name)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    _save_weights(folder / "model.safetensors", config, tokenizer, seed)
    return folder


def write_json(path: Path, value: object) -> None:
    """Write `value` as the hub's files are written."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _save_weights(path: Path, config: Mapping[str, Any], tokenizer: Tokenizer, seed: int) -> None:
    """Every tensor of the model, float32, with the head scaled so that its logits over PAIRS spread by SPREAD."""
    # Imported here: tests that need only a tokenizer are spared five seconds.
    import torch
    import transformers
    from safetensors.torch import save_file

    from raskrank import reimplemented

    architecture = config["architectures"][0]
    model: Any
    if architecture in reimplemented.ARCHITECTURES:
        scaling = config.get("rope_scaling")
        own = {"num_labels": len(config["id2label"]), "rope_factor": scaling["factor"] if scaling else 1.0}
        model = reimplemented.build(architecture, {**config, **own})
    else:
        model_class = getattr(transformers, architecture)
        model = model_class(model_class.config_class.from_dict(dict(config)))
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters(), key=lambda entry: _turn(entry[0])):
            _fill(name, parameter, generator)
        head = model.classifier if isinstance(model.classifier, torch.nn.Linear) else model.classifier.out_proj
        logits = torch.cat(list(_logits(model, tokenizer, config)))  # (pairs, labels)
        scale = SPREAD / logits.std(dim=0).clamp_min(1e-6)
        head.weight.mul_(scale[:, None])
        head.bias.copy_((head.bias - logits.mean(dim=0)) * scale)
    save_file(model.state_dict(), path, metadata={"format": "pt"})


# Before and after the layers.
_FIRST = ("word_embeddings", "position_embeddings", "token_type_embeddings", "embeddings.LayerNorm")
_LAST = ("pooler", "pre_classifier", "classifier")


def _turn(name: str) -> int:
    """When a tensor is drawn: transformers 5 lists them in another order than 4, and a seed shall mean one model."""
    first = next((place - len(_FIRST) for place, part in enumerate(_FIRST) if part in name), 0)
    return first or next((place for place, part in enumerate(_LAST, 1) if name.startswith(part)), 0)


def _fill(name: str, parameter: "Tensor", generator: "Generator") -> None:
    """Variances that keep tokens apart through the layers: at transformers' 0.02 every pair scores the same."""
    if name.endswith(".weight") and parameter.dim() == 1:  # of a LayerNorm
        parameter.normal_(1.0, 0.1, generator=generator)
    elif name.endswith(".bias"):
        parameter.normal_(0.0, 0.1, generator=generator)
    elif "word_embeddings" in name:
        parameter.normal_(0.0, 1.0, generator=generator)
    elif "_embeddings" in name:
        parameter.normal_(0.0, 0.5, generator=generator)
    elif "relative_attention_bias" in name:
        parameter.normal_(0.0, 1.0, generator=generator)
    else:
        gain = 1.5 if any(part in name for part in (".query", ".key", ".q_lin.", ".k_lin.", ".attn.q.", ".attn.k.")) else 1.0
        parameter.normal_(0.0, gain / math.sqrt(parameter.shape[1]), generator=generator)


def _logits(model: Any, tokenizer: Tokenizer, config: Mapping[str, Any]) -> Iterator["Tensor"]:
    """The model's logits for each of PAIRS, one pair a run, (1, labels)."""
    import torch

    longest = int(config["max_position_embeddings"]) - 2
    for query, document in PAIRS:
        encoding = tokenizer.encode(query, document)
        types = {"token_type_ids": torch.tensor([encoding.type_ids[:longest]])} if "type_vocab_size" in config else {}
        yield model(
            input_ids=torch.tensor([encoding.ids[:longest]]),
            attention_mask=torch.tensor([encoding.attention_mask[:longest]]),
            **types,
        ).logits
