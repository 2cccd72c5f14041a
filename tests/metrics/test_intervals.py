"""Quantiles, Wilson's interval and resamples against scipy."""

import numpy as np
import pytest
import scipy.stats

from mien.metrics import intervals


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (3, 10), (81, 263), (29, 29)])
@pytest.mark.parametrize("level", [0.95, 0.995])
def test_wilson_agrees_with_scipy(hits: int, n: int, level: float) -> None:
    expected = scipy.stats.binomtest(hits, n).proportion_ci(level, method="wilson")
    z = scipy.stats.norm.ppf(0.5 + level / 2)
    assert intervals.wilson(hits / n, n, z) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_t_quantiles_agree_with_scipy() -> None:
    for freedom in (1, 2, 3, 4, 5, 7, 9, 13, 25, 45, 150, 1e6):
        assert intervals.t_quantile(1 / freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=2e-3)


@pytest.mark.parametrize("z", [1.5, 2.5, 3.0, 3.5])
def test_t_quantiles_at_other_levels(z: float) -> None:
    for freedom in (5, 7, 13, 45, 1e6):
        expected = scipy.stats.t.ppf(scipy.stats.norm.cdf(z), freedom)
        assert intervals.t_quantile(1 / freedom, z) == pytest.approx(expected, rel=0.04)


def test_draws_have_the_size_of_the_sample_and_pools_that_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "_MOST", 30)
    pools, counts = intervals.draws(100, 50, seed=0)
    assert (counts.sum(axis=1) == 30).all() and set(np.bincount(pools)) == {3, 4}
