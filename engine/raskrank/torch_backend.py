"""The reference: the original checkpoint in PyTorch, with the engine's own encoding. Imported only when asked for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raskrank import reimplemented
from raskrank.backend import Float32Array, Int64Array
from raskrank.checkpoint import Checkpoint, modernbert
from raskrank.checkpoint.files import is_folder
from raskrank.checkpoint.layouts import STACKED, stored
from raskrank.checkpoint.tensors import expected_tensors
from raskrank.checkpoint.weights import read_headers
from raskrank.errors import CheckpointError, InferenceError, NotACrossEncoder
from raskrank.extras import need_exporter
from raskrank.quoting import named, quoted
from raskrank.settings import HUB_ID

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

# How transformers' own classes compute attention: spelled out, by PyTorch's one function, or as they themselves choose.
Attention = Literal["eager", "sdpa", "own choice"]

# The log's level is one for the process: of two loads in threads the second would otherwise leave it changed.
_loading = threading.Lock()


class TorchBackend:
    """Runs a checkpoint in fp32 on the CPU, one pair at a time. PyTorch's own thread settings apply."""

    name = "torch"
    concurrency = min_share = 1  # PyTorch spreads one run over the cores itself

    def __init__(self, checkpoint: Checkpoint, *, attention: Attention | None = None) -> None:
        """attention: as for `load_model`. Raises NotACrossEncoder or CheckpointError if the weights do not fit, MissingExtra
        without PyTorch."""
        self.model = load_model(checkpoint, attention=attention)
        self.hidden_size = checkpoint.hidden_size
        self.groups = False  # PyTorch adds up a product in another order for another number of rows
        self._token_types, self._relevant = checkpoint.type_vocab_size > 1, checkpoint.relevant

    def logits(self, input_ids: Int64Array, token_type_ids: Int64Array, *, threads: int = 1) -> Float32Array:  # noqa: ARG002
        import torch

        ids = torch.from_numpy(input_ids)
        feeds = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self._token_types:
            feeds["token_type_ids"] = torch.from_numpy(token_type_ids)
        try:
            with torch.inference_mode():
                logits = self.model(**feeds).logits
                if self._relevant is not None:
                    logits = self._relevant.difference(logits)  # (B, 2) -> (B, 1)
                result: Float32Array = logits.reshape(-1).numpy()
        except RuntimeError as error:
            raise InferenceError(f"PyTorch failed on a run of {' x '.join(map(str, ids.shape))} tokens") from error
        return result

    def expect(self, helpers: int) -> None:
        """Nothing to prepare."""

    def close(self) -> None:
        del self.model


def load_model(checkpoint: Checkpoint, *, attention: Attention | None = None) -> Any:
    """The model of a checkpoint in float32, ready to run: transformers' own, or one of `reimplemented`; with its head, where
    that lies in modules of its own.

    attention: of transformers' classes. "eager" can also be run in float64, and of 8,192 tokens takes gigabytes. Default:
        "sdpa" for ModernBERT, which reads so many, else "eager", which is what the exporter knows.

    The class is chosen by name from a fixed list, the config built from known keys, and only safetensors are read, so nothing
    in the folder can run code. Raises as TorchBackend does.
    """
    need_exporter("PyTorch as a backend", "torch", "transformers", "safetensors")
    if checkpoint.architecture in reimplemented.ARCHITECTURES:
        return _reimplemented_model(checkpoint)
    import torch
    import transformers
    from safetensors import SafetensorError

    with quiet():
        model_class = getattr(transformers, checkpoint.architecture)
    config = model_class.config_class(**checkpoint.config)
    # The exporter fuses the attention of traced models itself; eager is its plain form. ModernBERT is not traced.
    usual: Attention = "sdpa" if checkpoint.model_type == modernbert.MODEL_TYPE else "eager"
    if attention != "own choice":
        config._attn_implementation = attention or usual
    with quiet():
        try:
            renamed = None if checkpoint.layout == "transformers" else _renamed_weights(checkpoint)
            model, report = model_class.from_pretrained(
                checkpoint.folder if renamed is None else None,
                state_dict=renamed,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise CheckpointError(f"{checkpoint.folder}: transformers cannot load these weights: {named(error)}") from error
    missing = sorted(name for name in report["missing_keys"] if not name.endswith("position_ids"))
    if missing:
        raise NotACrossEncoder(f"{checkpoint.folder}: the weights lack {named(', '.join(missing[:4]))}")
    if report["mismatched_keys"]:
        raise CheckpointError(
            f"{checkpoint.folder}: the shapes of {quoted(report['mismatched_keys'][:2])} differ from config.json"
        )
    if checkpoint.head is not None:
        from raskrank.torch_modules import with_head

        try:
            model = with_head(model, checkpoint.folder, checkpoint.head)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(
                f"{checkpoint.folder}: the weights of its modules cannot be loaded: {named(error)}"
            ) from error
    return model.eval()


def _reimplemented_model(checkpoint: Checkpoint) -> "Module":
    import torch
    from safetensors import SafetensorError

    with torch.device("meta"):  # weights come from the file alone
        model = reimplemented.build(checkpoint.architecture, checkpoint.config)
    try:
        model.load_state_dict(_renamed_weights(checkpoint), assign=True)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{checkpoint.folder}: PyTorch cannot load these weights: {named(error)}") from error
    return model.eval()


def _renamed_weights(checkpoint: Checkpoint) -> "dict[str, Tensor]":
    """The weights of another layout under the names that its model has for them, float32."""
    import torch
    from safetensors import safe_open

    headers, weights = read_headers(checkpoint.folder), {}
    for name, _ in expected_tensors(checkpoint.architecture, checkpoint.numbers):
        place = stored(checkpoint.layout, name)
        with safe_open(headers[place.name].file, framework="pt") as file:
            tensor = file.get_tensor(place.name)
        rows = tensor if place.third is None else tensor.chunk(STACKED)[place.third]
        weights[name] = rows.to(torch.float32)
    return weights


def local_checkpoint(model: str, revision: str | None) -> Path:
    """The checkpoint that a manifest names: a folder, or what the hub's cache on this machine has of the hub model owner/name.

    Opens no connection. Raises CheckpointError that says to pass the folder.
    """
    folder = not HUB_ID.fullmatch(model)
    if folder and is_folder(Path(model)):
        return Path(model)
    try:
        if folder:
            raise NotADirectoryError(model)
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(model, revision=revision, local_files_only=True))
    except (ImportError, OSError, ValueError) as error:
        raise CheckpointError(
            f"the checkpoint {named(model)} is neither a folder here nor in the hub's cache; "
            "pass checkpoint=FOLDER or --checkpoint FOLDER"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """transformers' log at errors only while a checkpoint or tokenizer loads: what it warns of is checked here and raised.

    Nor does it show how many weights it has read, as 5 does wherever stderr is.
    """
    import logging as levels

    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
    from transformers import utils

    logging: Any = utils.logging
    with _loading:
        level, bars, hub_without = logging.get_verbosity(), logging.is_progress_bar_enabled(), are_progress_bars_disabled()
        logging.set_verbosity(levels.ERROR)
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()  # and those of the hub with them
            if hub_without:
                disable_progress_bars()
