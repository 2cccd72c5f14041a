"""The command line: thin verbs, each of which imports what it needs when it is called."""

import errno
import io
import json
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from mien.base.errors import MienError, MissingExtra, choices, printable
from mien.cli.audit import audit_app, pairs

app = typer.Typer(
    name="mien",
    help="Train, compare, explain and ship classifiers of perceived gender and age from photographs of faces.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(audit_app, name="audit")

Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, for instance optim.lr=0.01; repeatable."),
]


@app.command(epilog="Example: mien draw demo/adience --layout adience --seed 0")
def draw(
    root: Annotated[Path, typer.Argument(help="Folder to write; it must be new, or hold an earlier drawing.")],
    layout: Annotated[str, typer.Option(help="Files and style: adience or celeba.")] = "adience",
    seed: Annotated[int, typer.Option(help="Another seed draws other faces.")] = 0,
) -> None:
    """Write demonstration faces: they check machinery and say nothing about people."""
    from mien.base.console import console, progress
    from mien.demo.draw import draw_faces

    with progress("drawing") as update:
        counts = draw_faces(root, layout, seed, progress=update)
    console.print(f"{root}: {', '.join(f'{count} {name}' for name, count in counts.items())}", highlight=False)


@app.command(epilog="Example: mien faces adience ~/adience --labels exact --out adience.parquet")
def faces(
    source: Annotated[str, typer.Argument(help="adience, celeba, utkface, fairface or csv.")],
    root: Annotated[Path, typer.Argument(help="Folder of the data set; csv: a table, or a folder per class.")],
    labels: Annotated[str | None, typer.Option(help="Label policy of the source; an unknown one lists all.")] = None,
    out: Annotated[Path, typer.Option(help="Faces table to write, .parquet or .csv.")] = Path("faces.parquet"),
    map: Annotated[
        list[str] | None, typer.Option(metavar="THEIRS=OURS", help="csv: rename a column; repeatable.")
    ] = None,
    corrections: Annotated[
        Path | None, typer.Option(help="Corrected labels: a CSV of face, column, old, new, why.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the ledger as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace --out where it exists.")] = False,
) -> None:
    """Read a data set into the faces table, and say what became of every row."""
    from mien.base.console import console, show_ledger
    from mien.base.table import check_ending, write_table
    from mien.data.sources import read_faces

    check_ending(out)
    if out.exists() and not overwrite:
        raise MienError(f"--out {str(out)!r} exists; give another name, or --overwrite")
    table = read_faces(source, root, labels, pairs(map) if map else None, corrections)
    write_table(table, out)
    ledger = table.attrs["ledger"]
    if as_json:
        print(json.dumps(ledger | {"out": str(out)}, indent=2))
    else:
        show_ledger(ledger)
        console.print(f"{len(table)} faces in {out}", highlight=False)


@app.command(epilog="Example: mien eda faces.parquet --root ~/adience --out eda")
def eda(
    faces: Annotated[Path, typer.Argument(help="A faces table.")],
    root: Annotated[Path | None, typer.Option(help="Folder of the images; without it, metadata alone.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the report and its tables.")] = Path("eda"),
) -> None:
    """Look at a data set: labels, sizes, duplicates and leaks, as one HTML report."""
    from mien.base.console import console, progress
    from mien.base.table import read_faces_table
    from mien.reports.eda import explore

    table = read_faces_table(faces)
    with progress("looking at images") as update:
        report = explore(table, root, out, progress=update)
    console.print(f"report: {report}", highlight=False)


@app.command(epilog="Example: mien recipes")
def recipes() -> None:
    """List the recipes that ship, one line each."""
    from mien.recipe.load import recipe_names

    names = recipe_names()
    width = max(map(len, names))
    for name, line in names.items():
        print(f"{name:{width}}  {line}")


@app.command(epilog="Example: mien train utkface-lite0 --set data.root=utkface --out runs/first")
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe (see mien recipes), or a YAML file.")],
    set: Changes = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/<recipe>.")] = None,
) -> None:
    """Train, export and evaluate one model; the same command goes on with an interrupted run."""
    from mien.cli.show import show_metrics

    with _needs_training("training"):
        from mien.training.fit import train as run_recipe
    try:
        run = run_recipe(recipe, set or (), out)
    except KeyboardInterrupt:
        print("mien: interrupted; the same command goes on where it was", file=sys.stderr)
        raise typer.Exit(130) from None
    show_metrics(run)


