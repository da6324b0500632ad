"""A work directory as an ablation leaves it, made up without a run: rows and the scores behind them."""

import dataclasses
import itertools
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.results import rows, scores
from experiments.results.axes import Cell, Variant
from experiments.results.rows import Row

# Name, parameters, GFLOP per image and how good it is.
BACKBONES = (
    ('resnet18', 11_176_512, 3.63, 0.3),
    ('resnet50', 23_508_032, 8.18, 0.8),
    ('convnext_tiny', 27_820_128, 8.91, 1.2),
    ('efficientnet_b0', 4_007_548, 0.77, 0.7),
    ('mobilenet_v3_small', 927_008, 0.11, -0.2),
    ('vit_tiny_patch16', 5_524_416, 2.51, 0.2),
    ('vit_base_patch16', 85_798_656, 35.13, 1.4),
    ('deit_small_patch16', 21_665_664, 9.2, 0.9),
    ('dinov2_small', 22_056_576, 12.1, 1.6),
    ('swin_tiny', 27_519_354, 8.74, 1.1),
)
DATASETS = (('flowers', 0.5), ('pets', 1.3))
REGIMES = ('linear', 'knn')
FRACTIONS = (0.01, 0.03, 0.1, 0.3, 1.0)
CLASSES, LABELS = 8, 4000
VERSIONS = {'python': '3.11.7', 'jax': '0.10.2', 'flax': '0.12.8', 'numpy': '2.4.6', 'device': '1 x cpu'}


def work_directory(
    path: Path,
    datasets: Sequence[tuple[str, float]] = DATASETS,
    backbones: Sequence[tuple[str, int, float, float]] = BACKBONES[::2],
    regimes: Sequence[str] = REGIMES,
    fractions: Sequence[float] = FRACTIONS,
    seeds: Sequence[int] = (0, 1, 2),
    test: int = 200,
    weights: str = 'hub:timm/{}',
    image_sizes: Sequence[int] = (),
    inputs: str = 'images',
) -> Path:
    """Write 300 cells by default, with classification scores that agree with their rows.

    Better backbones, more labels and easier data sets give higher logits of the true class; the noise of an image is
    shared by all cells of a data set, so that paired differences are smaller than unpaired ones.
    """
    made = []
    for (dataset, ease), backbone, regime, fraction, seed, image_size in itertools.product(
        datasets, backbones, regimes, fractions, seeds, image_sizes or (0,)
    ):
        name, parameters, gigaflops, quality = backbone
        cell = Cell(dataset, Variant(name, weights.replace('{}', name)), regime, fraction, seed)
        if image_size:
            cell = dataclasses.replace(cell, settings=(('image_size', image_size),))
        shared = np.random.default_rng(_number(dataset))
        targets = shared.integers(0, CLASSES, test).astype(np.int32)
        noise = shared.normal(size=(test, CLASSES))
        depends_on_seed = regime == 'linear' or fraction < 1
        drawn = cell if depends_on_seed else dataclasses.replace(cell, seed=0)
        own = np.random.default_rng(int(drawn.key(), 16))
        logits = noise + 0.7 * own.normal(size=noise.shape)
        # The last class is harder than the others.
        strength = (
            1.2
            + ease
            + quality
            + 0.8 * np.log10(fraction)
            - 0.3 * (regime == 'knn')
            - 30 / (image_size or 200)
            + 0.1 * own.normal()
        )
        logits[np.arange(test), targets] += strength - 0.8 * (targets == CLASSES - 1)
        predictions = f'predictions/{cell.key()}.npz'
        scores.write(
            path / predictions,
            [f'{index:05d}' for index in range(test)],
            targets,
            {'logits': logits.astype(np.float32)},
        )
        found = _metrics(logits, targets)
        made.append(
            Row(
                cell=cell,
                task='classification',
                primary='accuracy',
                config={
                    'tap': 'pooled',
                    'image_size': image_size,
                    'fit': 'crop',
                    regime: {'smallest': 1e-6, 'values': 25},
                },
                validation={'accuracy': min(1.0, found['accuracy'] + 0.01 * own.normal())},
                test=found,
                selected={'C': 3.16} if regime == 'linear' else {'neighbours': 10},
                at_edge=('C',) if regime == 'linear' and fraction == min(fractions) and seed == 0 else (),
                choices=25,
                depends_on_seed=depends_on_seed,
                costs={
                    'parameters': parameters,
                    'trainable_parameters': 10_250 if regime == 'linear' else 0,
                    'flops_per_image': gigaflops * 1e9,
                    'flops_counted_in': 'traced program',
                    'images_per_second': 4000 / (1 + gigaflops),
                    'input': [224, 224] if inputs == 'images' else [128],
                },
                data={
                    'provenance': f'{dataset}: made up; split by a hash of the example id, stratified',
                    'fingerprint': f'{_number(dataset):08x}',
                    'train_examples': int(LABELS * fraction),
                    'validation_examples': 400,
                    'test_examples': test,
                    'skipped': 0,
                    'inputs': inputs,
                },
                versions=VERSIONS,
                predictions=predictions,
                weights_digest=f'{_number(name):08x}' * 8,
            )
        )
    rows.write(path, made)
    config = {
        'backbones': [f'{each[0]}@{weights.replace("{}", each[0])}' for each in backbones],
        'datasets': [each for each, _ in datasets],
        'fractions': list(fractions),
        'regimes': list(regimes),
        'seeds': list(seeds),
        'tap': 'pooled',
        'linear': {'smallest': 1e-6, 'values': 25},
    }
    (path / 'config.json').write_text(json.dumps(config, indent=2))
    return path


def _metrics(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Metrics that a row of this version has, so that none is computed again when rows are read."""
    right = logits.argmax(-1) == targets
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = exponentials / exponentials.sum(-1, keepdims=True)
    recalls = {f'recall/c{each}': float(right[targets == each].mean()) for each in np.unique(targets)}
    return {
        'accuracy': float(right.mean()),
        'balanced_accuracy': float(np.mean([*recalls.values()])),
        'nll': float(-np.log(probabilities[np.arange(len(targets)), targets]).mean()),
        'ece': float(abs(probabilities.max(-1).mean() - right.mean())),
        **recalls,
    }


def _number(name: str) -> int:
    return zlib.crc32(name.encode('utf-8', 'surrogateescape'))
