"""Writes the model card of the built-in model, from the faces and predictions of a run or of a file exported from it.

    python benchmarks/model_card.py RUN [--model FILE] [--peers benchmarks/peers.md]
        [--other-sets benchmarks/generalisation.md] [--out FILE]

Scores are of the run's test part. The threshold of `unsure` is chosen on the validation part, and printed. With
`--model`, that file predicts both parts again: use the built-in one, which may be quantized or calibrated differently
from the file of the run. The robustness table predicts the test part under every condition of
`mien.evaluation.conditions`.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mien import Predictor, metrics
from mien.base.atomic import atomic_path
from mien.base.console import progress
from mien.data.roots import recipe_root
from mien.evaluation import conditions
from mien.metrics.definitions import PERCENT
from mien.metrics.wording import HEADLINES, Score, groups_table, metrics_table, named, scores, unit_of, with_interval
from mien.reports.run_results import protocol, protocol_sentence
from mien.runs.hub import model_file
from mien.runs.run import Run, open_run
from mien.training import publish

SMALL = 50
"""Groups of fewer faces are marked as uncertain."""

UNSURE = 0.05
"""The share of unsure predictions for which the threshold is chosen."""

AGE_BANDS = {
    "0 to 2": (0, 3),
    "3 to 12": (3, 13),
    "13 to 17": (13, 18),
    "under 18": (0, 18),
    "18 and over": (18, np.inf),
    "over 70": (71, np.inf),
}
"""Bands of the true age in years, lower end included, upper end excluded; bands overlap."""

SINGLE = {"dataset": "data set", "gender": "gender", "age_group": "age group", "race": "race code"}
"""Columns to group by, and their names in the card."""

CROSSED = (
    ("dataset", "gender"),
    ("dataset", "age_group"),
    ("gender", "race"),
    ("gender", "age_group"),
    ("age_group", "race"),
)
"""Pairs of columns to group by."""

INTERVALS = "Brackets contain 95% intervals from a bootstrap of whole subjects (of faces if subjects are unknown)."

NOTICE = (
    "**Licence of the weights.** They were trained on UTKFace, whose images are for non-commercial research, on "
    "All-Age-Faces, which states no licence, and on LFW: use these weights for non-commercial research only. The "
    "Apache-2.0 licence of mien's code does not cover them."
)

USES = """\
Intended uses: research on such classifiers; audits; statistics over many images that take the errors below into
account; initial weights for training on your own data (under the terms of the weights).

Unsuitable uses, whatever the score:

- any decision about a person: access, hiring, pricing, policing, medicine, proof of age;
- identifying or following people: the model identifies nobody;
- presenting gender identity, sex or age as a fact;
- images of children where an error matters: see the scores of the youngest groups below;
- commercial use: see the licence."""

LIMITS = """\
- Gender is the label of the data set: binary, and perceived by annotators or by a program from an image. People who
  are neither get one of the two labels or `unsure`.
- The labels contain errors: among exact duplicates in UTKFace, about 8% of the pairs disagree about gender, so no
  score can reach 100%. Children, for whom perception itself is least reliable, have the lowest scores.
- Race codes are the five coarse codes of the data set; they were used to measure, and are never predicted.
- UTKFace was collected on the web and has no subjects: near-duplicates were kept in one part, but two different
  images of one person may be in two parts. UTKFace's figures are from one test part of 1,991 faces, not from folds.
- UTKFace's faces are its own crops; those of the other sets are cut by mien's detector, as in prediction. Accuracy is
  lower for other cameras, poses, hats, masks and light: the robustness table shows how much for some of them.
- UTKFace is split as for mien-1, whose weights it starts from. After training, a better search for altered copies
  (mirrored, cropped, framed) found 17 test faces, 12 of UTKFace and 5 of All-Age-Faces, with a copy in another part.
- On data sets that it has never seen expect the figures marked "left out", not those of the test parts.
- The test parts were looked at for mien-1 before, and for one longer variant of this model, which was not kept
  because its validation loss was no lower. LFW, All-Age-Faces and CelebA also taught or measured the detector.
