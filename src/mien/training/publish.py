"""Publishing: everything needed to use, evaluate and repeat a run, without names of files and persons.

A published model is a folder, or a repository of the Hugging Face Hub, of the files `hub.FILES`: weights, network,
recipe, metrics, facts of the run, and a model card. It is read wherever a run is.
"""

import json
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2
import onnx
import pandas as pd
import yaml

from mien.base.atomic import naming_full_disk
from mien.base.errors import DiskFull, MienError
from mien.base.lock import Lock
from mien.base.table import SPLITS
from mien.base.version import __version__
from mien.data.counts import label_counts
from mien.data.duplicates import RECALL
from mien.data.roots import data_root
from mien.data.sources import SOURCES
from mien.demo.dataset import MARKER
from mien.metrics.wording import groups_table, metrics_table, scores, sets_table
from mien.recipe.settings import Recipe, root_keys, without_paths
from mien.reports.run_results import protocol, protocol_sentence
from mien.runs.hub import FILES, PREFIX, Repository, repository, unreachable
from mien.runs.run import Run, open_run
from mien.training.onnx_metadata import describe, description

FACTS = (
    "status",
    "versions",
    "faces",
    "parameters",
    "parameters_frozen",
    "input",
    "device",
    "epochs",
    "images_trained",
    "seconds_training",
)
"""Entries of run.json that are published unchanged; leaks, ledger and lineage are published without examples."""

DRAWN = "Drawn faces, which show nobody: free to use. Scores on them test the software and do not apply to people."

_CALIBRATION = ("gender_ece", "age_group_ece", "age_interval_coverage")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_OWN = "the publisher's own data"
_threads = threading.Lock()  # threads of one process share a lock file
_EXAMPLE = re.compile(r"(, for instance |; looked for ).*")


def publish(run: str | Path | Run, destination: str, license: str | None = None) -> list[str]:
    """Writes a run, without its faces and predictions, to a folder or to the Hub.

    A published model may be published again, from a folder to the Hub: its files go there as they are.

    Args:
        run: A finished run, or a published model.
        destination: A folder, new or with an earlier publication, which is replaced; or `hub:OWNER/NAME`.
        license: What the publisher allows, as an identifier of the Hub, for instance "cc-by-nc-4.0"; the terms of the
            data are stated whatever it is.

    Returns:
        Warnings and notices for whoever shares the model: leaks, and the terms of the data.

    Raises:
        MienError: The run is not finished or not evaluated, the destination holds other files, is not a valid name on
            the Hub or cannot be reached, or the license is not an identifier.
    """
    source, repo = open_run(run), repository(destination)
    if license is not None and source.published:
        raise MienError(f"--license {license!r}: the card of the published model {source.name!r} is written already")
    if license is not None and not _LICENSE.fullmatch(license):
        raise MienError(
            f"--license {license!r} is not a license identifier; valid: as on the Hub, for example cc-by-nc-4.0 or mit"
        )
    if repo is not None and repo.revision:
        raise MienError(f"{destination!r}: a revision is for reading; publish to {PREFIX}{repo.name}")
    folder = Path(destination).expanduser()
    with _workplace(folder) if repo is None else tempfile.TemporaryDirectory(prefix="mien-") as place:
        made = Path(place) / "new"
        made.mkdir()
        try:
            if source.published:
                _copy(source, made)
            else:
                _write(source, made, destination if repo is not None else folder.name, license)
        except DiskFull as error:
            raise DiskFull((folder if repo is None else made) / error.path.name) from error
        if repo is not None:
            _upload(made, repo, f"{source.name}, published by mien {__version__}")
        else:
            if folder.exists():
                folder.rename(Path(place) / "old")
            made.rename(folder)
    if source.published:
        return []
    return [*_warnings(public_facts(source)), *notices(source).values()]


