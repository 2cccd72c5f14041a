"""The report of a data audit."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mien.audit.data import image_quality
from mien.audit.data.audit import DataAudit
from mien.audit.data.checks import CHECK_LEVELS, Check
from mien.base.atomic import atomic_path, new_folder
from mien.base.table import write_table
from mien.data.image_files import Images
from mien.data.roots import Root
from mien.reports import figures
from mien.reports.eda import duplicate_section
from mien.reports.label_review import SHEET, write_review
from mien.reports.page import CaptionedFaces, Chart, Section, Table, write_report
from mien.reports.thumbnails import thumbnails

_MAX_IMAGES = 12  # of a kind
_MAX_ROWS = 100  # of a table on the page; the CSV file has all of them

_TITLES = {
    "leaks": "Leaks",
    "duplicates": "Duplicates",
    "subjects": "Subjects",
    "ages": "Ages",
    "images": "Images",
    "balance": "Balance of folds and splits",
    "labels": "Likely label errors",
}


def write(audit: DataAudit, out: str | Path, sheet: int = SHEET) -> Path:
    """Writes the report, the JSON file and the tables of a data audit, and `review.html` for label suggestions.

        Args:
            audit: The result of `audit_faces`.
            out: The folder to write to.
            sheet: Maximum number of suggestions per column in `review.html`.

        Returns:
    The path of `report.html`.
    """
    out = new_folder(out)
    suggested = audit.tables.get("suggestions")
    reviewed = 0
    if suggested is not None and audit.root is not None:
        reviewed = write_review(audit.faces, suggested, audit.root, out / "review.html", sheet)
    checks = pd.DataFrame([check.model_dump() for check in audit.report.checks])
    for name, rows in {"checks": checks, **audit.tables}.items():
        write_table(rows, out / f"{name}.csv")
    with atomic_path(out / "report.json") as part:
        part.write_text(audit.report.to_json(), "utf-8")
    title = f"Audit of the data set {', '.join(audit.report.data.datasets[:3])}"
    return write_report(title, audit.report.summary, _sections(audit, reviewed), out / "report.html")


def _sections(audit: DataAudit, reviewed: int) -> list[Section]:
    by_part: dict[str, list[Check]] = {name: [] for name in _TITLES}
    for check in audit.report.checks:
        by_part[check.name.split(".")[0]].append(check)
    sections = [Section("Checks", tables=[Table("All checks, problems first", _checks_table(audit.report.checks))])]
    for name, checks in by_part.items():
        warnings = [check.message for check in checks if check.level == "problem"]
        text = [check.message for check in checks if check.level != "problem"]
        details = _details(name, audit.faces, audit.tables, audit.images, audit.root, audit.outlier_scores, reviewed)
        sections.append(
            Section(
                _TITLES[name], warnings, [*text, *details.text], details.tables, details.figures, pairs=details.pairs
            )
        )
    return sections


def _checks_table(checks: Sequence[Check]) -> pd.DataFrame:
    rows = sorted(checks, key=lambda check: CHECK_LEVELS.index(check.level))
    return pd.DataFrame(
        {
            "verdict": [check.level for check in rows],
            "check": [check.name for check in rows],
            "cases": [_cases(check) for check in rows],
            "limit": [_limit(check) for check in rows],
            "example": [check.example or "" for check in rows],
        }
    )


def _cases(check: Check) -> str:
    if not check.of:
        return ""
    text = f"{check.count:,} of {check.of:,}, {100 * check.count / check.of:.1f} %"
    if check.low is None or check.high is None:
        return text
    return f"{text} [{100 * check.low:.1f}, {100 * check.high:.1f}]"


def _limit(check: Check) -> str:
    return "" if check.limit is None else f"{100 * check.limit:g} %"


def _details(
    name: str,
    faces: pd.DataFrame,
    tables: dict[str, pd.DataFrame],
    images: Images | None,
    home: Root | None,
    outlier_scores: pd.Series | None,
    reviewed: int,
) -> Section:
    """The details of a section, below the messages of its checks."""
    if name == "duplicates" and images is not None and home is not None:
        return duplicate_section(home, images.pairs)
    if name == "subjects" and "subjects" in tables:
        return Section("", tables=[_table("Subjects with contradictory labels", tables["subjects"])])
    if name == "ages" and faces["age"].notna().any():
        return _ages(faces)
    if name == "images" and home is not None and outlier_scores is not None:
        return _image_samples(faces, tables["image_quality"], home, outlier_scores)
    if name == "balance" and "balance" in tables:
        return Section("", tables=[_table("Faces of each class by fold and split", _shares(tables["balance"]))])
    if name == "labels" and "suggestions" in tables:
        return _suggestions(faces, tables, home, reviewed)
    return Section("")


def _table(caption: str, rows: pd.DataFrame) -> Table:
    if len(rows) > _MAX_ROWS:
        caption += f": the first {_MAX_ROWS} of {len(rows):,}"
    return Table(caption, rows.head(_MAX_ROWS), folded=len(rows) > 12)


def _ages(faces: pd.DataFrame) -> Section:
    years = np.floor(faces["age"].dropna())
    last = pd.Series((years % 10).astype(int)).value_counts().reindex(range(10), fill_value=0)
    numbers = last.rename_axis("last digit").rename("faces").reset_index()
    picture = Chart(figures.bars(last.rename("faces").to_frame()), "Last digit of the age in years", numbers)
    return Section("", figures=[picture])


def _image_samples(faces: pd.DataFrame, table: pd.DataFrame, home: Root, scores: pd.Series) -> Section:
    pairs, texts = [], []
    far = scores[scores > image_quality.OUTLIER_SCORE].sort_values(ascending=False, kind="stable")
    flagged = table[table["status"] == "ok"]
    kinds = {
        "outlier": list(faces.loc[far.index, "face"]),
        "almost uniform": list(flagged.loc[flagged["uniform"], "face"]),
        "blurred": list(flagged[flagged["blurred"]].sort_values("sharpness", kind="stable")["face"]),
        "small": list(flagged[flagged["small"]].sort_values("side", kind="stable")["face"]),
    }
    for kind, ids in kinds.items():
        rows = faces.set_index("face", drop=False).loc[ids[:_MAX_IMAGES]]
        pairs += [CaptionedFaces([face], f"{kind}: {face.alt}") for face in thumbnails(rows, home)]
    if pairs:
        texts.append(f"At most {_MAX_IMAGES} images of each kind are shown, the most extreme first.")
    bad = table[table["status"] != "ok"][["face", "path", "status"]]
    return Section("", text=texts, tables=[_table("Images that cannot be read", bad)] if len(bad) else [], pairs=pairs)


def _shares(table: pd.DataFrame) -> pd.DataFrame:
    texts = [
        f"{100 * share:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        for share, low, high in table[["share", "low", "high"]].to_numpy(dtype=float)
    ]
    return table[["by", "part", "label", "value", "faces", "of"]].assign(share=texts)


def _suggestions(faces: pd.DataFrame, tables: dict[str, pd.DataFrame], home: Root | None, reviewed: int) -> Section:
    table = tables["suggestions"]
    text = [
        "A suggestion is a label that contradicts the predictions of runs that were not trained on the face. The model "
        "may be wrong: a person should decide.",
    ]
    if reviewed:
        text.append(
            f"review.html shows {reviewed:,} of them for review with the keyboard; mien faces --corrections applies "
            "the corrections downloaded there."
        )
    shown = [
        Table(f"Most likely errors of {str(column).replace('_', ' ')}", _ranked(rows.head(20)), folded=True)
        for column, rows in table.groupby("column", sort=False)
    ]
    runs = Table("Predictions by run", tables["runs"])
    pairs = []
    if home is not None:
        for column, rows in table.groupby("column", sort=False):
            for face, given, suggested in rows.head(_MAX_IMAGES)[["face", "given", "suggested"]].to_numpy().tolist():
                shown_face = thumbnails(faces[faces["face"] == face], home)
                pairs.append(CaptionedFaces(shown_face, f"{column}: labelled {given}, predicted {suggested}"))
    return Section("", text=text, tables=[runs, *shown], pairs=pairs)


def _ranked(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[["rank", "face", "given", "suggested", "score", "flagged"]]
