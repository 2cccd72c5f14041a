"""The private attributes of Optuna that mien.training.search.hyperband uses; see its docstring."""

import optuna
import pytest
from optuna.trial import Trial

from mien.training.search.hyperband import make_pruner

ADVICE = "Optuna {} changed {}: adapt mien/training/search/hyperband.py, or lower the bound of optuna in pyproject.toml"


@pytest.mark.parametrize("name", ["_try_initialization", "_n_brackets", "_get_bracket_id"])
def test_the_hyperband_pruner_has_its_private_attributes(name):
    assert hasattr(make_pruner(9), name), ADVICE.format(optuna.__version__, f"HyperbandPruner.{name}")


def test_running_trials_can_be_opened_by_their_private_id():
    study = optuna.create_study()
    asked = study.ask()
    (frozen,) = study.get_trials()
    assert Trial(study, frozen._trial_id).number == asked.number, ADVICE.format(optuna.__version__, "Trial")


def test_pruners_note_completed_rungs_under_the_expected_name():
    study = optuna.create_study(pruner=make_pruner(9), study_name="rungs")
    for _ in range(10):
        trial = study.ask()
        for epoch in range(1, 9):
            trial.report(1.0, epoch)
            if trial.should_prune():
                break
        study.tell(trial, 1.0)
    names = {name for trial in study.get_trials() for name in trial.system_attrs}
    assert {"completed_rung_0", "completed_rung_1"} <= names, ADVICE.format(optuna.__version__, sorted(names))
