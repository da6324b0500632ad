"""When cuDNN's attention is used, and that it is given what it wants; XLA's stands in, which is called alike."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import backbones
from backbones.layers import attention, fused_attention


def values(queries=5, tokens=7, width=8, dtype='bfloat16', value_width=None):
    generator = np.random.default_rng(0)
    shapes = ((queries, width), (tokens, width), (tokens, value_width or width))
    return [jnp.asarray(generator.standard_normal((2, 3, *shape)), dtype) for shape in shapes]


class Kernel:
    """Attention of JAX that counts its traces."""

    def __init__(self, factor: float = 1.0, fault: Exception | None = None):
        self.factor, self.fault, self.traced = factor, fault, 0

    def __call__(self, query, key, value):
        self.traced += 1
        if self.fault is not None:
            raise self.fault
        return self.factor * jax.nn.dot_product_attention(query, key, value, implementation='xla')


def forget():
    """What was traced with another kernel."""
    fused_attention._agrees.cache_clear()
    fused_attention._with_plain_gradient.cache_clear()
    jax.clear_caches()


@pytest.fixture
def gpu(monkeypatch):
    """Makes the processor a GPU with a given kernel."""

    def with_kernel(kernel):
        monkeypatch.setattr(fused_attention, '_kernel', kernel)
        monkeypatch.setattr(fused_attention, '_PLATFORM', 'cpu')
        monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
        forget()
        return kernel

    yield with_kernel
    forget()


def test_the_kernel_computes_the_pass(gpu):
    plain = jax.jit(attention.dot_product_attention)(*values())
    kernel = gpu(Kernel())
    mixed = jax.jit(attention.dot_product_attention)(*values())
    assert kernel.traced == 2  # once to try it
    np.testing.assert_allclose(np.float32(mixed), np.float32(plain), atol=0.02)
    assert mixed.shape == plain.shape and mixed.dtype == plain.dtype


def test_products_are_what_is_differentiated(gpu):
    def total(*given):
        return attention.dot_product_attention(*given).astype(jnp.float32).sum()

    wanted = jax.grad(total, (0, 1, 2))(*values())
    # Wrong by less than the probe sees, so that a gradient of the kernel would not be equal.
    gpu(Kernel(1.001))
    for one, two in zip(jax.grad(total, (0, 1, 2))(*values()), wanted, strict=True):
        np.testing.assert_array_equal(one, two)
    jax.jvp(total, values(), values())


@pytest.mark.parametrize(
    ('kernel', 'given'),
    [
        (Kernel(), values(dtype='float32')),
        (Kernel(), values(value_width=4)),
        (Kernel(), [each[0] for each in values()]),
        (Kernel(1.5), values()),
        (Kernel(float('nan')), values()),
        (Kernel(fault=NotImplementedError('The head dim must be a multiple of 8')), values()),
        (Kernel(fault=RuntimeError('cuDNN is not detected.')), values()),
    ],
    ids=['float32', 'narrow values', 'no batch', 'wrong values', 'no values', 'a width it does not take', 'no cuDNN'],
)
def test_what_has_no_kernel(gpu, kernel, given):
    wanted = jax.jit(attention.dot_product_attention)(*given)
    gpu(kernel)
    np.testing.assert_array_equal(jax.jit(attention.dot_product_attention)(*given), wanted)
    assert kernel.traced <= 1


def test_a_bias_has_no_kernel(gpu):
    kernel = gpu(Kernel())
    attention.dot_product_attention(*values(), jnp.zeros((5, 7)))
    assert not kernel.traced


def test_without_a_gpu_no_kernel_is_tried(monkeypatch):
    kernel = Kernel()
    monkeypatch.setattr(fused_attention, '_kernel', kernel)
    attention.dot_product_attention(*values())
    assert not kernel.traced


def test_programs_for_other_machines_have_none(gpu):
    kernel = gpu(Kernel())
    with fused_attention.excluded():
        jax.make_jaxpr(attention.dot_product_attention)(*values())
    assert not kernel.traced
    jax.make_jaxpr(attention.dot_product_attention)(*values())
    assert kernel.traced


def test_a_backbone_that_uses_it(gpu):
    model = backbones.create('vit_micro', dtype=jnp.bfloat16)
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    variables = model.init(jax.random.key(0), images)
    apply = functools.partial(model.apply, variables, train=False)
    wanted = apply(images).pooled
    kernel = gpu(Kernel())
    found = jax.jit(apply)(images).pooled
    assert kernel.traced > 1
    np.testing.assert_allclose(np.float32(found), np.float32(wanted), atol=0.05)


def test_cudnn_takes_what_it_is_given(monkeypatch):
    """Compiled for a GPU as far as that goes without one."""
    monkeypatch.setattr('jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version', lambda: 91000)
    traced = jax.jit(fused_attention._in_cudnn).trace(*values(197, 197, 64))
    program = traced.lower(lowering_platforms=('cuda',)).as_text()
    assert '__cudnn$fmha' in program and r'\22fmha_scale\22: 0.125' in program
