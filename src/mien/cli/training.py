"""`mien recipes`, `train`, `tune`, `studies`, `study`, `preview`, `evaluate`, `report`, `export`, `publish`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from mien.base.errors import MienError
from mien.cli.options import Changes, Recipe, Run, interruptible

app = typer.Typer()


@app.command(epilog="Example: mien recipes")
def recipes() -> None:
    """List the recipes that ship with mien, one per line."""
    from mien.api.training import recipes

    _list(recipes())


@app.command(epilog="Example: mien train utkface-lite0 --set data.root=utkface --out runs/first")
def train(
    recipe: Recipe,
    set: Changes = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/<recipe>.")] = None,
) -> None:
    """Train, export and evaluate one model. Rerun the same command to resume an interrupted run."""
    from mien.api.training import train
    from mien.cli.show import show_metrics

    with interruptible():
        run = train(recipe, set, out)
    show_metrics(run)


@app.command(epilog="Example: mien tune my.yaml --space space.yaml --trials 40 --out runs/search")
def tune(
    recipe: Recipe,
    space: Annotated[
        Path,
        typer.Option(help="YAML file: dotted key -> {low, high, log, step} or {choices: [...]}, and when."),
    ],
    trials: Annotated[
        int | None, typer.Option(help="Number of trials in all; default: one round of Hyperband as published.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the search; default: runs/tune-<recipe>.")] = None,
    storage: Annotated[str | None, typer.Option(help="Database URL; default: a file in --out.")] = None,
    sampler: Annotated[str, typer.Option(help="random (Hyperband) or tpe (similar to BOHB).")] = "random",
    eta: Annotated[int, typer.Option(help="Reduction factor.")] = 3,
    metric: Annotated[
        str, typer.Option(help="Validation metric to optimize; an unknown name lists all of them.")
    ] = "val_loss",
    seed: Annotated[int, typer.Option(help="Seed of the sampler.")] = 0,
    set: Changes = None,
) -> None:
    """Search settings with Hyperband, then train the best recipe and score it on the test part, once.

    This is Optuna's asynchronous Hyperband: a trial continues at once if it is among the best 1/eta of the trials that
    reached the same rung before it, whereas Hyperband as published waits until a rung is full. Rerun the same command
    to resume an interrupted search; several processes may run it at the same time.
    """
    from mien.api.training import tune
    from mien.cli.show import show_metrics

    with interruptible():
        run = tune(
            recipe,
            space,
            trials=trials,
            out=out,
            storage=storage,
            sampler=sampler,
            eta=eta,
            metric=metric,
            seed=seed,
            set=set,
        )
    show_metrics(run)


@app.command(epilog="Example: mien studies")
def studies() -> None:
    """List the studies that ship with mien, one per line."""
    from mien.api.training import studies

    _list(studies())


@app.command(epilog="Example: mien study transfer --set data.root=adience --set init.data.root=celeba --jobs 2")
def study(
    study: Annotated[str, typer.Argument(help="Name of a study (see mien studies), or a YAML file.")],
    set: Changes = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the study; default: studies/<study>.")] = None,
    jobs: Annotated[int, typer.Option(help="Number of runs to train at the same time.")] = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="Use the variant on drawn faces: minutes, to check that everything works.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="List the runs, what is missing, and how long training takes.")
    ] = False,
) -> None:
    """Train and compare the runs of a study. Rerun the same command to train what is not finished."""
    from mien.api.training import plan_study
    from mien.api.training import study as run_study

    if plan:
        from mien.cli.show import show_plan

        show_plan(plan_study(study, set, out, jobs, quick))
        return
    with interruptible():
        results = run_study(study, set, out, jobs, quick)
    failed = sum(cell.status == "failed" for cell in results.cells)
    if failed:
        raise MienError(
            f"{failed} of {len(results.cells)} runs failed, see above; rerun the same command to retry them"
        )


@app.command(epilog="Example: mien preview utkface-lite0 --set data.root=utkface --out preview.html")
def preview(
    recipe: Recipe,
    set: Changes = None,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("preview.html"),
) -> None:
    """Show a batch as the network sees it: each augmentation step, the labels and the range of pixel values."""
    from mien.api.training import preview
    from mien.base.console import console

    for warning in preview(recipe, set, out):
        console.print(warning, style="yellow", highlight=False, soft_wrap=True)
    console.print(f"preview: {out}", highlight=False)


@app.command(epilog="Example: mien evaluate runs/first --faces other.parquet --root ~/other")
def evaluate(
    run: Run,
    faces: Annotated[Path | None, typer.Option(help="Other data: a faces table.")] = None,
    root: Annotated[Path | None, typer.Option(help="Other data: folder of its images, or a run.")] = None,
    allow_leaks: Annotated[
        bool, typer.Option("--allow-leaks", help="Continue although training faces are among the other data.")
    ] = False,
) -> None:
    """Score a run on its test part, or on other data after a leak check."""
    from mien.api.training import evaluate
    from mien.cli.show import show_metrics
    from mien.runs.run import open_run

    table = evaluate(run, faces, root, allow_leaks=allow_leaks)
    show_metrics(open_run(run), None if faces is None else table)


@app.command(epilog="Example: mien report runs/first runs/second --out comparison.html")
def report(
    runs: Annotated[list[str], typer.Argument(help="Folders of finished runs.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
) -> None:
    """Compare runs: a table on the screen, and one HTML report with the figures."""
    from mien.api.training import report
    from mien.base.console import console, show

    table = report(runs, out)
    # A terminal is taller than it is wide: one column per run.
    columns = table.set_index("run").T.rename_axis(None, axis=1)
    show(columns.reset_index(names=""))
    for difference in table.attrs["differences"]:
        console.print(difference, highlight=False, soft_wrap=True)
    console.print(f"report: {out}", highlight=False)


@app.command(epilog="Example: mien export runs/first --out model.onnx")
def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="File to write; it must not exist.")],
    quantize: Annotated[
        bool, typer.Option("--quantize", help="Convert to 8 bits, checked on the validation faces.")
    ] = False,
    root: Annotated[Path | None, typer.Option(help="With --quantize: folder of the faces, if it has moved.")] = None,
    max_loss: Annotated[
        float | None, typer.Option(help="With --quantize: accuracy that may be lost, in points; default: 0.5.")
    ] = None,
    max_age_loss: Annotated[
        float | None, typer.Option(help="With --quantize: increase of the age error, in years; default: 0.1.")
    ] = None,
) -> None:
    """Write a run as one ONNX file, which predicts without torch."""
    from mien.api.training import export
    from mien.base.console import console

    export(run, out, quantize=quantize, root=root, max_loss=max_loss, max_age_loss=max_age_loss)
    console.print(f"{out}: {out.stat().st_size / 1e6:.1f} MB", highlight=False)


@app.command(epilog="Example: mien publish runs/first hub:me/first --license cc-by-nc-4.0")
def publish(
    run: Annotated[str, typer.Argument(help="Folder of a finished run, or of a published model.")],
    dest: Annotated[str, typer.Argument(help="A folder, or hub:OWNER/NAME on the Hugging Face Hub.")],
    license: Annotated[str | None, typer.Option(help="Identifier of the licence that you give, as on the Hub.")] = None,
) -> None:
    """Share a run: weights, ONNX file, recipe, metrics and a model card, but neither faces nor predictions."""
    from mien.api.training import publish
    from mien.base.console import console

    for warning in publish(run, dest, license):
        console.print(warning, style="yellow", highlight=False, soft_wrap=True)
    console.print(f"published: {dest} (read README.md, the model card, before you share it)", highlight=False)


def _list(names: Mapping[str, str]) -> None:
    width = max(map(len, names))
    for name, line in names.items():
        print(f"{name:{width}}  {line}")
