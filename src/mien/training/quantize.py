"""8-bit quantization of a run's ONNX file, evaluated on validation faces before it is written."""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pandas as pd
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from mien.base.atomic import atomic_path
from mien.base.console import progress, show
from mien.base.errors import MienError
from mien.base.messages import note
from mien.data.face_pixels import FilePixels, Pixels, PixelSubset
from mien.data.images import ImageError
from mien.data.roots import open_root, recipe_root
from mien.metrics.definitions import METRICS
from mien.metrics.joining import join
from mien.metrics.scoring import paired_difference, score
from mien.metrics.wording import PRIMARY
from mien.prediction.predict import Predictor
from mien.runs.run import Run
from mien.training.onnx_metadata import describe, description

_FACES = 512  # whose activations set the ranges
_BATCH = 16
_KINDS = {"Conv", "Gemm", "MatMul", "Clip", "Relu", "Add"}
_ENDS = {"Conv", "LayerNormalization"}  # the last one of these is the end of the body


class Quantized(NamedTuple):
    """The result of a quantization."""

    differences: pd.DataFrame
    """One row per metric: `metric`, `before`, `after`, `difference`, `low`, `high` (95%, paired), `n`."""
    agreement: float
    """Share of the faces with the same gender; NaN without that task."""
    speed: float
    """Speed-up with one thread."""
    megabytes: tuple[float, float]


def quantize(
    run: Run, out: str | Path, root: str | Path | None = None, max_loss: float = 0.5, max_age_loss: float = 0.1
) -> Quantized:
    """Writes the 8-bit file of a run, unless it loses too much on the validation faces.

    Body and activations are 8-bit, weights per channel; normalisation of the pixels, heads and decoding stay as they
    are. The ranges of activations are those of a sample of training faces. The same run gives the same bytes.

    Args:
        run: A finished run with its faces.
        out: The `.onnx` file to write.
        root: The root of the faces, see `mien.data.roots.open_root`; None: that of the recipe.
        max_loss: Percentage points of gender accuracy that may be lost; of age group, where no age is predicted.
        max_age_loss: Years of the mean age error that may be lost.

    Raises:
        MienError: It loses more, there are no faces to evaluate on, or the file is already quantized. Nothing is
            written then.
    """
    if run.published:
        raise MienError(f"{run.name!r} is a published model without its faces; quantize the original run")
    faces = run.faces
    home = recipe_root(run.recipe.data) if root is None else open_root(root)
    pixels = FilePixels(faces, home, run.recipe.model.image_size, run.recipe.model.margin)
    validation = np.flatnonzero(faces["split"] == "val")
    if not len(validation):
        raise MienError(f"run {run.name!r} has no validation faces to evaluate the 8-bit file on")
    with tempfile.TemporaryDirectory() as scratch, atomic_path(out) as part:
        sample = _sample(faces, pixels)
        _convert(run.model_file, part, sample, Path(scratch))
        result = _evaluate(
            run.model_file, part, faces.iloc[validation], PixelSubset(pixels, validation), sample[:_BATCH]
        )
        _refuse(result.differences, max_loss, max_age_loss)
        metadata = description(onnx.load(run.model_file))
        _write_description(part, metadata | {"quantized": _summary(result)})
    return result


def show_quantized(result: Quantized) -> None:
    """Prints the loss and the gain of 8 bits."""
    rows = result.differences
    cells = rows[["metric"]].copy()
    for column in ("before", "after"):
        cells[column] = rows[column].map("{:.3f}".format)
    cells["difference [95% interval]"] = [
        f"{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]" for row in rows.itertuples()
    ]
    cells["validation faces"] = rows["n"]
    show(cells, "8-bit against the run's own file, paired; unsure counts as wrong")
    same = "" if np.isnan(result.agreement) else f"the same gender for {result.agreement:.1%} of the faces; "
    before, after = result.megabytes
    note(f"{same}{before:.1f} to {after:.1f} MB; {result.speed:.2f} times as fast with one thread")


