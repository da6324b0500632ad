"""The sweep over learning rates: which are tried, and which is selected."""

import math
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.ablation.sweep import beyond, sweep
from experiments.training.loop import Diverged

GRID = (1e-3, 3e-3, 1e-2)


def swept(rates, extra, scores):
    """The selected rate and all rates tried, given the score of each; a score of None is a divergence."""

    def train(rate):
        score = scores(rate) if callable(scores) else scores[rate]
        if score is None:
            raise Diverged(f'non-finite loss at {rate:g}')
        return types.SimpleNamespace(validation_score=score, rate=rate)

    rate, trained, tried = sweep(rates, extra, train)
    assert trained.rate == rate
    return rate, tried


def test_the_best_is_selected_and_the_earliest_among_equals():
    assert swept(GRID, 4, {1e-3: 0.1, 3e-3: 0.3, 1e-2: 0.2}) == (3e-3, GRID)
    assert swept((*GRID, 3e-2), 4, {1e-3: 0.1, 3e-3: 0.3, 1e-2: 0.3, 3e-2: 0.2}) == (3e-3, (*GRID, 3e-2))


def test_beyond_an_edge_it_goes_on_while_the_score_rises():
    lower = {1e-3: 0.5, 3e-3: 0.3, 1e-2: 0.2, 3e-4: 0.6, 1e-4: 0.6}
    assert swept(GRID, 4, lower) == (3e-4, (*GRID, 3e-4, 1e-4))
    upper = {1e-3: 0.1, 3e-3: 0.2, 1e-2: 0.3, 3e-2: 0.2}
    assert swept(GRID, 4, upper) == (1e-2, (*GRID, 3e-2))


def test_at_most_so_many_are_added():
    assert swept(GRID, 2, lambda rate: rate) == (1e-1, (*GRID, 3e-2, 1e-1))
    assert swept(GRID, 0, lambda rate: rate) == (1e-2, GRID)


def test_a_single_rate_is_no_choice():
    assert swept((1e-3,), 4, lambda rate: rate) == (1e-3, (1e-3,))


def test_a_rate_at_which_training_diverges_loses(capsys):
    assert swept(GRID, 4, {1e-3: 0.1, 3e-3: 0.2, 1e-2: 0.3, 3e-2: None}) == (1e-2, (*GRID, 3e-2))
    assert 'a learning rate of 0.03 loses: training diverges' in capsys.readouterr().err
    assert swept(GRID, 4, {1e-3: 0.1, 3e-3: 0.2, 1e-2: None})[0] == 3e-3
    assert swept(GRID, 2, lambda rate: 0.1 if rate < 5e-4 else None) == (3e-4, (*GRID, 3e-4, 1e-4))
    for extra, last in ((0, '0.01'), (2, '0.0001')):
        with pytest.raises(Diverged, match=f'at {last}$'):
            swept(GRID, extra, lambda rate: None)


@given(st.lists(st.sampled_from((1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)), min_size=2, unique=True), st.integers(-14, 2))
def test_a_single_peak_is_found_from_any_grid(rates, peak):
    """Beyond the grid exactly, and inside it at a neighbour; one rate was tried on each side of it."""
    optimum = float(f'{10 ** (peak / 2):.1g}')
    selected, tried = swept(tuple(rates), 20, lambda rate: -abs(round(2 * math.log10(rate)) - peak))
    assert min(tried) < selected < max(tried)
    assert selected == optimum or min(rates) < optimum < max(rates)


def test_the_series():
    assert [beyond(rate, 1) for rate in (1e-3, 3e-3, 5e-4, 2e-2)] == [3e-3, 1e-2, 1e-3, 3e-2]
    assert [beyond(rate, -1) for rate in (1e-3, 3e-3, 5e-4, 1.0)] == [3e-4, 1e-3, 3e-4, 0.3]
