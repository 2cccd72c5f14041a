"""Tables that several reports share."""

from typing import Any

import numpy as np
import pandas as pd

from mien.reports.page import Table


def ledger_table(ledger: dict[str, Any]) -> Table:
    """Returns the table of kept, changed and dropped rows of a source, from `mien.base.ledger.Ledger.to_dict`."""
    rows = pd.DataFrame(ledger["entries"], columns=pd.Index(["kind", "reason", "rows", "example"]))
    caption = f"Ledger of {ledger['source']}: {ledger['read']:,} rows read, {ledger['kept']:,} kept"
    return Table(caption, rows, folded=len(rows) > 8)


def histogram_table(values: dict[str, np.ndarray], edges: np.ndarray) -> pd.DataFrame:
    """Returns the counts of each bin for each series of a histogram."""
    counts = {name: np.histogram(numbers, edges)[0] for name, numbers in values.items()}
    return pd.DataFrame({"from": edges[:-1].round(6), "to": edges[1:].round(6), **counts})
