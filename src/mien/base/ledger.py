"""The ledger of a source: which rows were kept, changed and dropped, and why. Nothing is dropped silently."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

Kind = Literal["dropped", "changed", "warning"]


@dataclass(frozen=True)
class Entry:
    """One kind of event: the number of rows, the reason, and the first row as an example."""

    kind: Kind
    reason: str
    rows: int
    example: str = ""


@dataclass
class Ledger:
    """Counts the rows of a source as they are read, changed and dropped.

    `read` is the number of rows read; `dropped` entries count removed rows, `changed` entries rows with a new value; a
    `warning` concerns the source as a whole.
    """

    source: str
    read: int = 0
    entries: list[Entry] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """Number of rows that are kept."""
        return self.read - sum(entry.rows for entry in self.entries if entry.kind == "dropped")

    def drop(self, frame: pd.DataFrame, rows: "pd.Series[bool] | np.ndarray", reason: str) -> pd.DataFrame:
        """Returns `frame` without the rows of the mask `rows`, and records them (no entry if there are none)."""
        mask = np.asarray(rows, dtype=bool)
        self._write("dropped", reason, frame, mask)
        return frame.loc[~mask]

    def change(self, frame: pd.DataFrame, rows: "pd.Series[bool] | np.ndarray", reason: str) -> None:
        """Records that the rows of the mask have another value than in the source."""
        self._write("changed", reason, frame, np.asarray(rows, dtype=bool))

    def warn(self, reason: str, rows: int = 0) -> None:
        """Records a warning about the source."""
        self.entries.append(Entry("warning", reason, rows))

    def _write(self, kind: Kind, reason: str, frame: pd.DataFrame, mask: np.ndarray) -> None:
        if mask.any():
            label = "face" if "face" in frame.columns else frame.columns[0]
            self.entries.append(Entry(kind, reason, int(mask.sum()), str(frame.loc[mask, label].iloc[0])))

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> "Ledger":
        """The ledger that `to_dict` gave."""
        return cls(given["source"], given["read"], [Entry(**entry) for entry in given["entries"]])

    def to_dict(self) -> dict[str, Any]:
        """Returns the ledger as plain values, for JSON."""
        return {
            "source": self.source,
            "read": self.read,
            "kept": self.kept,
            "entries": [vars(entry) for entry in self.entries],
        }
