"""Each operation of a traced program as ONNX Runtime computes it, against JAX."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export, lax

from backbones.boxes.nms import suppress
from backbones.errors import UserError
from backbones.layers.activations import ACTIVATIONS
from backbones.layers.convolution import convolve
from backbones.layers.normalisation import layer_norm
from backbones.layers.pooling import max_pool
from backbones.layers.resizing import resize
from experiments.export.conversion import convert
from experiments.export.onnx_file import Session
from experiments.export.program import trace

SHAPE = (6, 5, 4)
KERNEL = np.random.default_rng(1).standard_normal((3, 3, 4, 8)).astype(np.float32)
DEPTHWISE = np.random.default_rng(1).standard_normal((3, 3, 1, 4)).astype(np.float32)
MATRIX = np.random.default_rng(2).standard_normal((4, 7)).astype(np.float32)
VECTOR = np.random.default_rng(3).standard_normal(4).astype(np.float32)
POSITIONS = np.array([3, 0, 0, 2])

conv = partial(convolve, kernel=KERNEL, stride=1, padding=((1, 1), (1, 1)))


def compare(function, shape=SHAPE, dtype=np.float32, low=-2.0, high=2.0):
    """One graph for every size of batch; the model, to look at its nodes."""
    (batch,) = export.symbolic_shape('batch')
    program = trace(lambda x: jax.tree.leaves(function(x)), jax.ShapeDtypeStruct((batch, *shape), dtype))
    model = convert(program, ['x'], [f'y{number}' for number in range(len(program.outputs))])
    session = Session(model.SerializeToString(), threads=1)
    for size in (1, 3):
        generator = np.random.default_rng(size)
        x = generator.uniform(low, high, (size, *shape)).astype(dtype)
        wanted = jax.tree.leaves(jax.jit(function)(x))
        for one, two in zip(wanted, session(x), strict=True):
            assert one.dtype == two.dtype
            largest = max(float(np.abs(np.asarray(one, np.float64)).max(initial=0)), 1.0)
            np.testing.assert_allclose(two, one, rtol=1e-5, atol=2e-6 * largest)
    return [node.op_type for node in model.graph.node]


# Name → what is computed of ``float32[batch, 6, 5, 4]``.
FUNCTIONS = {
    'convolution': conv,
    'stride, groups and dilation': lambda x: lax.conv_general_dilated(
        x, KERNEL[:, :, :2], (2, 1), ((1, 0), (2, 2)), rhs_dilation=(1, 2), feature_group_count=2,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    ),
    'depthwise': partial(convolve, kernel=DEPTHWISE, stride=2, padding=((1, 1), (1, 1)), groups=4),
    'single pixels': partial(convolve, kernel=MATRIX[None, None], stride=1, padding=((0, 0), (0, 0))),
    'single pixels after another': lambda x: conv(x) @ np.tile(MATRIX, (2, 1)),
    'patches': lambda x: convolve(x, KERNEL[:2, :2], 2, ((0, 0), (0, 0))),
    'norm after a convolution': lambda x: (conv(x) * np.tile(VECTOR, 2) + 3 - np.tile(VECTOR, 2)) / 2,
    'a convolution that is used twice': lambda x: (y := conv(x)) * 2 + jax.nn.relu(y),
    'a convolution that is used before it is scaled': lambda x: (jax.nn.relu(y := conv(x)), y * 2, 3 + y),
    'a convolution that is also known in another order': lambda x: (
        (y := conv(x)).transpose(0, 3, 1, 2) * 2,
        y.astype(jnp.float32) + 0,
    ),
    'something minus a convolution': lambda x: 1 - conv(x),
    'matrix on the last axis': lambda x: x @ MATRIX,
    'matrix on a middle axis': lambda x: jnp.einsum('bhwc,hn->bnwc', x, np.tile(MATRIX, (2, 1))[:6]),
    'matrix on the left': lambda x: jnp.einsum('nh,bhwc->bnwc', np.tile(MATRIX.T, 2)[:, :6], conv(x)),
    'matrix on the batch of a transposed one': lambda x: jnp.einsum('ck,bhwc->kbhw', MATRIX, x),
    'batched products': lambda x: jnp.einsum('bhqd,bhkd->bhqk', x, x + 1),
    'batched products with a constant': lambda x: jnp.einsum('bhqd,hdk->bhqk', x, np.tile(VECTOR[:, None], (6, 1, 3))),
    'product over two axes': lambda x: jnp.einsum('bhwc,bhwd->bcd', x, x),
    'outer product': lambda x: jnp.einsum('bh,bw->bhw', x[:, :, 0, 0], x[:, 0, :, 0]),
    'three factors': lambda x: jnp.einsum('rh,cw,bhwd->brcd', MATRIX[:2, :6], MATRIX[1:, :5], x),
    'layer norm': lambda x: layer_norm(conv(x), np.tile(VECTOR, 2), np.tile(VECTOR, 2), 1e-6),
    'softmax': lambda x: jax.nn.softmax(conv(x)),
    'mean over the map': lambda x: conv(x).mean((1, 2)),
    'mean that is kept': lambda x: conv(x) * conv(x).mean((1, 2), keepdims=True),
    'mean over channels': lambda x: conv(x).mean(-1),
    'mean over the batch axis alone is a sum': lambda x: x.sum(1) / 7,
    'variance': lambda x: jnp.var(x, axis=(1, 3)),
    'extremes': lambda x: (x.max(1), conv(x).min((2, 3)), x.prod(-1)),
    'places of extremes': lambda x: (x.argmax(-1), conv(x).argmin(1)),
    'all and any': lambda x: ((x > 0).any(1), (x > -1).all((1, 2)), jnp.isfinite(1 / jnp.maximum(x, 0)).all(-1)),
    'transposed twice': lambda x: conv(x).transpose(0, 3, 1, 2).transpose(3, 0, 2, 1),
    'reshaped out of order': lambda x: conv(x).reshape(-1, 30, 8),
    'reshaped by ones': lambda x: conv(x)[:, None, :, :, None].reshape(-1, 6, 5, 8),
    'reshaped with the batch inside': lambda x: x.reshape(-1, 4) @ MATRIX,
    'squeezed in another order': lambda x: conv(x).mean((1, 2), keepdims=True).transpose(3, 0, 1, 2)[..., 0, 0],
    'repeated': lambda x: jnp.broadcast_to(x[:, :1], x.shape).reshape(-1, 120),
    'repeated along a new axis': lambda x: jnp.stack([x, x + 1], 2).sum(-1),
    'constants in front of each': lambda x: jnp.concatenate(
        [jnp.broadcast_to(np.float32([[[1, 2, 3, 4]]]), (x.shape[0], 1, 4)), x.reshape(-1, 30, 4)], 1
    ),
    'concatenated in two orders': lambda x: jnp.concatenate([conv(x), x, conv(x) + 1], -1),
    'concatenated along a repeated axis': lambda x: jnp.concatenate([jnp.broadcast_to(x[..., :1], x.shape), x], -1),
    'parts': lambda x: (conv(x)[:, 1:-1, ::2, 3:], x[:, ::-1], *jnp.split(conv(x), [3], axis=-1)),
    'rolled': lambda x: jnp.roll(conv(x), (-2, 1), (1, 2)),
    'padded': lambda x: jnp.pad(conv(x), ((0, 0), (1, 2), (0, 3), (0, 0)), constant_values=5),
    'padding taken away': lambda x: lax.pad(x, np.float32(0), ((0, 0, 0), (-1, 2, 0), (1, -2, 0), (0, 0, 0))),
    'pooling': lambda x: max_pool(conv(x), 3, 2, 1),
    'pooling rounded up': lambda x: max_pool(x, 3, 2, ceil=True),
    'sums over windows': lambda x: lax.reduce_window(
        x, 0.0, lax.add, (1, 2, 3, 1), (1, 1, 2, 1), ((0, 0), (0, 1), (1, 1), (0, 0))
    ),
    'resized': lambda x: resize(conv(x), (9, 4)),
    'resized to nearest': lambda x: resize(conv(x), (9, 13), 'nearest'),
    'chosen along an axis': lambda x: (x[:, POSITIONS], jnp.take(conv(x), POSITIONS, axis=3)),
    'chosen along two axes': lambda x: x[:, POSITIONS[:, None], np.array([1, 4, 2])],
    'chosen by what is computed': lambda x: jnp.take_along_axis(
        x[..., 0, 0], jnp.argsort(POSITIONS)[None] + (x[:, :4, 0, 0] > 0), 1, mode='promise_in_bounds'
    ),
    'constants chosen by what is computed': lambda x: jnp.asarray(MATRIX).at[(x[:, 0, 0, :2] > 0).astype(int)].get(
        mode='promise_in_bounds'
    ),
    'best': lambda x: lax.top_k(conv(x), 3),
    'in order': lambda x: jnp.sort(conv(x), axis=1),
    'cumulative sums': lambda x: (jnp.cumsum(conv(x), 1), lax.cumsum(x, 2, reverse=True)),
    'conditions': lambda x: jnp.where((x > 0) & (x < 1) | (x == 0), conv(x)[..., :4], jnp.where(x != x, 0, -x)),
    'limits': lambda x: (jnp.clip(x, -1, 0.5), jnp.minimum(x, conv(x)[..., 4:]), jnp.maximum(2, x)),
    'powers': lambda x: (x**2, x**3, jnp.abs(x) ** 1.5, lax.rsqrt(jnp.abs(x) + 1), jnp.sqrt(jnp.abs(x)), jnp.square(x)),
    'curves': lambda x: (jnp.exp(x), jnp.log(jnp.abs(x) + 1), jnp.tanh(x), jax.nn.sigmoid(x), jnp.sin(x), jnp.cos(x)),
    'error functions': lambda x: (lax.erf(x), lax.erfc(x)),
    'rounded': lambda x: (jnp.floor(x), jnp.ceil(x), jnp.round(x), lax.round(3 * x), jnp.sign(x)),
    'remainder': lambda x: lax.rem(x, 0.7 + 0 * x),
    'types': lambda x: ((x * 100).astype(jnp.int32).astype(jnp.float32), (x > 0).astype(jnp.float32)),
    **{f'activation {name}': function for name, function in ACTIVATIONS.items()},
    **{f'{name} after a convolution': lambda x, name=name: ACTIVATIONS[name](conv(x)) for name in ACTIVATIONS},
}  # fmt: skip


@pytest.mark.parametrize('name', FUNCTIONS)
def test_it_computes_what_jax_does(name):
    compare(FUNCTIONS[name])


def test_nothing_is_moved_between_convolutions():
    def function(x):
        for _ in range(3):
            y = jax.nn.relu(conv(x) * np.tile(VECTOR, 2) + 1)
            x = convolve(y, KERNEL.transpose(0, 1, 3, 2), 1, ((1, 1), (1, 1))) + x
        return x.mean((1, 2)) @ MATRIX

    kinds = compare(function)
    assert kinds.count('Transpose') == 1
    # Scales and biases are part of the convolutions.
    assert 'Mul' not in kinds and kinds.count('Add') == 3


def test_what_is_not_needed_is_left_out():
    assert compare(lambda x: (x.sum((1, 2)) / 30, jax.nn.relu(x) if x.sum() is None else x)[0]) == [
        'ReduceMean', 'Squeeze', 'Identity'
    ]  # fmt: skip


def test_pixels_are_whole_numbers():
    compare(lambda x: (x.astype(jnp.float32) - 127) / 128, dtype=np.uint8, low=0, high=255)


@st.composite
def chains(draw):
    """A few operations that move, cut and join, after a convolution."""
    return draw(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 2**16)), min_size=1, max_size=6))


def _step(x, kind, number):
    generator = np.random.default_rng(number)
    rank = x.ndim
    if rank < 2:
        return x[:, None]
    axis = int(generator.integers(1, rank))
    match kind:
        case 0:
            order = generator.permutation(np.arange(1, rank))
            return x.transpose(0, *order)
        case 1:
            return x.mean(axis, keepdims=bool(number % 2)) if rank > 2 else x
        case 2:
            return x[(slice(None),) * axis + (slice(0, max(x.shape[axis] - 1, 1), 1 + number % 2),)]
        case 3:
            return jnp.concatenate([x, jnp.flip(x, axis)], axis)
        case 4:
            return x.reshape(x.shape[0], -1, x.shape[-1]) if number % 2 else x.reshape(x.shape[0], x.shape[1], -1)
        case 5:
            return jnp.expand_dims(x, axis) if rank < 6 else x
        case 6:
            return x + jnp.broadcast_to(x.sum(axis, keepdims=True), x.shape)
        case _:
            return x * generator.standard_normal(x.shape[axis]).astype(np.float32).reshape(-1, *[1] * (rank - axis - 1))


@settings(max_examples=25, deadline=None)
@given(chains())
def test_any_order_of_moves(steps):
    def function(x):
        y = conv(x)
        for kind, number in steps:
            y = _step(y, kind, number)
        return y

    compare(function)


@pytest.mark.parametrize('most', (3, 40), ids=('more than are kept', 'fewer than there is room for'))
def test_suppression(most):
    def function(x):
        corner = x[:, :, :2] * 40
        boxes = jnp.concatenate([corner, corner + 5 + x[:, :, 2:4] * 30], -1)
        classes = (x[:, :, 4] * 3).astype(jnp.int32)
        found = jax.vmap(lambda *its: suppress(*its, 0.4, most))(boxes, x[:, :, 5], classes, x[:, :, 6] > 0.2)
        return found.boxes, found.scores, found.classes, found.valid

    kinds = compare(function, (30, 7), low=0.0, high=1.0)
    assert kinds.count('NonMaxSuppression') == 1


def test_suppression_where_nothing_is_valid():
    def function(x):
        none = jnp.zeros(5, jnp.int32)
        found = jax.vmap(lambda boxes: suppress(boxes, boxes[:, 0], none, boxes[:, 0] > 9, 0.5, 3))(x)
        return found.boxes, found.scores, found.classes, found.valid

    compare(function, (5, 4), low=0.0, high=1.0)


def test_what_has_no_counterpart_is_named_with_its_place():
    with pytest.raises(UserError, match="the operation 'while' has no counterpart there; --format stablehlo"):
        compare(lambda x: lax.while_loop(lambda y: y.sum() < 0, lambda y: y + 1, x))
    with pytest.raises(UserError, match="'conv_general_dilated' with a transposed convolution"):
        compare(lambda x: lax.conv_transpose(x, KERNEL, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')))
