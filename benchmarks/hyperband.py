"""Compares Hyperband, as `mien tune` runs it, with random search on faces.

    MIEN_SHARED_DATA=FOLDER python benchmarks/hyperband.py curves [--configurations 60] [--jobs 1]
    MIEN_SHARED_DATA=FOLDER python benchmarks/hyperband.py noise
    python benchmarks/hyperband.py replay [--seeds 30]
    MIEN_SHARED_DATA=FOLDER python benchmarks/hyperband.py live [--seed 0] [--trials N]

- `curves` trains random configurations of `hyperband.yaml` and `hyperband_space.yaml` to full length and keeps their
  learning curves in `hyperband_curves.csv`; what is there already is not trained again.
- `replay` lets random search and Hyperband go through the stored configurations in random orders, with the pruner and
  the samplers of `mien tune`. Random search trains the first 20, 40 or all of an order to the end; Hyperband goes along
  the same order until it has trained one to the end whose validation loss is as good as random search's best.
- `noise` trains the best of the stored configurations with other seeds: a difference that another seed would make
  too counts as none in `replay`.
- `live` runs one real search.
"""

import argparse
import math
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
RECIPE = HERE / "hyperband.yaml"
SPACE = HERE / "hyperband_space.yaml"
CURVES = HERE / "hyperband_curves.csv"
FACES = 1_400
NOISE = HERE / "hyperband_noise.csv"
SEEDS = 5


def subset(work: Path) -> list[str]:
    """Writes the faces of the task to `work`; returns the changes that make a recipe use them."""
    from mien.base.errors import MienError
    from mien.base.table import write_table
    from mien.data.sources import read_faces

    shared = os.environ.get("MIEN_SHARED_DATA")
    if not shared:
        raise MienError("MIEN_SHARED_DATA is not set; it must name a folder that holds utkface/")
    root = Path(shared).absolute() / "utkface"
    table = work / "faces.parquet"
    if not table.exists():
        faces = read_faces("utkface", root).sample(FACES, random_state=0).reset_index(drop=True)
        write_table(faces, table)
    return [f"data.root={root}", f"data.faces={table.absolute()}"]


def configuration(number: int, changes: list[str]):
    """The random configuration with this number: its settings, and the recipe that they make."""
    import optuna

    from mien.experiments.space import changes as as_changes
    from mien.experiments.space import read_space
    from mien.recipe.load import load_recipe
    from mien.training.search.hyperband import suggest

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    base = load_recipe(RECIPE, changes)
    space = read_space(SPACE, base)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number))
    chosen = suggest(study.ask(), space)
    return chosen, load_recipe(base, as_changes(space, chosen))


def curve(number: int, changes: list[str], work: Path, seed: int = 0) -> list[dict]:
    """Trains one configuration to full length; a row an epoch."""
    from mien.recipe.load import load_recipe
    from mien.training.fit import train

    chosen, recipe = configuration(number, changes)
    recipe = load_recipe(recipe, [f"trainer.seed={seed}"])
    folder = work / f"{number}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    begin = time.monotonic()
    log = train(recipe, out=folder, score=False).log
    wall = time.monotonic() - begin
    shutil.rmtree(folder)
    return [
        {
            "configuration": number,
            **{key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in chosen.items()},
            "epoch": int(row["epoch"]),
            "val_loss": round(row["val_loss"], 6),
            "val_gender_accuracy": round(row["val_gender_accuracy"], 6),
            "seconds": round(wall / len(log), 3),
        }
        for row in log.to_dict("records")
    ]


def curves(options) -> None:
    from mien.base.table import write_table

    changes = subset(options.work)
    known = pd.read_csv(CURVES) if CURVES.exists() else pd.DataFrame({"configuration": pd.Series(dtype=int)})
    todo = [number for number in range(options.configurations) if number not in set(known["configuration"])]
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        waiting = [pool.submit(curve, number, changes, options.work) for number in todo]
        for done in as_completed(waiting):
            known = pd.concat([known, pd.DataFrame(done.result())], ignore_index=True)
            write_table(known.sort_values(["configuration", "epoch"]), CURVES)
            print(f"{known['configuration'].nunique()} of {options.configurations} configurations", flush=True)


def noise(options) -> None:
    from mien.base.table import write_table

    changes = subset(options.work)
    best = int(Stored().final.argmin())
    rows = []
    for seed in range(SEEDS):
        own = pd.DataFrame(curve(best, changes, options.work, seed))
        rows.append({"configuration": best, "seed": seed, "val_loss": own["val_loss"].min()})
        print(rows[-1], flush=True)
    write_table(pd.DataFrame(rows), NOISE)


