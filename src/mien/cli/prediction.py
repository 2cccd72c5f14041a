"""`mien predict`, `mien explain`, `mien serve`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mien.base.errors import MienError, choices
from mien.cli.options import Crops, Detector, MinFace, Model, Threads, interruptible

app = typer.Typer()


@app.command(epilog="Example: mien predict holiday.jpg --draw boxes")
def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Images, clips, folders (recursively), patterns, CSV or Parquet tables with a column path, or - for a "
            "list on standard input."
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            help="Table to write, .csv, .parquet, .json, .jsonl or .coco.json; - writes CSV to standard output, "
            "-.jsonl JSON lines; default: the screen. With --engine ray a folder."
        ),
    ] = None,
    crops: Crops = False,
    draw: Annotated[
        Path | None, typer.Option(help="Folder for copies of the images and clips with boxes and labels.")
    ] = None,
    every: Annotated[float, typer.Option(metavar="SECONDS", help="Time between two analysed frames of a clip.")] = 0.5,
    model: Model = None,
    detector: Detector = None,
    min_face: MinFace = None,
    runtime: Annotated[str, typer.Option(help="onnxruntime or openvino.")] = "onnxruntime",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default: one per core, with --engine ray one per worker.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
    engine: Annotated[
        str, typer.Option(help="local, or ray: very many images, on this machine or the cluster of RAY_ADDRESS.")
    ] = "local",
    image_column: Annotated[
        str | None,
        typer.Option(help="With --engine ray: column of a table that holds image bytes; default: bytes or image."),
    ] = None,
) -> None:
    """Predict perceived gender and age of each face in photographs and clips. Nobody is identified.

    The labels are how people perceived the faces, not what anyone is. The weights that ship with mien learned from
    UTKFace and are for non-commercial research only; the licence of the code is another one. mien.model_card() in
    Python returns the model card.

    In clips (extra video) faces are tracked: one row per face, and a second table beside --out with one row per frame.

    With --out, rerun the same command to resume; the table appears when it is complete.

    Exit status: 0 when every file could be read, 2 when some could not; each of those is a row with the reason.
    """
    from mien.prediction.photographs import READ, predict_files, summary
    from mien.prediction.predict import Predictor

    if engine not in ("local", "ray"):
        raise MienError(choices("--engine", engine, ("local", "ray")))
    chosen: dict[str, Any] = {} if detector is None else {"detector": detector}
    with interruptible(resumable=out is not None):
        if engine == "ray":
            if out is None or draw is not None:
                raise MienError("--engine ray needs --out, a folder, and does not support --draw")
            from mien.prediction.ray_cluster import predict_cluster

            about = chosen | {"model": model, "min_face": min_face, "runtime": runtime, "threads": threads or 1}
            statuses = predict_cluster(paths, out, crops=crops, column=image_column, overwrite=overwrite, **about)
            print(f"{summary(statuses)}\ntable: {out}")
        else:
            if image_column is not None:
                raise MienError("--image-column belongs to --engine ray, which was not given")
            predictor = Predictor(model, threads, runtime=runtime, min_face=min_face, **chosen)
            file = None if out is None else Path(out)
            statuses = predict_files(predictor, paths, file, crops, draw, overwrite, every)
    if any(status not in READ for status in statuses):
        raise typer.Exit(2)


@app.command(epilog="Example: mien explain holiday.jpg --out explained")
def explain(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Images, folders, patterns or tables, as for predict.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for explain.html, explanations.csv and maps.npz.")] = Path(
        "explained"
    ),
    crops: Crops = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "--run", help="A run, a model file or hub:OWNER/NAME; default: the model that ships with mien."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="occlusion, or gradcam, which needs torch and a run or a published model.")
    ] = "occlusion",
    faces: Annotated[
        Path | None, typer.Option(help="In place of images: a faces table, for mean maps by group.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that the paths of --faces are relative to, or a run.")
    ] = None,
    by: Annotated[str, typer.Option(help="Columns of --faces that make groups.")] = "gender,age_group",
    limit: Annotated[int, typer.Option(min=1, help="Largest number of faces of a group.")] = 50,
) -> None:
    """Map which regions of a face a prediction depends on, and test each map against random maps."""
    from mien.api.prediction import explain
    from mien.base.console import console, show

    table = explain(paths, out, crops=crops, model=model, method=method, faces=faces, root=root, by=by, limit=limit)
    show(table.head(20).astype("object").where(table.head(20).notna(), ""), "explanations")
    console.print(f"report: {out / 'explain.html'}", highlight=False)


@app.command(epilog="Example: mien serve --port 8000")
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 accepts other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port.")] = 8000,
    model: Model = None,
    detector: Detector = None,
    threads: Threads = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="MIEN_API_KEY", help="Key that requests must send; better set as MIEN_API_KEY."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Further name by which requests may address it; repeatable."),
    ] = None,
    max_bytes: Annotated[int, typer.Option(help="Largest request, in bytes.")] = 32_000_000,
    max_pixels: Annotated[int, typer.Option(help="Largest image, in pixels.")] = 50_000_000,
    max_images: Annotated[int, typer.Option(help="Largest number of images per request.")] = 64,
    max_faces: Annotated[int, typer.Option(help="Largest number of faces per image.")] = 100,
    max_seconds: Annotated[float, typer.Option(help="Longest time for a request, in seconds.")] = 60.0,
    max_waiting: Annotated[
        int, typer.Option(help="Largest size of all requests held at once, in bytes.")
    ] = 512_000_000,
) -> None:
    """Serve a page and an API over the predictor. Photographs stay in memory and are not kept."""
    from mien.api.prediction import serve

    serve(
        host,
        port,
        model=model,
        detector=detector,
        threads=threads,
        api_key=api_key,
        allow_host=allow_host or (),
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        max_images=max_images,
        max_faces=max_faces,
        max_seconds=max_seconds,
        max_waiting=max_waiting,
    )
