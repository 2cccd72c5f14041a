"""Hyperparameter search by asynchronous Hyperband, with Optuna."""

from mien.training.search.tune import tune as tune