class Stored:
    """The stored configurations: their settings, and the validation loss that each would keep after each epoch."""

    def __init__(self) -> None:
        from mien.experiments.space import read_space
        from mien.recipe.load import load_recipe

        table = pd.read_csv(CURVES)
        self.space = read_space(SPACE, load_recipe(RECIPE))
        first = table.groupby("configuration").first()
        self.settings = [
            {key: row[key] for key in self.space if not pd.isna(row[key])} for row in first.to_dict("records")
        ]
        for row in self.settings:
            row["trainer.batch_size"] = int(row["trainer.batch_size"])
        wide = table.pivot_table(index="configuration", columns="epoch", values="val_loss", dropna=False)
        self.epochs = len(wide.columns)
        # The weights of the best epoch are kept; a loss that is not finite ends a trial.
        self.losses = np.minimum.accumulate(wide.to_numpy(), axis=1)
        self.final = np.where(np.isfinite(self.losses[:, -1]), self.losses[:, -1], np.inf)
        accuracy = table.pivot_table(index="configuration", columns="epoch", values="val_gender_accuracy")
        kept = np.nan_to_num(wide.to_numpy(), nan=np.inf).argmin(axis=1)
        self.accuracy = accuracy.to_numpy()[np.arange(len(wide)), kept]
        self.seconds = float(table.groupby("configuration")["seconds"].sum().median())

    def nearest(self, wanted: dict, free: list[int]) -> int:
        """Of the free configurations, the one that differs least from the one that is wanted."""
        return min(free, key=lambda row: self._distance(wanted, self.settings[row]))

    def _distance(self, one: dict, other: dict) -> float:
        total = 0.0
        for key, parameter in self.space.items():
            if key not in one or key not in other:
                continue  # the setting that it depends on differs, and counts
            if parameter.choices is not None:
                total += one[key] != other[key]
                continue
            scale = math.log if parameter.log else float
            total += ((scale(one[key]) - scale(other[key])) / (scale(parameter.high) - scale(parameter.low))) ** 2
        return total


def stored_sampler(stored: Stored, name: str, seed: int, order: list[int]):
    """A sampler that gives stored configurations only: the next of an order, or the nearest to what TPE suggests."""
    import optuna

    from mien.training.search.hyperband import make_sampler, suggest

    class Rows(optuna.samplers.BaseSampler):
        def __init__(self):
            self.free = list(order)
            self.taken = None

        def before_trial(self, study, trial):
            self.taken = self.free[0]
            if name == "tpe":
                inner = make_sampler(name, seed, trial.number)
                inner.before_trial(study, trial)
                self.taken = stored.nearest(suggest(Probe(inner, study, trial), stored.space), self.free)
            self.free.remove(self.taken)
            # Read by the trial that is being made, as those of an enqueued one.
            trial.system_attrs["fixed_params"] = stored.settings[self.taken]

        def infer_relative_search_space(self, study, trial):
            return {}

        def sample_relative(self, study, trial, search_space):
            return {}

        def sample_independent(self, study, trial, param_name, param_distribution):
            raise AssertionError("every setting is fixed")

    class Probe:
        """What a sampler would suggest, without a trial of its own."""

        def __init__(self, sampler, study, trial):
            self._ask = lambda key, kind: sampler.sample_independent(study, trial, key, kind)
            space = sampler.infer_relative_search_space(study, trial)
            self._relative = sampler.sample_relative(study, trial, space)

        def _suggest(self, key, kind):
            return self._relative[key] if key in self._relative else self._ask(key, kind)

        def suggest_categorical(self, key, labels):
            return self._suggest(key, optuna.distributions.CategoricalDistribution(labels))

        def suggest_float(self, key, low, high, step=None, log=False):
            return self._suggest(key, optuna.distributions.FloatDistribution(low, high, log=log, step=step))

        def suggest_int(self, key, low, high, step=1, log=False):
            return self._suggest(key, optuna.distributions.IntDistribution(low, high, log=log, step=step))

    return Rows()


def hyperband(stored: Stored, name: str, seed: int, order: list[int]) -> list[tuple[int, float]]:
    """Goes through an order; returns the epochs spent and the loss whenever a trial trained to the end, and at last."""
    import optuna
    from optuna.trial import TrialState

    from mien.training.search.hyperband import is_rung, make_pruner, suggest

    sampler = stored_sampler(stored, name, seed, order)
    study = optuna.create_study(sampler=sampler, pruner=make_pruner(stored.epochs), study_name=f"replay-{seed}")
    spent, found = 0, []
    for _ in order:
        trial = study.ask()
        suggest(trial, stored.space)
        state = TrialState.COMPLETE
        losses = stored.losses[sampler.taken]
        for epoch, loss in enumerate(losses, start=1):
            spent += 1
            if not math.isfinite(loss):
                state = TrialState.FAIL
                break
            trial.report(loss, epoch)
            if is_rung(epoch, stored.epochs) and trial.should_prune():
                state = TrialState.PRUNED
                break
        study.tell(trial, losses[-1] if state == TrialState.COMPLETE else None, state)
        if state == TrialState.COMPLETE:
            found.append((spent, float(losses[-1])))
    return [*found, (spent, math.inf)]


