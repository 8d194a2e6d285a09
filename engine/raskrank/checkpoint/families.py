"""The families of encoders that are read: transformers' class of each, and what is special of its config.json."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from raskrank.checkpoint import deberta, gte, jina_bert, modernbert

# Whose tensors a family has: two families of one kind compute the same.
Tensors = Literal[
    "bert",
    "roberta",
    "electra",
    "distilbert",
    "mpnet",
    "albert",
    "deberta",
    "gte",
    "jina-bert",
    "modernbert",
    "modernbert-encoder",
]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of encoder under transformers' own class.

    Numbers have BERT's names everywhere but in config.json itself.
    """

    architecture: str
    model_type: str
    tensors: Tensors
    reserved_positions: int | None = 0  # rows of the position embedding before the first token's; None: up to pad_token_id
    defaults: Mapping[str, int] = field(default_factory=dict)  # of numbers, where they are not BERT's
    spelling: Mapping[str, str] = field(default_factory=dict)  # what config.json calls a number, where that is not BERT's name
    lacks: frozenset[str] = frozenset()  # keys of BERT that this one has not
    further: Mapping[str, int] = field(default_factory=dict)  # numbers that BERT has not, with transformers' defaults
    hidden_act: str = "gelu"  # default
    # The files that transformers makes a fast tokenizer of where there is no tokenizer.json: all of them together, or none.
    vocabulary: tuple[str, ...] = ("vocab.txt",)
    epsilon: float | None = None  # of every LayerNorm, where config.json does not state it
    default_epsilon: float = 1e-12  # where it may
    rotary: bool = False  # positions turn the halves of each head
    modular: bool = False  # an encoder, whose head lies in modules of sentence-transformers
    # Further arguments of the config class, checked: of config.json's path, what is written there, and the numbers.
    arguments: Callable[[Path, Mapping[str, object], Mapping[str, int]], dict[str, object]] | None = None

    def spelled(self, name: str) -> str:
        """What config.json calls BERT's `name`."""
        return self.spelling.get(name, name)


_PADDED = {"pad_token_id": 1}
_WITHOUT_POSITIONS = frozenset({"position_embedding_type"})
_PLAIN = frozenset({"type_vocab_size", "position_embedding_type"})
_MODERNBERT = Family(
    architecture=modernbert.CLASSIFIER,
    model_type=modernbert.MODEL_TYPE,
    tensors="modernbert",
    defaults=modernbert.DEFAULTS,
    spelling={"hidden_act": "hidden_activation", "layer_norm_eps": "norm_eps"},
    lacks=_PLAIN,
    further={"local_attention": 128},
    vocabulary=(),
    default_epsilon=1e-5,
    rotary=True,
    arguments=modernbert.arguments,
)
FAMILIES: tuple[Family, ...] = (
    Family(architecture="BertForSequenceClassification", model_type="bert", tensors="bert"),
    Family(
        architecture="RobertaForSequenceClassification",
        model_type="roberta",
        tensors="roberta",
        reserved_positions=None,
        defaults=_PADDED | {"vocab_size": 50265},
        vocabulary=("vocab.json", "merges.txt"),
    ),
    Family(
        architecture="XLMRobertaForSequenceClassification",
        model_type="xlm-roberta",
        tensors="roberta",
        reserved_positions=None,
        defaults=_PADDED,
        vocabulary=("sentencepiece.bpe.model",),
    ),
    Family(
        architecture="CamembertForSequenceClassification",
        model_type="camembert",
        tensors="roberta",
        reserved_positions=None,
        defaults=_PADDED,
        vocabulary=("sentencepiece.bpe.model",),
    ),
    Family(
        architecture="ElectraForSequenceClassification",
        model_type="electra",
        tensors="electra",
        defaults={"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
        further={"embedding_size": 128},
    ),
    Family(
        architecture="DistilBertForSequenceClassification",
        model_type="distilbert",
        tensors="distilbert",
        defaults={"num_hidden_layers": 6},
        spelling={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_act": "activation",
        },
        lacks=_PLAIN,
        epsilon=1e-12,
    ),
    Family(
        architecture="MPNetForSequenceClassification",
        model_type="mpnet",
        tensors="mpnet",
        reserved_positions=2,  # whatever pad_token_id is
        defaults=_PADDED | {"vocab_size": 30527},
        lacks=_PLAIN,
        further={"relative_attention_num_buckets": 32},
    ),
    Family(
        architecture="AlbertForSequenceClassification",
        model_type="albert",
        tensors="albert",
        defaults={"vocab_size": 30000, "hidden_size": 4096, "num_attention_heads": 64, "intermediate_size": 16384},
        further={"embedding_size": 128, "num_hidden_groups": 1, "inner_group_num": 1},
        hidden_act="gelu_new",
        vocabulary=("spiece.model",),
    ),
    Family(
        architecture="DebertaV2ForSequenceClassification",
        model_type="deberta-v2",
        tensors="deberta",
        defaults=deberta.DEFAULTS,
        lacks=_PLAIN,
        further={"position_buckets": -1},
        vocabulary=("spm.model",),
        arguments=deberta.arguments,
    ),
    Family(
        architecture="NewForSequenceClassification",
        model_type="new",
        tensors="gte",
        defaults=gte.DEFAULTS,
        lacks=_WITHOUT_POSITIONS,
        vocabulary=("sentencepiece.bpe.model",),
        rotary=True,
        arguments=gte.arguments,
    ),
    Family(
        architecture="JinaBertForSequenceClassification",
        model_type="jina-bert",
        tensors="jina-bert",
        lacks=_WITHOUT_POSITIONS,
        vocabulary=("vocab.json", "merges.txt"),
        arguments=jina_bert.arguments,
    ),
    _MODERNBERT,
)
# Encoders that are read with a head in modules of sentence-transformers.
ENCODERS: tuple[Family, ...] = (
    replace(_MODERNBERT, architecture=modernbert.ENCODER, tensors="modernbert-encoder", modular=True),
)
CLASSIFIERS: Mapping[str, Family] = {family.architecture: family for family in FAMILIES}
OF_ARCHITECTURE: Mapping[str, Family] = {family.architecture: family for family in (*FAMILIES, *ENCODERS)}
OF_MODEL_TYPE: Mapping[str, Family] = {family.model_type: family for family in FAMILIES}
