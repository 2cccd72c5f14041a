"""Prediction with an ONNX file that mien wrote: it knows its own size, crop, outputs and labels. No torch.

pandas is imported where a table is asked for, and the detector where a photograph is: one crop needs neither.
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

from mien.base.errors import MienError, choices
from mien.base.labels import AGE_GROUPS, age_group_codes
from mien.data import images
from mien.prediction.session import OpenVinoSession, open_session, read_metadata
from mien.runs.hub import model_file

if TYPE_CHECKING:
    import pandas as pd

    from mien.base.progress import ProgressCallback
    from mien.data.pixels import Pixels

SHIPPED = "mien-1.onnx"
"""The model that ships with the package, in `weights/`; see MODEL_CARD.md."""

SHIPPED_NOTICE = "Its weights are for non-commercial research only, as the faces of UTKFace, which they learnt from."


RUNTIMES = ("onnxruntime", "openvino")

Row = dict[str, Any]
"""One face (or one image without a prediction) of the predictions table."""

BATCH = 64
"""So many images go through the network together."""

_HEAD = ("file", "face_index", "x", "y", "w", "h", "detector_score", "status")
_ANSWERS = ("p_female", "gender", "age", "age_low", "age_high", "age_group")


class Cut(NamedTuple):
    """A face on its way: the row as far as it is known, and its pixels (none where there is no face)."""

    row: Row
    pixels: np.ndarray | None


class Predictor:
    """Predicts with one model file; safe to use from several threads.

    Args:
        model: An `.onnx` file written by mien, the folder of a run or of a published model, or `hub:OWNER/NAME`;
            None: the model that ships with mien.
        threads: Threads of the runtime and of decoding; None: one a core.
        detector: What finds faces in photographs; see `detect.make_detector`.
        runtime: onnxruntime, or openvino (an extra).

    Raises:
        MienError: There is no such file, it is no ONNX file, or not mien's.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        threads: int | None = None,
        detector: str = "dlib",
        runtime: str = "onnxruntime",
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
                # It runs 8-bit layers with other roundings: 0.1 in p_female and 18 years apart in a trial.
                raise MienError(
                    f"model {self.name!r} is 8-bit, and the runtime 'openvino' gives other results on such files; "
                    "valid: the runtime 'onnxruntime', or the run's own file, in full precision"
                )
            self._session = OpenVinoSession(path, self.threads)
        self.detector, self.runtime, self._path = detector, runtime, path
        self._detector: Any = None

    def digest(self) -> str:
        """SHA-256 of the model file."""
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def columns(self) -> list[str]:
        """The columns of its predictions table."""
        rest = [name for name in self._outputs if name not in _ANSWERS]
        return [*_HEAD, *(name for name in _ANSWERS if name in self._answered()), *rest, "quality"]

    def predict(self, images: "images.Source | Iterable[images.Source]", crops: bool = False) -> "pd.DataFrame":
        """The predictions table of one image or many.

        Args:
            images: Paths, bytes of image files, Pillow images, or uint8 arrays (h, w, 3), one or several.
            crops: Each image already is a face; otherwise faces are looked for.

        Returns:
            One row a face; an image that cannot be read, or shows no face, is one row whose `status` says so.
        """
        import pandas as pd

        rows = list(self.stream(_several(images), crops=crops))
        return pd.DataFrame(rows, columns=self.columns)

    def stream(self, sources: "Iterable[images.Source]", crops: bool = False) -> Iterator[Row]:
        """The rows of `predict` one after the other, in the order of the images, in constant memory.

        The next images are decoded while the network looks at the faces of the last ones.
        """
        with ThreadPoolExecutor(self.threads) as pool:
            numbered = enumerate(sources)

            def begin() -> list[Future[list[Cut]]]:
                return [pool.submit(self.cuts, source, n, crops) for n, source in islice(numbered, BATCH)]

            ahead = begin()
            while ahead:
                current, ahead = ahead, begin()
                yield from self.answers([cut for future in current for cut in future.result()])

    def predict_pixels(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Columns (n,) of the predictions table for faces that are cut already, uint8 (n, size, size, 3)."""
        values = self._session.run(self._outputs, {"images": images})
        return self._with_words(dict(zip(self._outputs, values, strict=True)))

    def predict_faces(
        self,
        faces: "pd.DataFrame",
        root: str | Path,
        progress: "ProgressCallback | None" = None,
        pixels: "Pixels | None" = None,
    ) -> "pd.DataFrame":
        """The predictions table of a faces table: one row a face, in its order.

        Args:
            faces: A checked faces table.
            root: The folder that its paths are relative to.
            progress: Told how many faces are done.
            pixels: Where to take the faces' pixels from, in place of the files.

        Returns:
            `status` is "ok", or the reason why the face could not be read.
        """
        import pandas as pd

        from mien.data.pixels import FilePixels

        source = pixels if pixels is not None else FilePixels(faces, root, self.size, self.margin)
        parts = []
        done = 0
        for statuses, batch in _decoded(source, self.threads):
            answers = pd.DataFrame(self.predict_pixels(batch) if len(batch) else {})
            answers.index = np.flatnonzero([status == "ok" for status in statuses])
            parts.append(answers.reindex(range(len(statuses))).assign(status=statuses))
            done += len(statuses)
            if progress:
                progress(done, len(source))
        rows = pd.concat(parts, ignore_index=True)
        head = pd.DataFrame({"file": faces["path"].to_numpy(), "face_index": 0, "face": faces["face"].to_numpy()})
        boxes = faces[["x", "y", "w", "h"]].reset_index(drop=True)
        first = ["status", *(column for column in _ANSWERS if column in rows)]
        rest = [column for column in rows.columns if column not in first]
        return pd.concat([head, boxes, rows[first + rest]], axis=1)

    def _load_detector(self) -> None:
        if self._detector is None:
            from mien.prediction.detect import make_detector

            self._detector = make_detector(self.detector)

    def cuts(self, source: images.Source, name: object = "", crops: bool = False) -> list[Cut]:
        """The faces of one image, the first half of `stream`; `name` stands for an image that is no path."""
        row: Row = {"file": str(source) if isinstance(source, (str, Path)) else str(name)}
        try:
            if crops:
                from mien.prediction.quality import notes

                face, side = images.load_face_and_side(source, self.size)
                return [Cut(row | {"face_index": 0, "quality": notes(face, None, side, side, False)}, face)]
            self._load_detector()
            return self._found(row, images.load(source)) or [Cut(row | {"status": "no face"}, None)]
        except images.ImageError as error:
            return [Cut(row | {"status": error.reason}, None)]

    def _found(self, row: Row, image: np.ndarray) -> list[Cut]:
        from mien.prediction.quality import notes

        height, width = image.shape[:2]
        cuts = []
        for index, found in enumerate(self._detector(image)):
            face = images.cut(image, images.square(width, height, found.box, self.margin), self.size)
            place = dict(zip("xywh", (round(float(edge), 1) for edge in found.box), strict=True))
            about = {"face_index": index, **place, "detector_score": round(float(found.score), 3)}
            cuts.append(Cut(row | about | {"quality": notes(face, found.box, width, height, found.turned)}, face))
        return cuts

    def answers(self, cuts: list[Cut]) -> Iterator[Row]:
        """The rows of faces, the second half of `stream`: one a cut, in their order."""
        faces = [cut.pixels for cut in cuts if cut.pixels is not None]
        answers: Iterator[Row] = iter(())
        if faces:
            batches = (np.stack(faces[start : start + BATCH]) for start in range(0, len(faces), BATCH))
            answers = (row for batch in batches for row in _rows(self.predict_pixels(batch)))
        for cut in cuts:
            yield cut.row if cut.pixels is None else cut.row | {"status": "ok"} | next(answers)

    @property
    def outputs(self) -> list[str]:
        """The columns that the model itself gives: numbers, from which the words follow."""
        return list(self._outputs)

    def pooled(self, means: dict[str, float]) -> Row:
        """The answer for several pictures of one face, from the mean of each output over them."""
        return next(_rows(self._with_words({name: np.array([means[name]]) for name in self._outputs})))

    def _answered(self) -> list[str]:
        words = [word for word, needed in (("gender", "p_female"), ("age_group", "p_0-2")) if needed in self._outputs]
        return [*self._outputs, *words]

    def _with_words(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adds what follows from the numbers: `gender` and `age_group`."""
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
    """The file of the model that ships with mien."""
    return Path(str(resources.files("mien") / "weights" / SHIPPED))


def _several(given: Any) -> Iterable[images.Source]:
    """The images, where one may be given alone."""
    alone = isinstance(given, (str, Path, bytes)) or not hasattr(given, "__iter__")  # Pillow's images have none
    return [given] if alone or (isinstance(given, np.ndarray) and given.ndim <= 3) else given


def _rows(columns: dict[str, np.ndarray]) -> Iterator[Row]:
    """Rows of Python's own numbers, rounded to what they mean: ages to 0.01 years, probabilities to 0.0001."""
    lists = [
        column.tolist() if column.dtype == object else column.astype(float).round(2 if "age" in name else 4).tolist()
        for name, column in columns.items()
    ]
    return (dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True))


def _decoded(pixels: "Pixels", threads: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """Batches of statuses (n,) and of the images (those that are ok) while the next batch is being decoded."""
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
