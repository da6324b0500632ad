"""ImageNet-C's corruptions of images, on the device: pure functions of an image, a severity and a key.

Source: Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
and github.com/hendrycks/robustness. ``frost`` is left out: it needs photographs of frost.
"""

from experiments.data.corruptions.corruption import ALL, BENCHMARK, EXTRA, Corruption, corrupt, seeds_of
from experiments.data.corruptions.severities import SEVERITIES

__all__ = ['ALL', 'BENCHMARK', 'EXTRA', 'MODULES', 'SEVERITIES', 'Corruption', 'corrupt', 'seeds_of']

# Names of the modules whose code determines what becomes of an image.
MODULES = tuple(
    f'{__name__}.{name}'
    for name in ('blur', 'corruption', 'digital', 'filters', 'jpeg', 'noise', 'severities', 'spatter', 'weather')
)
