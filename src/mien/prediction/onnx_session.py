"""ONNX sessions: opening model files in a runtime, and checking their metadata."""

import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from mien.base.errors import MienError, MissingExtra, ModelFailure, choices, shortened
from mien.base.labels import PREDICTED
from mien.data.images import RESIZE
from mien.prediction.onnx_graph import GraphError, check_graph

FORMAT = 2
"""Version of the metadata of model files; other versions are refused."""

MAX_SIZE = 1024
"""Pixels of a side of the square that a network sees, at most."""


def open_session(path: Path, name: str, threads: int) -> Any:
    """Opens a model file in ONNX Runtime.

    Raises:
        MienError: The file is not a usable ONNX file, or its network is refused; see `onnx_graph.check_graph`.
    """
    try:
        return limited_session(path, threads)
    except Exception as error:  # the runtime's classes share no base
        raise MienError(f"model {name!r} is not a usable ONNX file: {shortened(str(error))}") from error


def limited_session(path: Path, threads: int) -> Any:
    """Opens a file from anywhere in ONNX Runtime: without loops, and within a limit of memory.

    Raises:
        GraphError: Its network is refused, or its names or metadata are not text.
        Exception: What the runtime, whose classes share no base, raises for what is no usable ONNX file.
    """
    import onnxruntime

    check_graph(path)
    _limit_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.use_env_allocators", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    try:
        _ = session.get_modelmeta().custom_metadata_map
        _ = [(value.name, value.shape) for value in (*session.get_inputs(), *session.get_outputs())]
    except UnicodeDecodeError:
        raise GraphError("it has names or metadata that are not UTF-8") from None
    return session


@functools.cache
def _limit_memory() -> None:
    """Lets all sessions of this process together hold half of the machine's memory: a small file can ask for any.

    A network that asks for more fails with an error, where otherwise the system would end a process.
    """
    import onnxruntime

    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    kinds = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
    place = onnxruntime.OrtMemoryInfo("Cpu", kinds[0], 0, kinds[1])
    onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg({"max_mem": half}))


def read_metadata(session: Any, name: str) -> dict[str, Any]:
    """Returns the entry `mien` of a model file's metadata.

    Raises:
        MienError: It is absent or damaged, its format or resize filter is another one, or a value is out of range.
    """
    text = session.get_modelmeta().custom_metadata_map.get("mien")
    if text is None:
        raise MienError(f"model {name!r} is not a mien model: its metadata has no entry 'mien'")
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MienError(f"model {name!r}: its metadata entry 'mien' is not JSON: {error}") from None
    if not isinstance(metadata, dict):
        raise MienError(f"model {name!r}: its metadata entry 'mien' is not a mapping")
    if metadata.get("format") != FORMAT:
        given = shortened(repr(metadata.get("format")))
        raise MienError(
            f"model {name!r}: its metadata has format {given}; valid: {FORMAT}. Export the run again with this version "
            "of mien, or use the version that wrote the file (metadata entry 'versions')"
        )
    absent = [key for key in ("image_size", "margin", "resize", "tasks") if key not in metadata]
    if absent:
        raise MienError(f"model {name!r}: its metadata entry 'mien' has no {', '.join(absent)}")
    _check_metadata(metadata, session, name)
    return metadata


def _check_metadata(metadata: dict[str, Any], session: Any, name: str) -> None:
    """Refuses values that mien never writes: a file from elsewhere must not decide memory use or columns."""
    size, margin, tasks = (metadata[key] for key in ("image_size", "margin", "tasks"))
    if type(size) is not int or not 8 <= size <= MAX_SIZE:
        raise MienError(f"model {name!r}: its image_size is {shortened(repr(size))}; valid: 8 to {MAX_SIZE}")
    if metadata["resize"] != RESIZE:
        resize = shortened(repr(metadata["resize"]))
        raise MienError(f"model {name!r}: its resize filter is {resize}; valid: {RESIZE!r}")
    if not isinstance(margin, int | float) or not 0 <= margin <= 2:
        raise MienError(f"model {name!r}: its margin is {shortened(repr(margin))}; valid: 0 to 2")
    if not isinstance(tasks, list | dict) or not all(isinstance(task, str) for task in tasks):
        raise MienError(f"model {name!r}: its tasks are {shortened(repr(tasks))}; valid: names")
    unsure = metadata.get("unsure_below", 0.5)
    if not isinstance(unsure, int | float) or not 0 <= unsure <= 1:
        raise MienError(f"model {name!r}: its unsure_below is {shortened(repr(unsure))}; valid: 0 to 1")
    given = [(entry.name, entry.type, entry.shape[1:]) for entry in session.get_inputs()]
    if given != [("images", "tensor(uint8)", [size, size, 3])]:
        what = shortened(repr(given))
        raise MienError(f"model {name!r}: its inputs are {what}; valid: images, uint8 (n, {size}, {size}, 3)")
    # Genders and age groups follow from numbers, and are no outputs of a network.
    known = {column for columns in PREDICTED.values() for column in columns} - {"gender", "age_group"}
    outputs = [output.name for output in session.get_outputs()]
    strange = [output for output in outputs if output not in known]
    if strange:
        raise MienError(f"model {name!r}: {choices('output', strange[0], sorted(known))}")
    needed = [column for task in tasks for column in PREDICTED.get(task, ()) if column in known]
    absent = [column for column in needed if column not in outputs]
    if absent:
        raise MienError(f"model {name!r}: its tasks are {', '.join(tasks)}, and it has no output {absent[0]!r}")


_TOLERANCE = 1e-3  # of a probability, for sums in single precision
OLDEST = 150.0
"""Years: no age of a model is above it, and none below zero."""


def check_outputs(columns: dict[str, np.ndarray], faces: int, name: str) -> None:
    """Refuses numbers that are no predictions: they would become labels, `male` for what is not a number.

    Args:
        columns: The outputs of a model by name.
        faces: The number of faces that it was given.
        name: The name of the model.

    Raises:
        ModelFailure: An output has another shape or type, or a value that is not finite or out of its range.
    """
    for column, values in columns.items():
        if values.shape != (faces,) or values.dtype.kind != "f":
            raise ModelFailure(
                f"model {name!r}: its output {column!r} is {values.dtype} {values.shape}; valid: float ({faces},)"
            )
        highest, tolerance = (OLDEST, 0.0) if column.startswith("age") else (1.0, _TOLERANCE)
        wrong = values[~((values >= -tolerance) & (values <= highest + tolerance))]  # also what is not a number
        if len(wrong):
            raise ModelFailure(
                f"model {name!r}: its output {column!r} has the value {wrong[0]:g}; valid: 0 to {highest:g}. "
                "Its weights are damaged, or they are not those of a mien model"
            )


class OpenVinoSession:
    """A model file in OpenVINO, in full precision (the default is bfloat16 on some processors)."""

    def __init__(self, path: Path, threads: int) -> None:
        try:
            import openvino
        except ImportError:
            raise MissingExtra("the runtime 'openvino'", "openvino") from None
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        self._model = openvino.Core().compile_model(path, "CPU", options)

    def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Returns the named outputs for a batch of inputs, like an ONNX Runtime session."""
        # One inference request per call, so that several threads can run at once.
        predictions = self._model.create_infer_request().infer(inputs)
        return [np.array(predictions[name]) for name in outputs]