def replay(options) -> None:
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    stored = Stored()
    count = len(stored.settings)
    orders = [np.random.default_rng(seed).permutation(count).tolist() for seed in range(options.seeds)]
    best = int(stored.final.argmin())
    failed = int(np.isinf(stored.final).sum())
    print(
        f"{count} configurations of {stored.epochs} epochs ({failed} diverged), {options.seeds} orders; best "
        f"validation loss {stored.final.min():.4f} (accuracy {stored.accuracy[best]:.3f}), median "
        f"{np.median(stored.final):.4f}, next best {np.sort(stored.final)[1]:.4f}; {stored.seconds:.0f} seconds each\n"
    )
    results = {}
    for name in ("random", "tpe"):
        results[name] = [hyperband(stored, name, seed, order) for seed, order in enumerate(orders)]
        whole = np.array([found[-1][0] for found in results[name]])
        regret = np.array([min(loss for _, loss in found) for found in results[name]]) - stored.final.min()
        print(
            f"Hyperband ({name}), all {count} trials: {spread(whole, '.0f')} epochs, "
            f"{spread(whole / count / stored.epochs)} of random search's {count * stored.epochs}; its best is worse by "
            f"{spread(regret, '.4f')}; the same configuration in {int((regret <= 0).sum())} of {len(regret)} orders"
        )
    other_seeds = float(pd.read_csv(NOISE)["val_loss"].std())
    print(f"\nOther seeds of the best configuration: validation loss differs by {other_seeds:.4f} (SD, {SEEDS} seeds)")
    print("\nEpochs until a trial as good as random search's best was trained to the end, as a share of its epochs:\n")
    print("| random search | as good: loss within | Hyperband | median share (range) | at most a third | never |")
    print("|---|---|---|---|---|---|")
    for first in (20, 40, count):
        for margin in (0.0, other_seeds):
            for name, runs in results.items():
                shares = np.array(
                    [share(stored, order, run, first, margin) for order, run in zip(orders, runs, strict=True)]
                )
                print(
                    f"| {first} trials, {first * stored.epochs} epochs | {margin:.4f} | {name} | {spread(shares)} | "
                    f"{int((shares <= 1 / 3).sum())} of {len(shares)} | {int(np.isinf(shares).sum())} |"
                )


def share(stored: Stored, order: list[int], found: list[tuple[int, float]], first: int, margin: float) -> float:
    """Hyperband's epochs until it had one as good as random search's best of the first trials, as a share of its."""
    goal = stored.final[order[:first]].min() + margin
    needed = next((spent for spent, loss in found if loss <= goal), math.inf)
    return needed / (first * stored.epochs)


def spread(values: np.ndarray, form: str = ".2f") -> str:
    return f"{np.median(values):{form}} ({values.min():{form}} to {values.max():{form}})"


def live(options) -> None:
    """One search by `mien tune` on the same task, beside the random search that is stored."""
    from mien.training.search import tune

    changes, out = subset(options.work), options.work / f"live-{options.seed}"
    run = tune(RECIPE, SPACE, out, changes=changes, seed=options.seed, trials=options.trials)
    ledger = pd.read_csv(run.folder.parent / "ledger.csv").iloc[-1]
    stored = Stored()
    whole = len(stored.settings) * stored.epochs
    table = run.metrics
    score = table[(table["split"] == "test") & (table["group"] == "all") & (table["metric"] == "gender_accuracy")].iloc[
        0
    ]
    print(
        f"live: {ledger['trials']} trials, {ledger['epochs']} epochs, {ledger['epochs'] / whole:.2f} of random "
        f"search's {whole}; best validation loss {ledger['best']:.4f}, random search's {stored.final.min():.4f}; test "
        f"accuracy {score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}], n {score['n']}"
    )


def main() -> None:
    from mien.base.errors import MienError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["curves", "noise", "replay", "live"])
    parser.add_argument("--configurations", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, help="of live; default: one round of Hyperband as published")
    parser.add_argument("--work", type=Path, default=Path("runs/hyperband"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    try:
        {"curves": curves, "noise": noise, "replay": replay, "live": live}[options.part](options)
    except MienError as error:
        sys.exit(f"hyperband: {error}")


if __name__ == "__main__":
    main()
