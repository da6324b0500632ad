"""Heads on frozen features: one explicit table of regimes.

The table is made when it is first asked for, so that what needs only the sweeps does not wait for JAX.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from experiments.results.keys_of_cells import NORMALISED, TAPS_OF_POSITIONS

if TYPE_CHECKING:
    TABLE: dict[str, Callable]

__all__ = ['NORMALISED', 'TABLE', 'TAPS_OF_POSITIONS']


def __getattr__(name: str) -> Any:
    """Make the table (PEP 562)."""
    if name != 'TABLE':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from experiments.probes import attentive, knn, linear, ridge

    table = {
        'linear': linear.run,
        'ridge': ridge.run,
        'knn': knn.run,
        'attentive': attentive.run,
    }
    return globals().setdefault(name, table)
