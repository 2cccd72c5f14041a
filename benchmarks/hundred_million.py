"""Tries what would carry 100 million faces: Parquet pieces and DuckDB (pip install duckdb), on one machine.

    python benchmarks/hundred_million.py [--rows 1000000 10000000 100000000] [--memory 8GB] [--folder FOLDER]

The faces and predictions are made up, ten a subject on average. Three questions are asked of the pieces, none of which
needs more in memory than a row a subject, and DuckDB puts even those on disk beyond `--memory`:

- `split`: whole subjects, by a hash of the subject, and the check that no subject is in two parts;
- `metrics`: gender accuracy and mean absolute age error by gender, age group and race, with 95% intervals clustered by
  subject. A bootstrap needs a row a subject in each resample; the linearised variance of a ratio (Cochran, Sampling
  Techniques, 1977, 6.3) needs only sums over subjects of h, n, h^2, h n and n^2, where h is what a subject's n faces
  sum to. At 1,000,000 rows `--check` holds it against the intervals of `mien.metrics.score`;
- `duplicates`: equal hashes (near ones: see `benchmarks/scaling.py`; beyond memory, in shards by a block of the hash).
"""

import argparse
import math
import resource
import shutil
import tempfile
import time
from pathlib import Path

import pandas as pd

PIECE = 10_000_000

MAKE = """
COPY (
  WITH drawn AS (
    SELECT range AS face, hash(range) AS h, hash(range + 1000000007) AS g, hash(range + 3000000019) AS k
    FROM range({low}, {high})
  ), labelled AS (
    SELECT face, (h % {subjects})::INTEGER AS subject, CASE WHEN h % 7 < 4 THEN 'female' ELSE 'male' END AS gender,
      ['asian', 'black', 'indian', 'white', 'other'][1 + (g % 5)::INTEGER] AS race, (g // 5 % 90)::UTINYINT AS age,
      (k % 10000) / 10000.0 AS luck, (k // 10000 % 10000) / 10000.0 AS error, k AS print
    FROM drawn
  )
  SELECT face, subject, gender, race, age,
    (CASE WHEN (gender = 'female') = (luck < 0.85 + 0.1 * (hash(subject) % 100) / 100.0) THEN 0.9 ELSE 0.1 END)::FLOAT
      AS p_female,
    greatest(age + 24 * (error - 0.5), 0)::FLOAT AS predicted_age, (print // 20)::UBIGINT AS print
  FROM labelled
) TO '{path}' (FORMAT parquet)
"""

SPLIT = """
WITH parts AS (
  SELECT subject, CASE hash(subject, 0) % 10 WHEN 0 THEN 'test' WHEN 1 THEN 'val' ELSE 'train' END AS split FROM faces
), subjects AS (
  SELECT subject, count(*) AS n, count(DISTINCT split) AS parts FROM parts GROUP BY subject
)
SELECT sum(n) AS faces, count(*) AS subjects, count(*) FILTER (WHERE parts > 1) AS leaks FROM subjects
"""

METRICS = """
WITH answers AS (
  SELECT subject, gender, race,
    CASE WHEN age < 13 THEN '0-12' WHEN age < 20 THEN '13-19' WHEN age < 60 THEN '20-59' ELSE '60+' END AS age_group,
    ((p_female >= 0.5) = (gender = 'female'))::INTEGER AS hit, abs(predicted_age - age) AS error
  FROM faces
), sums AS (
  SELECT {columns}, subject, count(*)::DOUBLE AS n, sum(hit)::DOUBLE AS hits, sum(error)::DOUBLE AS errors
  FROM answers GROUP BY ALL
)
SELECT {columns}, sum(n)::BIGINT AS n, count(*) AS subjects, sum(n * n) AS nn,
  sum(hits) AS h, sum(hits * hits) AS hh, sum(hits * n) AS hn,
  sum(errors) AS e, sum(errors * errors) AS ee, sum(errors * n) AS en
FROM sums GROUP BY ALL ORDER BY ALL
"""

DUPLICATES = """
SELECT count(*) AS groups, sum(n) AS faces FROM (SELECT count(*) AS n FROM faces GROUP BY print HAVING count(*) > 1)
"""


