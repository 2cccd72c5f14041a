"""Fixtures for all tests: the real data where a machine has it, and small made-up data sets."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ADIENCE_HEADER = (
    "user_id\toriginal_image\tface_id\tage\tgender\tx\ty\tdx\tdy\ttilt_ang\tfiducial_yaw_angle\tfiducial_score"
)

# (fold, user_id, original_image, face_id, age, gender): every kind of row that the real files have.
ADIENCE_ROWS = [
    (0, "10@N00", "a.jpg", "1", "(25, 32)", "f"),
    (0, "10@N00", "a.jpg", "2", "(38, 43)", "m"),
    (0, "10@N00", "b.jpg", "1", "(25, 32)", "f"),
    (0, "10@N00", "b.jpg", "1", "(25, 32)", "f"),  # an exact duplicate
    (0, "10@N00", "c.jpg", "3", "None", "f"),
    (1, "11@N01", "d.jpg", "4", "(0, 2)", "u"),
    (1, "11@N01", "e.jpg", "4", "(0, 2)", "u"),
    (1, "11@N01", "e.jpg", "5", "35", "m"),
    (2, "12@N02", "f.jpg", "6", "(8, 12)", ""),
    (2, "12@N02", "g.jpg", "7", "None", ""),
    (2, "12@N02", "h.jpg", "8", "(8, 12)", "m"),
    (3, "13@N03", "i.jpg", "9", "(8, 23)", "f"),
    (3, "13@N03", "j.jpg", "10", "57", "m"),
    (4, "14@N04", "k.jpg", "11", "(60, 100)", "f"),
    (4, "14@N04", "l.jpg", "12", "57", "m"),
]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the real data sets; the test is skipped where there is none."""
    folder = os.environ.get("MIEN_SHARED_DATA")
    if not folder:
        pytest.skip("MIEN_SHARED_DATA is not set: no real data sets on this machine")
    return Path(folder)


@pytest.fixture
def make_adience(tmp_path: Path) -> Callable[..., Path]:
    """Writes `ADIENCE_ROWS`, or other rows, as Adience's files to `tmp_path/adience` and returns that folder.

    `images` names the layout of the (empty) image files: "faces", "aligned" or None for none; `nested` puts
    all into the inner folder that some copies have.
    """

    def make(rows: list[tuple] = ADIENCE_ROWS, images: str | None = None, nested: bool = False) -> Path:
        root = tmp_path / "adience"
        inner = root / "AdienceBenchmarkGenderAndAgeClassification" if nested else root
        inner.mkdir(parents=True, exist_ok=True)
        for fold in range(5):
            lines = [ADIENCE_HEADER]
            lines += ["\t".join([*row[1:], *("0" * 7)]) for row in rows if row[0] == fold]
            (inner / f"fold_{fold}_data.txt").write_text("\n".join(lines) + "\n")
        prefix = {"faces": "coarse_tilt_aligned_face", "aligned": "landmark_aligned_face"}.get(images or "")
        for _, user, image, face, *_ in rows if prefix else ():
            path = inner / str(images) / user / f"{prefix}.{face}.{image}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return root

    return make


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set of demonstration faces in Adience's layout."""
    from mien.demo.dataset import draw_faces

    root = tmp_path_factory.mktemp("drawn") / "adience"
    draw_faces(root, subjects=30)
    return root


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps the tests out of the user's cache folder."""
    os.environ["MIEN_CACHE"] = str(tmp_path_factory.mktemp("cache"))


class FakeHub:
    """Repositories in a folder: what mien asks the Hub for, and puts there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.messages: list[str] = []

    def put(self, name: str, files: dict[str, bytes], revision: str | None = None) -> None:
        """Makes a repository, or another revision of one."""
        folder = self.folder(name, revision)
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (folder / file).write_bytes(content)

    def folder(self, name: str, revision: str | None = None) -> Path:
        """Where the files of a revision are."""
        return self.root / name.replace("/", "--") / (revision or "main")

    def _there(self, name: str, revision: str | None = None) -> Path:
        from types import SimpleNamespace

        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        if not self.folder(name, revision).is_dir():
            kind = RevisionNotFoundError if self.folder(name).is_dir() else RepositoryNotFoundError
            raise kind("no", response=SimpleNamespace(headers={}, status_code=404, request=None))
        return self.folder(name, revision)

    def snapshot_download(self, name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        """As the client's: a folder of its own with the files that match."""
        import tempfile

        copy = Path(tempfile.mkdtemp(dir=self.root))
        for path in self._there(name, revision).iterdir():
            if path.name in allow_patterns:
                (copy / path.name).write_bytes(path.read_bytes())
        return str(copy)

    def list_repo_files(self, name: str, revision: str | None = None) -> list[str]:
        """As HfApi's."""
        return [path.name for path in self._there(name, revision).iterdir()]

    def create_repo(self, name: str, exist_ok: bool) -> None:
        """As HfApi's."""
        self.put(name, {".gitattributes": b""})

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        """As HfApi's."""
        self.put(repo_id, {path.name: path.read_bytes() for path in Path(folder_path).iterdir()})
        self.messages.append(commit_message)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A Hub in a folder, in place of the real one."""
    import huggingface_hub

    fake = FakeHub(tmp_path / "hub")
    fake.root.mkdir()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    return fake