- Ages are medians of a predicted distribution: extreme ages are biased towards the middle.
- The strength with which calibration keeps temperatures near 1 was set after a first calibration error on this test
  part had been seen (2.2%): of the figures below, that one is not entirely independent of the test part."""


class Evaluated(NamedTuple):
    """The input of the card.

    Attributes:
        run: The run.
        model: The file whose predictions these are.
        predictor: The predictor of that file.
        faces: All faces of the run.
        parts: For "val" and "test", `metrics.join` of faces and predictions with the more probable gender for "unsure".
    """

    run: Run
    model: Path
    predictor: Predictor
    faces: pd.DataFrame
    parts: dict[str, pd.DataFrame]


def main() -> None:
    """Writes the card and prints the threshold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="the folder of a finished run")
    parser.add_argument(
        "--model", type=Path, help="the built-in model file; default: that of the run, with its predictions"
    )
    parser.add_argument("--peers", type=Path, help="output of benchmarks/peers.py for the same run")
    parser.add_argument("--other-sets", type=Path, help="output of benchmarks/generalisation.py for the same model")
    parser.add_argument("--out", type=Path, default=Path("src/mien/weights/MODEL_CARD.md"))
    parser.add_argument("--limit", type=int, help="number of faces for the robustness table, for tests")
    options = parser.parse_args()
    evaluated = evaluate(open_run(options.run), options.model)
    command = f"python benchmarks/model_card.py {options.run}" + (f" --model {options.model}" if options.model else "")
    command += f" --limit {options.limit}" if options.limit else ""
    card = "\n\n".join(sections(evaluated, options, command)) + "\n"
    with atomic_path(options.out) as part:
        part.write_text(card, "utf-8")
    print(f"card: {options.out}; unsure_below {threshold(evaluated.parts['val'], UNSURE):.4f} for {UNSURE:.0%} unsure")


def evaluate(run: Run, model: Path | None = None) -> Evaluated:
    """Predictions of the validation and test part: the run's own, or those of a file."""
    faces = run.faces
    file = run.model_file if model is None else model_file(model, ".onnx")
    predictor = Predictor(file)
    stored = run.predictions if model is None else None
    parts = {}
    for split in ("val", "test"):
        part = faces[faces["split"] == split].reset_index(drop=True)
        if stored is not None:
            answers = stored[stored["face"].isin(part["face"])]
        else:
            with progress(f"predicting the {split} part") as update:
                answers = predictor.predict_faces(part, recipe_root(run.recipe.data), update)
        parts[split] = metrics.join(part, conditions.force_decision(answers))
    return Evaluated(run, file, predictor, faces, parts)


def sections(evaluated: Evaluated, options: argparse.Namespace, command: str) -> Iterator[str]:
    """Yields the sections of the card in order."""
    run, test = evaluated.run, evaluated.parts["test"]
    table = scored(test, evaluated.faces[evaluated.faces["split"] == "train"])
    yield from _lead(evaluated, table, options.other_sets is not None)
    if options.other_sets is not None:
        yield other_sets(options.other_sets)
    yield "## Uses"
    yield USES
    yield "## Limits"
    yield LIMITS
    yield _weakest(table)
    yield "## Data and protocol"
    yield from _data(evaluated)
    yield "## Scores"
    yield (
        f"Test part of {run.recipe.data.title}, n {len(test):,}; protocol: {protocol(run)}. {INTERVALS} Gender here "
        "is the more probable label, even if the prediction would be `unsure`. A verdict compares with the baseline, a "
        "constant prediction based on the training part, on the same faces."
    )
    yield markdown(metrics_table([row for row in _rows(table, "all") if row.metric not in publish._CALIBRATION]))
    if options.peers is not None:
        yield quoted(options.peers)
    yield from _groups(table)
    yield "## Calibration"
    yield from _calibration(evaluated, table)
    yield "## Unsure"
    yield from _unsure(evaluated)
    yield "## Robustness"
    yield from _robustness(evaluated, options.limit)
    yield "## Reproduction"
    yield from _making(evaluated, command)


def scored(joined: pd.DataFrame, train: pd.DataFrame | None = None) -> pd.DataFrame:
    """The metrics table of a part: all faces, single groups, bands of age, and the crossings of two columns."""
    known = {column: metrics.TRUTH_COLUMNS.get(column, column) for column in SINGLE}
    known = {column: truth for column, truth in known.items() if truth in joined.columns}
    if joined["dataset"].nunique() < 2:
        del known["dataset"]
    rows = joined.copy()
    crossed = [(one, other) for one, other in CROSSED if one in known and other in known]
    for one, other in crossed:
        rows[f"{one} x {other}"] = _crossed(rows[known[one]], rows[known[other]])
    crossings = [f"{one} x {other}" for one, other in crossed]
    tables = [metrics.score(rows, [*known, *crossings], train)]
    for band, (young, old) in AGE_BANDS.items():
        members = rows[(rows["true_age"] >= young) & (rows["true_age"] < old)]
        if len(members):
            tables.append(metrics.score(members, (), train).assign(group=f"age={band}"))
    return pd.concat(tables, ignore_index=True)


