"""Runs the cells of a study in worker processes; a worker that is killed does not affect other cells."""

import os
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mien.base.atomic import atomic_path
from mien.base.console import progress, show
from mien.base.errors import MienError, choices
from mien.base.lock import Lock
from mien.base.messages import note
from mien.demo.dataset import draw_faces
from mien.experiments.progress import StudyProgress
from mien.experiments.results import Results
from mien.experiments.study import (
    Cell,
    Study,
    StudyError,
    StudyFolder,
    check_folder,
    check_roots,
    drawn_sets,
    load_study,
    make_cells,
    settings,
)
from mien.experiments.workers import SendUpdate, Workers
from mien.recipe.settings import Recipe, first_stage
from mien.reports.study import shown_tables, write_results
from mien.runs.run import Run

# torch is imported inside `work` only: the workers must set its number of threads first.

_SUBJECTS = 120
"""Subjects of each drawn data set of a demonstration: about 800 faces."""


@dataclass(frozen=True)
class TrainingJob:
    """One run to train: a cell, or a first stage shared by cells (`folder` is None).

    `needs` is the name of the job of the first stage that must finish before.
    """

    name: str
    recipe: Recipe
    folder: Path | None
    stages: Path
    log_file: Path
    needs: str | None = None


def run_study(
    study: str | Path | Study | Mapping[str, Any],
    changes: Iterable[str] = (),
    out: str | Path | None = None,
    jobs: int = 1,
    quick: bool = False,
) -> Results:
    """Runs the unfinished cells of a study, and writes its table and report.

    Interrupted cells are resumed, failed cells are tried again, and finished cells are not repeated.

    Args:
        study: The name of one that ships, a YAML file, a mapping or a study.
        changes: Like "data.root=FOLDER", for every cell.
        out: The study's folder; None: `studies/<name>`.
        jobs: How many cells to run at the same time.
        quick: Run the variant of the study on drawn faces, a quick check of the software.

    Returns:
        The results, as in the files of the study's folder (`StudyFolder`).

    Raises:
        MienError: The study or a recipe is not valid, data are missing, or `out` holds another study; nothing has been
            trained then. A failed cell is not an error: it is recorded, and the other cells continue.
    """
    if jobs < 1:
        raise StudyError(f"jobs {jobs!r}: valid: 1 or more")
    asked = load_study(study, quick)
    folder = StudyFolder(Path(out) if out is not None else Path("studies") / asked.name)
    cells = make_cells(asked, changes, folder.faces.resolve() if asked.demonstration else None)
    check_folder(folder, cells)
    left = [cell for cell in cells if not folder.run(cell).finished]
    if not asked.demonstration:
        check_roots(left)
    (folder.folder / "cells").mkdir(parents=True, exist_ok=True)
    with _alone(folder.folder):
        try:
            if left:
                if asked.demonstration:
                    _draw(folder.faces, drawn_sets(cells))
                _run(folder, cells, left, jobs)
        finally:
            results = write_results(asked, folder, cells)
            _show(asked, folder, results)
    return results


