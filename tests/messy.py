"""Messy tables and folders of faces, as people have them, each with what `mien faces csv` makes of it.

`test_own_faces.py` gives each to the commands; the pictures are drawn faces.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

COUNT = 12
"""Pictures of most cases: `0.jpg`, `1.jpg`, ..., by turns of a woman and of a man."""

Rows = list[dict[str, object]]


@dataclass(frozen=True)
class Case:
    """A table or a folder.

    Attributes:
        name: What is messy about it.
        make: Writes it into a folder that holds `photos/` with the pictures; returns what `mien faces csv` is given.
        map: Its `--map`.
        root: Its `--root`, relative to the folder.
        kept: The faces that remain; None: it is refused.
        words: A pattern in the message, or in the ledger.
        genders: Faces with a gender that remain; None: all of `kept`.
        years: Faces with an age or a range; None: all of `kept`.
    """

    name: str
    make: Callable[[Path], Path]
    map: Mapping[str, str] = field(default_factory=dict)
    root: str | None = None
    kept: int | None = COUNT
    words: str = ""
    genders: int | None = None
    years: int | None = None


def rows() -> Rows:
    """Rows without any flaw."""
    return [
        {"path": f"{number}.jpg", "gender": ("female", "male")[number % 2], "age": 20 + 3 * number}
        for number in range(COUNT)
    ]


def table(
    change: Callable[[Rows], Rows | None] = lambda rows: None, separator: str = ",", encoding: str = "utf-8"
) -> Callable[[Path], Path]:
    """A table in the folder of the pictures, after a change of its rows."""

    def make(folder: Path) -> Path:
        made = rows()
        made = change(made) or made
        path = folder / "photos" / "labels.csv"
        pd.DataFrame(made).to_csv(path, sep=separator, index=False, encoding=encoding)
        return path

    return make


def values(column: str, *given: object) -> Callable[[Path], Path]:
    """A table in which a column has other values, the first ones in its first rows, the last one in all others."""

    def change(made: Rows) -> None:
        for number, row in enumerate(made):
            row[column] = given[min(number, len(given) - 1)]

    return table(change)


def cycled(column: str, *given: object) -> Callable[[Path], Path]:
    """A table in which a column has these values by turns."""

    def change(made: Rows) -> None:
        for number, row in enumerate(made):
            row[column] = given[number % len(given)]

    return table(change)


def text(content: str, name: str = "labels.csv") -> Callable[[Path], Path]:
    """A table with this text."""

    def make(folder: Path) -> Path:
        (folder / "photos" / name).write_text(content, "utf-8")
        return folder / "photos" / name

    return make


def classes(*names: str, extra: Sequence[str] = ()) -> Callable[[Path], Path]:
    """A folder per class, with further files."""

    def make(folder: Path) -> Path:
        for number in range(COUNT):
            place = folder / "classes" / names[number % len(names)]
            place.mkdir(parents=True, exist_ok=True)
            os.link(folder / "photos" / f"{number}.jpg", place / f"{number}.jpg")
        for name in extra:
            (folder / "classes" / name).write_text("no image")
        return folder / "classes"

    return make


def _other_case(folder: Path) -> Path:
    for number in range(COUNT):
        (folder / "photos" / f"{number}.jpg").rename(folder / "photos" / f"IMG_{number}.JPG")
    made = [row | {"path": f"img_{number}.jpg"} for number, row in enumerate(rows())]
    return table(lambda _: made)(folder)


def _absolute(folder: Path) -> Path:
    made = [row | {"path": str(folder / "photos" / str(row["path"]))} for row in rows()]
    return table(lambda _: made)(folder)


def _umlaut(folder: Path) -> Path:
    (folder / "photos" / "0.jpg").rename(folder / "photos" / "Jörg.jpg")
    return table(lambda made: made[0].update(path="Jörg.jpg"), encoding="cp1252")(folder)


def _elsewhere(folder: Path) -> Path:
    (folder / "tables").mkdir()
    return table()(folder).rename(folder / "tables" / "labels.csv")


def _decimals(made: Rows) -> None:
    for row in made:
        row["age"] = f"{row['age']},5"


def _renamed(**names: str) -> Callable[[Rows], Rows]:
    return lambda made: [{names.get(key, key): value for key, value in row.items()} for row in made]


CASES = (
    Case("nothing", table()),
    Case("semicolons and decimal commas", table(_decimals, separator=";"), words="separated by semicolons"),
    Case("tabs", table(separator="\t"), words="separated by tabs"),
    Case("bars", table(separator="|"), words="separated by bars"),
    Case("a byte order mark", table(encoding="utf-8-sig")),
    Case("UTF-16", table(encoding="utf-16"), words="read as UTF-16"),
    Case("Windows-1252", _umlaut, words="read as Windows-1252"),
    Case("spaces around names", table(_renamed(gender=" gender", age="age "))),
    Case("other names", table(_renamed(path="file", gender="Sex")), map={"file": "path", "Sex": "gender"}),
    Case("genders in many words", cycled("gender", "F", "Man", " woman ", "boy"), words="'boy' is read as male"),
    Case("a question mark", values("gender", "?", "f", "m"), genders=COUNT - 1),
    Case("a value of its own", values("gender", "f", "diverse", "m"), genders=COUNT - 1, words="'diverse' cannot be"),
    Case("0 and 1, stated", cycled("gender", 0, 1), map={"gender.0": "male", "gender.1": "female"}),
    Case(
        "0 and 1",
        cycled("gender", 0, 1),
        kept=None,
        words=r"'0' \(6 rows\), '1' \(6 rows\) cannot be read, first in row 1 \('0.jpg'\).*--map 'gender.0=male'",
    ),
    Case("another language", cycled("gender", "w", "m"), kept=None, words="'w' .*row 1 .*--map 'gender.w=female'"),
    Case("another language, stated", cycled("gender", "w", "m"), map={"gender.w": "female"}),
    Case("a value that is not there", table(), map={"gender.0": "male"}, kept=None, words="valid: female, male"),
    Case("ages as ranges", cycled("age", "25-32", "60+", "4-6")),
    Case("ages and ranges", cycled("age", "25-32", 40, "31 years")),
    Case("ages in words", cycled("age", "child", "adult"), kept=None, words="'child' .*--map 'age.child=25-32'"),
    Case("words, stated", cycled("age", "child", "adult"), map={"age.child": "3-12", "age.adult": "18-64"}),
    Case("codes for no age", values("age", -1, 999, 30), years=COUNT - 2, words="'-1', '999' cannot be read"),
    Case("years of birth", cycled("age", 1987, 1990), kept=None, words="'1987'.*row 1.*years of birth are no ages"),
    Case("dates as ages", cycled("age", "9-Mar", "4.6.1990"), kept=None, words="'9-Mar'.*a date"),
    Case("groups of other ages", cycled("age_group", "20-29"), kept=None, words="--map YOURS=age"),
    Case(
        "missing files",
        table(lambda made: made[4:] + [row | {"path": f"no{n}"} for n, row in enumerate(made[:4])]),
        kept=8,
        words="is not there",
    ),
    Case(
        "empty paths",
        table(lambda made: made[2:] + [row | {"path": " "} for row in made[:2]]),
        kept=10,
        words="no path",
    ),
    Case("repeats", table(lambda made: [*made, *made[:3]]), words="an exact repeat"),
    Case(
        "rows that disagree",
        table(lambda made: [*made, made[0] | {"gender": "male"}]),
        genders=COUNT - 1,
        words="disagree: gender is missing",
    ),
    Case("backslashes", table(lambda made: [row | {"path": f".\\{row['path']}"} for row in made]), words="with / for"),
    Case("absolute paths", _absolute, words="read as relative"),
    Case("another case", _other_case, words="found in another case"),
    Case("no endings", table(lambda made: [r | {"path": str(r["path"])[:-4]} for r in made]), words="ending of its"),
    Case("images in another folder", _elsewhere, root="photos"),
    Case("the wrong folder", _elsewhere, words=r"no images are there.*--root FOLDER"),
    Case("a folder that is not there", _elsewhere, root="no", kept=None, words="no' does not exist"),
    Case("addresses", values("path", "https://a.b/0.jpg"), kept=None, words="row 1: 'https://a.b/0.jpg' is an address"),
    Case(
        "outside", values("path", "/etc/no.jpg"), kept=None, words="row 1: the path '/etc/no.jpg' is outside .*--root"
    ),
    Case("a column twice", text("path,age,age\n0.jpg,1,2\n"), kept=None, words="'age' occurs more than once"),
    Case("no path", text("name,sex\n0.jpg,f\n"), kept=None, words=r"--map theirs=path\); its columns are: name, sex"),
    Case("no rows", text("path,gender\n"), kept=None, words="no face is left of 0 rows"),
    Case("rows that are too long", text("path,gender\n0.jpg,f\n1.jpg,m,x,y\n"), kept=None, words="line 3"),
    Case("a spreadsheet", text("", "labels.xlsx"), kept=None, words="'.xlsx'; valid: .parquet, .csv"),
    Case("folders", classes("female", "Men"), years=0),
    Case("folders of age groups", classes("0-2", "60+"), genders=0, years=0),
    Case("folders and other files", classes("f", "m", extra=["notes.txt"]), years=0, words="'notes.txt'"),
    Case("folders, stated", classes("frau", "mann"), {"gender.frau": "female", "gender.mann": "male"}, years=0),
    Case("unknown folders", classes("frau", "m"), kept=None, words="'frau'.*--map 'gender.frau=female'"),
    Case("a folder of images", lambda folder: folder / "photos", kept=None, words="give a .csv or .parquet file"),
)