def _crossed(one: pd.Series, other: pd.Series) -> pd.Categorical:
    """Combines two labels into one, ordered by the first, then the second; missing if either is."""
    both = [
        labels.cat.categories if hasattr(labels, "cat") else sorted(labels.dropna().unique()) for labels in (one, other)
    ]
    names = [f"{first}, {second}" for first in both[0] for second in both[1]]
    words = one.astype("object") + ", " + other.astype("object")
    return pd.Categorical(words.where(one.notna() & other.notna(), None), categories=names)


def threshold(joined: pd.DataFrame, share: float) -> float:
    """Returns the probability below which `share` of the gender predictions are; use the validation part."""
    certainty = metrics.confidence(joined, "gender")["confidence"]
    return float(np.quantile(certainty, share))


def some(faces: pd.DataFrame, limit: int | None) -> pd.DataFrame:
    """Samples `limit` faces, always the same; returns all if there is no limit, or fewer faces."""
    if limit is not None and limit < len(faces):
        faces = faces.sample(limit, random_state=0).sort_index()
    return faces.reset_index(drop=True)


def markdown(table: pd.DataFrame) -> str:
    """Returns a Markdown table, with thousands separators in numbers of faces."""
    return publish._table(table.map(lambda cell: f"{cell:,}" if isinstance(cell, int) else cell))


def quoted(peers: Path) -> str:
    """The comparison with another package, as benchmarks/peers.py wrote it."""
    text = peers.read_text("utf-8")
    _, heading, rest = text.partition("## Scores\n")
    if not heading:
        raise SystemExit(f"--peers {str(peers)!r} has no section 'Scores'; benchmarks/peers.py writes it")
    section = rest.partition("\n## ")[0].rstrip()
    return f"### Comparison with another package\n{section}\n\nFor details see {peers}."


def other_sets(report: Path) -> str:
    """The figures of other data sets, as benchmarks/generalisation.py wrote them."""
    text = report.read_text("utf-8").partition("\n")[2].strip().replace("\n## ", "\n### ")
    return f"## On each data set, and on data sets that it has never seen\n\n{text}\n\nFor the command see {report}."


def _rows(table: pd.DataFrame, *kinds: str) -> list[Score]:
    """The scores of "all", or of the groups that a column makes."""
    return scores(table[table["group"].str.partition("=")[0].isin(kinds)])


def _headline(table: pd.DataFrame, metric: str) -> str:
    (row,) = [row for row in _rows(table, "all") if row.metric == metric]
    return f"{named(metric, unit=False)} {with_interval(metric, row.value, row.low, row.high, unit=True)}"


def _lead(evaluated: Evaluated, table: pd.DataFrame, other_sets_known: bool) -> Iterator[str]:
    recipe = evaluated.run.recipe
    yield f"# Model card: {evaluated.run.name}"
    size = evaluated.model.stat().st_size / 1e6
    yield (
        f"Predicts perceived gender and age from an image of one face. `{recipe.model.backbone}`, "
        f"{evaluated.predictor.size}x{evaluated.predictor.size} pixels, {size:.1f} MB as `{evaluated.model.name}`."
    )
    measured = {row.metric for row in _rows(table, "all")}
    figures = "; ".join(_headline(table, metric) for metric in HEADLINES if metric in measured)
    n = len(evaluated.parts["test"])
    yield f"On {n:,} faces of {recipe.data.title} of the test part ({protocol(evaluated.run)}): {figures}. {INTERVALS}"
    if other_sets_known:
        yield '**On data sets that it has never seen expect less**: see "left out" in the first table below.'
    yield NOTICE