@contextmanager
def _workplace(folder: Path) -> Iterator[str]:
    """Yields a temporary folder beside the destination; its fixed name lets the next call remove leftovers."""
    _check_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = folder.with_name(f".{folder.name[:40]}.part")
    # Beside the temporary folder and not in it: whoever waits must find the same file.
    with _threads, Lock(folder.with_name(f".{folder.name[:40]}.lock"), temporary=True):
        place.mkdir(exist_ok=True)
        # Killed between the two steps of replacing an earlier publication.
        if (place / "old").is_dir() and not folder.exists():
            (place / "old").rename(folder)
        for left in ("new", "old"):
            shutil.rmtree(place / left, ignore_errors=True)
        _check_folder(folder)
        try:
            yield str(place)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _check_folder(folder: Path) -> None:
    """Raises unless the folder is new, empty or an earlier publication."""
    if folder.exists() and not folder.is_dir():
        raise MienError(f"destination {str(folder)!r} is a file; valid: a folder, or {PREFIX}OWNER/NAME")
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    others = sorted(names - set(FILES))
    if others or (names and not Run(folder).published):
        raise MienError(
            f"destination {str(folder)!r} holds other files, for instance {(others or sorted(names))[0]!r}; valid: a "
            f"new folder, one with an earlier publication, or {PREFIX}OWNER/NAME"
        )


def _copy(source: Run, folder: Path) -> None:
    missing = [name for name in FILES if not (source.folder / name).is_file()]
    if missing:
        raise MienError(f"{str(source.folder)!r} is an incomplete published model: {missing[0]!r} is missing")
    for name in FILES:
        with naming_full_disk(folder / name):
            shutil.copyfile(source.folder / name, folder / name)


def _write(run: Run, folder: Path, shown: str, license: str | None) -> None:
    """Writes all files of a publication; `shown` is the name used in the example of the card."""
    for file in (run.weights_file, run.model_file, run.metrics_file):
        if not file.is_file():
            raise MienError(f"run {str(run.folder)!r} holds no {file.name}; `mien train` and `mien evaluate` write it")
    recipe, facts = without_paths(run.recipe), public_facts(run)
    with naming_full_disk(folder / "model.safetensors"):
        shutil.copyfile(run.weights_file, folder / "model.safetensors")
    with naming_full_disk(folder / "metrics.csv"):
        shutil.copyfile(run.metrics_file, folder / "metrics.csv")
    _write_text(folder / "recipe.yaml", recipe.to_yaml())
    facts |= {"published": {"name": run.name, "license": license, "by": f"mien {__version__}"}}
    _write_text(folder / "run.json", json.dumps(facts, indent=2) + "\n")
    model = onnx.load(run.model_file)
    lineage = {"dataset": recipe.data.title, "labels": recipe.data.labels, "faces": facts.get("faces")}
    lineage |= {"init": facts["lineage"], "leaks": facts["leaks"]}
    public = {"recipe": recipe.model_dump(mode="json"), "lineage": lineage}
    describe(model, description(model) | public)
    with naming_full_disk(folder / "model.onnx"):
        onnx.save(model, folder / "model.onnx")
    _write_text(folder / "README.md", model_card(run, shown, license))


def _write_text(file: Path, text: str) -> None:
    with naming_full_disk(file):
        file.write_text(text, "utf-8")


def public_facts(run: Run) -> dict[str, Any]:
    """Returns run.json without examples: they are names of files, which may name people."""
    info = run.info
    ledger = info.get("ledger")
    if ledger:
        entries = [entry | {"reason": _general(entry["reason"]), "example": ""} for entry in ledger["entries"]]
        ledger = ledger | {"entries": entries}
    leaks = [_general(leak) for leak in info.get("leaks") or ()]
    lineage = _public_lineage(info.get("lineage") or {"weights": without_paths(run.recipe).init.weights})
    return {key: info[key] for key in FACTS if key in info} | {"leaks": leaks, "ledger": ledger, "lineage": lineage}


def _public_lineage(lineage: dict[str, Any]) -> dict[str, Any]:
    public = dict(lineage)
    if public.get("leaks"):
        public["leaks"] = [_general(leak) for leak in public["leaks"]]
    if public.get("from"):
        public["from"] = _public_lineage(public["from"])
    return public


