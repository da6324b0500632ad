"""How metrics are shown, by their names: all are shares, shown in per cent, but for some."""

# Metrics that are no shares → the decimal places that they are shown with.
NO_SHARES = {'loss': 3, 'nll': 3, 'nll_scaled': 3, 'brier': 3, 'temperature': 2, 'best_F1_threshold': 2}
# The primary metric of a task → the metrics of a single class, ``KIND/CLASS``, of which it is a mean, the first first.
OF_CLASSES = {'accuracy': ('recall', 'precision'), 'mIoU': ('IoU',), 'AP': ('AP',)}


def text(name: str, value: float | None) -> str:
    """A metric as tables show it; a dash where there is none."""
    if value is None:
        return '–'
    return f'{value:.{NO_SHARES[name]}f}' if name in NO_SHARES else f'{100 * value:.1f}'
