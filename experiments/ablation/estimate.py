"""The plan of an ablation with its estimated cost, shown before it starts."""

import dataclasses
import time
from collections.abc import Callable, Collection, Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from rich.table import Table

import backbones
from backbones.cost import count_flops
from experiments import probes, tasks
from experiments.ablation import robustness, settings
from experiments.ablation.cells import PIXELS, RANDOM, Cell, Variant, resolved
from experiments.ablation.dependencies import FROZEN_REGIMES
from experiments.data import model_input, nouns
from experiments.data.dataset import Dataset
from experiments.features import taps, tfidf, throughput
from experiments.features.frozen_backbone import frozen_backbone
from experiments.features.pixels import pixels_pass
from experiments.probes import attentive, linear
from experiments.results.axes import TFIDF, settings_in_words
from experiments.training import mesh

# The share of a large matrix product's speed that each part of an ablation roughly reaches.
_FORWARD_EFFICIENCY = 0.5
_TRAINING_EFFICIENCY = 0.4
_HEADS_EFFICIENCY = 0.2
_SECONDS_TO_COMPILE = 3.0
# Its first checkpoint, its files, and the reading of its data.
_SECONDS_OF_A_TRAINING = 1.0


@dataclasses.dataclass(frozen=True)
class _Network:
    """What the time of a variant depends on.

    Attributes:
        flops: FLOPs of the forward pass of the backbone for one image.
        features: values that a head of vectors sees of one image.
        positions: positions and channels that an attentive head sees; empty where there is none.
        rest: of each head of a dense task, FLOPs of neck and head for one image.
        tokens: of a text, for which the FLOPs are counted; 0 for images.
    """

    flops: float
    features: int
    positions: tuple[int, ...] = ()
    rest: Mapping[str, float] = dataclasses.field(default_factory=dict)
    tokens: int = 0


def _network(variant: Variant, dataset: Dataset, config: ml_collections.ConfigDict) -> _Network:
    if variant.backbone == PIXELS:
        # As many as the pass gives, which are fewer than are stored where images are large.
        *_, shape = pixels_pass(tuple(dataset.images.shape[1:]), config.batch_size, mesh.make())
        return _Network(0.0, int(np.prod(shape)))
    if variant.backbone == TFIDF:
        return _Network(0.0, tfidf.MOST_FEATURES)  # how many there are is known when it is fitted
    model = backbones.create(variant.backbone)
    size = tasks.input_preprocessing(config.training.task, variant.backbone, variant.weights, config).size
    return _Network(
        float(count_flops(model, size)),
        taps.channels(model, config.tap, size),
        taps.shape(model, probes.TAPS_OF_POSITIONS['attentive'], size) if 'attentive' in config.regimes else (),
        _of_the_rest(variant, dataset, config),
        size[0] if len(size) == 1 else 0,
    )


def without_weights(variant: Variant, absent: Collection[Variant]) -> Variant:
    """A variant with random weights in place of absent ones, which is all that can be said of its input."""
    return dataclasses.replace(variant, weights=RANDOM) if variant in absent else variant


