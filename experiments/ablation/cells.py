"""The axes of an ablation and the cells that they span."""

import itertools

import ml_collections

import backbones
from backbones.errors import UserError, unknown
from backbones.preprocessing import FITS
from experiments import probes
from experiments.data import loading
from experiments.features import taps
from experiments.probes import knn, linear, ridge
from experiments.results.axes import PIXELS, RANDOM, Cell, Variant
from experiments.training import regimes
from experiments.training.config import Check, not_negative, one_of, positive, seed
from experiments.training.config import default_config as default_training_config

__all__ = ['FROZEN_REGIMES', 'PIXELS', 'RANDOM', 'Cell', 'Variant', 'default_config', 'parse_variant', 'plan']

# These fit a head on features that are computed once; all other regimes train with the backbone in the loop.
FROZEN_REGIMES = tuple(probes.TABLE)


# The axes, heads and trainings have checks of their own.
_CHECKS: dict[str, Check] = {
    'image_size': not_negative,
    'batch_size': positive,
    'calibration_images': positive,
    'fit': one_of(*FITS),
    'stored_size': positive,
    'bad_files_limit': not_negative,
    'training_extra_learning_rates': not_negative,
}


def default_config() -> ml_collections.ConfigDict:
    """The default of every value that an ablation reads; config files change some of them."""
    config = ml_collections.ConfigDict()
    # NAME@WEIGHTS: a source as load_weights takes it, or 'random'; NAME alone: its published weights; or 'pixels'.
    config.backbones = ('resnet_micro', 'vit_micro', PIXELS)
    config.datasets = ('mnist5k',)
    config.regimes = ('linear', 'knn')
    config.fractions = (1.0,)
    config.seeds = (0, 1, 2)
    config.image_size = 0  # side of every model's input in pixels; 0: as the weights' preprocessing says
    config.batch_size = 32  # of the frozen passes
    config.calibration_images = 512  # training images for the BatchNorm statistics of random weights
    config.tap = 'pooled'  # which features the heads on frozen backbones see: experiments.features.taps
    config.fit = 'crop'  # how a non-square image becomes square; or 'squash', 'letterbox'
    config.stored_size = 256
    config.bad_files_limit = 10
    config.linear = linear.default_config()
    config.ridge = ridge.default_config()
    config.knn = knn.default_config()
    config.training = default_training_config()  # for regimes that train the backbone
    config.training_learning_rates = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
    config.training_extra_learning_rates = 4  # at most, beyond the lowest or the highest while that is the best
    return config


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
            raise UserError(f'no published weights are known for {name}; say {name}@FILE or {name}@{RANDOM}')
        weights = published[0]
    if not weights:
        raise UserError(f'{text!r} names no weights; say {name}@FILE, {name}@{RANDOM} or just {name}')
    return Variant(name, weights)


def plan(config: ml_collections.ConfigDict) -> list[Cell]:
    """All cells of a config, grouped by data set and variant.

    ``scratch`` starts from random weights whatever the variant, so it is one cell per backbone. The other regimes that
    train the backbone need pretrained weights. Raw pixels have frozen regimes only.

    Raises:
        UserError: an unknown name or a value out of range on one of the axes.
    """
    for key, check in _CHECKS.items():
        check(key, config[key])
    for count in config.knn.neighbours:
        positive('knn.neighbours', count)
    for value in _axis(config, 'seeds'):
        seed('seeds', value)
    variants = [parse_variant(text) for text in _axis(config, 'backbones')]
    for name in dict.fromkeys(variant.backbone for variant in variants if variant.backbone != PIXELS):
        taps.check(name, backbones.create(name), config.tap, vectors=True)
    for regime in _axis(config, 'regimes'):
        if regime.partition(':')[0] not in (*FROZEN_REGIMES, *regimes.NAMES):
            raise unknown('regime', regime, {*FROZEN_REGIMES, *regimes.NAMES})
        if regime not in FROZEN_REGIMES:
            regimes.parse(regime)
    for fraction in _axis(config, 'fractions'):
        if not 0 < fraction <= 1:
            raise UserError(f'label fractions lie in (0, 1], not {fraction}')
    for rate in _axis(config, 'training_learning_rates'):
        positive('training_learning_rates', rate)
    for name in _axis(config, 'datasets'):
        loading.check_name(name)
    cells = []
    axes = (config.datasets, variants, config.regimes, config.fractions, config.seeds)
    for dataset, variant, regime, fraction, drawn in itertools.product(*axes):
        if regime not in FROZEN_REGIMES:
            if variant.backbone == PIXELS:
                continue
            if not regimes.parse(regime).pretrained:
                variant = Variant(variant.backbone, RANDOM)
            elif variant.weights == RANDOM:
                continue
        cells.append(Cell(dataset, variant, regime, float(fraction), int(drawn)))
    cells = list(dict.fromkeys(cells))
    if not cells:
        raise UserError(f'the axes span no cell: regimes {config.regimes} do not apply to {config.backbones}')
    return cells


def _axis(config: ml_collections.ConfigDict, name: str) -> tuple:
    values = config[name]
    if not isinstance(values, tuple):
        raise UserError(f'config key {name!r} takes a tuple such as ({values!r},), not {values!r}')
    if not values:
        raise UserError(f'config key {name!r} is empty; it needs at least one value')
    return values
