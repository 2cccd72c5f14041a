"""The storage of a search: its folder, and the Optuna study in a journal file or a database."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from mien.base.atomic import atomic_path
from mien.base.errors import MienError, MissingExtra
from mien.base.lock import Lock
from mien.data.sources import data_root
from mien.runs.run import Run
from mien.training.fit import prepare_faces
from mien.training.search.definition import Search
from mien.training.search.hyperband import make_pruner

_INITIAL_FILES = {"search.lock", "search.log", "journal.lock", "run.json", "faces.parquet"}
"""Files that a search writes before `search.json`: a folder with these alone can be reused."""


class StorageError(MienError):
    """The storage of a search cannot be reached, or holds another search."""


class _JournalLock:
    """The lock of a journal file for Optuna: Optuna's own locks outlive a process that is killed."""

    def __init__(self, journal: Path) -> None:
        self._journal, self._lock = journal, Lock(journal.with_name("journal.lock"))

    def acquire(self) -> bool:
        """Waits for the lock, and removes an unfinished last line, which a full disk can leave behind."""
        self._lock.take(wait=True)
        if self._journal.stat().st_size:
            with self._journal.open("rb+") as file:
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    file.truncate(self._journal.read_bytes().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Releases the lock."""
        self._lock.release()


def shown_url(search: Search) -> str:
    """Returns the database URL of a search without its password.

    Raises:
        StorageError: It is not a database URL.
    """
    with storage_errors(search, "is not a database URL"):
        return make_url(search.storage or "").render_as_string(hide_password=True)


@contextlib.contextmanager
def storage_errors(search: Search, problem: str = "cannot be reached") -> Iterator[None]:
    """Turns errors of the storage into messages.

    Raises:
        StorageError: In place of the errors of Optuna, SQLAlchemy and the file system.
    """
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError, ImportError, OSError) as error:
        cause = str(error.__cause__ or error).strip().split("\n")[0]
        url = search.storage
        name = (
            "search.log"
            if url is None
            else url.partition("://")[0] + "://" + url.rpartition("@")[2].rpartition("//")[2]
        )
        raise StorageError(
            f"storage {name!r} {problem} ({type(error).__name__}: {cause}); valid: sqlite:///FILE, "
            "postgresql://USER@HOST/NAME or another database supported by SQLAlchemy. Finished trials are kept in "
            f"{str(search.out)!r}; rerun the same command to resume"
        ) from error


def open_search(search: Search) -> optuna.Study:
    """Creates the folder, the faces and the study of a search, or opens them; one process at a time.

    Raises:
        MienError: The folder holds other files or a search with other settings, or the storage cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file, settings = search.out / "search.json", search.settings
    if search.out.exists() and not file.exists():
        others = {path.name for path in search.out.iterdir() if not path.name.startswith(".")} - _INITIAL_FILES
        # Another process may have started the search meanwhile.
        if others and not file.exists():
            raise MienError(
                f"folder {str(search.out)!r} holds other files and is not a search folder; give another --out"
            )
    search.out.mkdir(parents=True, exist_ok=True)
    with Lock(search.out / "search.lock"):
        before = json.loads(file.read_text("utf-8")) if file.exists() else {}
        changed = [key for key in settings if before and before.get(key) != settings[key]]
        if changed:
            raise MienError(
                f"search {str(search.out)!r} was started with another {' and '.join(changed)}; "
                "give another --out, or the same settings"
            )
        with storage_errors(search):
            study = _open_study(search, before.get("folder"))
        if not before:
            before = settings | {"folder": uuid.uuid4().hex}
            _prepare(search)
            with atomic_path(file) as part:
                part.write_text(json.dumps(before, indent=2) + "\n", "utf-8")
        with storage_errors(search):
            study.set_user_attr("folder", before["folder"])
    return study


def _prepare(search: Search) -> None:
    if search.recipe.data.root is None:
        raise MienError("data.root is not set: which folder holds the data? --set data.root=FOLDER")
    prepare_faces(Run(search.out), search.recipe, data_root(search.recipe.data.root))


def _open_study(search: Search, folder: str | None) -> optuna.Study:
    study = optuna.create_study(
        storage=_open_storage(search),
        study_name=search.study_name,
        direction=search.direction,
        pruner=make_pruner(search.recipe.trainer.epochs, search.eta),
        load_if_exists=True,
    )
    if study.user_attrs.get("folder", folder) != folder:
        raise StorageError(
            f"storage {search.storage_name!r} holds this search for another folder, whose trials are not in "
            f"{str(search.out)!r}; give that --out (on several machines: one shared folder), another --storage or "
            "another --seed"
        )
    return study


def _open_storage(search: Search) -> BaseStorage:
    if search.storage is None:
        file = search.out / "search.log"
        # Optuna calls acquire and release only; the base class of its locks is private.
        return JournalStorage(JournalFileBackend(str(file), cast(Any, _JournalLock(file))))
    if search.storage.startswith("sqlite"):
        # Several processes write to one file in turn.
        return RDBStorage(search.storage, engine_kwargs={"connect_args": {"timeout": 60}})
    try:
        # Trials are long: a server may have closed a connection or restarted since its last use.
        return RDBStorage(search.storage, engine_kwargs={"pool_pre_ping": True})
    except ModuleNotFoundError as error:
        if error.name == "psycopg":
            raise MissingExtra("a search in PostgreSQL", "cluster") from None
        raise
