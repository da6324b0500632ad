"""Running a frozen backbone once over a data set, with its cost; an interrupted pass continues where it was."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float

import backbones
from backbones.preprocessing import Preprocessing
from experiments.ablation.cells import PIXELS, RANDOM, Variant
from experiments.cli import atomic_files
from experiments.data.dataset import Dataset, hash_order
from experiments.data.model_input import input_preprocessing
from experiments.inference import Inference

# Examples per file of a pass: what an interruption can cost at most.
_BLOCK = 2048
# Raw pixels of larger images are brought down to this side.
_RAW_PIXELS = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, size=32)


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a forward pass costs.

    Attributes:
        parameters: values in the backbone.
        flops_per_image: of the compiled program.
        images_per_second: median over batches on this machine.
    """

    parameters: int = 0
    flops_per_image: float = 0.0
    images_per_second: float = 0.0


@dataclasses.dataclass(frozen=True)
class Unit:
    """One pass: a variant, and the seed that random weights are drawn from (0 for others)."""

    variant: Variant
    init_seed: int


def pooled_features(model: nn.Module) -> Callable[[Any, Array], Array]:
    """The forward pass whose output a head sees."""

    def apply(variables: Any, images: Array) -> Array:
        features = model.apply(variables, images, train=False)
        return cast(backbones.Features, features).pooled

    return apply


def calibrate_statistics(model: nn.Module, variables: dict, images: Float[Array, 'batch height width 3']) -> dict:
    """Set every running statistic to that of the given images, as they are in training mode.

    Without it a randomly initialised network with BatchNorm would be judged with the statistics of no data at all.
    """
    if 'batch_stats' not in variables:
        return variables
    collections, rngs = ['batch_stats', 'batch_moments'], {'dropout': jax.random.key(0)}
    _, updates = model.apply(variables, images, train=True, mutable=collections, rngs=rngs)
    moments = jax.tree.map(lambda sown: sown[0], updates['batch_moments'], is_leaf=lambda node: isinstance(node, tuple))
    return {**variables, 'batch_stats': moments}


def fingerprint(variables: dict, preprocessing: Preprocessing) -> str:
    """A hash of everything that the features of an image depend on."""
    digest = hashlib.sha256(repr(preprocessing).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode() + np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


class Extractor:
    """Pooled features of frozen backbones; a program is compiled once per backbone and input size.

    Args:
        config: of the ablation.
        cache: directory for the blocks of unfinished passes; ``forget`` removes it.
    """

    def __init__(self, config: ml_collections.ConfigDict, cache: Path):
        self._config = config
        self._cache = cache
        self._programs: dict[tuple[str, Preprocessing], _Programs] = {}

    def __call__(
        self, unit: Unit, dataset: Dataset, advance: Callable[[int], None]
    ) -> tuple[Float[np.ndarray, 'examples channels'], Costs]:
        """Features of every example, and what a forward pass costs.

        Args:
            advance: is told the number of examples that were done.
        """
        count = len(dataset.targets)
        if unit.variant.backbone == PIXELS:
            features = raw_pixels(dataset)
            advance(count)
            return features, Costs()
        variant, config = unit.variant, self._config
        preprocessing = input_preprocessing(variant.backbone, variant.weights, config.image_size, config.fit)
        identity = (unit.variant.backbone, preprocessing)
        if identity not in self._programs:
            self._programs[identity] = _Programs(*identity, self._config.batch_size)
        programs = self._programs[identity]
        variables = self._variables(unit, programs, dataset)
        key = f'{unit.variant.backbone}-{dataset.fingerprint()}-{fingerprint(variables, preprocessing)}'
        directory = self._cache / key
        blocks, costs_file = [], directory / 'costs.json'
        for start in range(0, count, _BLOCK):
            file = directory / f'{start:09d}.npy'
            indices = np.arange(start, min(start + _BLOCK, count))
            # Killed between a first block and its costs, a pass computes that block again.
            if file.exists() and costs_file.exists():
                blocks.append(np.load(file))
                advance(len(indices))
                continue
            blocks.append(programs.pooled(variables, dataset.images, indices, advance))
            with atomic_files.atomic_write(file, 'wb') as stream:
                np.save(stream, blocks[-1])
            costs = Costs(
                sum(leaf.size for leaf in jax.tree.leaves(variables['params'])),
                programs.pooled.flops_per_image,
                programs.pooled.images_per_second,
            )
            atomic_files.write_json(costs_file, dataclasses.asdict(costs))
        costs = Costs(**json.loads(costs_file.read_text()))
        return np.concatenate(blocks), costs

    def _variables(self, unit: Unit, programs: '_Programs', dataset: Dataset) -> dict:
        """Published weights, or random ones with statistics calibrated on training images."""
        if unit.variant.weights != RANDOM:
            size = programs.preprocessing.size
            return backbones.load_weights(unit.variant.backbone, unit.variant.weights, image_size=size)[0]
        variables = programs.init(jax.random.key(unit.init_seed))
        train = dataset.splits['train']
        order = hash_order(tuple(dataset.ids[index] for index in train), unit.init_seed)
        chosen = train[order[: self._config.calibration_images]]
        return programs.calibrate(variables, dataset.images[chosen])

    def forget(self) -> None:
        """Remove the blocks of finished passes."""
        shutil.rmtree(self._cache, ignore_errors=True)


class _Programs:
    """The compiled programs of one backbone at one input size."""

    def __init__(self, backbone: str, preprocessing: Preprocessing, batch_size: int):
        model = backbones.create(backbone)
        blank = jnp.zeros((1, *preprocessing.size, 3))
        self.preprocessing = preprocessing
        self.init = jax.jit(lambda key: model.init(key, blank))
        self.calibrate = jax.jit(
            lambda variables, images: calibrate_statistics(model, variables, preprocessing(images))
        )
        self.pooled = Inference(pooled_features(model), preprocessing, batch_size)


def raw_pixels(dataset: Dataset) -> Float[np.ndarray, 'examples values']:
    """Pixels as features, in their stored size or brought down to a side of at most 32."""
    count, height, width, _ = dataset.images.shape
    parts = []
    for start in range(0, count, _BLOCK):
        images = dataset.images[np.arange(start, min(start + _BLOCK, count))]
        large = max(height, width) > max(_RAW_PIXELS.size)
        values = np.asarray(_RAW_PIXELS(jnp.asarray(images))) if large else images.astype(np.float32) / 255
        parts.append(values.reshape(len(images), -1))
    return np.concatenate(parts)
