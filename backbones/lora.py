"""Low-rank adaptation: a product of two thin matrices is learned beside each large matrix, which stays as it is.

Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models"; microsoft/LoRA, loralib/layers.py.

Adapters are parameters like any other, ``lora_a`` float32[inputs, rank] and ``lora_b`` float32[rank, outputs] beside
the ``kernel`` that they adapt. Without ``applied`` the model does not see them.

The paper scales the product by ``alpha / rank``. Here ``alpha`` defaults to the rank, so that the scale is 1.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Key

from backbones import depth
from backbones.errors import UserError
from backbones.layers.attention import Dense
from backbones.layers.convolution import Conv

LEAVES = ('lora_a', 'lora_b')

# Loralib's kaiming_uniform_(a=sqrt(5)): uniform within 1 / sqrt(inputs).
_uniform = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def scale(rank: int, alpha: float | None = None) -> float:
    """The factor of the adapters, ``alpha / rank``; 1 without an ``alpha``."""
    return 1.0 if alpha is None else alpha / rank


def targets(model: nn.Module, variables: dict, images_shape: tuple[int, ...]) -> tuple[str, ...]:
    """Paths of the modules of a model's backbone that can be adapted, in the order of execution.

    These are all dense layers and ungrouped 1x1 convolutions that inference runs. Heads, auxiliary heads, patch
    embeddings and the packed projection of attention pooling are not among them.

    Args:
        model: a ``Model``.
        variables: the model's variables, arrays or their shapes.
        images_shape: ``(batch, height, width, channels)``, or ``(batch, length)`` of texts, which the model accepts.
    """
    adaptable = depth.visit(model, variables, images_shape, _is_adaptable)
    return tuple(path for path, can in adaptable.items() if can and path.startswith('backbone/'))


def _is_adaptable(module: nn.Module) -> bool:
    if isinstance(module, Conv):
        return module.kernel_size == 1 and module.groups == 1 and module.padding in (None, 0, 'same')
    return isinstance(module, Dense)


def add(params: dict, targets: Sequence[str], rank: int, key: Key[Array, '']) -> dict:
    """The parameters with adapters beside the kernels of ``targets``; they change nothing until ``lora_b`` is trained.

    A kernel with fewer inputs or outputs than ``rank`` gets none, as its adapter would be no smaller than the kernel
    itself: the narrow layers of a squeeze-and-excitation must not rule out a rank that suits all others.

    Args:
        params: parameters of a ``Model``.
        targets: paths of modules, from ``targets``.
        rank: inner dimension of the adapters.
        key: random key for ``lora_a``; ``lora_b`` is zero.

    Raises:
        UserError: the rank is less than 1 or too large for every kernel, or the backbone has no kernel to adapt.
    """
    if rank < 1:
        raise UserError(f'the rank of LoRA must be at least 1, not {rank}')
    leaves = flatten_dict(params, sep='/')
    shapes = {path: np.shape(leaves[f'{path}/kernel'])[-2:] for path in targets}
    if not shapes:
        raise UserError(
            'LoRA adapts dense layers and 1x1 convolutions, and this backbone has none; '
            "choose another regime, such as 'bitfit' or 'partial:1'"
        )
    wide = {path: shape for path, shape in shapes.items() if min(shape) >= rank}
    if not wide:
        largest = max(min(shape) for shape in shapes.values())
        raise UserError(f'LoRA of rank {rank} fits no kernel of this backbone; the largest rank that does is {largest}')
    for (path, (inputs, outputs)), each in zip(wide.items(), jax.random.split(key, len(wide)), strict=True):
        leaves[f'{path}/lora_a'] = _uniform(each, (inputs, rank), jnp.float32)
        leaves[f'{path}/lora_b'] = jnp.zeros((rank, outputs), jnp.float32)
    return unflatten_dict(leaves, sep='/')


def applied(scale: float = 1.0):
    """A context in which every adapted module adds ``scale * (x @ lora_a) @ lora_b`` to its output.

    Wrap every ``apply`` with adapted parameters in it, in training and inference. It acts while the function is traced.
    The product is never added to the kernel, so a frozen kernel costs no gradient. It is computed in the module's
    dtype.

    Args:
        scale: the factor, from ``scale``.
    """

    def interceptor(call, args, kwargs, context):
        y = call(*args, **kwargs)
        module = context.module
        adapted = context.method_name == '__call__' and isinstance(module, Dense | Conv)
        if not adapted or not module.has_variable('params', 'lora_a'):
            return y
        a, b = (module.get_variable('params', name).astype(module.dtype) for name in LEAVES)
        x = args[0].astype(module.dtype)
        if isinstance(module, Conv):
            x = x[:, :: module.stride, :: module.stride]
        return y + scale * jnp.dot(jnp.dot(x, a), b)

    return nn.intercept_methods(interceptor)


def merge(params: dict, scale: float = 1.0) -> dict:
    """The parameters with every adapter merged into its kernel: float32 ``kernel + scale * lora_a @ lora_b``.

    Args:
        params: parameters with adapters; without any, they are returned as they are.
        scale: that of ``applied``.
    """
    leaves = flatten_dict(params)
    merged = {path: leaf for path, leaf in leaves.items() if path[-1] not in LEAVES}
    for path in leaves:
        if path[-1] == 'lora_a':
            kernel = (*path[:-1], 'kernel')
            merged[kernel] = leaves[kernel] + scale * _product(leaves, path[:-1]).reshape(leaves[kernel].shape)
    return unflatten_dict(merged)


def _product(leaves: dict, module: tuple[str, ...]) -> Float[Array, 'inputs outputs']:
    a, b = (leaves[(*module, name)] for name in LEAVES)
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