def _general(words: str) -> str:
    """Returns a sentence of a ledger or a leak without its example."""
    return _EXAMPLE.sub("", words)


def notices(run: Run) -> dict[str, str]:
    """Returns the terms of each data set in the lineage of the weights, by name, that of the run first."""
    recipe, step = run.recipe, public_facts(run)["lineage"]
    found: dict[str, str] = {}
    for one in recipe.data.each().values():
        # One data set can be a table of one's own that names others.
        names = [one.source] if recipe.data.sets else list(run.faces["dataset"].unique())
        found |= _notices(names, one.root)
    for one in recipe.init.data.each().values() if recipe.init.data is not None else ():
        found |= _notices([one.source], one.root)
    if recipe.init.data is not None:
        step = step.get("from")
    while step:
        found |= _notices(step["dataset"].split("+") if "dataset" in step else [], None)
        step = step.get("from")
    return found


def _notices(names: list[str], root: str | None) -> dict[str, str]:
    if root is not None and (data_root(root) / MARKER).is_file():
        return {f"{name} (drawn)": DRAWN for name in names}
    # Of a table of one's own the column `dataset` may name a file.
    known = [name if name in SOURCES else "csv" for name in names]
    return {_OWN if name == "csv" else name: SOURCES[name].NOTICE for name in known}


def model_card(run: Run, shown: str, license: str | None) -> str:
    """The model card of an evaluated run, in Markdown with the Hub's metadata on top.

    Args:
        run: A finished run.
        shown: The folder or name on the Hub to be given in the example of use.
        license: As in `publish`.
    """
    facts, recipe = public_facts(run), without_paths(run.recipe)
    table = run.metrics
    rows = scores(table[table["split"] == "test"])
    everyone = [row for row in rows if row.group == "all"]
    terms = notices(run)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mien.reports"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"table": _table, "plain": _plain}
    return environment.get_template("card.md").render(
        front=_front_matter(recipe, license),
        name=run.name,
        shown=shown,
        license=license,
        recipe=recipe,
        facts=facts,
        tasks=recipe.tasks.predicted(),
        data=", then ".join(reversed(terms)),
        test_data=next(iter(terms)),
        warnings=_warnings(facts),
        terms=pd.DataFrame({"data set": list(terms), "terms": list(terms.values())}),
        lineage=_steps(facts["lineage"]),
        parts=_parts(run),
        ledger=facts["ledger"],
        ledger_words=_ledger_words(run.recipe, facts["ledger"]),
        entries=pd.DataFrame((facts["ledger"] or {}).get("entries", [])).reindex(columns=["kind", "rows", "reason"]),
        protocol=protocol(run),
        protocol_sentence=protocol_sentence(run),
        recall=RECALL,
        result=metrics_table([row for row in everyone if row.metric not in _CALIBRATION]),
        groups=groups_table([row for row in rows if row.group != "all" and not row.group.startswith("dataset=")]),
        sets=sets_table(rows),
        roots=root_keys(recipe),
        calibration=metrics_table([row for row in everyone if row.metric in _CALIBRATION]).iloc[:, :4],
        cost=_cost(facts),
        made_with={name: version for name, version in facts.get("versions", {}).items() if name != "platform"},
    )


def _front_matter(recipe: Recipe, license: str | None) -> str:
    """The metadata that the Hub reads."""
    own = {"license": license} if license else {"license": "other", "license_name": "not-stated"}
    tasks = recipe.tasks.predicted()
    tags = ["mien", "onnx", "timm", "faces", *(f"perceived-{task.replace('_', '-')}" for task in tasks)]
    metrics = ["accuracy"] * (not {"gender", "age_group"}.isdisjoint(tasks)) + ["mae"] * ("age" in tasks)
    tree = own | {"library_name": "mien", "pipeline_tag": "image-classification", "tags": tags, "metrics": metrics}
    return yaml.safe_dump(tree, sort_keys=False)


