"""The plan of an ablation with its estimated cost, shown before it starts."""

import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from rich.table import Table

import backbones
from backbones.cost import count_flops
from experiments.ablation.cells import FROZEN_REGIMES, PIXELS, RANDOM, Cell, Variant
from experiments.data.dataset import Dataset
from experiments.data.model_input import input_preprocessing
from experiments.features import taps
from experiments.probes import linear

# The share of a large matrix product's speed that each part of an ablation roughly reaches.
_FORWARD_EFFICIENCY = 0.5
_TRAINING_EFFICIENCY = 0.4
_HEADS_EFFICIENCY = 0.2
_SECONDS_TO_COMPILE = 3.0


def flops_per_image(variant: Variant, image_size: int) -> float:
    """FLOPs of the backbone's forward pass for one image, as ``backbones.cost`` counts them."""
    if variant.backbone == PIXELS:
        return 0.0
    return float(count_flops(backbones.create(variant.backbone), _input_size(variant, image_size)))


def _input_size(variant: Variant, image_size: int) -> tuple[int, int]:
    return input_preprocessing(variant.backbone, variant.weights, image_size).size


def measured_speed() -> float:
    """Measure the FLOP/s of a large matrix product on this machine."""
    side, repeats = 1024, 8
    matrix = jnp.ones((side, side))
    product = jax.jit(lambda x: x @ x).lower(matrix).compile()
    jax.block_until_ready(product(matrix))
    started = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(product(matrix))
    return repeats * 2 * side**3 / (time.perf_counter() - started)


def table(
    pending: Sequence[Cell], planned: int, config: ml_collections.ConfigDict, load: Callable[[str], Dataset]
) -> Table:
    """One row per data set and variant: passes, images, heads, trainings and estimated time."""
    speed = measured_speed()
    result = Table(title=f'plan: {len(pending)} of {planned} cells to run', title_justify='left')
    for column in ('data set', 'backbone · weights', 'regimes'):
        result.add_column(column)
    for column in ('cells', 'passes', 'images', 'GFLOP/image', 'heads', 'trainings', 'about'):
        result.add_column(column, justify='right')
    total = 0.0
    extends = config.training_extra_learning_rates > 0 and len(set(config.training_learning_rates)) > 1
    extends = extends and any(cell.regime not in FROZEN_REGIMES for cell in pending)
    for dataset_name, variant in dict.fromkeys((cell.dataset, cell.variant) for cell in pending):
        dataset = load(dataset_name)
        cells = [cell for cell in pending if (cell.dataset, cell.variant) == (dataset_name, variant)]
        for fraction, seed in dict.fromkeys((cell.fraction, cell.seed) for cell in cells):
            dataset.fraction(fraction, seed)  # one that leaves a class without examples is refused
        frozen = [cell for cell in cells if cell.regime in FROZEN_REGIMES]
        trained = [cell for cell in cells if cell.regime not in FROZEN_REGIMES]
        flops = flops_per_image(variant, config.image_size)
        passes = len({cell.seed if variant.weights == RANDOM else None for cell in frozen})
        channels = (
            int(np.prod(dataset.images.shape[1:]))
            if variant.backbone == PIXELS
            else taps.channels(backbones.create(variant.backbone), config.tap, _input_size(variant, config.image_size))
        )
        train = len(dataset.splits['train'])
        heads, examples_seen = linear.workload(
            [
                # Seeds share their input unless they draw the weights or choose the labels.
                (round(cell.fraction * train), cell.seed if variant.weights == RANDOM or cell.fraction < 1 else None)
                for cell in frozen
                if cell.regime == 'linear'
            ],
            config.linear,
        )
        trainings = len(trained) * len(config.training_learning_rates)

        seconds = passes * len(dataset.targets) * flops / (speed * _FORWARD_EFFICIENCY)
        head_flops = examples_seen * 6 * channels * len(dataset.classes)
        seconds += head_flops / (speed * _HEADS_EFFICIENCY)
        seen = sum(cell.fraction for cell in trained) * len(dataset.splits['train']) * config.training.epochs
        seconds += 3 * flops * seen * len(config.training_learning_rates) / (speed * _TRAINING_EFFICIENCY)
        seconds += _SECONDS_TO_COMPILE * (len({cell.regime for cell in frozen}) + bool(passes) + trainings)
        total += seconds
        result.add_row(
            dataset_name,
            variant.label,
            ', '.join(dict.fromkeys(cell.regime for cell in cells)),
            f'{len(cells)}',
            f'{passes}',
            f'{len(dataset.targets):,}',
            f'{flops / 1e9:.3f}',
            f'{heads}',
            f'≥ {trainings}' if trainings and extends else f'{trainings}',
            _duration(seconds),
        )
    result.caption = (
        f'about {_duration(total)} at the {speed / 1e9:.0f} GFLOP/s that a matrix product reaches now; '
        f'less where features are stored{", more where the best learning rate lies at an edge" if extends else ""}'
    )
    return result


def _duration(seconds: float) -> str:
    return (
        f'{seconds:.0f} s'
        if seconds < 90
        else f'{seconds / 60:.0f} min'
        if seconds < 5400
        else f'{seconds / 3600:.1f} h'
    )
