"""In training mode: gradients of every leaf, BatchNorm statistics after three steps, rates of the regularisers."""

import json
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

import backbones
from backbones.layers.regularisation import StochasticDepth
from backbones.pretrained.save import to_layout
from tests.backbones.test_parity import load
from tests.parity import weights

# Its programs are large: fewer of them at once keep a worker below 2 GiB.
LARGE = 600.0

# What users run is what must equal the reference; quicker compilation rounds otherwise at the kinks.
AS_USERS_COMPILE = True
KINDS = {StochasticDepth: 'stochastic_depth', nn.Dropout: 'dropout'}


def without_regularisers(rates: dict[str, list[float]]):
    """A context in which regularisers do nothing but leave their rates."""

    def interceptor(call, args, kwargs, context):
        kind = KINDS.get(type(context.module))
        if kind is None or context.method_name != '__call__':
            return call(*args, **kwargs)
        rates[kind].append(context.module.rate)
        return args[0]

    return nn.intercept_methods(interceptor)


@pytest.fixture
def float64(case: weights.Case, monkeypatch: pytest.MonkeyPatch):
    """The type of the arithmetic: float64, everywhere, for what has kinks (``KINKED``), and float32 for the others.

    A value within rounding of a kink passes its gradient or not; how float32 rounds depends on the processor. The
    answers of the reference are float64's.
    """
    if case.backbone not in weights.KINKED:
        yield False
        return
    with jax.enable_x64(True):
        monkeypatch.setattr(jnp, 'float32', jnp.float64)  # parameters and statistics are float32 by name
        yield True


@pytest.mark.parametrize('case', weights.marked(weights.TRAINING))
def test_training_equals_the_reference(case: weights.Case, float64: bool, tmp_path: Path):
    with np.load(case.training_path) as stored:
        reference = dict(stored)
    shapes = json.loads(reference.pop('shapes').tobytes())
    reference.pop('made_with')
    file = tmp_path / 'reference.safetensors'
    save_file(weights.state_dict(case, shapes), file)
    variables, report = load(case, file, case.classifier)
    options = dict(case.options)
    if float64:
        options['dtype'] = jnp.float64
        variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)
    model = backbones.create(case.backbone, **options)
    if case.classifier:
        model = backbones.create_classifier(case.backbone, 1000, **options)
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS.values()}

    def loss_of(params, batch_stats, images, targets):
        variables = {'params': params, 'batch_stats': batch_stats}
        with without_regularisers(rates):
            outputs, updates = model.apply(variables, images, train=True, mutable=['batch_stats'])
        logits = outputs if case.classifier else outputs.pooled
        return jnp.square(logits - targets).mean(), updates.get('batch_stats', {})

    step_of = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    params, batch_stats = variables['params'], variables.get('batch_stats', {})
    outputs = 1000 if case.classifier else model.pooled_channels()
    gradients = None
    for step in range(weights.TRAINING_STEPS):
        images, targets = weights.images(case, step), weights.targets(case, (8, outputs), step)
        with jax.default_matmul_precision('highest'):
            (_, batch_stats), gradient = step_of(params, batch_stats, images, targets)
        gradients = gradient if gradients is None else gradients
        params = jax.tree.map(lambda leaf, slope: leaf - weights.LEARNING_RATE * slope, params, gradient)

    for kind, called in rates.items():
        np.testing.assert_allclose([rate for rate in called if rate], reference[f'rates/{kind}'], atol=1e-7)

    def digests(tree: dict) -> dict[str, np.ndarray]:
        leaves = {path: np.asarray(leaf) for path, leaf in flatten_dict(tree, sep='/').items()}
        foreign = to_layout(leaves, report.layout, case.backbone, dict(case.options))
        return {key: weights.digest(key, array) for key, array in foreign.items() if array.dtype.kind == 'f'}

    ours = {'gradient': digests({'params': gradients}), 'statistics': digests({'batch_stats': batch_stats})}
    for name, found in ours.items():
        expected = weights.unpacked(name, reference)
        if not expected:
            continue
        key, error = weights.worst(expected, found)
        print(f'{case} {name} {error:.1e} ({key})')
        assert error <= (weights.ROUNDING if float64 else weights.TRAINING_TOLERANCE), (name, key)
    only_ours = {key for key, digest in ours['gradient'].items() if digest[0] > 0} - set(
        weights.unpacked('gradient', reference)
    )
    assert not only_ours, 'leaves that the reference does not train'
