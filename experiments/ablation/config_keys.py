"""The single table of every value that an ablation reads; it needs no JAX, so that ``--help`` can list it."""

import dataclasses
from collections.abc import Mapping

import ml_collections

from experiments.ablation.dependencies import NOT_OF_TRAINING, SHARED
from experiments.cli.axis_config import AxisConfig
from experiments.data import options
from experiments.data.corruptions import SEVERITIES
from experiments.probes import sweeps
from experiments.probes.common import NORMALISATIONS
from experiments.results.axes import PIXELS
from experiments.training.config_keys import KEYS as TRAINING_KEYS
from experiments.training.config_keys import ConfigKey, with_defaults
from experiments.training.value_checks import not_negative, one_of, positive, side


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
        "NAME@WEIGHTS: a source as load_weights takes it, or 'random'; NAME alone: its published weights; or 'pixels', "
        "and 'tfidf' for texts",
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
        0,
        'labelled training images or texts of each class, instead of fractions; nested; 0: as fractions say',
        not_negative,
    ),
    'seeds': ConfigKey((0, 1, 2), 'each draws labels, the order of batches, and random weights'),
    # What all cells share.
    'image_size': ConfigKey(
        0, "side of every model's input in pixels; 0: as the weights' preprocessing says", side
    ),
    'image_height': TRAINING_KEYS['image_height'],
    'text_length': TRAINING_KEYS['text_length'],
    'strict_weights': ConfigKey(True, 'weights must fit; False: what does not is printed and stays random'),
    'batch_size': ConfigKey(32, 'images or texts per step of the frozen passes', positive),
    'runtime': ConfigKey(
        'auto',
        "what computes frozen passes: 'xla'; 'onnxruntime', on a CPU; 'auto': that where it is installed",
        one_of('auto', 'xla', 'onnxruntime'),
    ),
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
    'severities': ConfigKey(SEVERITIES, 'severities of the corruptions'),
    # How data sets are read.
    **{key: TRAINING_KEYS[key] for key in options.KEYS},
    # Heads.
    **_of_head(
        'linear',
        sweeps.linear(),
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
        sweeps.ridge(),
        smallest_penalty='smallest penalty, relative to the mean eigenvalue',
        largest_penalty='largest penalty',
        penalties='how many, evenly spaced on a logarithmic scale',
    ),
    **_of_head(
        'knn',
        sweeps.knn(),
        neighbours='numbers of neighbours to select from; those larger than a subset are left out',
        temperature='similarities are divided by it before they vote',
    ),
    **_of_head(
        'attentive',
        sweeps.attentive(),
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