def _warnings(facts: dict[str, Any]) -> list[str]:
    flatters = "; it flatters the scores below."
    found = [f"Leak, allowed by the recipe: {leak}{flatters}" for leak in facts["leaks"]]
    step = facts["lineage"]
    while step:
        if "run" in step and step.get("leaks") is None:
            found.append(f"Whether training faces of {step['run']!r} are in the test part could not be checked.")
        found += [
            f"Leak from {step['run']!r}, allowed by the recipe: {leak}{flatters}" for leak in step.get("leaks") or ()
        ]
        step = step.get("from")
    return found


def _steps(lineage: dict[str, Any]) -> list[str]:
    """The lineage in sentences, the last step first."""
    if "run" not in lineage:
        weights = lineage["weights"]
        words = {
            "none": "random weights",
            "imagenet": "pretrained on ImageNet, from timm",
            "package": "pretrained on ImageNet, from the package registry",
        }
        return [words.get(weights, f"weights of {weights!r}, with unknown lineage")]
    count = (lineage.get("faces") or {}).get("train")
    faces = "faces" if count is None else f"{count:,} faces"
    labels = f" (label policy {lineage['labels']})" if lineage.get("labels") else ""
    learnt = ", ".join(lineage.get("tasks") or ())
    step = f"run {lineage['run']!r}: {learnt} of {faces} of {lineage['dataset']}{labels}"
    return [step, *(_steps(lineage["from"]) if lineage.get("from") else [])]


def _ledger_words(recipe: Recipe, ledger: dict[str, Any] | None) -> str:
    """Which faces were taken, and how many."""
    if recipe.data.faces is not None or ledger is None:
        return "The faces are those of a table of the publisher's own."
    sources = []
    for one in recipe.data.each().values():
        policy = one.labels or next(iter(SOURCES[one.source].LABELS))
        sources.append(f"{one.source}, label policy {policy!r} ({SOURCES[one.source].LABELS[policy]})")
    counts = f"{ledger['read']:,} rows read, {ledger['kept']:,} kept"
    return f"Source {'; '.join(sources)}: {counts}."


def _parts(run: Run) -> pd.DataFrame:
    counts = label_counts(run.faces, "split")
    return counts.loc[[part for part in SPLITS if part in counts.index]].reset_index(names="part")


def _cost(facts: dict[str, Any]) -> pd.DataFrame:
    names = {
        "parameters": "parameters",
        "parameters_frozen": "frozen parameters",
        "epochs": "epochs",
        "images_trained": "images trained on",
        "seconds_training": "seconds of training",
        "device": "device",
    }
    known = {name: facts[key] for key, name in names.items() if facts.get(key) is not None}
    values = [f"{value:,.0f}" if isinstance(value, int | float) else value for value in known.values()]
    return pd.DataFrame({"cost": list(known), "": values})


def _table(rows: pd.DataFrame) -> str:
    """A Markdown table of text."""
    lines = [list(rows.columns), ["---"] * len(rows.columns), *rows.itertuples(index=False, name=None)]
    return "\n".join(f"| {' | '.join(_plain(cell).replace('|', '&#124;') for cell in line)} |" for line in lines)


def _plain(value: Any) -> str:
    """Returns text in which markup is escaped."""
    text = " ".join(str(value).split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("](", "]&#40;").replace("`", "&#96;")


def _upload(folder: Path, repo: Repository, message: str) -> None:
    from huggingface_hub import HfApi

    api, name = HfApi(), f"{PREFIX}{repo.name}"
    try:
        api.create_repo(repo.name, exist_ok=True)
        others = sorted(set(api.list_repo_files(repo.name)) - {*FILES, ".gitattributes"})
        if not others:
            api.upload_folder(repo_id=repo.name, folder_path=folder, commit_message=message)
    except Exception as error:  # the client's own classes, and those of what it asks the network with
        advice = "valid without network: a folder, to be published again later"
        raise unreachable(name, error, advice) from error
    if others:
        raise MienError(
            f"{name!r} holds other files, for instance {others[0]!r}; valid: a new name, or that of an earlier "
            "publication"
        )
