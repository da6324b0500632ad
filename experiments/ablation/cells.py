"""The axes of an ablation and the cells that they span."""

import itertools
from collections.abc import Sequence

import ml_collections

import backbones
from backbones.errors import UserError, unknown
from experiments import probes, tasks
from experiments.ablation import robustness, settings
from experiments.ablation.config_keys import KEYS, default_config
from experiments.ablation.dependencies import FROZEN_REGIMES
from experiments.data import loading
from experiments.data.model_input import input_kind, input_size, reads_texts
from experiments.data.options import ReadingOptions
from experiments.features import taps
from experiments.probes import attentive
from experiments.results.axes import BASELINES, PIXELS, RANDOM, Cell, Variant
from experiments.training import regimes
from experiments.training.config import check_shots
from experiments.training.value_checks import positive, seed

__all__ = ['FROZEN_REGIMES', 'KEYS', 'PIXELS', 'RANDOM', 'Cell', 'Variant', 'default_config', 'parse_variant', 'plan']


def resolved(config: ml_collections.ConfigDict, cell: Cell) -> ml_collections.ConfigDict:
    """A copy of the config in which every key has the one value that a cell is computed with."""
    return settings.resolved(config, KEYS, cell.settings)


def parse_variant(text: str) -> Variant:
    """``NAME@WEIGHTS``, ``NAME`` (its published weights), ``pixels`` or ``tfidf``.

    Raises:
        UserError: no such backbone, or a name without published weights.
    """
    name, at, weights = text.partition('@')
    if name in BASELINES and not at:
        return Variant(name, '')
    if name not in backbones.names():
        raise unknown('backbone', name, (*backbones.names(), *BASELINES))
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


def trained_variant(backbone: str, weights: str, regime: str) -> Variant:
    """What a training begins with.

    Args:
        backbone: a name, or ``NAME@WEIGHTS``.
        weights: their source, where ``backbone`` does not name it; default: its published weights.
        regime: of the training; ``scratch`` has no weights.

    Raises:
        UserError: no such backbone, a name without published weights, or weights that are named twice or for nothing.
    """
    name, at, named = backbone.partition('@')
    if at and weights:
        raise UserError(f'backbone={backbone} names weights, and so does weights={weights}; leave one of them out')
    if regime != 'scratch':
        return parse_variant(f'{backbone}@{weights}' if weights else backbone)
    if named or weights:
        raise UserError(f"the regime 'scratch' begins with random weights; leave out {named or weights!r}")
    return Variant(name, '')


def plan(config: ml_collections.ConfigDict) -> list[Cell]:
    """All cells of a config, grouped by data set and variant.

    A key that has several values is a further axis for the cells that depend on it (``settings``).

    ``scratch`` starts from random weights whatever the variant, so it is one cell per backbone. The other regimes that
    train the backbone need pretrained weights. Pixels and TF-IDF have frozen regimes only, and no head that takes
    positions.

    Raises:
        UserError: an unknown name or a value out of range on one of the axes.
    """
    for value in _axis(config, 'seeds'):
        seed('seeds', value)
    task = tasks.find(config.training.task)
    heads = [_head(task, name) for name in _axis(config, 'heads')]
    variants = [parse_variant(text) for text in _axis(config, 'backbones')]
    for variant in variants:
        tasks.check_inputs(config.training.task, variant.backbone)
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
    # Of each kind of inputs, the first that reads them.
    readers = {input_kind(each.backbone): each.backbone for each in variants[::-1]}
    for name in _axis(config, 'datasets'):
        for inputs, backbone in readers.items():
            reader = backbone if backbone in BASELINES else f'the backbone {backbone}'
            loading.check_name(name, task.truth, inputs=inputs, reader=reader)
    if len(readers) > 1:  # data sets that may have either
        raise UserError(
            f'config key backbones has {readers["images"]}, which reads images, and {readers["texts"]}, which reads '
            'texts; an ablation is of one of them'
        )
    cells = []
    axes = (config.datasets, variants, heads, config.regimes, config.fractions, config.seeds)
    shots = {*config.shots} if isinstance(config.shots, tuple) else {config.shots}
    shots_of_all = shots.pop() if len(shots) == 1 else 0
    for dataset, variant, head, regime, fraction, drawn in itertools.product(*axes):
        if variant.backbone in BASELINES and (regime not in FROZEN_REGIMES or regime in probes.TAPS_OF_POSITIONS):
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
    of_texts = [variant.backbone for variant in variants if reads_texts(variant.backbone)]
    if robustness.conditions(config) and of_texts:
        raise UserError(
            f'config key corruptions is {config.corruptions}, but {of_texts[0]} reads texts, and these are corruptions '
            'of images; set corruptions=()'
        )
    for count in config.knn.neighbours:
        positive('knn.neighbours', count)
    attentive.check(config.attentive)
    for rate in _axis(config, 'training_learning_rates'):
        positive('training_learning_rates', rate)
    for name in dict.fromkeys(variant.backbone for variant in variants if variant.backbone not in BASELINES):
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
