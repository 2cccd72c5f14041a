"""The report of a hyperparameter search, from the tables in its folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mien.base.errors import MienError
from mien.experiments.brackets import best_trial
from mien.metrics.wording import metrics_table, scores
from mien.reports import figures
from mien.reports.page import Chart, Section, Table, write_report
from mien.runs.run import Run

METHOD = (
    "Asynchronous Hyperband (Optuna): a trial that reaches a rung continues immediately if it is among the best 1/eta "
    "of the trials that reached this rung before, and is stopped otherwise; no trial waits or is restarted. Hyperband "
    "as published (Li et al. 2018) waits until a rung is full and continues its best 1/eta. Optuna assigns trials to "
    "brackets at random, in the published proportions."
)

_MARKS = {"finished": "o", "stopped early": "x"}


def write_search_report(folder: str | Path) -> Path:
    """Writes report.html to the folder of a search: history, settings, learning curves, cost and the test result.

    Raises:
        MienError: The folder is not a search.
    """
    folder = Path(folder)
    if not (folder / "search.json").is_file() or not (folder / "trials.csv").is_file():
        raise MienError(
            f"{str(folder)!r} is not a search: it has no search.json and trials.csv (mien tune writes them)"
        )
    settings = json.loads((folder / "search.json").read_text("utf-8"))
    trials, ledger, curves = (pd.read_csv(folder / f"{name}.csv") for name in ("trials", "ledger", "curves"))
    best = best_trial(trials, settings["direction"])
    sections = [
        _result(settings, trials, best, Run(folder / "best")),
        _history(settings, trials),
        _cost(ledger),
        _settings(settings, trials),
        _curves(settings, curves, trials),
    ]
    return write_report(
        f"Search: {settings['recipe']['name']}", _lead(settings, trials, best), sections, folder / "report.html"
    )


def _lead(settings: Mapping[str, Any], trials: pd.DataFrame, best: "pd.Series | None") -> str:
    counts = ", ".join(f"{count} {state}" for state, count in trials["state"].value_counts().items())
    sampler = {"random": "random settings", "tpe": "settings suggested by TPE"}[settings["sampler"]]
    lead = f"{len(trials)} trials of {sampler}, evaluated by {settings['metric']} on the validation part: {counts}. "
    if best is None:
        return lead + "No trial was trained to the end."
    return lead + f"The best fully trained trial is {best['trial']}, at {best['value']:.4g}."


def _result(settings: Mapping[str, Any], trials: pd.DataFrame, best: "pd.Series | None", run: Run) -> Section:
    text = [
        METHOD,
        "The validation value of the chosen trial is the best of many, so that it is optimistic; it has no interval. "
        "The test part was used once, after the choice.",
    ]
    tables = []
    if best is not None:
        keys = [key for key in settings["space"] if not pd.isna(best.get(key))]
        rows = pd.DataFrame({"setting": keys, "value": [best[key] for key in keys]})
        tables.append(Table(f"Settings of trial {best['trial']}", rows))
    if run.finished:
        found = run.metrics
        rows = metrics_table(scores(found[(found["split"] == "test") & (found["group"] == "all")]))
        tables.append(Table("The chosen recipe, retrained, on the test part", rows))
    failed = trials.loc[trials["state"] == "failed", ["trial", "epochs", "error"]]
    if len(failed):
        tables.append(Table("Trials that failed", failed, folded=True))
    return Section("Result", text=text, tables=tables)


def _cost(ledger: pd.DataFrame) -> Section:
    whole = ledger.iloc[-1]
    text = (
        f"The search used {whole['epochs']:,} epochs ({whole['seconds']:,.0f} seconds of training). Training all "
        f"trials fully would have used {whole['epochs_full']:,} ({whole['seconds_full']:,.0f} seconds, extrapolated "
        f"from each trial); the same epochs would have been enough for {whole['full_trials']:g} full trials."
    )
    return Section(
        "Cost",
        text=[text],
        tables=[Table("Cost by bracket", ledger.rename(columns=lambda name: name.replace("_", " ")))],
    )


def _history(settings: Mapping[str, Any], trials: pd.DataFrame) -> Section:
    figure = _figure_of_history(trials, settings["metric"], settings["direction"])
    beyond = _beyond(trials["value"], settings["direction"])
    return Section("History", figures=[Chart(figure, f"Last value of each trial{beyond}")])


def _settings(settings: Mapping[str, Any], trials: pd.DataFrame) -> Section:
    charts = []
    for key in settings["space"]:
        some = trials[trials[key].notna() & trials["state"].isin(list(_MARKS))]
        if len(some):
            beyond = _beyond(some["value"], settings["direction"])
            caption = f"{key} and each trial's last value (n {len(some)} trials){beyond}"
            charts.append(Chart(_figure_of_setting(some, key, settings), caption))
    text = "Trials that were stopped early are shown at their last value."
    return Section("Settings", text=[text], figures=charts)


def _curves(settings: Mapping[str, Any], curves: pd.DataFrame, trials: pd.DataFrame) -> Section:
    if curves.empty:
        return Section("Learning curves", text=["No trial finished an epoch."])
    beyond = _beyond(curves[settings["metric"]], settings["direction"])
    figure = _figure_of_curves(curves, trials, settings)
    return Section("Learning curves", figures=[Chart(figure, f"{settings['metric']}, by bracket{beyond}")])


def _top(values: "pd.Series[float]", direction: str) -> float:
    """The end of an axis: diverged trials would flatten all others."""
    finite = values[np.isfinite(values)]
    if finite.empty or direction == "maximize":
        return np.inf
    low, high = float(finite.min()), float(finite.quantile(0.8))
    return high + max(high - low, 1e-9)


def _beyond(values: "pd.Series[float]", direction: str) -> str:
    """Returns how many values are outside the chart."""
    count = int((values > _top(values, direction)).sum())
    return f"; {count} of {len(values)} values are above the chart" if count else ""


def _limit(axes: Axes, values: "pd.Series[float]", direction: str) -> None:
    top = _top(values, direction)
    if (values > top).any():
        low = float(values.min())
        axes.set_ylim(low - 0.05 * (top - low), top)


@figures.styled
def _figure_of_history(trials: pd.DataFrame, metric: str, direction: str) -> Figure:
    figure, axes = figures.new_figure(3.0)
    for at, (state, mark) in enumerate(_MARKS.items()):
        own = trials[trials["state"] == state]
        axes.plot(own["trial"], own["value"], mark, color=figures.SERIES[at], markersize=4.5, label=state)
    over = trials[trials["state"] == "finished"]
    if len(over):
        best = over["value"].cummax() if direction == "maximize" else over["value"].cummin()
        axes.step(over["trial"], best, where="post", color=figures.MUTED, linewidth=1.2, label="best so far")
    axes.set(xlabel="trial", ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.3)
    _limit(axes, trials["value"], direction)
    return figure


@figures.styled
def _figure_of_setting(trials: pd.DataFrame, key: str, settings: Mapping[str, Any]) -> Figure:
    figure, axes = figures.new_figure(2.6)
    parameter = settings["space"][key]
    named = parameter["choices"] is not None
    labels = sorted(trials[key].astype(str).unique()) if named else []
    for at, (state, mark) in enumerate(_MARKS.items()):
        own = trials[trials["state"] == state]
        # Side by side, if several trials have the same choice.
        places = [labels.index(name) + (at - 0.5) * 0.2 for name in own[key].astype(str)] if named else own[key]
        axes.plot(places, own["value"], mark, color=figures.SERIES[at], markersize=4.5, label=state)
    if named:
        axes.set_xticks(range(len(labels)), [figures.shorten(name, 14) for name in labels])
        axes.set_xlim(-0.5, len(labels) - 0.5)
    elif parameter["log"]:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")  # the default formatter needs mathtext
    axes.set(xlabel=key, ylabel=settings["metric"])
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.3)
    _limit(axes, trials["value"], settings["direction"])
    return figure


@figures.styled
def _figure_of_curves(curves: pd.DataFrame, trials: pd.DataFrame, settings: Mapping[str, Any]) -> Figure:
    figure, axes = figures.new_figure(3.6)
    metric = settings["metric"]
    states = trials.set_index("trial")["state"]
    for at, bracket in enumerate(sorted(curves["bracket"].unique(), reverse=True)):
        own = curves[curves["bracket"] == bracket]
        style: dict[str, Any] = {
            "color": figures.SERIES[at % 5],
            "linestyle": figures.LINE_STYLES[at % 5],
            "linewidth": 1.0,
            "alpha": 0.85,
        }
        for count, (trial, rows) in enumerate(own.groupby("trial")):
            axes.plot(rows["epoch"], rows[metric], label=f"bracket {bracket}" if not count else None, **style)
            end = rows.iloc[-1]
            mark = _MARKS.get(states.get(trial, ""), "")
            axes.plot(end["epoch"], end[metric], mark, color=style["color"], markersize=4)
    axes.set(xlabel="epoch (o: trained to the end, x: stopped early)", ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.3, handlelength=3)
    _limit(axes, curves[metric], settings["direction"])
    return figure