def _sample(faces: pd.DataFrame, pixels: Pixels) -> np.ndarray:
    """Training faces as uint8 (n, size, size, 3), the same at each call."""
    rows = np.flatnonzero(faces["split"] == "train")
    chosen = np.random.default_rng(0).permutation(rows)[:_FACES]

    def read(index: int) -> np.ndarray | None:
        try:
            return pixels[int(index)]
        except ImageError:
            return None

    with ThreadPoolExecutor() as pool:
        return np.stack([face for face in pool.map(read, chosen) if face is not None])


class _Batches(CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self._batches = iter([images[start : start + _BATCH] for start in range(0, len(images), _BATCH)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def _convert(source: Path, target: Path, images: np.ndarray, scratch: Path) -> None:
    prepared = scratch / "prepared.onnx"
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    nodes = list(onnx.load(prepared).graph.node)
    if any(node.op_type == "QuantizeLinear" for node in nodes):
        raise MienError(f"{source.name} is already quantized")
    last = max((place for place, node in enumerate(nodes) if node.op_type in _ENDS), default=-1)
    body = [node.name for node in nodes[: last + 1] if node.op_type in _KINDS]
    quantize_static(
        str(prepared),
        str(target),
        _Batches(images),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_quantize=body,
    )


def _evaluate(before: Path, after: Path, faces: pd.DataFrame, pixels: Pixels, images: np.ndarray) -> Quantized:
    predictions = []
    for path, words in ((before, "predicting"), (after, "predicting with 8 bits")):
        with progress(words) as update:
            # The pixels are given, so the folder is not looked at.
            predictions.append(join(faces, Predictor(path).predict_faces(faces, ".", update, pixels)))
    first, second = predictions
    values = [score(table, by=()).set_index("metric")["value"] for table in predictions]
    rows = []
    for metric in PRIMARY:
        if metric in values[0].index:
            found = paired_difference(second, first, metric)
            row = {"metric": metric, "before": values[0][metric], "after": values[1][metric]}
            rows.append(row | {"difference": found.value, "low": found.low, "high": found.high, "n": found.n})
    if not rows:
        raise MienError("the validation faces have no label to evaluate a quantized file with")
    same = float((first["gender"] == second["gender"]).mean()) if "gender" in first else np.nan
    sizes = before.stat().st_size / 1e6, after.stat().st_size / 1e6
    return Quantized(pd.DataFrame(rows), same, _speed(before, after, images), sizes)


def _speed(before: Path, after: Path, images: np.ndarray) -> float:
    """The ratio of the best of several times, taken in turns at one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in (before, after)
    ]
    best = [np.inf, np.inf]
    for _ in range(8):
        for place, session in enumerate(sessions):
            begin = time.perf_counter()
            session.run(None, {"images": images})
            best[place] = min(best[place], time.perf_counter() - begin)
    return best[0] / best[1]


def _refuse(differences: pd.DataFrame, max_loss: float, max_age_loss: float) -> None:
    years = (differences["metric"] == "age_mae").any()
    for row in differences.to_dict("records"):
        metric = row["metric"]
        if metric == "age_group_exact" and years:
            continue  # follows from the age, whose error has a bound of its own
        error = METRICS[metric].better == "lower"
        loss, bound = (row["difference"], max_age_loss) if error else (-100 * row["difference"], max_loss)
        if loss > bound:
            raise MienError(
                f"8 bits cost {loss:.2f} {METRICS[metric].unit.difference} of {metric} on {row['n']} validation faces; "
                f"allowed: {bound:g} "
                f"(--max-{'age-' if error else ''}loss). Nothing was written"
            )


def _summary(result: Quantized) -> dict[str, Any]:
    """Returns the metadata of the quantization; without times, so that the same run gives the same bytes."""
    return {
        "weights": "int8, per channel",
        "activations": "uint8",
        "part": "val",
        "agreement": None if np.isnan(result.agreement) else round(result.agreement, 4),
        "scores": result.differences.round(4).to_dict("records"),
    }


def _write_description(path: Path, metadata: dict[str, Any]) -> None:
    model = onnx.load(path)
    describe(model, metadata)
    onnx.save(model, path)
