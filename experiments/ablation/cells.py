"""The axes of an ablation and the cells that they span."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import ml_collections

import backbones
from backbones.errors import UserError, unknown
from experiments import probes, tasks
from experiments.ablation import robustness, settings
from experiments.ablation.dependencies import FROZEN_REGIMES, NOT_OF_TRAINING, SHARED
from experiments.cli.axis_config import AxisConfig
from experiments.data import corruptions, loading, options
from experiments.data.model_input import input_size
from experiments.data.options import ReadingOptions
from experiments.features import taps
from experiments.probes import attentive, knn, linear, ridge
from experiments.probes.common import NORMALISATIONS
from experiments.results.axes import PIXELS, RANDOM, Cell, Variant
from experiments.training import regimes
from experiments.training.config import KEYS as TRAINING_KEYS
from experiments.training.config import ConfigKey, check_shots, with_defaults
from experiments.training.value_checks import not_negative, one_of, positive, seed, side

__all__ = ['FROZEN_REGIMES', 'KEYS', 'PIXELS', 'RANDOM', 'Cell', 'Variant', 'default_config', 'parse_variant', 'plan']


def _of_training(key: str, row: ConfigKey) -> ConfigKey:
    note = f"; not read here: the ablation's own {key} holds" if key in SHARED else ''
    if key in NOT_OF_TRAINING and not note:
        note = '; not read here: each cell sets it'
    return dataclasses.replace(row, meaning=row.meaning + note)


def _of_head(name: str, defaults: ml_collections.ConfigDict, **meanings: str) -> dict[str, ConfigKey]:
    return {f'{name}.{key}': ConfigKey(defaults[key], meaning) for key, meaning in meanings.items()}


# Every value that an ablation reads. The axes, heads and trainings have checks of their own. Any other key may have
# several values too (``settings``).
KEYS: Mapping[str, ConfigKey] = {
    # The axes.
    'backbones': ConfigKey(
        ('resnet_micro', 'vit_micro', PIXELS),
        "NAME@WEIGHTS: a source as load_weights takes it, or 'random'; NAME alone: its published weights; or 'pixels'",
    ),
    'datasets': ConfigKey(('mnist5k',), 'names as experiments.data.loading takes them'),
    'regimes': ConfigKey(
        ('linear', 'knn'),
        'heads on stored features (linear, ridge, knn, attentive), or regimes that train the backbone, as for '
        'training.regime',
    ),
    'heads': ConfigKey(('',), "heads of a dense task, as for training.head; '': the task's first"),
    'fractions': ConfigKey((1.0,), 'shares of the training labels; those of one seed are nested'),
    'shots': ConfigKey(
        0, 'labelled training images of each class, instead of fractions; nested; 0: as fractions say', not_negative
    ),
    'seeds': ConfigKey((0, 1, 2), 'each draws labels, the order of batches, and random weights'),
    # What all cells share.
    'image_size': ConfigKey(
        0, "side of every model's input in pixels; 0: as the weights' preprocessing says", side
    ),
    'image_height': TRAINING_KEYS['image_height'],
    'strict_weights': ConfigKey(True, 'weights must fit; False: what does not is printed and stays random'),
    'batch_size': ConfigKey(32, 'images per step of the frozen passes', positive),
    'calibration_images': ConfigKey(512, 'training images for the BatchNorm statistics of random weights', positive),
    'tap': ConfigKey(
        'pooled',
        'which features the heads but attentive see: pooled; stage1, stage2, … (the mean of one map); stages (all of '
        'them); and of a ViT class_token or mean_tokens',
    ),
    'normalisation': ConfigKey(
        'standardise',
        "of the features of linear, ridge and attentive: 'standardise' or 'centre' (by the training subset), 'none', "
        "'l2' or 'layer_norm' (of each example, or position, alone)",
        one_of(*NORMALISATIONS),
    ),
    'validation_images': ConfigKey(
        0, 'heads on stored features are selected on so many validation images; 0, or more than there are: on all',
        not_negative,
    ),
    'refit': ConfigKey(
        False, 'fit the selected head on stored features again on training and validation images, as VTAB does'
    ),
    'corruptions': ConfigKey(
        (),
        "corruptions of the test images that every selected head is applied to, too: names, 'benchmark' (the 14 of "
        "ImageNet-C's test that need no pictures) or 'all' (with the 4 extra ones)",
    ),
    'severities': ConfigKey(corruptions.SEVERITIES, 'severities of the corruptions'),
    # How data sets are read.
    **{key: TRAINING_KEYS[key] for key in options.KEYS},
    # Heads.
    **_of_head(
        'linear',
        linear.default_config(),
        solver="or 'adamw'",
        smallest_c="lbfgs: smallest of scikit-learn's C, which are evenly spaced on a logarithmic scale",
        largest_c='lbfgs: largest C',
        values_of_c='lbfgs: how many',
        patience_decades='lbfgs: stop after this many decades of C without a better validation score or loss',
        tolerance='lbfgs: of the gradient norm, relative to that at zero; less for separable classes',
        iterations='lbfgs: limit for each C',
        learning_rates='adamw: learning rates to select from',
        weight_decays='adamw: weight decays to select from',
        steps='adamw: steps',
        batch_size='adamw: examples per step',
    ),
    **_of_head(
        'ridge',
        ridge.default_config(),
        smallest_penalty='smallest penalty, relative to the mean eigenvalue',
        largest_penalty='largest penalty',
        penalties='how many, evenly spaced on a logarithmic scale',
    ),
    **_of_head(
        'knn',
        knn.default_config(),
        neighbours='numbers of neighbours to select from; those larger than a subset are left out',
        temperature='similarities are divided by it before they vote',
    ),
    **_of_head(
        'attentive',
        attentive.default_config(),
        queries='learned queries, which share the channels of the pooled features among them',
        learning_rates='learning rates to select from',
        weight_decays='weight decays to select from',
        steps='steps',
        batch_size='examples per step',
    ),
    # Regimes that train the backbone.
    'training_learning_rates': ConfigKey(
        (3e-5, 1e-4, 3e-4, 1e-3, 3e-3), 'learning rates to select from on validation'
    ),
    'training_extra_learning_rates': ConfigKey(
        4, 'at most this many more, beyond the lowest or the highest while that is the best', not_negative
    ),
    **{f'training.{key}': _of_training(key, row) for key, row in TRAINING_KEYS.items()},
}  # fmt: skip


def default_config() -> ml_collections.ConfigDict:
    """The default of every value that an ablation reads; config files change some of them, or give several values."""
    return with_defaults(KEYS, AxisConfig)


def resolved(config: ml_collections.ConfigDict, cell: Cell) -> ml_collections.ConfigDict:
    """A copy of the config in which every key has the one value that a cell is computed with."""
    return settings.resolved(config, KEYS, cell.settings)


def parse_variant(text: str) -> Variant:
    """``NAME@WEIGHTS``, ``NAME`` (its published weights) or ``pixels``.

    Raises:
        UserError: no such backbone, or a name without published weights.
    """
    name, at, weights = text.partition('@')
    if name == PIXELS and not at:
        return Variant(PIXELS, '')
    if name not in backbones.names():
        raise unknown('backbone', name, (*backbones.names(), PIXELS))
    if not at:
        published = backbones.info(name).weights
        if not published:
            raise UserError(
                f'no published weights are known for {name}; say {name}@FILE, or {name}@{RANDOM} for random ones that '
                "stay frozen; or train it from random ones in the regime 'scratch'"
            )
        weights = published[0]
    if not weights:
        raise UserError(f'{text!r} names no weights; say {name}@FILE, {name}@{RANDOM} or just {name}')
    return Variant(name, weights)


def plan(config: ml_collections.ConfigDict) -> list[Cell]:
    """All cells of a config, grouped by data set and variant.

    A key that has several values is a further axis for the cells that depend on it (``settings``).

    ``scratch`` starts from random weights whatever the variant, so it is one cell per backbone. The other regimes that
    train the backbone need pretrained weights. Raw pixels have frozen regimes only, and no head that takes positions.

    Raises:
        UserError: an unknown name or a value out of range on one of the axes.
    """
    for value in _axis(config, 'seeds'):
        seed('seeds', value)
    task = tasks.find(config.training.task)
    heads = [_head(task, name) for name in _axis(config, 'heads')]
    variants = [parse_variant(text) for text in _axis(config, 'backbones')]
    for each in settings.combinations(config, KEYS):
        _check_values(each, variants)
    for regime in _axis(config, 'regimes'):
        if regime.partition(':')[0] not in (*FROZEN_REGIMES, *regimes.NAMES):
            raise unknown('regime', regime, {*FROZEN_REGIMES, *regimes.NAMES})
        if regime not in FROZEN_REGIMES:
            regimes.parse(regime)
        elif task.is_dense:
            raise UserError(
                f'the regime {regime!r} fits a classifier on stored features, and the task is {task.name}; use '
                f'{task.head_regime!r}, which trains neck and head'
            )
    for fraction in _axis(config, 'fractions'):
        if not 0 < fraction <= 1:
            raise UserError(f'label fractions lie in (0, 1], not {fraction}')
    for name in _axis(config, 'datasets'):
        loading.check_name(name, task.truth)
    cells = []
    axes = (config.datasets, variants, heads, config.regimes, config.fractions, config.seeds)
    shots = {*config.shots} if isinstance(config.shots, tuple) else {config.shots}
    shots_of_all = shots.pop() if len(shots) == 1 else 0
    for dataset, variant, head, regime, fraction, drawn in itertools.product(*axes):
        if variant.backbone == PIXELS and (regime not in FROZEN_REGIMES or regime in probes.TAPS_OF_POSITIONS):
            continue
        if regime not in FROZEN_REGIMES:
            if not regimes.parse(regime).pretrained:
                variant = Variant(variant.backbone, RANDOM)
            elif variant.weights == RANDOM and regime != task.head_regime:
                continue
        cells.append(Cell(dataset, variant, regime, float(fraction), int(drawn), head, shots=shots_of_all))
    cells = list(dict.fromkeys(cells))
    if not cells:
        raise UserError(f'the axes span no cell: regimes {config.regimes} do not apply to {config.backbones}')
    return settings.spanned(cells, config, KEYS)


def _check_values(config: ml_collections.ConfigDict, variants: Sequence[Variant]) -> None:
    """Check the values of keys that are no axes, as far as this needs neither data nor devices."""
    for key, row in KEYS.items():
        if '.' not in key:
            row.check(key, config[key])
    check_shots(config.shots, 'fractions', config.fractions)
    trained = [regime for regime in config.regimes if regime not in FROZEN_REGIMES]
    if trained and (config.refit or config.validation_images):
        raise UserError(
            f'config keys refit and validation_images are for heads on stored features ({", ".join(FROZEN_REGIMES)}), '
            f'and the regimes have {trained[0]!r}'
        )
    ReadingOptions.of(config)
    input_size(config)
    robustness.conditions(config)
    for count in config.knn.neighbours:
        positive('knn.neighbours', count)
    attentive.check(config.attentive)
    for rate in _axis(config, 'training_learning_rates'):
        positive('training_learning_rates', rate)
    for name in dict.fromkeys(variant.backbone for variant in variants if variant.backbone != PIXELS):
        taps.check(name, backbones.create(name), config.tap, vectors=True)


def _head(task: type[tasks.Task], name: str) -> str:
    """The name of a head, that of the task's first one for ``''``; a task without a choice has none."""
    if name and name not in task.heads:
        if not task.heads:
            raise UserError(f"config key 'heads' names {name!r}, but there is no choice of heads for {task.name}")
        raise unknown(f'{task.name} head', name, task.heads)
    return tasks.head_name(task, name)


def _axis(config: ml_collections.ConfigDict, name: str) -> tuple:
    values = config[name]
    if not isinstance(values, tuple):
        raise UserError(f'config key {name!r} takes a tuple such as ({values!r},), not {values!r}')
    if not values:
        raise UserError(f'config key {name!r} is empty; it needs at least one value')
    return values