@app.command(epilog="Example: mien tune my.yaml --space space.yaml --trials 40 --out runs/search")
def tune(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe (see mien recipes), or a YAML file.")],
    space: Annotated[
        Path, typer.Option(help="YAML: dotted key: {low, high, log, step} or {choices: [...]}, and when.")
    ],
    trials: Annotated[int | None, typer.Option(help="In all; default: one round of Hyperband as published.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the search; default: runs/tune-<recipe>.")] = None,
    storage: Annotated[str | None, typer.Option(help="Database URL; default: a file in --out.")] = None,
    sampler: Annotated[str, typer.Option(help="random (Hyperband), or tpe (like BOHB in spirit).")] = "random",
    eta: Annotated[int, typer.Option(help="Of a rung, one trial in so many goes on.")] = 3,
    metric: Annotated[
        str, typer.Option(help="What the validation part is judged by; a wrong one lists all.")
    ] = "val_loss",
    seed: Annotated[int, typer.Option(help="Another seed tries other settings.")] = 0,
    set: Changes = None,
) -> None:
    """Search settings by Hyperband, then train the chosen recipe and score it on the test part, once.

    Hyperband is Optuna's, the asynchronous kind: a trial goes on at once while it is among the best 1/eta of those that
    came as far before it; Hyperband as published waits until a rung is full. The same command goes on with an
    interrupted search, and several processes may run it at the same time.
    """
    from mien.cli.show import show_metrics

    with _needs_training("a search"):
        from mien.training.tune import tune as search
    folder = out if out is not None else Path("runs") / f"tune-{Path(recipe).stem}"
    options: dict[str, Any] = {"trials": trials, "storage": storage, "sampler": sampler}
    try:
        run = search(recipe, space, folder, changes=set or (), eta=eta, metric=metric, seed=seed, **options)
    except KeyboardInterrupt:
        print("mien: interrupted; the same command goes on where it was", file=sys.stderr)
        raise typer.Exit(130) from None
    show_metrics(run)


@app.command(epilog="Example: mien study transfer --set data.root=adience --set init.data.root=celeba --jobs 2")
def study(
    study: Annotated[str, typer.Argument(help="Name of a study (see mien studies), or a YAML file.")],
    set: Changes = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the study; default: studies/<study>.")] = None,
    jobs: Annotated[int, typer.Option(help="How many runs to train at the same time.")] = 1,
    quick: Annotated[bool, typer.Option(help="The variant on drawn faces: minutes, to check machinery.")] = False,
    plan: Annotated[bool, typer.Option(help="List the runs, what is missing and about how long it takes.")] = False,
) -> None:
    """Train and compare what a study asks for; the same command goes on with what is not finished."""
    with _needs_training("training"):
        from mien.training.cells import run_study
        from mien.training.plan import show_plan
    if plan:
        show_plan(study, set or (), out, jobs, quick)
        return
    try:
        results = run_study(study, set or (), out, jobs, quick)
    except KeyboardInterrupt:
        print("mien: interrupted; the same command goes on where it was", file=sys.stderr)
        raise typer.Exit(130) from None
    failed = sum(found.status == "failed" for found in results.cells)
    if failed:
        raise MienError(f"{failed} of {len(results.cells)} runs failed, see above; the same command tries them again")


@app.command(epilog="Example: mien studies")
def studies() -> None:
    """List the studies that ship, one line each."""
    from mien.experiments.study import study_names

    names = study_names()
    width = max(map(len, names))
    for name, line in names.items():
        print(f"{name:{width}}  {line}")