def ratio(sums: pd.DataFrame, name: str) -> pd.DataFrame:
    """The ratio h/n and its 95% interval from sums over subjects, one row a group."""
    h, hh, hn = sums[name], sums[name * 2], sums[name + "n"]
    n, m = sums["n"], sums["subjects"]
    value = h / n
    spread = (m / (m - 1) * (hh - 2 * value * hn + value**2 * sums["nn"])).clip(lower=0) ** 0.5 / n
    return pd.DataFrame({"value": value, "low": value - 1.96 * spread, "high": value + 1.96 * spread, "n": n})


def make(rows: int, folder: Path, memory: str) -> Path:
    """Writes the pieces, those that are not there yet."""
    home = folder / str(rows)
    home.mkdir(parents=True, exist_ok=True)
    with open_database(folder, memory) as database:
        for low in range(0, rows, PIECE):
            path, part = home / f"{low // PIECE:04d}.parquet", home / "part"
            if not path.exists():
                high = min(low + PIECE, rows)
                database.execute(MAKE.format(low=low, high=high, subjects=max(rows // 10, 1), path=part))
                part.rename(path)
    return home


def open_database(folder: Path, memory: str):
    """A database in memory, which puts on disk what is beyond its limit."""
    import duckdb

    return duckdb.connect(config={"memory_limit": memory, "threads": 2, "temp_directory": str(folder / "spill")})


def ask(rows: int, folder: Path, memory: str) -> dict[str, object]:
    """The three questions at one size."""
    home = make(rows, folder, memory)
    line: dict[str, object] = {"rows": rows, "GB on disk": sum(one.stat().st_size for one in home.iterdir()) / 1e9}
    with open_database(folder, memory) as database:
        database.execute(f"CREATE VIEW faces AS SELECT * FROM '{home}/*.parquet'")
        begin = time.perf_counter()
        faces, subjects, leaks = database.execute(SPLIT).fetchall()[0]
        line["split"] = time.perf_counter() - begin
        assert faces == rows and leaks == 0, (faces, leaks)
        begin = time.perf_counter()
        for columns in ("'all' AS everyone", "gender", "age_group", "race", "gender, age_group, race"):
            sums = database.execute(METRICS.format(columns=columns)).df()
            assert sums["n"].sum() == rows
            ratio(sums, "h"), ratio(sums, "e")
        line["metrics"] = time.perf_counter() - begin
        begin = time.perf_counter()
        database.execute(DUPLICATES).fetchall()
        line["duplicates"] = time.perf_counter() - begin
    line["largest memory, GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return line


def check(folder: Path, memory: str) -> None:
    """Prints both kinds of interval for 1,000,000 faces."""
    from mien.base.table import age_to_group, check_faces
    from mien.metrics.joining import join
    from mien.metrics.scoring import score

    home = make(1_000_000, folder, memory)
    with open_database(folder, memory) as database:
        database.execute(f"CREATE VIEW faces AS SELECT * FROM '{home}/*.parquet'")
        sums = database.execute(METRICS.format(columns="race")).df().set_index("race")
        rows = database.execute("SELECT * FROM faces").df()
    rows["face"] = rows["face"].astype(str)
    faces = check_faces(
        rows[["face", "subject", "gender", "race", "age"]].assign(subject=rows["subject"].astype(str), path="-")
    )
    answers = rows[["face", "p_female"]].assign(status="ok", age=rows["predicted_age"].astype(float))
    answers["gender"] = answers["p_female"].ge(0.5).map({True: "female", False: "male"})
    answers["age_group"] = age_to_group(answers["age"])
    table = score(join(faces, answers), by=["race"])
    for name, metric in (("h", "gender_accuracy"), ("e", "age_mae")):
        mine = table[(table["metric"] == metric) & table["group"].str.startswith("race=")].set_index("group")
        for race, row in ratio(sums, name).iterrows():
            other = mine.loc[f"race={race}"]
            assert math.isclose(row["value"], other["value"], rel_tol=1e-5), (race, row, other)
            widths = (row["high"] - row["low"]) / (other["high"] - other["low"])
            print(f"{metric} {race}: {row['value']:.5f}, width of the interval as a share of mien's: {widths:.3f}")


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[1_000_000, 10_000_000, 100_000_000])
    parser.add_argument("--memory", default="8GB")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "mien-hundred-million")
    parser.add_argument("--check", action="store_true", help="hold the intervals against those of mien.metrics")
    options = parser.parse_args()
    if options.check:
        check(options.folder, options.memory)
    else:
        for rows in options.rows:
            print(ask(rows, options.folder, options.memory), flush=True)
    shutil.rmtree(options.folder / "spill", ignore_errors=True)


if __name__ == "__main__":
    main()
