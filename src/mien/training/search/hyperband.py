"""Optuna's Hyperband with the brackets of the paper, and its samplers.

Optuna's Hyperband is asynchronous: no trial waits for the others of its rung. A trial that has trained for the epochs
of a rung continues at once if it is among the best 1/eta of the trials that have reached the rung so far, and is pruned
otherwise. Hyperband as published (Li et al. 2018) waits until a rung is full and then continues the best 1/eta.

This module contains all uses of Optuna's private attributes. There is no public way to ask for the bracket of a trial
or to repeat a pruning decision, so pyproject.toml bounds the version of Optuna, and
tests/training/search/test_optuna.py fails when one of the attributes is gone.
"""

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial

from mien.experiments.brackets import brackets
from mien.experiments.space import Scalar, Space, is_whole
from mien.training.search.definition import Sampler, Search


def make_pruner(epochs: int, eta: int = 3) -> optuna.pruners.HyperbandPruner:
    """Returns Optuna's Hyperband pruner with the brackets of `brackets`; use it only where `is_rung` holds.

    Args:
        epochs: Epochs of a trial that is never pruned.
        eta: Reduction factor.
    """
    most = len(brackets(epochs, eta)) - 1
    first = epochs // eta**most
    # Optuna computes the number of brackets with a floating-point logarithm, which is one too small for 243 epochs.
    # It uses max_resource for nothing else, so one epoch more than the exact power is safe.
    pruner = optuna.pruners.HyperbandPruner(first, first * eta**most + 1, eta)
    # Before its first decision Optuna does not separate brackets, and samplers would learn from other brackets.
    pruner._try_initialization(None)  # type: ignore[arg-type]  # the study is needed for max_resource "auto" only
    return pruner


def is_rung(epoch: int, epochs: int, eta: int = 3) -> bool:
    """Returns whether a trial may be pruned after this epoch; Optuna has one more rung, at `epochs` itself."""
    return epoch < brackets(epochs, eta)[0].rungs[-1] * eta


def bracket_of(study: optuna.Study, number: int) -> int:
    """Returns the bracket `s` to which Optuna assigns the trial with this number."""
    pruner = study.pruner
    assert isinstance(pruner, optuna.pruners.HyperbandPruner) and pruner._n_brackets is not None
    trial = optuna.trial.create_trial(value=0.0)
    trial.number = number
    return pruner._n_brackets - 1 - pruner._get_bracket_id(study, trial)


def running_trial(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """Returns a running trial of a study, so that another process can continue it."""
    return Trial(study, trial._trial_id)


def reported_epochs(trial: Trial) -> set[int]:
    """Returns the epochs whose values the storage already has."""
    return set(trial.storage.get_trial(trial._trial_id).intermediate_values)


def is_pruned_on_replay(search: Search, study: optuna.Study, number: int, epoch: int) -> bool:
    """Repeats the pruning decision for a trial at its last epoch.

    A process can be killed after Optuna has recorded that a trial reached a rung and before the trial is marked as
    pruned. Optuna records no decision and does not decide twice, so the decision is repeated on a copy of the study
    without that record.
    """
    rungs = next(
        bracket.rungs
        for bracket in brackets(search.recipe.trainer.epochs, search.eta)
        if bracket.s == bracket_of(study, number)
    )
    if epoch not in rungs:
        return False
    trials = study.get_trials()
    trials[number].system_attrs.pop(f"completed_rung_{rungs.index(epoch)}", None)
    copy = _copy(search, study, trials)
    return copy.pruner.prune(copy, copy.get_trials()[number])


def _copy(search: Search, study: optuna.Study, trials: Iterable[FrozenTrial]) -> optuna.Study:
    """Returns an in-memory study with the given trials."""
    pruner = make_pruner(search.recipe.trainer.epochs, search.eta)
    copy = optuna.create_study(study_name=study.study_name, direction=search.direction, pruner=pruner)
    copy.add_trials(trials)
    return copy


def make_sampler(name: Sampler, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """Returns the sampler of one trial; a seed without the number would suggest the same values after each restart."""
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if name == "random":
        return optuna.samplers.RandomSampler(own)
    with warnings.catch_warnings():
        # `group` models conditional settings together.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=own, multivariate=True, group=True)


def replay_sampler(
    search: Search, study: optuna.Study, known: Sequence[FrozenTrial], number: int
) -> optuna.samplers.BaseSampler:
    """Returns a sampler that repeats the suggestions of a trial whose process may have died while it sampled."""
    copy = _copy(search, study, known[:number])
    copy.sampler = make_sampler(search.sampler, search.seed, number)
    chosen = suggest(copy.ask(), search.space)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.PartialFixedSampler(chosen, optuna.samplers.RandomSampler(number))


def suggest(trial: Trial, space: Space) -> dict[str, Scalar]:
    """Samples a label for each active key of the space; values that the trial already has are kept."""
    chosen: dict[str, Scalar] = {}
    for key, parameter in space.items():
        if not parameter.active(chosen):
            continue
        if parameter.choices is not None:
            chosen[key] = trial.suggest_categorical(key, parameter.labels)
            continue
        assert parameter.low is not None and parameter.high is not None
        if is_whole(key):
            step = 1 if parameter.step is None else int(parameter.step)
            chosen[key] = trial.suggest_int(key, int(parameter.low), int(parameter.high), step=step, log=parameter.log)
        else:
            low, high = float(parameter.low), float(parameter.high)
            chosen[key] = trial.suggest_float(key, low, high, step=parameter.step, log=parameter.log)
    return chosen
