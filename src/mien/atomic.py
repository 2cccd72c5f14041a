"""Files that appear whole or not at all."""

import os
import tempfile
from pathlib import Path


class atomic_path:
    """Context manager: a temporary name beside `path` that replaces `path` when the block ends without error."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __enter__(self) -> Path:
        handle, name = tempfile.mkstemp(
            dir=self.path.parent, prefix=f".{self.path.stem[:40]}.", suffix=self.path.suffix
        )
        os.close(handle)
        self.part = Path(name)
        return self.part

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            # mkstemp makes private files; give what an ordinary open() would have given.
            mask = os.umask(0)
            os.umask(mask)
            self.part.chmod(0o666 & ~mask)
            self.part.replace(self.path)
        else:
            self.part.unlink(missing_ok=True)
