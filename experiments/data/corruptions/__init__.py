"""ImageNet-C's corruptions of images, on the device: pure functions of an image, a severity and a key.

Source: Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
and github.com/hendrycks/robustness. ``frost`` is left out: it needs photographs of frost.

Names are imported on first use, so that what needs only the severities does not wait for JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

from experiments.data.corruptions.severities import SEVERITIES

if TYPE_CHECKING:
    from experiments.data.corruptions.corruption import ALL, BENCHMARK, EXTRA, Corruption, corrupt, seeds_of

__all__ = ['ALL', 'BENCHMARK', 'EXTRA', 'MODULES', 'SEVERITIES', 'Corruption', 'corrupt', 'seeds_of']

# Names of the modules whose code determines what becomes of an image.
MODULES = tuple(
    f'{__name__}.{name}'
    for name in ('blur', 'corruption', 'digital', 'filters', 'jpeg', 'noise', 'severities', 'spatter', 'weather')
)


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return globals().setdefault(name, getattr(importlib.import_module(f'{__name__}.corruption'), name))
