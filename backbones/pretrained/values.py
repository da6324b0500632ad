"""What the values of weights cannot be: NaN, infinite, or a negative variance."""

from collections.abc import Mapping

import numpy as np


def damage(arrays: Mapping[str, np.ndarray]) -> str:
    """Values that no trained network has, in words; empty where there are none.

    A NaN may go unnoticed otherwise: on the CPU, a convolution fused with a ReLU turns it into 0, and the features of a
    ruined network look like any others.

    Args:
        arrays: path → array, by our own paths.
    """
    broken = {path: array for path, array in arrays.items() if not np.isfinite(array).all()}
    if broken:
        nan, infinite = (sum(int(test(array).sum()) for array in broken.values()) for test in (np.isnan, np.isinf))
        counts = ' and '.join(f'{count:,} {what}' for count, what in ((nan, 'NaN'), (infinite, 'infinite')) if count)
        path, first = next(iter(broken.items()))
        kind = 'NaN' if np.isnan(first).any() else 'infinite'
        return f'{counts} in {len(broken)} of {len(arrays)} arrays, first {path} ({kind})'
    variances = {path: array for path, array in arrays.items() if _is_variance(path)}
    negative = {path: array for path, array in variances.items() if (array < 0).any()}
    if negative:
        path, first = next(iter(negative.items()))
        return (
            f'{len(negative)} of {len(variances)} running variances are negative somewhere, '
            f'first {path} (down to {first.min():.3g})'
        )
    return ''


def _is_variance(path: str) -> bool:
    return path.startswith('batch_stats/') and path.endswith('/var')