def _of_the_rest(variant: Variant, dataset: Dataset, config: ml_collections.ConfigDict) -> dict[str, float]:
    """FLOPs of neck and head, for every head of a dense task that the ablation has."""
    task = tasks.find(config.training.task)
    if not task.is_dense:
        return {}
    preprocessing = tasks.input_preprocessing(task.name, variant.backbone, variant.weights, config)
    found = {}
    for head in dict.fromkeys(tasks.head_name(task, name) for name in config.heads):
        recipe = config.training.copy_and_resolve_references()
        recipe.head = head
        made = task.create(recipe, len(dataset.classes), preprocessing, dataset)
        model = made.model(variant.backbone, {'dtype': recipe.dtype, 'dropout': 0.0})
        of_backbone = count_flops(model.backbone, preprocessing.size)
        found[head] = float(count_flops(model, preprocessing.size) - of_backbone)
    return found


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
    pending: Sequence[Cell],
    planned: int,
    config: ml_collections.ConfigDict,
    load: Callable[[str], Dataset],
    is_stored: Callable[[Cell, Dataset], bool] = lambda cell, dataset: False,
    absent: Collection[Variant] = (),
) -> Table:
    """One row per data set, variant and settings: passes, images, heads, trainings and estimated time.

    Args:
        pending: the cells to run.
        planned: number of all cells.
        config: the ablation's config.
        load: loads a data set by name.
        is_stored: whether the features that a cell needs are there, so that no backbone need run.
        absent: variants whose weights are not here; their input is taken to be the usual one of the backbone.
    """
    speed = measured_speed()
    result = Table(title=f'plan: {len(pending)} of {planned} cells to run', title_justify='left')
    has_settings = any(cell.settings for cell in pending)
    for column in ('data set', 'backbone · weights', *(['settings'] if has_settings else []), 'regimes'):
        result.add_column(column, overflow='fold')
    noun = nouns.common(nouns.of_inputs(model_input.input_kind(cell.variant.backbone)) for cell in pending)
    for column in ('cells', 'passes', f'{noun}s', f'GFLOP/{noun}', 'heads', 'trainings', 'about'):
        result.add_column(column, justify='right')
    total, any_stored = 0.0, False
    extends = False
    networks: dict[tuple, _Network] = {}
    counted = set()  # features; cells that differ in their heads alone share them
    begun = set()  # passes; one gives the features at every tap
    for dataset_name, variant, chosen in dict.fromkeys((cell.dataset, cell.variant, cell.settings) for cell in pending):
        dataset = load(dataset_name)
        cells = [
            cell for cell in pending if (cell.dataset, cell.variant, cell.settings) == (dataset_name, variant, chosen)
        ]
        values = resolved(config, cells[0])
        frozen = [cell for cell in cells if cell.regime in FROZEN_REGIMES]
        trained = [cell for cell in cells if cell.regime not in FROZEN_REGIMES]
        if trained and values.training_extra_learning_rates > 0 and len(set(values.training_learning_rates)) > 1:
            extends = True
        kind = dataset_name, variant, settings.of_networks(chosen)
        network = networks[kind] = networks.get(kind) or _network(without_weights(variant, absent), dataset, values)
        features = {
            (
                dataset_name,
                frozen_backbone(variant, cell.seed),
                settings.of_features(chosen),
                probes.TAPS_OF_POSITIONS.get(cell.regime),
            ): cell
            for cell in frozen
        }
        computed = [cell for each, cell in features.items() if each not in counted and not is_stored(cell, dataset)]
        stored = len(features.keys() - counted) - len(computed)
        counted |= features.keys()
        any_stored = any_stored or bool(stored)
        passes = {
            (dataset_name, frozen_backbone(variant, cell.seed), settings.of_passes(chosen)) for cell in computed
        } - begun
        begun |= passes
        heads, head_flops = _heads(frozen, network, dataset, values)
        trainings = len(trained) * len(values.training_learning_rates)
        programs = len({(cell.regime, cell.fraction, cell.head) for cell in trained})

        # Each pass goes over the test images again with every corruption.
        corrupted = len(robustness.conditions(values)) * len(dataset.splits['test'])
        images = len(dataset.targets) + corrupted
        seconds = len(passes) * images * network.flops / (speed * _FORWARD_EFFICIENCY)
        if passes and network.flops:
            seconds += _measurement(values.batch_size * network.flops / (speed * _FORWARD_EFFICIENCY))
        seconds += head_flops / (speed * _HEADS_EFFICIENCY)
        seconds += _trained_flops(trained, network, dataset, values) / (speed * _TRAINING_EFFICIENCY)
        seconds += len(trained) * corrupted * network.flops / (speed * _FORWARD_EFFICIENCY)
        seconds += _SECONDS_TO_COMPILE * (len({cell.regime for cell in frozen}) + bool(passes) + 2 * programs)
        seconds += _SECONDS_OF_A_TRAINING * trainings
        total += seconds
        result.add_row(
            dataset_name,
            variant.label,
            *([', '.join(settings_in_words(chosen)) or '–'] if has_settings else []),
            ', '.join(dict.fromkeys(cell.regime for cell in cells)),
            f'{len(cells)}',
            f'{len(passes)} + {stored} stored' if stored and computed else 'stored' if stored else f'{len(passes)}',
            f'{images:,}',
            f'{network.flops / 1e9:.3f}',
            f'{heads}',
            f'≥ {trainings}' if trainings and extends else f'{trainings}',
            _duration(seconds),
        )
    length = nouns.of_lengths(network.tokens for network in networks.values() if network.tokens)
    result.caption = (
        f'about {_duration(total)} at the {speed / 1e9:.0f} GFLOP/s that a matrix product reaches now'
        f'{"; stored: the features are there, and the backbone need not run" if any_stored else ""}'
        f'{length and f"; GFLOP/text and times are for texts{length}, and shorter ones take less"}'
        f'{"; more where the best learning rate lies at an edge" if extends else ""}'
    )
    return result


