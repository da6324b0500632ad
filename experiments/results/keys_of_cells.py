"""Which keys of an ablation's config a cell's result depends on, by its regime and backbone.

``ablation.dependencies`` plans cells and lets a work directory grow by this table; ``lines`` groups finished rows by
it.
"""

from collections.abc import Callable, Mapping

from experiments.results.axes import BASELINES, RANDOM, Cell

# The tap of regimes whose heads take ``float[examples, positions, channels]``; the others take vectors, from the tap of
# the config.
TAPS_OF_POSITIONS: dict[str, str] = {'attentive': 'grid'}

# Those whose features are normalised as the config says; nearest neighbours compare directions (cosine similarity).
NORMALISED = ('linear', 'ridge', 'attentive')


def _has_network(cell: Cell, frozen: bool) -> bool:
    return cell.variant.backbone not in BASELINES


def _has_weights(cell: Cell, frozen: bool) -> bool:
    return cell.variant.backbone not in BASELINES and cell.variant.weights != RANDOM


def _is_frozen(cell: Cell, frozen: bool) -> bool:
    return frozen


def _is_trained(cell: Cell, frozen: bool) -> bool:
    return not frozen


def _any(cell: Cell, frozen: bool) -> bool:
    return True


# Key → whether a cell depends on it. Keys of one head (``knn.neighbours``) or of trainings (``training.epochs``) are
# not listed; their group says whose they are.
TABLE: Mapping[str, Callable[[Cell, bool], bool]] = {
    'fit': _any,
    'shots': _any,
    'image_size': _has_network,
    'image_height': _has_network,
    'text_length': _has_network,
    'strict_weights': _has_weights,
    'tap': lambda cell, frozen: frozen and _has_network(cell, frozen) and cell.regime not in TAPS_OF_POSITIONS,
    'validation_images': _is_frozen,
    'refit': _is_frozen,
    'normalisation': lambda cell, frozen: frozen and cell.regime in NORMALISED,
    'calibration_images': lambda cell, frozen: frozen and cell.variant.weights == RANDOM,
    'training_learning_rates': _is_trained,
    'training_extra_learning_rates': _is_trained,
    'corruptions': _any,
    # Where there are corruptions.
    'severities': _any,
}


def depends(cell: Cell, key: str, frozen: bool) -> bool:
    """Whether a cell's result may depend on a key of its row's config; on one that is not in the table it may.

    Args:
        cell: the cell.
        key: a top-level key, or one of a head or a training, which only rows that have it depend on.
        frozen: whether its regime is a head on stored features.
    """
    return key not in TABLE or TABLE[key](cell, frozen)
