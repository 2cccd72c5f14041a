"""Locates models: folders of runs and published models, and repositories on the Hugging Face Hub."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from mien.base.errors import MienError, MissingExtra

PREFIX = "hub:"
"""Prefix of names on the Hub; OWNER/NAME alone is a folder."""

FILES = ("README.md", "metrics.csv", "model.onnx", "model.safetensors", "recipe.yaml", "run.json")
"""The files of a published model; nothing else is ever downloaded."""

PICKLES = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
"""Suffixes of files that can execute code when they are loaded; mien never loads them."""

_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")

_FILE = re.compile(r"[\w./ -]+")


class Repository(NamedTuple):
    """A repository on the Hub, and a branch, tag or commit (None: the default branch)."""

    name: str
    revision: str | None


def repository(source: str | Path) -> Repository | None:
    """Parses `hub:OWNER/NAME` or `hub:OWNER/NAME@REVISION`; returns None for anything without the prefix.

    Raises:
        MienError: The name of the repository is not valid.
    """
    text = str(source)
    if not text.startswith(PREFIX):
        return None
    library(text)
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    parts = _NAME.fullmatch(text.removeprefix(PREFIX))
    try:
        if parts is None:
            raise HFValidationError("expected OWNER/NAME")
        validate_repo_id(parts[1])
    except HFValidationError as error:
        raise MienError(
            f"{text!r} is not a valid name on the Hub ({error}); valid: {PREFIX}OWNER/NAME or "
            f"{PREFIX}OWNER/NAME@REVISION, of letters, digits, '-', '_' and '.'"
        ) from None
    return Repository(parts[1], parts[2])


def library(what: str) -> None:
    """Raises `MissingExtra` if the client of the Hub, which `what` needs, is not installed."""
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise MissingExtra(repr(what), "hub") from None


def local_folder(source: str | Path) -> Path:
    """The folder of a run or of a published model; one on the Hub is downloaded to the cache of its client.

    Raises:
        MienError: The name is not valid, the repository or the network is not there, or it holds pickles alone.
    """
    named = repository(source)
    return Path(source).expanduser() if named is None else _download(named, FILES, need="recipe.yaml")


def model_file(source: str | Path, ending: str) -> Path:
    """The weights (`.safetensors`) or the network (`.onnx`) of a run, of a published model, or at a path.

    Args:
        source: A folder, a file with this ending, or a name on the Hub.
        ending: With its dot.

    Raises:
        MienError: There is no such file; pickles are refused.
    """
    named, name = repository(source), f"model{ending}"
    if named is not None:
        return _download(named, [name], need=name) / name
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / name).is_file():
            raise absent(source, name, (file.name for file in path.iterdir()))
        return path / name
    if path.suffix in PICKLES:
        raise MienError(_refusal(source, path.name))
    if path.suffix != ending or not path.is_file():
        is_there = "has another suffix" if path.exists() else "does not exist"
        raise MienError(
            f"{str(source)!r} {is_there}; valid: the folder of a run or of a published model, a {ending} file, "
            f"or {PREFIX}OWNER/NAME"
        )
    return path


def one_file(source: str, ending: str) -> Path:
    """A file that a user names: at a path, or in a repository of the Hub as `hub:OWNER/NAME/FILE`.

    A branch, tag or commit may follow the name of the repository: `hub:OWNER/NAME@REVISION/FILE`.

    Args:
        source: As the user named it.
        ending: With its dot, which the file must have.

    Raises:
        MienError: There is no such file, or the name, the repository or the network is not there.
    """
    text = source.removeprefix(PREFIX)
    if text == source:
        path = Path(source).expanduser()
        if not path.is_file():
            raise MienError(f"{source!r}: there is no such file")
        return path
    owner, _, rest = text.partition("/")
    name, _, file = rest.partition("/")
    if not file.endswith(ending) or not _FILE.fullmatch(file) or ".." in file.split("/"):
        raise MienError(f"{source!r} names no {ending} file; valid: {PREFIX}OWNER/NAME/FILE{ending}")
    named = repository(f"{PREFIX}{owner}/{name}")
    assert named is not None
    return _download(named, [file], need=file) / file


def absent(source: str | Path, wanted: str, there: Iterable[str], lacks: str = "") -> MienError:
    """The error for a folder or repository that lacks a file; a pickle among what is there is refused by name.

    Args:
        source: As the user named it.
        wanted: The file.
        there: The names of the files that are there.
        lacks: Words before "holds no ...".
    """
    names = sorted(there)
    pickles = [name for name in names if Path(name).suffix in PICKLES]
    if "recipe.yaml" in names and "run.json" in names:
        return MienError(f"{str(source)!r} holds no {wanted}: a run has it when it is finished")
    if pickles:
        return MienError(_refusal(source, pickles[0]))
    lead = f"{str(source)!r} {lacks} holds" if lacks else f"{str(source)!r} holds"
    return MienError(f"{lead} no {wanted}; it holds: {', '.join(names[:6]) or 'nothing'}")


def _refusal(source: str | Path, name: str) -> str:
    return (
        f"{str(source)!r} has the pickled file {name!r}, which could execute code when it is loaded: it is refused; "
        "valid: .safetensors and .onnx files"
    )


def _download(named: Repository, files: Sequence[str], need: str) -> Path:
    """A folder with those of the files that the repository has."""
    from huggingface_hub import HfApi, snapshot_download

    source = f"{PREFIX}{named.name}" + (f"@{named.revision}" if named.revision else "")
    try:
        folder = Path(snapshot_download(named.name, revision=named.revision, allow_patterns=list(files)))
        if (folder / need).is_file():
            return folder
        there = HfApi().list_repo_files(named.name, revision=named.revision)
    except Exception as error:  # the client's own classes, and those of what it asks the network with
        advice = "there is no earlier copy; valid without network: the folder of a run or of a published model"
        raise unreachable(source, error, advice) from error
    raise absent(source, need, there)


def unreachable(source: str, error: Exception, advice: str) -> MienError:
    """What went wrong on the way to the Hub, in words that help; `advice` is for when it cannot be reached at all."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, RevisionNotFoundError):
        return MienError(f"{source!r}: the repository has no such branch, tag or commit")
    if isinstance(error, GatedRepoError):
        return MienError(f"{source!r}: the repository is gated: ask its owner for access, and set HF_TOKEN")
    if isinstance(error, RepositoryNotFoundError):
        return MienError(f"{source!r}: there is no such repository, or it is private and HF_TOKEN gives no access")
    if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
        return MienError(f"{source!r}: the Hub refuses access; valid: an HF_TOKEN with write access")
    return MienError(f"{source!r}: the Hub cannot be reached ({type(error).__name__}); {advice}")
