"""cuDNN's fused attention, where this GPU has it for the given shapes: the scores are never written to memory.

For frozen passes and prediction. What is differentiated is computed by plain products instead: the gradient of the
kernel adds up in an order that changes from run to run, and has no forward mode.
"""

import contextlib
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# The types that the kernel takes; it sums in float32.
_TYPES = ('bfloat16', 'float16')
# Of the values of a probe, which are 1 on average; a step of bfloat16 is 0.008.
_TOLERANCE = 0.05

Attention = Callable[[Array, Array, Array], Array]
# The kernel, and the platform (by the name that programs are compiled for) that has it.
_PLATFORM = 'cuda'
_kernel = functools.partial(jax.nn.dot_product_attention, implementation='cudnn')

# Part of what JAX knows a traced program by, so that a program traced with kernels is not taken for one without.
_excluded = jax.make_user_context(False)


def excluded() -> contextlib.AbstractContextManager:
    """For tracing programs that other machines will run: their kernels are not known here."""
    return _excluded(True)


def fused(
    query: Float[Array, '*batch heads queries width'],
    key: Float[Array, '*batch heads tokens width'],
    value: Float[Array, '*batch heads tokens value_width'],
    plain: Attention,
) -> Float[Array, '*batch heads queries value_width'] | None:
    """Scaled dot-product attention by cuDNN.

    Args:
        plain: the same attention by plain products, against which the kernel is tried once for each shape, and which
            is what is differentiated.

    Returns:
        ``None`` if there is no GPU, no such kernel, or if it gives other values.
    """
    kinds = {(each.dtype.name, each.shape[-1]) for each in (query, key, value)}
    if _excluded.value or jax.default_backend() != 'gpu' or len(kinds) > 1 or query.dtype.name not in _TYPES:
        return None
    if query.ndim < 4 or key.shape != value.shape or query.shape[:-2] != key.shape[:-2]:
        return None
    if not _agrees(query.shape[-2:], key.shape[-2:], query.dtype.name, plain):
        return None
    return _with_plain_gradient(plain)(query, key, value)


def _in_cudnn(query: Array, key: Array, value: Array) -> Array:
    """``jax.nn.dot_product_attention`` wants tokens before heads, and one axis of batch."""
    given = (jnp.swapaxes(each.reshape(-1, *each.shape[-3:]), 1, 2) for each in (query, key, value))
    mixed = _kernel(*given)
    return jnp.swapaxes(mixed, 1, 2).reshape(query.shape)


@functools.cache
def _with_plain_gradient(plain: Attention) -> Attention:
    """The kernel; ``plain`` is what is differentiated, and what runs on the processor of a machine with a GPU."""
    branches = {_PLATFORM: _in_cudnn}
    attention = jax.custom_jvp(lambda *given: jax.lax.platform_dependent(*given, default=plain, **branches))
    attention.defjvp(lambda values, tangents: jax.jvp(plain, values, tangents))
    return attention


@functools.cache
def _agrees(queries: tuple[int, int], tokens: tuple[int, int], dtype: str, plain: Attention) -> bool:
    """Whether the kernel compiles and runs for such shapes, and gives what plain products give."""
    generator = np.random.default_rng(0)
    # Some outer function is being traced: this is computed now, not as a part of it.
    with jax.ensure_compile_time_eval():
        given = [jnp.asarray(generator.standard_normal((1, 2, *shape)), dtype) for shape in (queries, tokens, tokens)]
        try:
            found = np.asarray(jax.jit(_in_cudnn)(*given), np.float32)
        except Exception:  # of a missing library, a shape it does not take, a device that is too old: whatever it is
            return False
        wanted = np.asarray(jax.jit(plain)(*given), np.float32)
    return bool(np.abs(found - wanted).max() < _TOLERANCE)
