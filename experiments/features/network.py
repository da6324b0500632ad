"""A backbone ready for its frozen pass: its programs, its weights, and the identity of its features."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

import backbones
from backbones import inputs
from backbones.inputs import AnyPreprocessing
from backbones.text.tokenising import Tokenising
from experiments.data import calibration_examples, corruptions
from experiments.data.dataset import Dataset
from experiments.features import identity, runtimes, taps
from experiments.features.calibration import calibrate_statistics
from experiments.features.frozen_backbone import FrozenBackbone
from experiments.features.frozen_pass import FrozenPass
from experiments.training import starting_weights
from experiments.training.mesh import DeviceMesh


@dataclasses.dataclass(frozen=True)
class Network:
    """One backbone at one input size.

    Attributes:
        name: its registered name.
        model: the backbone.
        preprocessing: turns stored images, or tokens, into its input.
        make_pass: its pass with some taps as outputs.
        document: the identity of its features, except for the tap, the weights and the data.
        shapes: shapes of its variables.
        features_shapes: of each tap that it has, the shape of one image's features.
    """

    name: str
    model: nn.Module
    preprocessing: AnyPreprocessing
    make_pass: Callable[[Sequence[str]], FrozenPass]
    document: dict[str, Any]
    shapes: dict
    features_shapes: dict[str, tuple[int, ...]]
    _passes: dict[tuple[str, ...], FrozenPass] = dataclasses.field(default_factory=dict)

    def frozen(self, *names: str) -> FrozenPass:
        """The pass that has these taps as outputs."""
        if names not in self._passes:
            self._passes[names] = self.make_pass(names)
        return self._passes[names]

    def document_at(self, tap: str) -> dict[str, Any]:
        """The identity of the features of one tap, except for the weights and the data."""
        return {**self.document, 'tap': tap, 'tap_code': identity.source_version(taps.__name__)}

    @functools.cached_property
    def parameters(self) -> int:
        """Number of parameters of the backbone."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.shapes['params']))

    @functools.cached_property
    def weight_bytes(self) -> int:
        """Bytes of its parameters and statistics."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.shapes))

    @functools.cached_property
    def _init(self) -> Callable[[jax.Array], dict]:
        return jax.jit(lambda key: self.model.init(key, inputs.blank(self.preprocessing.size)))

    @functools.cached_property
    def _calibrate(self) -> Callable[[dict, Any], dict]:
        return jax.jit(
            lambda variables, images: calibrate_statistics(self.model, variables, self.preprocessing(images))
        )

    def load(self, weights: str, size_is_chosen: bool, strict: bool) -> dict:
        """Load the variables from a source; arguments as for ``starting_weights.load``.

        Raises:
            UserError: it cannot be read, or does not fit.
        """
        variables = starting_weights.load(self.name, weights, self.preprocessing.size, size_is_chosen, strict)
        loaded = flatten_dict(variables)
        if strict or loaded.keys() == flatten_dict(self.shapes).keys():
            return unflatten_dict(loaded)
        # Always the same random values, so that a variant is one network.
        return unflatten_dict({**flatten_dict(self._init(jax.random.key(0))), **loaded})

    def initialise(self, seed: int, dataset: Dataset, calibration_images: int, bad_files_limit: int) -> dict:
        """Create random variables; if there are statistics, they are calibrated on training images.

        Raises:
            UserError: more of these images than the limit cannot be read.
        """
        variables = self._init(jax.random.key(seed))
        if 'batch_stats' not in variables:
            return variables
        chosen = calibration_examples.examples(dataset, seed, calibration_images)
        return self._calibrate(variables, calibration_examples.images(dataset, chosen, bad_files_limit))

    def random_recipe(self, backbone: FrozenBackbone, dataset: Dataset, calibration_images: int) -> dict[str, Any]:
        """Everything that random variables depend on: equal recipes give equal variables."""
        code = identity.source_version(calibrate_statistics.__module__)
        recipe = {'init_seed': backbone.init_seed, **self.document, 'calibration': None, 'calibration_code': code}
        if 'batch_stats' in self.shapes:
            chosen = calibration_examples.examples(dataset, backbone.init_seed, calibration_images)
            recipe['calibration'] = {'data': data_document(dataset), 'examples': chosen.tolist()}
        return recipe


def make_network(
    name: str,
    preprocessing: AnyPreprocessing,
    dtype: str,
    batch_size: int,
    device_mesh: DeviceMesh,
    runtime: str = runtimes.XLA,
) -> Network:
    """Prepare a backbone; nothing is computed or compiled yet.

    Args:
        runtime: one of ``runtimes.RUNTIMES``.

    Raises:
        UserError: there is no such backbone, or the runtime cannot be used.
    """
    model = backbones.create(name, **({} if dtype == 'float32' else {'dtype': jnp.dtype(dtype).type}))
    images = inputs.spec(preprocessing.size, batch_size)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    takes = {tap: taps.take(model, tap) for tap in taps.offered(model)}
    everything = taps.trunk(model, *takes)
    trim = preprocessing.trimmed if isinstance(preprocessing, Tokenising) else None
    runtime = runtimes.choose(runtime, device_mesh, dtype, of_texts=trim is not None)
    document = {
        'backbone': identity.module_document(model),
        'preprocessing': identity.preprocessing_document(preprocessing),
        'computation': {
            **identity.computation_document(device_mesh, batch_size, dtype),
            **runtimes.document(runtime),
        },
    }
    leaves = jax.eval_shape(everything, shapes, images)
    features_shapes = {tap: jax.eval_shape(take, leaves).shape[1:] for tap, take in takes.items()}

    def make_pass(names: Sequence[str]) -> FrozenPass:
        chosen = [takes[tap] for tap in names]
        # Of texts, XLA fuses what precedes an output otherwise than what precedes a normalisation alone: one program
        # gives every tap the same bits, whatever is asked for, and is compiled once.
        trunk = taps.trunk(model, *names) if trim is None else everything
        return FrozenPass(preprocessing, trunk, chosen, batch_size, device_mesh, runtime, trim)

    return Network(name, model, preprocessing, make_pass, document, shapes, features_shapes)


def data_document(dataset: Dataset) -> dict[str, Any]:
    """What features depend on in a data set: its images and their corruption, but not its labels and splits."""
    images = dataset.images
    # For images in memory the pixels count; for others, the bytes of files or records and the code that decodes them.
    modules = None if isinstance(images, np.ndarray) else getattr(images, 'modules', (type(images).__module__,))
    document = {
        'images': dataset.content_digest(),
        'shape': list(images.shape),
        'decoding': modules and identity.source_version(*modules),
    }
    if dataset.corruption is not None:
        # The noise depends on the names.
        document['corruption'] = {
            **dataclasses.asdict(dataset.corruption),
            'examples': hashlib.sha256('\n'.join(dataset.ids).encode()).hexdigest(),
            'code': identity.source_version(*corruptions.MODULES),
        }
    return document
