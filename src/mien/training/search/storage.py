"""The storage of a search: its folder, and the Optuna study in a journal file or a database."""

import json
import os
import uuid
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from mien.base.atomic import atomic_path
from mien.base.errors import MienError, MissingExtra
from mien.base.lock import Lock
from mien.data.roots import recipe_root
from mien.runs.run import Run
from mien.training.prepare import prepare_faces
from mien.training.search.definition import Search, StorageError
from mien.training.search.hyperband import make_pruner

_INITIAL_FILES = {"search.lock", "search.log", "journal.lock", "run.json", "faces.parquet"}
"""Files that a search writes before `search.json`: a folder with these alone can be reused."""


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
        with search.storage_errors():
            study = _open_study(search, before.get("folder"))
        if not before:
            before = settings | {"folder": uuid.uuid4().hex}
            _prepare(search)
            with atomic_path(file) as part:
                part.write_text(json.dumps(before, indent=2) + "\n", "utf-8")
        with search.storage_errors():
            study.set_user_attr("folder", before["folder"])
    return study


def _prepare(search: Search) -> None:
    prepare_faces(Run(search.out), search.recipe, recipe_root(search.recipe.data))


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