def _weakest(table: pd.DataFrame) -> str:
    """Lists the groups whose interval of gender accuracy is below the score of all faces."""
    (every,) = [row for row in _rows(table, "all") if row.metric == "gender_accuracy"]
    weak = [
        f"{_plain_group(row.group)} {with_interval(row.metric, row.value, row.low, row.high)}, n {row.n:,}"
        for row in sorted(_rows(table, *SINGLE, "age"), key=lambda row: row.value)
        if row.metric == "gender_accuracy" and row.n >= SMALL and row.high < every.value
    ]
    listed = "; ".join(weak) if weak else "none"
    return (
        f"Groups whose 95% interval of gender accuracy is below the score of all faces ({every.value:.1%}): {listed}."
    )


def _plain_group(group: str) -> str:
    column, _, value = group.partition("=")
    return f"{SINGLE.get(column, column)} {value}"


def _data(evaluated: Evaluated) -> Iterator[str]:
    run = evaluated.run
    facts = publish.public_facts(run)
    yield publish._ledger_words(run.recipe, facts["ledger"]) + " Faces in each part:"
    yield markdown(publish._parts(run))
    leaks = " ".join(publish._warnings(facts)) or "No leak between the parts was found."
    yield (
        f"Protocol: {protocol_sentence(run)}. {leaks} Weights, calibration and "
        "the threshold of `unsure` were chosen without the test part."
    )
    steps = publish._steps(facts["lineage"])
    yield "Lineage of the weights, latest step first:"
    yield "\n".join(f"{place}. {step}" for place, step in enumerate(steps, 1))


def _groups(table: pd.DataFrame) -> Iterator[str]:
    """Headline scores by group, single and crossed."""
    headings = {
        "By data set": ["dataset"],
        "Data set and gender": ["dataset x gender"],
        "Data set and age group": ["dataset x age_group"],
        "By gender": ["gender"],
        "By age": ["age_group", "age"],
        "By race code": ["race"],
        "Gender and race code": ["gender x race"],
        "Gender and age group": ["gender x age_group"],
        "Age group and race code": ["age_group x race"],
    }
    yield (
        f"Groups are defined by the labels. A group of fewer than {SMALL} faces is marked with †: its scores are "
        "uncertain, use the interval only. Age groups are Adience's; a true age between two groups belongs to the "
        "nearer one."
    )
    for heading, kinds in headings.items():
        rows = _rows(table, *kinds)
        if rows:
            yield f"### {heading}"
            yield markdown(_marked(groups_table(rows)))


def _marked(groups: pd.DataFrame) -> pd.DataFrame:
    """Marks small groups, and removes the name of the column from theirs."""
    small = groups["faces"].str.replace(",", "").astype(int) < SMALL
    names = groups["group"].str.partition(": ")
    words = names[2].where(names[0] != "age", "years " + names[2])
    return groups.assign(group=words.where(~small, words + " †"))


def _calibration(evaluated: Evaluated, table: pd.DataFrame) -> Iterator[str]:
    yield (
        "The difference between predicted probabilities and observed accuracy (expected calibration error, 0 is "
        "perfect), and the share of true ages inside the predicted 80% interval (80% is perfect)."
    )
    yield markdown(
        metrics_table([row for row in _rows(table, "all") if row.metric in publish._CALIBRATION]).iloc[:, :3]
    )
    inside = [row for row in _rows(table, "gender", "race", "age_group") if row.metric == "age_interval_coverage"]
    if inside:
        yield "Share of true ages inside the 80% interval, by group:"
        yield markdown(
            pd.DataFrame(
                {
                    "group": [_plain_group(row.group) + (" †" if row.n < SMALL else "") for row in inside],
                    "faces": [row.n for row in inside],
                    "inside, %": [with_interval(row.metric, row.value, row.low, row.high) for row in inside],
                }
            )
        )
    stated = metrics.confidence(evaluated.parts["test"], "gender")
    bins = metrics.reliability(stated["confidence"], stated["correct"])
    bins = bins[bins["n"] > 0]
    yield f"Gender: probability of the more probable label, and accuracy (n {len(stated):,}):"
    yield markdown(
        pd.DataFrame(
            {
                "probability": [
                    f"{max(low, 0.5):.2f} to {high:.2f}" for low, high in zip(bins.bin_low, bins.bin_high, strict=True)
                ],
                "faces": list(bins["n"]),
                "mean probability, %": [f"{value:.1%}"[:-1] for value in bins["p"]],
                "accuracy, %": [
                    with_interval(PERCENT, *row) for row in zip(bins.observed, bins.low, bins.high, strict=True)
                ],
            }
        )
    )


