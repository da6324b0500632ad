"""What the references answered, their weights as our variables, and how far ours deviate."""

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from backbones.pretrained.keymaps.rules import KeyMap, Line, translate
from tests.parity import weights
from tests.parity.segmentation import cases

# Largest deviation allowed, as a share of the reference's largest magnitude.
TOLERANCE = 1e-5


def stored(name: str) -> dict[str, np.ndarray]:
    with np.load(cases.DIRECTORY / f'{name}.npz') as file:
        return dict(file)


def variables_of(reference: dict[str, np.ndarray], lines: list[Line], part: str = 'neck', seed: int = 0) -> dict:
    """The reference's weights as the variables of a part of a model, or of all of it (``part=''``)."""
    arrays = cases.state(json.loads(reference['shapes'].tobytes()), seed)
    translation = translate(arrays, KeyMap(lines))
    assert not translation.unexpected
    inside = {path.replace(f'/{part}/', '/', 1) if part else path: x for path, x in translation.arrays.items()}
    return unflatten_dict({tuple(path.split('/')): array for path, array in inside.items()})


def deviation(reference: dict[str, np.ndarray], outputs: dict[str, jax.Array]) -> float:
    """The largest deviation of any output as a share of its reference's largest; names and shapes are equal."""
    assert {key.rpartition('/')[0] for key in reference if '/' in key} == set(outputs)
    errors = []
    for name, values in outputs.items():
        ours = weights.summary(name, np.asarray(values))
        assert ours[f'{name}/shape'].tolist() == reference[f'{name}/shape'].tolist(), name
        largest = reference[f'{name}/moments'][2]
        errors += [np.abs(ours[key] - reference[key]).max() / largest for key in (f'{name}/moments', f'{name}/values')]
    return float(max(errors))


def apply(module: nn.Module, variables: dict, *args, **static):
    """The module's output, with every parameter that it creates in use and no other."""
    expected = jax.eval_shape(module.init, jax.random.key(0), *args)
    assert jax.tree.map(jnp.shape, expected) == jax.tree.map(np.shape, variables)
    with jax.default_matmul_precision('highest'):
        return jax.jit(functools.partial(module.apply, **static))(variables, *args)
