"""Prediction with an ONNX file that mien wrote: it knows its own size, crop, outputs and labels. No torch."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd

from mien.errors import MienError
from mien.hub import model_file
from mien.images import ImageError
from mien.pixels import Files, Pixels, Progress
from mien.table import AGE_GROUPS, age_to_group

_BATCH = 64


class Predictor:
    """Predicts with one model file.

    Args:
        model: An `.onnx` file written by mien, the folder of a run or of a published model, or `hub:OWNER/NAME`.
        threads: Threads of the runtime; None: one a core.

    Raises:
        MienError: There is no such file, it is no ONNX file, or not mien's.
    """

    def __init__(self, model: str | Path, threads: int | None = None) -> None:
        path = model_file(model, ".onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's classes share no base
            raise MienError(f"model {str(model)!r} is not a usable ONNX file: {error}") from error
        text = self._session.get_modelmeta().custom_metadata_map.get("mien")
        if text is None:
            raise MienError(f"model {str(model)!r} is not mien's: its metadata has no entry 'mien'")
        self.metadata: dict[str, Any] = json.loads(text)
        self.size: int = self.metadata["image_size"]
        self.margin: float = self.metadata["margin"]
        self._outputs = [output.name for output in self._session.get_outputs()]

    def predict_pixels(self, images: np.ndarray) -> pd.DataFrame:
        """Columns of the predictions table for faces that are cut already, uint8 (n, size, size, 3)."""
        values = self._session.run(self._outputs, {"images": images})
        return self._answers(pd.DataFrame(dict(zip(self._outputs, values, strict=True))))

    def predict_faces(
        self,
        faces: pd.DataFrame,
        root: str | Path,
        progress: Progress | None = None,
        pixels: Pixels | None = None,
    ) -> pd.DataFrame:
        """The predictions table of a faces table: one row a face, in its order.

        Args:
            faces: A checked faces table.
            root: The folder that its paths are relative to.
            progress: Told how many faces are done.
            pixels: Where to take the faces' pixels from, in place of the files.

        Returns:
            `status` is "ok", or the reason why the face could not be read.
        """
        source = pixels if pixels is not None else Files(faces, root, self.size, self.margin)
        parts = []
        done = 0
        for statuses, images in _decoded(source):
            answers = self.predict_pixels(images) if len(images) else pd.DataFrame()
            answers.index = np.flatnonzero([status == "ok" for status in statuses])
            parts.append(answers.reindex(range(len(statuses))).assign(status=statuses))
            done += len(statuses)
            if progress:
                progress(done, len(source))
        rows = pd.concat(parts, ignore_index=True)
        head = pd.DataFrame({"file": faces["path"].to_numpy(), "face_index": 0, "face": faces["face"].to_numpy()})
        boxes = faces[["x", "y", "w", "h"]].reset_index(drop=True)
        first = [
            "status",
            *(c for c in ("p_female", "gender", "age", "age_low", "age_high", "age_group") if c in rows),
        ]
        rest = [column for column in rows.columns if column not in first]
        return pd.concat([head, boxes, rows[first + rest]], axis=1)

    def _answers(self, columns: pd.DataFrame) -> pd.DataFrame:
        """Adds what follows from the probabilities: `gender` and `age_group`."""
        if "p_female" in columns:
            columns["gender"] = np.where(columns["p_female"] >= 0.5, "female", "male")
        groups = [f"p_{group}" for group in AGE_GROUPS]
        if "age_group" in self.metadata["tasks"]:
            best = columns[groups].to_numpy().argmax(axis=1)
            columns["age_group"] = np.array(AGE_GROUPS, dtype=object)[best]
        elif "age" in columns:
            columns["age_group"] = age_to_group(columns["age"]).astype(object)
        return columns


def _decoded(pixels: Pixels) -> Iterator[tuple[list[str], np.ndarray]]:
    """Batches of statuses (n,) and of the images (those that are ok) while the next batch is being decoded."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def read(index: int) -> tuple[str, np.ndarray | None]:
            try:
                return "ok", pixels[index]
            except ImageError as error:
                return error.reason, None

        def begin(start: int) -> list[Future[tuple[str, np.ndarray | None]]]:
            return [pool.submit(read, index) for index in range(start, min(start + _BATCH, len(pixels)))]

        ahead = begin(0)
        for start in range(0, len(pixels), _BATCH):
            current, ahead = ahead, begin(start + _BATCH)
            results = [future.result() for future in current]
            images = [image for _, image in results if image is not None]
            yield (
                [status for status, _ in results],
                np.stack(images) if images else np.empty((0, pixels.size, pixels.size, 3), np.uint8),
            )
