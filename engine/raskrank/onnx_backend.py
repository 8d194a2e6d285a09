"""Runs a bundle's graph in onnxruntime on the CPU. The only file that imports onnxruntime."""

import ctypes
import os
import re
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnxruntime

from raskrank.backend import INPUT_IDS, LOGITS, TOKEN_TYPE_IDS, Float32Array, Int64Array
from raskrank.contents import Contents
from raskrank.errors import Incompatible, InferenceError
from raskrank.external import relocate
from raskrank.manifest import WEIGHTS
from raskrank.network import Network
from raskrank.process.fork import after_fork
from raskrank.process.memory import shortage
from raskrank.process.threads import can_start
from raskrank.weights import weight_tensors

# Its fused CPU kernel takes several times as long as Add and LayerNormalization apart. onnxruntime 1.32 finds no match for it
# in a bundle's graph; this keeps it so in others.
DISABLED_OPTIMIZERS = ["SkipLayerNormFusion"]
# Runs to be spread that make do with one core, before a second session pays for the time and memory that it takes: a first
# score is not delayed, nor a process that scores one pair and ends.
SPREAD_ALONE = 1
MAX_LENGTH = "max_length"  # key in the graph's own properties
GRAPH_SETTINGS = "ORT_LOAD_CONFIG_FROM_MODEL"
FATAL = 4  # failures reach the caller as exceptions; onnxruntime's own log on stderr is left out

# Names of tensors in the order of our own kernels, which onnxruntime transposes once, when it loads. Given to it as the others
# are, it would open the file for that, and read bytes that nobody checked.
_PACKED = re.compile(r"encoder/\d+/")

_environment = threading.Lock()  # held while a variable of the process is taken out
_live: "weakref.WeakSet[OnnxBackend]" = weakref.WeakSet()


class OnnxBackend:
    """Two sessions on the same weights: one with a single thread, for `concurrency` runs side by side, and one with as many
    threads as cores, made when a run is to be spread over idle ones for the second time."""

    name = "onnx"
    # Measured on 2 cores (docs/notebook.md): below, the hand-over between threads costs what a second core gains.
    min_share = 15_000_000

    def __init__(self, network: Network, concurrency: int) -> None:
        """Raises Incompatible if onnxruntime cannot load the graph, if its inputs and outputs are not those of a bundle, or if
        it wants weights from elsewhere.
        """
        self.concurrency, self.hidden_size, self.groups = concurrency, network.hidden_size, network.groups
        self._folder = network.folder
        self._weights = Weights(network.graph, network.folder, network.weights)
        self._single = self._session(threads=1)
        self._wide: onnxruntime.InferenceSession | None = None
        self._wide_lock = threading.Lock()
        self._spread_runs = 0
        self._inputs = _check_signature(self._single, network.inputs, network.folder)
        self.max_length = _max_length(self._single)
        _live.add(self)

    def logits(self, input_ids: Int64Array, token_type_ids: Int64Array, *, threads: int = 1) -> Float32Array:
        self._weights.contents.check()
        feeds = {INPUT_IDS: input_ids, TOKEN_TYPE_IDS: token_type_ids}
        session = self._single if threads == 1 else self._wide_session()
        try:
            result: Float32Array = session.run([LOGITS], {name: feeds[name] for name in self._inputs})[0]
        except Exception as error:
            shape = " x ".join(map(str, input_ids.shape))
            raise InferenceError(f"onnxruntime failed on a run of {shape} tokens: {error}{shortage(error)}") from error
        if result.shape != (len(input_ids), 1):
            raise InferenceError(f"the graph gave logits of shape {result.shape} for {len(input_ids)} pairs")
        return result[:, 0]  # (B, 1) -> (B)

    def expect(self, helpers: int) -> None:
        """Nothing to prepare."""

    def close(self) -> None:
        self._wide = None
        del self._single, self._weights  # in this order: sessions use the weights where they are

    def _wide_session(self) -> "onnxruntime.InferenceSession":
        with self._wide_lock:
            self._spread_runs += 1
            if self._wide is None and self._spread_runs > SPREAD_ALONE:
                self._wide = self._make_wide() or self._single
            return self._wide or self._single

    def _make_wide(self) -> "onnxruntime.InferenceSession | None":
        """None where its threads cannot be made, since a session that gets some of them waits for ever; and where the weights'
        file is gone, since onnxruntime asks whether it is there, though it uses what was mapped before.
        """
        if not can_start(self.concurrency - 1):
            return None
        try:
            return self._session(threads=self.concurrency)
        except Incompatible:
            return None

    def _session(self, *, threads: int) -> "onnxruntime.InferenceSession":
        options = session_options(self._weights.folder, threads=threads)
        try:
            for name, value in self._weights.mapped.items():
                options.add_initializer(name, value)
            options.add_external_initializers(list(self._weights.packed), list(self._weights.packed.values()))
            return make_session(self._weights.graph, options)
        except Exception as error:
            raise Incompatible(
                f"onnxruntime {onnxruntime.__version__} cannot load {self._folder}: {error}{shortage(error)}"
            ) from error
        finally:
            self._weights.contents.release_pages()

    def keep_after_fork(self) -> None:
        """In a forked child a session's threads do not exist, and destroying it would wait for them for ever: never do."""
        if self._wide is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._wide))


