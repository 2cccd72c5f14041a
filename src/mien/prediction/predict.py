"""Prediction with ONNX files written by mien, whose metadata state size, crop, outputs and labels. No torch.

pandas and the detector are imported only when they are needed: predicting one crop needs neither.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mien.base.errors import MienError, ModelFailure, choices, shortened
from mien.base.labels import AGE_GROUPS, age_group_codes
from mien.data import images
from mien.prediction.onnx_session import OpenVinoSession, check_outputs, open_session, read_metadata
from mien.runs.hub import model_file

if TYPE_CHECKING:
    import pandas as pd

    from mien.base.progress import ProgressCallback
    from mien.data.face_pixels import Pixels
    from mien.data.roots import Roots
    from mien.prediction.face_cropper import FaceCropper

SHIPPED = "mien-2.onnx"
"""The model that ships with the package, in `weights/`; see `mien.model_card`."""

SHIPPED_NOTICE = (
    "Its weights are for non-commercial research only, as are faces that they were trained on (those of UTKFace)."
)


RUNTIMES = ("onnxruntime", "openvino")

Row = dict[str, Any]
"""A row of the predictions table: one face, or one image without a prediction."""

BATCH = 64
"""Number of images per network call."""

_HEAD = ("file", "face_index", "x", "y", "w", "h", "detector_score", "status")
_PREDICTIONS = ("p_female", "gender", "age", "age_low", "age_high", "age_group")


class FaceCrop(NamedTuple):
    """A cropped face: its row without the predictions, and its pixels (None if there is no face)."""

    row: Row
    pixels: np.ndarray | None


class Predictor:
    """Predicts perceived gender and age with one model file; safe to use from several threads.

    Args:
        model: An `.onnx` file written by mien, the folder of a run or of a published model, or `hub:OWNER/NAME`;
            None: the model that ships with mien.
        threads: Threads of the runtime and of decoding; None: one per core.
        detector: The face detector for photographs; see `detect.make_detector`.
        runtime: "onnxruntime", or "openvino" (an extra).
        min_face: Side in pixels of the smallest face to find; None: 1/30 of the longer side of each photograph.

    Attributes:
        name: The name of the model.
        size: Side of the network's input in pixels.
        margin: Context around a face box, as a share of its side.
        metadata: The metadata of the model file: tasks, labels, calibration, lineage.

    Raises:
        MienError: The file does not exist, is not an ONNX file, or was not written by mien.

    Example:
        >>> from skimage.data import astronaut
        >>> from mien import Predictor
        >>> predictor = Predictor(threads=1)
        >>> predictor
        Predictor('mien-2', size=128, tasks=['gender', 'age'], detector='mien', runtime='onnxruntime')
        >>> table = predictor.predict(astronaut())
        >>> table[["face_index", "status", "gender", "age_group"]]
           face_index status  gender age_group
        0           0     ok  female     25-32
    """

    def __init__(
        self,
        model: str | Path | None = None,
        threads: int | None = None,
        detector: str = "mien",
        runtime: str = "onnxruntime",
        min_face: float | None = None,
    ) -> None:
        if runtime not in RUNTIMES:
            raise MienError(choices("runtime", runtime, RUNTIMES))
        path = shipped_model() if model is None else model_file(model, ".onnx")
        self.name = str(model) if model is not None else path.stem
        self.shipped = model is None
        self.threads = threads or len(os.sched_getaffinity(0))
        self._session = open_session(path, self.name, self.threads)
        self.metadata = read_metadata(self._session, self.name)
        self.size: int = self.metadata["image_size"]
        self.margin: float = self.metadata["margin"]
        self._outputs = [output.name for output in self._session.get_outputs()]
        if runtime == "openvino":
            if "quantized" in self.metadata:
                # OpenVINO rounds 8-bit layers differently: up to 0.1 in p_female and 18 years in a trial.
                raise MienError(
                    f"model {self.name!r} is 8-bit, and the runtime 'openvino' gives other results on such files; "
                    "valid: the runtime 'onnxruntime', or the run's own file, in full precision"
                )
            self._session = OpenVinoSession(path, self.threads)
        self.detector, self.min_face, self.runtime, self._path = detector, min_face, runtime, path
        self._cropper: FaceCropper | None = None

    def __repr__(self) -> str:
        tasks = list(self.metadata["tasks"])
        return (
            f"Predictor({self.name!r}, size={self.size}, tasks={tasks}, detector={self.detector!r}, "
            f"runtime={self.runtime!r})"
        )

    def digest(self) -> str:
        """Returns the SHA-256 of the model file."""
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def columns(self) -> list[str]:
        """The columns of the predictions table."""
        rest = [name for name in self._outputs if name not in _PREDICTIONS]
        return [*_HEAD, *(name for name in _PREDICTIONS if name in self._all_outputs()), *rest, "quality"]

    def predict(self, images: "images.Source | Iterable[images.Source]", crops: bool = False) -> "pd.DataFrame":
        """Predicts for one or more images.

        Args:
            images: Paths, bytes of image files, Pillow images, or arrays (h, w, 3) of uint8 or of floats from
                0 to 1, one or several.
            crops: Whether each image is a face crop; otherwise faces are detected.

        Returns:
            The predictions table with one row per face. An image without a face, or one that cannot be read, has one
            row with the reason in `status`.
        """
        import pandas as pd

        rows = list(self.stream(_several(images), crops=crops))
        return pd.DataFrame(rows, columns=self.columns)

    def stream(self, sources: "Iterable[images.Source]", crops: bool = False) -> Iterator[Row]:
        """Yields the rows of `predict` in the order of the images, in constant memory.

        The next images are decoded while the network processes the current ones.
        """
        with ThreadPoolExecutor(self.threads) as pool:
            numbered = enumerate(sources)

            def begin() -> list[Future[list[FaceCrop]]]:
                return [pool.submit(self.crop_faces, source, n, crops) for n, source in islice(numbered, BATCH)]

            ahead = begin()
            while ahead:
                current, ahead = ahead, begin()
                yield from self.predict_crops([crop for future in current for crop in future.result()])

    def predict_pixels(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Predicts for face crops, uint8 (n, size, size, 3); returns columns (n,) of the predictions table.

        Raises:
            ModelFailure: The model fails, or gives numbers that are no predictions; see `onnx_session.check_outputs`.
        """
        try:
            values = self._session.run(self._outputs, {"images": images})
        except Exception as error:  # the classes of the runtimes share no base
            raise ModelFailure(f"model {self.name!r} fails on images: {shortened(str(error))}") from error
        columns = {name: np.asarray(value) for name, value in zip(self._outputs, values, strict=True)}
        check_outputs(columns, len(images), self.name)
        return self._add_labels(columns)

    def predict_faces(
        self,
        faces: "pd.DataFrame",
        root: "str | Path | Roots",
        progress: "ProgressCallback | None" = None,
        pixels: "Pixels | None" = None,
    ) -> "pd.DataFrame":
        """Predicts for the faces of a faces table, one row per face in the same order.

        Args:
            faces: A checked faces table.
            root: What its paths are relative to, see `mien.data.roots.open_root`.
            progress: Called with the number of faces done and the total.
            pixels: The pixels of the faces; None reads the files.

        Returns:
            The predictions table; `status` is "ok" or the reason why the face could not be read.
        """
        import pandas as pd

        from mien.data.face_pixels import FilePixels

        source = pixels if pixels is not None else FilePixels(faces, root, self.size, self.margin)
        parts = []
        done = 0
        for statuses, batch in _decoded(source, self.threads):
            predictions = pd.DataFrame(self.predict_pixels(batch) if len(batch) else {})
            predictions.index = np.flatnonzero([status == "ok" for status in statuses])
            parts.append(predictions.reindex(range(len(statuses))).assign(status=statuses))
            done += len(statuses)
            if progress:
                progress(done, len(source))
        rows = pd.concat(parts, ignore_index=True)
        head = pd.DataFrame({"file": faces["path"].to_numpy(), "face_index": 0, "face": faces["face"].to_numpy()})
        boxes = faces[["x", "y", "w", "h"]].reset_index(drop=True)
        first = ["status", *(column for column in _PREDICTIONS if column in rows)]
        rest = [column for column in rows.columns if column not in first]
        return pd.concat([head, boxes, rows[first + rest]], axis=1)

    def _load_cropper(self) -> "FaceCropper":
        if self._cropper is None:
            from mien.prediction.detect import make_detector
            from mien.prediction.face_cropper import FaceCropper

            self._cropper = FaceCropper(make_detector(self.detector, self.min_face), self.size, self.margin)
        return self._cropper

    def crop_faces(self, source: images.Source, name: object = "", crops: bool = False) -> list[FaceCrop]:
        """Detects and crops the faces of one image; `name` is the file name of an image that is not a path."""
        row: Row = {"file": str(source) if isinstance(source, (str, Path)) else str(name)}
        try:
            if crops:
                from mien.prediction.quality import notes

                face, side = images.load_face_and_side(source, self.size)
                return [FaceCrop(row | {"face_index": 0, "quality": notes(face, None, side, side, False)}, face)]
            faces = self._load_cropper()(source)
            found = [FaceCrop(row | face.columns, face.pixels) for face in faces]
            return found or [FaceCrop(row | {"status": "no face"}, None)]
        except images.ImageError as error:
            return [FaceCrop(row | {"status": error.reason}, None)]

    def predict_crops(self, face_crops: list[FaceCrop]) -> Iterator[Row]:
        """Predicts for cropped faces; yields one row per crop, in order, with a note where the answer is unusual."""
        from mien.prediction.quality import UNUSUAL, with_note

        faces = [crop.pixels for crop in face_crops if crop.pixels is not None]
        predictions: Iterator[tuple[Row, bool]] = iter(())
        if faces:
            batches = (np.stack(faces[start : start + BATCH]) for start in range(0, len(faces), BATCH))
            predictions = (row for batch in batches for row in self._answers(batch))
        for crop in face_crops:
            if crop.pixels is None:
                yield crop.row
                continue
            answer, odd = next(predictions)
            row = crop.row | {"status": "ok"} | answer
            yield row | {"quality": with_note(row.get("quality") or "", UNUSUAL)} if odd else row

    def _answers(self, images: np.ndarray) -> Iterator[tuple[Row, bool]]:
        """Yields the row of each face, and whether its answer is unusual."""
        from mien.prediction.quality import unusual

        columns = self.predict_pixels(images)
        return zip(_rows(columns), unusual(columns).tolist(), strict=True)

    @property
    def outputs(self) -> list[str]:
        """The numeric outputs of the model, from which the labels follow."""
        return list(self._outputs)

    def predict_mean(self, means: dict[str, float]) -> Row:
        """Returns the prediction for several images of one face, from the mean of each output."""
        return next(_rows(self._add_labels({name: np.array([means[name]]) for name in self._outputs})))

    def _all_outputs(self) -> list[str]:
        words = [word for word, needed in (("gender", "p_female"), ("age_group", "p_0-2")) if needed in self._outputs]
        return [*self._outputs, *words]

    def _add_labels(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adds the labels that follow from the numbers: `gender` and `age_group`."""
        if "p_female" in columns:
            female = columns["p_female"]
            gender = np.where(female >= 0.5, "female", "male").astype(object)
            gender[np.maximum(female, 1 - female) < self.metadata.get("unsure_below", 0.5)] = "unsure"
            columns["gender"] = gender
        if "age_group" in self.metadata["tasks"]:
            best = np.stack([columns[f"p_{group}"] for group in AGE_GROUPS]).argmax(axis=0)
            columns["age_group"] = np.array(AGE_GROUPS, dtype=object)[best]
        elif "age" in columns:
            columns["age_group"] = np.array(AGE_GROUPS, dtype=object)[age_group_codes(columns["age"])]
        return columns


def shipped_model() -> Path:
    """Returns the file of the model that ships with mien."""
    return Path(str(resources.files("mien") / "weights" / SHIPPED))


def _several(given: Any) -> Iterable[images.Source]:
    """Returns an iterable of images, also for a single one."""
    alone = isinstance(given, (str, Path, bytes)) or not hasattr(given, "__iter__")  # Pillow's images have none
    return [given] if alone or (isinstance(given, np.ndarray) and given.ndim <= 3) else given


def _rows(columns: dict[str, np.ndarray]) -> Iterator[Row]:
    """Yields rows of Python numbers; ages are rounded to 0.01 years, probabilities to 0.0001."""
    lists = [
        column.tolist() if column.dtype == object else column.astype(float).round(2 if "age" in name else 4).tolist()
        for name, column in columns.items()
    ]
    return (dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True))


def _decoded(pixels: "Pixels", threads: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yields batches of statuses (n,) and readable images, while the next batch is being decoded."""
    with ThreadPoolExecutor(threads) as pool:

        def read(index: int) -> tuple[str, np.ndarray | None]:
            try:
                return "ok", pixels[index]
            except images.ImageError as error:
                return error.reason, None

        def begin(start: int) -> list[Future[tuple[str, np.ndarray | None]]]:
            return [pool.submit(read, index) for index in range(start, min(start + BATCH, len(pixels)))]

        ahead = begin(0)
        for start in range(0, len(pixels), BATCH):
            current, ahead = ahead, begin(start + BATCH)
            results = [future.result() for future in current]
            faces = [image for _, image in results if image is not None]
            yield (
                [status for status, _ in results],
                np.stack(faces) if faces else np.empty((0, pixels.size, pixels.size, 3), np.uint8),
            )