def _show(study: Study, folder: StudyFolder, results: Results) -> None:
    for title, table in shown_tables(study, results).items():
        show(table, title=f"{study.name}, {title} [95% interval over faces]")
    for sentence in [*results.comparisons["in words"], *(f"warning: {sentence}" for sentence in results.warnings)]:
        note(sentence)
    for found in results.cells:
        if found.status == "failed":
            note(f"failed: {found.cell.slug}: {found.reason}")
    note(f"report: {folder.folder / 'report.html'}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Prevents a second process from running the same study."""
    lock = Lock(folder / ".lock")
    if not lock.take():
        raise StudyError(f"study folder {str(folder)!r} is in use: another process runs this study")
    with lock:
        yield


def _draw(faces: Path, sets: dict[str, tuple[str, int]]) -> None:
    """Draws the missing data sets of a demonstration: folder -> layout and seed."""
    for name, (layout, seed) in sorted(sets.items()):
        if layout not in ("adience", "celeba"):
            raise StudyError(f"a demonstration draws its faces; {choices('layout', layout, ('adience', 'celeba'))}")
        if not (faces / name).exists():
            part = faces / f"{name}.part"
            with progress(f"drawing {name}") as update:
                draw_faces(part, layout, seed, _SUBJECTS, update)
            part.rename(faces / name)


def _run(folder: StudyFolder, cells: list[Cell], left: list[Cell], jobs: int) -> None:
    """Runs the remaining cells, `jobs` at a time."""
    waiting = make_jobs(folder, left)
    failed: dict[str, str] = {}
    unfinished = {job.name for job in waiting}
    workers = Workers(jobs, work, {"OMP_NUM_THREADS": str(threads_for(jobs))})
    by_slug = {cell.slug: cell for cell in left}
    done = len(cells) - len(left)
    with StudyProgress(waiting, len(cells), done, jobs) as shown:
        try:
            while waiting or workers.busy:
                for job in [job for job in waiting if job.needs in failed]:
                    waiting.remove(job)
                    _fail(folder, by_slug[job.name], f"its first stage failed: {failed[str(job.needs)]}", shown)
                for job in _ready(waiting, unfinished, workers.free):
                    waiting.remove(job)
                    shown.job_started(job.name)
                    workers.start(job.name, job)
                for event in workers.wait() if workers.busy else ():
                    if event.kind == "update":
                        shown.epoch_ended(event.job, event.value)
                        continue
                    unfinished.discard(event.job)
                    if event.value is None:
                        shown.finished(event.job)
                    elif event.job in by_slug:
                        _fail(folder, by_slug[event.job], event.value, shown)
                    else:
                        failed[event.job] = event.value
                        shown.failed(event.job, event.value)
        finally:
            workers.close()


def threads_for(jobs: int) -> int:
    """Returns the CPU threads per job; the environment variable OMP_NUM_THREADS takes precedence."""
    return max(1, (os.cpu_count() or 1) // jobs)


def _ready(waiting: list[TrainingJob], unfinished: set[str], free: int) -> list[TrainingJob]:
    return [job for job in waiting if job.needs not in unfinished][:free]


def _fail(folder: StudyFolder, cell: Cell, reason: str, shown: StudyProgress) -> None:
    with atomic_path(folder.failure_file(cell)) as part:
        part.write_text(reason + "\n", "utf-8")
    shown.failed(cell.slug, reason)


def make_jobs(folder: StudyFolder, cells: list[Cell]) -> list[TrainingJob]:
    """Returns the runs to train in order: the cells, and each first stage once, before the first cell that needs it."""
    jobs: list[TrainingJob] = []
    stages: dict[str, str] = {}
    for cell in cells:
        stage = first_stage(cell.recipe)
        needs = None
        if stage is not None:
            key = repr(sorted(settings(stage).items(), key=str))
            if key not in stages:
                stages[key] = f"first-stage-{len(stages) + 1}_{stage.data.title}"
                log_file = folder.folder / "cells" / f"{stages[key]}.log"
                jobs.append(TrainingJob(stages[key], stage, None, folder.stages, log_file))
            needs = stages[key]
        run = folder.run(cell)
        jobs.append(TrainingJob(cell.slug, cell.recipe, run.folder, folder.stages, folder.log_file(cell), needs))
    return jobs


def work(job: TrainingJob, send: SendUpdate) -> str | None:
    """Trains one run in a worker; returns the reason of a failure, or None. Output goes to the job's log file."""
    _print_to(job.log_file)
    begin = time.strftime("%Y-%m-%d %H:%M:%S")
    note(f"--- {job.name}, {begin}")
    reason_file = job.log_file.with_suffix(".failed")
    reason_file.unlink(missing_ok=True)
    try:
        from mien.training.fit import stage_folder, train

        folder = stage_folder(job.recipe, job.stages) if job.folder is None else job.folder
        if not Run(folder).finished:
            train(job.recipe, out=folder, stages=job.stages, on_epoch=send)
    except MienError as error:
        note(f"failed: {error}")
        return str(error)
    except (Exception, SystemExit) as error:  # any failure of one cell must not affect the others
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return None


def _print_to(file: Path) -> None:
    """Appends all output of this process, including libraries and subprocesses, to a file."""
    with file.open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