def _heads(
    cells: Sequence[Cell], network: _Network, dataset: Dataset, config: ml_collections.ConfigDict
) -> tuple[int, float]:
    """Number of heads that are trained, and FLOPs of all heads on stored features."""
    train, features, classes = len(dataset.splits['train']), network.features, len(dataset.classes)
    evaluated = len(dataset.splits['validation']) + len(dataset.splits['test'])
    # Seeds share their input unless they draw the weights or choose the labels.
    subsets = {
        regime: [
            (
                round(_share(cell, dataset, config) * train),
                cell.seed if cell.variant.weights == RANDOM or _share(cell, dataset, config) < 1 else None,
            )
            for cell in cells
            if cell.regime == regime
        ]
        for regime in FROZEN_REGIMES
    }
    heads, seen = linear.workload(subsets['linear'], config.linear)
    # Both linear heads work on the principal axes, of which there are no more than examples.
    axes = [(count, min(count, features)) for count, _ in {*subsets['linear']}]
    widest = max((axis for _, axis in axes), default=0)
    flops = 4.0 * seen * widest * classes + heads * 2.0 * len(dataset.splits['validation']) * widest * classes
    for count, axis in (*axes, *((count, min(count, features)) for count, _ in {*subsets['ridge']})):
        flops += 4.0 * count * features * axis + 10.0 * axis**3
    for count, _ in {*subsets['knn']}:
        flops += 2.0 * evaluated * count * features
    if subsets['attentive']:
        # Of these heads every seed has its own, as it draws the batches too.
        more, work = attentive.workload(
            len(subsets['attentive']), network.positions, len(dataset.splits['validation']), classes, config.attentive
        )
        heads, flops = heads + more, flops + work
    return heads, flops


def _share(cell: Cell, dataset: Dataset, config: ml_collections.ConfigDict) -> float:
    """The share of the training labels that a cell uses."""
    if not config.shots:
        return cell.fraction
    return min(1.0, config.shots * len(dataset.classes) / len(dataset.splits['train']))


def _trained_flops(
    cells: Sequence[Cell], network: _Network, dataset: Dataset, config: ml_collections.ConfigDict
) -> float:
    """FLOPs of the trainings at the learning rates of the config: forward, backward, and evaluations."""
    recipe, train = config.training, len(dataset.splits['train'])
    total = 0.0
    for cell in cells:
        probed = recipe.probe_epochs if cell.regime == 'lpft' else 0.0
        evaluations = (recipe.epochs + probed) / recipe.evaluate_epochs
        # A backward pass takes twice as much as a forward pass, and the backbone has none while it is frozen.
        backbone = recipe.epochs if cell.regime == tasks.find(recipe.task).head_regime else 3 * recipe.epochs
        total += _share(cell, dataset, config) * train * (backbone + probed) * network.flops
        rest = network.rest.get(cell.head, 0.0)
        total += _share(cell, dataset, config) * train * 3 * (recipe.epochs + probed) * rest
        total += max(1.0, evaluations) * len(dataset.splits['validation']) * (network.flops + rest)
    return total * len(config.training_learning_rates)


def _measurement(batch_seconds: float) -> float:
    """Seconds to measure a backbone's speed (``throughput.measure``)."""
    timed = min(throughput.BATCHES * batch_seconds, max(5 * batch_seconds, throughput.SECONDS))
    return throughput.WARM_UP * batch_seconds + timed


def _duration(seconds: float) -> str:
    return (
        f'{seconds:.0f} s'
        if seconds < 90
        else f'{seconds / 60:.0f} min'
        if seconds < 5400
        else f'{seconds / 3600:.1f} h'
    )