@app.command(epilog="Example: mien evaluate runs/first --faces other.parquet --root ~/other")
def evaluate(
    run: Annotated[str, typer.Argument(help="Folder of a finished run or a published model, or hub:OWNER/NAME.")],
    faces: Annotated[Path | None, typer.Option(help="Other data: a faces table.")] = None,
    root: Annotated[Path | None, typer.Option(help="Other data: the folder of its images.")] = None,
    allow_leaks: Annotated[bool, typer.Option(help="Go on though training faces are among them.")] = False,
) -> None:
    """Score a run on its test part, or on other data after a leak check."""
    from mien.base.table import read_faces_table
    from mien.cli.show import show_metrics
    from mien.evaluation.evaluate import evaluate as score_run
    from mien.evaluation.evaluate import evaluate_on
    from mien.reports.run import run_report
    from mien.runs.run import open_run

    if (faces is None) != (root is None):
        raise MienError("--faces and --root go together: a faces table, and the folder that its paths are relative to")
    opened = open_run(run)
    if faces is None:
        score_run(opened)
        run_report(opened)
        show_metrics(opened)
    else:
        assert root is not None
        show_metrics(opened, evaluate_on(opened, read_faces_table(faces), root, faces.stem, allow_leaks))


@app.command(epilog="Example: mien export runs/first --out model.onnx")
def export(
    run: Annotated[str, typer.Argument(help="Folder of a finished run or a published model, or hub:OWNER/NAME.")],
    out: Annotated[Path, typer.Option(help="File to write; it must be new.")],
    quantize: Annotated[
        bool, typer.Option("--quantize", help="8-bit: a quarter of the size, judged on the validation faces.")
    ] = False,
    root: Annotated[Path | None, typer.Option(help="With --quantize: the faces' folder, if it has moved.")] = None,
    max_loss: Annotated[
        float | None, typer.Option(help="With --quantize: points of accuracy that may be lost; 0.5 unless given.")
    ] = None,
    max_age_loss: Annotated[
        float | None, typer.Option(help="With --quantize: years of age error that may be lost; 0.1 unless given.")
    ] = None,
) -> None:
    """Write a run as one ONNX file, which predicts without torch."""
    from mien.base.atomic import atomic_path
    from mien.base.console import console
    from mien.runs.run import open_run

    if out.suffix != ".onnx":
        raise MienError(f"--out {str(out)!r}: must end in .onnx")
    if out.exists():
        raise MienError(f"--out {str(out)!r} exists; give another name, or remove it")
    limits = {
        name: value for name, value in (("max_loss", max_loss), ("max_age_loss", max_age_loss)) if value is not None
    }
    if not quantize and (root is not None or limits):
        raise MienError("--root, --max-loss and --max-age-loss belong to --quantize, which was not given")
    opened = open_run(run)
    out.parent.mkdir(parents=True, exist_ok=True)
    if quantize:
        with _needs_training("quantising"):
            from mien.training.quantize import quantize as write_quantized
            from mien.training.quantize import show_quantized
        show_quantized(write_quantized(opened, out, root, **limits))
    else:
        with atomic_path(out) as part:
            shutil.copyfile(opened.model_file, part)
    console.print(f"{out}: {out.stat().st_size / 1e6:.1f} MB", highlight=False)