def _keep_all_after_fork() -> None:
    for backend in _live:
        backend.keep_after_fork()


after_fork(_keep_all_after_fork)


class Weights:
    """A graph's external tensors as onnxruntime takes them, each at its place in the weights' bytes: none is copied.

    graph: as onnxruntime gets it; folder: where it looks whether the file is there. It does not open the file.
    mapped: what it uses as it is. packed: what it unpacks when it loads, which it would read from the file if it were told of
    it as of the others. Sessions use these tensors, so they must live as long.
    """

    def __init__(self, graph: bytes, folder: Path, contents: Contents) -> None:
        arrays = weight_tensors(graph, folder, contents)
        name = contents.file.name  # another than in the bundle where that is a link: onnxruntime follows none out of a folder
        self.graph = graph if name == WEIGHTS else relocate(graph, name)
        self.folder, self.contents = contents.file.parent, contents
        values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
        self.packed = {name: value for name, value in values.items() if _PACKED.match(name)}
        self.mapped = {name: value for name, value in values.items() if name not in self.packed}


def session_options(folder: Path, *, threads: int) -> "onnxruntime.SessionOptions":
    """Of every session, the exporter's too. folder: where the weights lie."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    options.log_severity_level = FATAL
    # A pattern is kept for each input shape, and every length is one: without, memory stays flat.
    options.enable_mem_pattern = False
    return options


def make_session(graph: bytes, options: "onnxruntime.SessionOptions") -> "onnxruntime.InferenceSession":
    """Every session is made here. Raises what onnxruntime raises."""
    with _graph_settings_ignored():
        return onnxruntime.InferenceSession(
            graph,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=DISABLED_OPTIMIZERS,
            enable_fallback=0,  # there is no other provider to try, and it would print
        )


@contextmanager
def _graph_settings_ignored() -> Iterator[None]:
    """Where this variable is 1, onnxruntime puts settings inside a graph over ours, or else refuses; only its absence helps."""
    if os.environ.get(GRAPH_SETTINGS) is None:
        yield
        return
    with _environment:
        asked = os.environ.pop(GRAPH_SETTINGS, None)
        try:
            yield
        finally:
            if asked is not None:
                os.environ[GRAPH_SETTINGS] = asked


def _max_length(session: "onnxruntime.InferenceSession") -> int | None:
    """The longest pair that the graph has positions for, as its export wrote into it."""
    text = session.get_modelmeta().custom_metadata_map.get(MAX_LENGTH, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _check_signature(session: "onnxruntime.InferenceSession", expected: tuple[str, ...], folder: Path) -> list[str]:
    inputs = {item.name: item for item in session.get_inputs()}
    allowed = {INPUT_IDS, TOKEN_TYPE_IDS}
    wrong = [f"{name} {item.type} {item.shape}" for name, item in inputs.items() if not _is_ids(item)]
    if INPUT_IDS not in inputs or set(inputs) - allowed or set(inputs) != set(expected) or wrong:
        raise Incompatible(
            f"{folder}: the graph's inputs are {sorted(inputs)}, the manifest's {sorted(expected)}; "
            f"allowed are {sorted(allowed)}, int64 of two free dimensions{'; not so: ' + ', '.join(wrong) if wrong else ''}"
        )
    outputs = [(item.name, item.type) for item in session.get_outputs()]
    if outputs != [(LOGITS, "tensor(float)")]:
        raise Incompatible(f"{folder}: the graph's outputs are {outputs}, expected one, {LOGITS}, of float32")
    return list(inputs)


def _is_ids(item: "onnxruntime.NodeArg") -> bool:
    return item.type == "tensor(int64)" and len(item.shape) == 2 and not any(isinstance(size, int) for size in item.shape)
