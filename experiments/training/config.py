"""The config of a training run: its keys and defaults (``config_keys``), and the check of its values."""

from collections.abc import Sequence

import ml_collections

from backbones.errors import UserError, unknown
from experiments import tasks
from experiments.data.model_input import input_size
from experiments.data.options import ReadingOptions
from experiments.results.axes import RANDOM
from experiments.training import regimes
from experiments.training.config_keys import FREE_KEYS, KEYS, compiled_values, default_config, value_of

__all__ = ['FREE_KEYS', 'KEYS', 'check', 'check_shots', 'compiled_values', 'default_config']


def check(config: ml_collections.ConfigDict) -> None:
    """Check ranges, choices and combinations, as far as this needs neither data nor devices.

    Raises:
        UserError: a value is invalid; the key is named.
    """
    for key, row in KEYS.items():
        row.check(key, value_of(config, key))
    ReadingOptions.of(config)
    input_size(config)
    check_shots(config.shots, 'fraction', config.fraction)
    task = tasks.find(config.task)
    _check_keys_of_task(config, task)
    if config.head and config.head not in task.heads:
        raise unknown(f'{task.name} head', config.head, task.heads)
    regime, weights = regimes.parse(config.regime), config.weights
    other = {tasks.find(name).head_regime for name in tasks.TABLE} - {task.head_regime}
    if regime.name in other:
        raise UserError(
            f'the regime {config.regime!r} is not for {task.name}; what trains everything but the backbone is '
            f'{task.head_regime!r} there'
        )
    if regime.pretrained and not weights:
        raise UserError(
            f'the regime {config.regime!r} starts from pretrained weights, but config key weights is empty; '
            f"name a source, or use the regime 'scratch'"
        )
    if weights == RANDOM and regime.name != task.head_regime:
        raise UserError(
            f'config key weights is {RANDOM!r}, but the regime {config.regime!r} trains the backbone; random weights '
            f"stay frozen in the regime {task.head_regime!r}, and are trained in the regime 'scratch' (weights empty)"
        )
    if not regime.pretrained and weights:
        raise UserError(
            f'the regime {config.regime!r} starts from random weights, but config key weights is {weights!r}; '
            f"leave it empty, or use the regime 'finetune'"
        )


def check_shots(shots: int, key: str, fractions: float | Sequence[float]) -> None:
    """Check that not both a number of images per class and a share of all are asked for.

    Args:
        shots: images per class; 0: all.
        key: the config key of the fractions.
        fractions: shares of the labels, or a single one.

    Raises:
        UserError: they are.
    """
    several = isinstance(fractions, Sequence)
    if shots and set(fractions if several else [fractions]) != {1.0}:
        everything = "'(1.0,)'" if several else '1.0'
        raise UserError(
            f"config key 'shots' is {shots} and config key {key!r} is {fractions}: both say how many labels are used; "
            f'set --config.{key}={everything}, or leave --config.shots at 0'
        )


def _check_keys_of_task(config: ml_collections.ConfigDict, task: type[tasks.Task]) -> None:
    """Refuse values that the task does not read: who sets them counts on them."""
    owned = {key for each in tasks.TABLE.values() for key in each.keys}
    for key in KEYS:
        value = value_of(config, key)
        if key in owned and key not in task.keys and value != KEYS[key].default:
            readers = ' and '.join(name for name, each in tasks.TABLE.items() if key in each.keys)
            raise UserError(
                f'config key {key!r} is {value!r}, but it is only for {readers}, and the task is {task.name}; leave it '
                f'at {KEYS[key].default!r}'
            )