def _unsure(evaluated: Evaluated) -> Iterator[str]:
    """The thresholds of `unsure`: chosen on the validation part, evaluated on the test part."""
    shipped = evaluated.predictor.metadata.get("unsure_below")
    validation = len(evaluated.parts["val"])
    yield (
        "If the probability of both genders is below a threshold, the prediction is `unsure`. Thresholds were chosen "
        f"on the validation part (n {validation:,}) for a share of unsure predictions, and evaluated on the test part."
    )
    lines = [
        _threshold_row(evaluated, f"{share:.0%}", threshold(evaluated.parts["val"], share))
        for share in (0.01, 0.02, UNSURE, 0.1, 0.2)
    ]
    if shipped is not None:
        lines.append(_threshold_row(evaluated, "stored in the file", shipped))
    yield markdown(pd.DataFrame(lines))
    if shipped is None:
        yield "The file has no threshold: it always predicts the more probable label."


def _threshold_row(evaluated: Evaluated, target: str, below: float) -> dict[str, Any]:
    line: dict[str, Any] = {"target": target, "threshold": f"{below:.4f}"}
    for split, part in (("validation", evaluated.parts["val"]), ("test", evaluated.parts["test"])):
        labelled = part[part["true_gender"].notna() & part["p_female"].notna()]
        certain = np.maximum(labelled["p_female"], 1 - labelled["p_female"]) >= below
        said = labelled["gender"].where(certain, metrics.UNSURE)
        unsure = metrics.mean_over_runs([labelled.assign(gender=said)], "gender_unsure")
        rest = metrics.mean_over_runs([labelled[certain]], "gender_accuracy")
        line[f"unsure on {split}, %"] = with_interval("gender_unsure", *unsure[:3])
        line[f"accuracy of the others on {split}, %"] = with_interval("gender_accuracy", *rest[:3]) + f", n {rest.n:,}"
    return line


def _robustness(evaluated: Evaluated, limit: int | None) -> Iterator[str]:
    run = evaluated.run
    test = some(evaluated.faces[evaluated.faces["split"] == "test"], limit)
    with progress("robustness", "faces") as update:
        table = conditions.score_conditions(evaluated.predictor, test, recipe_root(run.recipe.data), progress=update)
    yield (
        f"The same {len(test):,} test faces degraded before they are resized (see `mien.evaluation.conditions`), and "
        "the paired difference to the original faces, in points or years. Areas outside the image repeat its edge, as "
        "in prediction."
    )
    yield markdown(conditions_table(table))


def conditions_table(table: pd.DataFrame) -> pd.DataFrame:
    """Formats the result of `conditions.score_conditions` as text, one row per condition."""
    lines: dict[str, dict[str, str]] = {}
    for row in table.itertuples():
        line = lines.setdefault(row.condition, {"condition": row.condition})
        line[named(row.metric)] = with_interval(row.metric, row.value, row.low, row.high)
        if row.metric in ("gender_accuracy", "age_mae"):
            ends = (row.difference, row.difference_low, row.difference_high)
            line[f"{named(row.metric, unit=False)}, difference"] = signed(row.metric, *ends)
    return pd.DataFrame(list(lines.values()))


def signed(metric: str, value: float, low: float, high: float) -> str:
    """A difference with its interval and signs, in points or years."""
    if np.isnan(value):
        return "–"
    _, scale, digits, _ = unit_of(metric)
    return f"{value * scale:+.{digits}f} [{low * scale:+.{digits}f}, {high * scale:+.{digits}f}]"


def _making(evaluated: Evaluated, command: str) -> Iterator[str]:
    run = evaluated.run
    versions = {name: version for name, version in run.info.get("versions", {}).items() if name != "platform"}
    told = [
        key
        for key in ("calibration", "quantized", "half", "mirror", "unsure_below")
        if key in evaluated.predictor.metadata
    ]
    yield (
        f"Recipe `{run.recipe.name}`: the metadata of the file contains every setting (`mien.Predictor(FILE).metadata`"
        + (f", with {', '.join(told)}" if told else "")
        + f"). Made with {', '.join(f'{name} {version}' for name, version in versions.items())}."
    )
    yield markdown(publish._cost(publish.public_facts(run)))
    yield f"Command for this card: `{command}`."


if __name__ == "__main__":
    main()