@app.command(epilog="Example: mien report runs/first runs/second --out comparison.html")
def report(
    runs: Annotated[list[str], typer.Argument(help="Folders of finished runs.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
) -> None:
    """Compare runs: a table on the screen, and one HTML report with the figures."""
    from mien.base.console import console, show
    from mien.reports.compare import compare_runs
    from mien.runs.run import open_run

    table = compare_runs([open_run(run) for run in runs], out)
    # A terminal has more room downwards.
    columns = table.set_index("run").T.rename_axis(None, axis=1)
    show(columns.reset_index(names=""))
    for difference in table.attrs["differences"]:
        console.print(difference, highlight=False, soft_wrap=True)
    console.print(f"report: {out}", highlight=False)


@app.command(epilog="Example: mien preview utkface-lite0 --set data.root=utkface --out preview.html")
def preview(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe (see mien recipes), or a YAML file.")],
    set: Changes = None,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("preview.html"),
) -> None:
    """Show what the network is really fed: a batch after each augmentation, its labels and its range of pixels."""
    from mien.base.console import console

    with _needs_training("a preview"):
        from mien.training.preview import preview as draw
    for warning in draw(recipe, out, set or ()):
        console.print(warning, style="yellow", highlight=False, soft_wrap=True)
    console.print(f"preview: {out}", highlight=False)


@app.command(epilog="Example: mien publish runs/first hub:me/first --license cc-by-nc-4.0")
def publish(
    run: Annotated[str, typer.Argument(help="Folder of a finished run, or of a published model.")],
    dest: Annotated[str, typer.Argument(help="A folder, or hub:OWNER/NAME on the Hugging Face Hub.")],
    license: Annotated[str | None, typer.Option(help="Identifier of the licence that you give, as on the Hub.")] = None,
) -> None:
    """Share a run: weights, ONNX file, recipe, metrics and a model card, but no faces and no predictions."""
    from mien.base.console import console

    with _needs_training("publishing"):
        from mien.training.publish import publish as share
    for warning in share(run, dest, license):
        console.print(warning, style="yellow", highlight=False, soft_wrap=True)
    console.print(f"published: {dest} (read README.md, the model card, before you share it)", highlight=False)


@app.command(epilog="Example: mien predict holiday.jpg --draw boxes")
def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Images, clips, folders (recursively), patterns, a CSV or Parquet with a path column, - for a list."
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(help="A .csv, .parquet or .jsonl file; default: the screen. With --engine ray a folder."),
    ] = None,
    crops: Annotated[bool, typer.Option("--crops", help="Each image already is a face: none is looked for.")] = False,
    draw: Annotated[Path | None, typer.Option(help="Folder for the images and clips with boxes and labels.")] = None,
    every: Annotated[float, typer.Option(metavar="SECONDS", help="Between two looks at a clip.")] = 0.5,
    model: Annotated[
        str | None, typer.Option(help="A run, a model file or hub:OWNER/NAME; default: the model that ships.")
    ] = None,
    detector: Annotated[str, typer.Option(help="dlib, centerface, or yunet:FILE.")] = "dlib",
    runtime: Annotated[str, typer.Option(help="onnxruntime or openvino.")] = "onnxruntime",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Default: one a core; of each worker of --engine ray: 1.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
    engine: Annotated[
        str, typer.Option(help="local; or ray: very many images, on this machine or the cluster of RAY_ADDRESS.")
    ] = "local",
    image_column: Annotated[
        str | None,
        typer.Option(help="With --engine ray: a table's column with the bytes of images; default: bytes or image."),
    ] = None,
) -> None:
    """Predict perceived gender and age of each face in photographs and clips; nobody is identified.

    The labels are those that people gave to pictures, not what anyone is. The weights that ship with mien were trained
    on UTKFace and are for non-commercial research only, apart from the licence of the code (see MODEL_CARD.md).

    In clips (extra video) faces are followed: a row each, and in a second table beside --out one for each frame.

    With --out, the same command goes on where an interrupted one was, and the table appears once it is whole.

    Exit status: 0 when every file could be read, 2 when some could not; they are rows with their reason.
    """
    from mien.prediction.photographs import READ, predict_files, summary
    from mien.prediction.predict import Predictor

    if engine not in ("local", "ray"):
        raise MienError(choices("--engine", engine, ("local", "ray")))
    try:
        if engine == "ray":
            if out is None or draw is not None:
                raise MienError("--engine ray needs --out, a folder, and knows no --draw")
            from mien.prediction.cluster import predict_cluster

            about: dict[str, Any] = {"model": model, "detector": detector, "runtime": runtime, "threads": threads or 1}
            statuses = predict_cluster(paths, out, crops=crops, column=image_column, overwrite=overwrite, **about)
            print(f"{summary(statuses)}\ntable: {out}")
        else:
            if image_column is not None:
                raise MienError("--image-column belongs to --engine ray, which was not given")
            predictor = Predictor(model, threads, detector, runtime)
            file = None if out is None else Path(out)
            statuses = predict_files(predictor, paths, file, crops, draw, overwrite, every)
    except KeyboardInterrupt:
        print(f"mien: interrupted{'; the same command goes on where it was' if out else ''}", file=sys.stderr)
        raise typer.Exit(130) from None
    if any(status not in READ for status in statuses):
        raise typer.Exit(2)


