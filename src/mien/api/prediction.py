"""Prediction: predict for photographs and clips, explain predictions, serve a model."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mien.api.arguments import PathLike, as_columns, as_faces, as_list
from mien.api.training import needs_training
from mien.base.errors import MienError, choices

if TYPE_CHECKING:
    import pandas as pd

    from mien.data.images import Source
    from mien.prediction.predict import Predictor


def predict(
    paths: "Source | Sequence[Source]",
    out: PathLike | None = None,
    *,
    crops: bool = False,
    draw: PathLike | None = None,
    every: float = 0.5,
    model: "PathLike | Predictor | None" = None,
    detector: str | None = None,
    min_face: float | None = None,
    runtime: str = "onnxruntime",
    threads: int | None = None,
    overwrite: bool = False,
) -> "pd.DataFrame":
    """Predicts perceived gender and age of each face in photographs and clips; it identifies nobody.

    Args:
        paths: One or several: images, clips, folders (recursively), patterns, or tables with a column "path". Without
            `out` and `draw` also images in memory: bytes of a file, Pillow images, or arrays (h, w, 3) of uint8 or of
            floats from 0 to 1.
        out: Table to write, .csv, .parquet, .json, .jsonl or .coco.json (COCO's format); rerunning the same call
            resumes an interrupted one. The frames of clips go to a second table beside it.
        crops: Each image is a cropped face; no faces are detected.
        draw: Folder for copies of the images and clips with boxes and labels.
        every: Seconds between two analysed frames of a clip.
        model: A run, a model file, `hub:OWNER/NAME` or a `Predictor`; None: the model that ships with mien.
        detector: Face detector, see `mien.prediction.detect`; None: the default one.
        min_face: Side in pixels of the smallest face to find; None: 1/30 of the longer side of each image.
        runtime: "onnxruntime" or "openvino".
        threads: CPU threads; None: one per core.
        overwrite: Replace `out` if it exists.

    Returns:
        The predictions table: one row per face, or per image without a face or that cannot be read (see `status`).

    Raises:
        MienError: A folder holds no images, `out` exists, or the model cannot be used.

    Examples:
        >>> import mien
        >>> from skimage.data import astronaut
        >>> mien.predict(astronaut())[["gender", "status"]].to_dict("records")
        [{'gender': 'female', 'status': 'ok'}]
    """
    predictor = _predictor(model, detector, runtime, threads, min_face)
    given: list[Any] = [paths] if hasattr(paths, "shape") else as_list(paths)  # an array is one image
    if not all(isinstance(one, str | Path) for one in given):
        if out is not None or draw is not None:
            raise MienError("images in memory with --out or --draw; valid: paths of files")
        return predictor.predict(given, crops=crops)
    files = [str(one) for one in given]
    if out is None and draw is None:
        return _in_memory(predictor, files, crops, every)
    return _to_files(predictor, files, out, draw, crops=crops, every=every, overwrite=overwrite)


def _in_memory(predictor: "Predictor", paths: list[str], crops: bool, every: float) -> "pd.DataFrame":
    """The predictions of photographs, then those of clips."""
    import pandas as pd

    from mien.data.images import SUFFIXES
    from mien.prediction import video_files
    from mien.prediction.clips import predict_clip
    from mien.prediction.input_files import image_files

    files = image_files(paths, (*SUFFIXES, *video_files.ENDINGS))
    clips = [file for file in files if video_files.is_clip(file)]
    photographs = predictor.predict([file for file in files if not video_files.is_clip(file)], crops=crops)
    tracks = [predict_clip(predictor, clip, every, crops).tracks for clip in clips]
    if not tracks:
        return photographs
    return pd.concat([table for table in (photographs, *tracks) if len(table)], ignore_index=True)


def _to_files(
    predictor: "Predictor", paths: list[str], out: PathLike | None, draw: PathLike | None, **options: Any
) -> "pd.DataFrame":
    """Predicts as the command does, and reads the table that it wrote."""
    import pandas as pd

    from mien.base.table import read_table
    from mien.prediction.outputs import COCO, STANDARD_OUTPUT, read_coco
    from mien.prediction.photographs import predict_files

    if str(out) in STANDARD_OUTPUT:
        raise MienError(f"--out {str(out)!r} is for the command line; valid: a file, or None, which returns the table")
    table = None if out is None else Path(out)
    predict_files(predictor, paths, table, draw=None if draw is None else Path(draw), **options)
    if table is None:
        return _in_memory(predictor, paths, options["crops"], options["every"])
    if table.name.endswith(COCO):
        return pd.DataFrame(read_coco(table))
    if table.suffix in (".json", ".jsonl"):
        return pd.read_json(table, lines=table.suffix == ".jsonl", dtype={"file": "str"}, convert_dates=False)
    return read_table(table)


def explain(
    paths: PathLike | Iterable[PathLike] | None = None,
    out: PathLike = "explained",
    *,
    crops: bool = False,
    model: "PathLike | Predictor | None" = None,
    method: str = "occlusion",
    faces: "pd.DataFrame | PathLike | None" = None,
    root: PathLike | None = None,
    by: str | Sequence[str] = ("gender", "age_group"),
    limit: int = 50,
) -> "pd.DataFrame":
    """Maps which regions of a face a prediction depends on, and tests each map against random maps.

    Args:
        paths: Images, folders, patterns or tables, as for `predict`.
        out: Folder for explain.html, explanations.csv and maps.npz.
        crops: Each image is a cropped face; no faces are detected.
        model: A run, a model file, `hub:OWNER/NAME` or a `Predictor`; None: the model that ships with mien.
        method: "occlusion", or "gradcam", which needs mien[train] and a run or a published model.
        faces: In place of `paths`: a faces table, or its file, for mean maps by group.
        root: Folder that the paths of `faces` are relative to, or a run for those of its data sets.
        by: Columns of `faces` that make groups.
        limit: Largest number of faces of a group.

    Returns:
        One row per face and task, or per group and task.

    Raises:
        MienError: Both or neither of `paths` and `faces` are given, or the method is unknown.
    """
    files = [] if paths is None else [str(path) for path in as_list(paths)]
    if (faces is None) != (root is None) or bool(files) == (faces is not None):
        raise MienError("give images, or --faces with --root: a faces table, and the folder of its paths")
    if method not in ("occlusion", "gradcam"):
        raise MienError(choices("--method", method, ("occlusion", "gradcam")))
    maps_of = None
    if method == "gradcam":
        maps_of = _gradcam(model)
    from mien.data.roots import open_root
    from mien.reports.explanations import explain_files, explain_groups

    predictor = _predictor(model)
    if faces is None or root is None:
        return explain_files(predictor, files, Path(out), crops, maps_of)
    return explain_groups(predictor, as_faces(faces), open_root(root), as_columns(by) or [], Path(out), limit, maps_of)


def _gradcam(model: Any) -> Any:
    if not isinstance(model, str | Path):
        raise MienError("--method gradcam needs --run: a run, or a published model, with its weights")
    with needs_training("--method gradcam"):
        from mien.training.gradcam import GradCam
    from mien.runs.run import open_run

    return GradCam(open_run(model))


def serve(
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    model: "PathLike | Predictor | None" = None,
    detector: str | None = None,
    threads: int | None = None,
    api_key: str | None = None,
    allow_host: str | Sequence[str] = (),
    max_bytes: int = 32_000_000,
    max_pixels: int = 50_000_000,
    max_images: int = 64,
    max_faces: int = 100,
    max_seconds: float = 60.0,
    max_waiting: int = 512_000_000,
) -> None:
    """Serves a page and an API over the predictor until it is interrupted; photographs stay in memory.

    Args:
        host: Address to listen on; "0.0.0.0" accepts other machines.
        port: TCP port.
        model: A run, a model file, `hub:OWNER/NAME` or a `Predictor`; None: the model that ships with mien.
        detector: Face detector; None: the default one.
        threads: CPU threads; None: one per core.
        api_key: Requests must send `Authorization: Bearer KEY`; None: the variable MIEN_API_KEY, or no key if it is not
            set. An empty key is an error.
        allow_host: Names besides "localhost" and `host` by which requests may address the service, such as that of a
            proxy; addresses are always allowed.
        max_bytes: Largest request, in bytes.
        max_pixels: Largest image, in pixels.
        max_images: Largest number of images per request.
        max_faces: Largest number of faces per image.
        max_seconds: Longest time for a request, in seconds.
        max_waiting: Largest total size of all requests held at once, in bytes.

    Raises:
        MissingExtra: mien[serve] is not installed.
        MienError: The API key is empty, or the address cannot be used.
    """
    from mien.service import run
    from mien.service.limits import ServiceLimits

    limits = ServiceLimits(max_bytes, max_pixels, max_images, max_faces, max_seconds, max_waiting)
    key = os.environ.get("MIEN_API_KEY") if api_key is None else api_key
    names = [allow_host] if isinstance(allow_host, str) else allow_host
    run(_predictor(model, detector, threads=threads), host, port, limits, key, names)


def _predictor(
    model: "PathLike | Predictor | None",
    detector: str | None = None,
    runtime: str = "onnxruntime",
    threads: int | None = None,
    min_face: float | None = None,
) -> "Predictor":
    from mien.prediction.predict import Predictor

    if isinstance(model, Predictor):
        return model
    chosen = {} if detector is None else {"detector": detector}
    return Predictor(model, threads, runtime=runtime, min_face=min_face, **chosen)
