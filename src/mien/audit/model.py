"""The audit of a model: for whom it fails, with intervals that say what the data can tell."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mien import metrics
from mien.atomic import atomic_path
from mien.audit.inputs import Predictions, match, read_predictions

SCHEMA = "mien.audit.model/1"


def audit_model(
    predictions: Predictions,
    faces: pd.DataFrame,
    by: Sequence[str] = ("gender", "age_group"),
    out: str | Path | None = None,
    *,
    map: Mapping[str, str] | None = None,
    preset: str | None = None,
) -> dict[str, Any]:
    """Says for whom a model fails, from its predictions and the truth.

    Args:
        predictions: A table, a file or several files; see `inputs.read_predictions`.
        faces: The truth, a faces table.
        by: Columns that make groups.
        out: Folder for `report.json`.
        map: Their columns and ours.
        preset: A name in `inputs.PRESETS`.

    Returns:
        The report, of schema `SCHEMA`.

    Raises:
        MienError: The predictions cannot be read, or do not belong to the faces.
    """
    matched = match(faces, read_predictions(predictions, map, preset))
    scores = metrics.score(matched.joined, by)
    rows = json.loads(scores[["group", "metric", "value", "low", "high", "n", "subjects"]].to_json(orient="records"))
    about = {"faces": len(matched.joined), "missing": matched.missing, "extra": matched.extra, "key": matched.key}
    report = {"schema": SCHEMA, "predictions": about, "groups": rows}
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / "report.json") as part:
            part.write_text(json.dumps(report, indent=1))
    return report