@app.command(epilog="Example: mien explain holiday.jpg --out explained")
def explain(
    paths: Annotated[list[str] | None, typer.Argument(help="Images, folders, patterns, tables; as in predict.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for explain.html, explanations.csv and maps.npz.")] = Path(
        "explained"
    ),
    crops: Annotated[bool, typer.Option("--crops", help="Each image already is a face: none is looked for.")] = False,
    model: Annotated[
        str | None,
        typer.Option("--model", "--run", help="A run, a model file or hub:OWNER/NAME; default: the model that ships."),
    ] = None,
    method: Annotated[
        str, typer.Option(help="occlusion; or gradcam, which needs torch, and a run or a published model.")
    ] = "occlusion",
    faces: Annotated[Path | None, typer.Option(help="In place of images: a faces table, for mean maps.")] = None,
    root: Annotated[Path | None, typer.Option(help="The folder that its paths are relative to.")] = None,
    by: Annotated[str, typer.Option(help="Its columns that make groups.")] = "gender,age_group",
    limit: Annotated[int, typer.Option(min=1, help="Faces of a group, at most.")] = 50,
) -> None:
    """Show which regions of a face speak for its perceived gender and age, and check that the maps beat chance."""
    from mien.base.console import console, show
    from mien.base.table import read_faces_table
    from mien.prediction.predict import Predictor
    from mien.reports.explanations import explain_files, explain_groups
    from mien.runs.run import open_run

    if (faces is None) != (root is None) or bool(paths) == (faces is not None):
        raise MienError("give images, or --faces with --root: a faces table, and the folder of its paths")
    if method not in ("occlusion", "gradcam"):
        raise MienError(choices("--method", method, ("occlusion", "gradcam")))
    maps_of = None
    if method == "gradcam":
        if model is None:
            raise MienError("--method gradcam needs --run: a run, or a published model, with its weights")
        with _needs_training("--method gradcam"):
            from mien.training.gradcam import GradCam
        maps_of = GradCam(open_run(model))
    if faces is not None and root is not None:
        groups = [column.strip() for column in by.split(",") if column.strip()]
        table = explain_groups(Predictor(model), read_faces_table(faces), root, groups, out, limit, maps_of)
    else:
        table = explain_files(Predictor(model), paths or [], out, crops, maps_of)
    show(table.head(20).astype("object").where(table.head(20).notna(), ""), "explanations")
    console.print(f"report: {out / 'explain.html'}", highlight=False)


@app.command(epilog="Example: mien serve --port 8000")
def serve(
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    model: Annotated[
        str | None, typer.Option(help="A run, a model file or hub:OWNER/NAME; default: the model that ships.")
    ] = None,
    detector: Annotated[str, typer.Option(help="dlib, centerface, or yunet:FILE.")] = "dlib",
    threads: Annotated[int | None, typer.Option(min=1, help="Default: one a core.")] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="MIEN_API_KEY", help="Requests must bring it; better given as MIEN_API_KEY.")
    ] = None,
    max_bytes: Annotated[int, typer.Option(help="Of a request.")] = 32_000_000,
    max_pixels: Annotated[int, typer.Option(help="Of an image.")] = 40_000_000,
    max_images: Annotated[int, typer.Option(help="Of a request.")] = 64,
    max_faces: Annotated[int, typer.Option(help="Of an image.")] = 100,
    max_seconds: Annotated[float, typer.Option(help="For a request.")] = 60.0,
    max_waiting: Annotated[int, typer.Option(help="Bytes of all requests held at once.")] = 512_000_000,
) -> None:
    """Serve one page and one API over the predictor; photographs stay in memory and are forgotten."""
    from mien.prediction.predict import Predictor
    from mien.service import run
    from mien.service.limits import Limits

    limits = Limits(max_bytes, max_pixels, max_images, max_faces, max_seconds, max_waiting)
    run(Predictor(model, threads, detector), host, port, limits, api_key)


@contextmanager
def _needs_training(what: str) -> Iterator[None]:
    """Names the extra that is not installed where an import fails inside."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("mien"):
            raise
        raise MissingExtra(what, "train") from error


def _version(value: bool) -> None:
    if value:
        from mien import __version__

        print(f"mien {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> Any:
    """Runs a verb; a mistake of the user's ends in one message and status 1."""
    # What a decoder mutters about a broken image is no news: the image's status says it.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return app(args=arguments)
    except MienError as error:
        words = str(error)
    except OSError as error:  # what no part of mien knows better: no permission, no space, a name that is too long
        place = f": {str(error.filename)!r}" if error.filename else ""
        words = f"{error.strerror}{place}" if error.strerror else str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            words = f"a disk is full{place}; free some space and give the same command again"
    print("mien:", printable(words, keep="\n"), file=sys.stderr)
    raise SystemExit(1)
