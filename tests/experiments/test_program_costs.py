"""What compiled programs take: the reader of their text, and programs whose collectives are known."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.planning import hlo, program_costs
from experiments.planning.hlo import Collective

ROOT = Path(__file__).parents[2]


def test_synchronous_collectives():
    content = hlo.read("""
ENTRY %main (a: f32[16,8], b: bf16[4]) -> f32[16,8] {
  %a = f32[16,8]{1,0:T(8,128)} parameter(0)
  %b = bf16[4]{0} parameter(1)
  %sum = (f32[16,8]{1,0:T(8,128)S(1)}, /*index=1*/bf16[4]{0}) all-reduce(%a, %b), channel_id=1, to_apply=%add
  %whole = f32[64,8]{1,0} all-gather(%a), channel_id=2, dimensions={0}
  %piece = f32[4,8]{1,0} reduce-scatter(%a), channel_id=3, dimensions={0}, to_apply=%add
  %swapped = f32[16,8]{1,0} all-to-all(%a), channel_id=4, dimensions={0}
  ROOT %moved = f32[16,8]{1,0} collective-permute(%a), channel_id=5, source_target_pairs={{0,1},{1,0}}
}
""")
    assert content.collectives == {
        'all-reduce': Collective(1, 520),
        'all-gather': Collective(1, 2048),
        'reduce-scatter': Collective(1, 512),
        'all-to-all': Collective(1, 512),
        'collective-permute': Collective(1, 512),
    }


def test_asynchronous_collectives_count_once():
    content = hlo.read("""
%wrapped (p: f32[16]) -> f32[4] {
  %p = f32[16]{0} parameter(0)
  ROOT %r = f32[4]{0} reduce-scatter(%p), channel_id=4, dimensions={0}, to_apply=%add
}

ENTRY %main (a: f32[16]) -> f32[16] {
  %a = f32[16]{0} parameter(0)
  %s1 = f32[16]{0} all-reduce-start(%a), channel_id=1, to_apply=%add
  %d1 = f32[16]{0} all-reduce-done(%s1)
  %s2 = (f32[16]{0}, f32[64]{0}) all-gather-start(%a), channel_id=2, dimensions={0}
  %d2 = f32[64]{0} all-gather-done(%s2)
  %s3 = (f32[16]{0}, f32[16]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%a), channel_id=3
  %d3 = f32[16]{0} collective-permute-done(%s3)
  %s4 = ((f32[16]{0}), f32[4]{0}, s32[]) async-start(%a), calls=%wrapped
  %d4 = f32[4]{0} async-done(%s4), calls=%wrapped
  ROOT %out = f32[16]{0} copy(%d1)
}
""")
    assert content.collectives == {
        'all-reduce': Collective(1, 64),
        'all-gather': Collective(1, 256),
        'reduce-scatter': Collective(1, 64),
        'collective-permute': Collective(1, 64),
    }


def test_fusions_of_tpu_compilers():
    """A gather in three fusions is one; each all-reduce in a fusion named for it is a reduce-scatter."""
    fused = '\n'.join(
        f"""%fused.{index} (p: bf16[96,24]) -> bf16[96,96] {{
  %p = bf16[96,24]{{0,1:T(8,128)(2,1)}} parameter(0)
  ROOT %g.{index} = bf16[96,96]{{0,1:T(8,128)(2,1)}} all-gather(%p), channel_id=80, dimensions={{1}}
}}
"""
        for index in range(3)
    )
    scattered = '\n'.join(
        f"""%all-reduce-scatter.{index} (p: f32[128]) -> f32[32] {{
  %p = f32[128]{{0}} parameter(0)
  %r = f32[128]{{0}} all-reduce(%p), channel_id=81, to_apply=%add
  %zero = s32[] constant(0)
  ROOT %s = f32[32]{{0}} dynamic-slice(%r, %zero), dynamic_slice_sizes={{32}}
}}
"""
        for index in (1, 2)
    )
    content = hlo.read(f"""{fused}
{scattered}

ENTRY %main (a: bf16[96,24], b: f32[128]) -> f32[32] {{
  %a = bf16[96,24]{{1,0}} parameter(0)
  %b = f32[128]{{0}} parameter(1)
  %f0 = bf16[96,96]{{1,0}} fusion(%a), kind=kCustom, calls=%fused.0
  %f1 = bf16[96,96]{{1,0}} fusion(%a), kind=kOutput, calls=%fused.1
  %f2 = bf16[96,96]{{1,0}} fusion(%a), kind=kCustom, calls=%fused.2
  %f3 = f32[32]{{0}} fusion(%b), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %f4 = f32[32]{{0}} fusion(%b), kind=kCustom, calls=%all-reduce-scatter.2
}}
""")
    assert content.collectives == {'all-gather': Collective(1, 96 * 96 * 2), 'reduce-scatter': Collective(2, 1024)}


LOOP = """
%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {{
  %p = (s32[], f32[8,4]{{1,0}}) parameter(0)
  %x = f32[8,4]{{1,0}} get-tuple-element(%p), index=1
  %square = f32[8,8]{{1,0}} dot(%x, %x), lhs_contracting_dims={{1}}, rhs_contracting_dims={{1}}
  %sum = f32[8,4]{{1,0}} all-reduce(%x), channel_id=1, to_apply=%add
  ROOT %t = (s32[], f32[8,4]{{1,0}}) tuple(%i, %sum)
}}

%condition (p: (s32[], f32[8,4])) -> pred[] {{
  %p = (s32[], f32[8,4]{{1,0}}) parameter(0)
  %limit = s32[]{{:T(128)}} constant(5)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %less = pred[] compare(%i, %limit), direction={direction}
}}

ENTRY %main (a: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {{
  %a = (s32[], f32[8,4]{{1,0}}) parameter(0)
  ROOT %loop = (s32[], f32[8,4]{{1,0}}) while(%a), condition=%condition, body=%body{known}
}}
"""


@pytest.mark.parametrize(
    ('direction', 'known', 'trips'),
    [
        ('LT', '', 5),
        ('GT', '', None),
        ('GT', ', backend_config={"known_trip_count":{"n":"7"}}', 7),
    ],
)
def test_loops(direction, known, trips):
    content = hlo.read(LOOP.format(direction=direction, known=known))
    once = 2 * 8 * 8 * 4
    assert content.collectives == {'all-reduce': Collective(trips or 1, (trips or 1) * 128)}
    assert content.flops == once * (trips or 1)
    assert content.repeated_flops == content.flops - once
    assert content.uncounted_loops == (trips is None)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(1, 3),
    st.integers(1, 2),
)
def test_products_of_a_convolution_with_ones_are_its_sum(length, kernel, stride, pad, dilation, kernel_dilation):
    """Convolving ones with ones adds one for every product that is not with padding or a gap."""
    if (length - 1) * dilation + 1 + 2 * pad < (kernel - 1) * kernel_dilation + 1:
        return
    convolved = np.asarray(
        jax.lax.conv_general_dilated(
            jnp.ones((1, 1, length)), jnp.ones((1, 1, kernel)), (stride,), [(pad, pad)], (dilation,), (kernel_dilation,)
        )
    )
    expected = round(float(convolved.sum()))
    text = f"""
ENTRY %main (a: f32[2,{length},6], b: f32[{kernel},3,10]) -> f32[2,{convolved.shape[-1]},10] {{
  %a = f32[2,{length},6]{{2,1,0}} parameter(0)
  %b = f32[{kernel},3,10]{{2,1,0}} parameter(1)
  ROOT %c = f32[2,{convolved.shape[-1]},10]{{2,1,0}} convolution(%a, %b), window={{size={kernel} stride={stride} \
pad={pad}_{pad} lhs_dilate={dilation} rhs_dilate={kernel_dilation}}}, dim_labels=b0f_0io->b0f, feature_group_count=2
}}
"""
    assert hlo.read(text).flops == 2 * (2 * 3 * 10) * expected


def test_one_device():
    """Arguments, outputs, aliases and the operations of a product."""
    shape = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    program = jax.jit(lambda x: x @ x, donate_argnums=0).lower(shape).compile()
    analysis = program_costs.analyse(program)
    assert (analysis.argument_bytes, analysis.output_bytes, analysis.aliased_bytes) == (16384, 16384, 16384)
    assert analysis.flops == 2 * 64**3
    assert analysis.collectives == {}
    assert analysis.peak_bytes == 16384 + analysis.temporary_bytes + analysis.code_bytes


def test_a_loop_counts_every_iteration():
    shape = jax.ShapeDtypeStruct((64, 64), jnp.float32)

    def flops(length: int) -> float:
        def program(x):
            return jax.lax.scan(lambda carry, _: (jnp.tanh(carry @ x), None), x, length=length)[0]

        return program_costs.analyse(jax.jit(program).lower(shape).compile()).flops

    # The products of every iteration; of the rest, XLA counts one.
    assert flops(7) - flops(5) == 2 * 2 * 64**3


PROGRAMS = """
import json, jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from experiments.planning import program_costs
mesh = jax.make_mesh((8,), ('x',), axis_types=(AxisType.Auto,))
cut, whole = NamedSharding(mesh, P('x')), NamedSharding(mesh, P())
w = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=whole)
x = jax.ShapeDtypeStruct((16, 64), jnp.float32, sharding=cut)
xs = jax.ShapeDtypeStruct((3, 16, 64), jnp.float32, sharding=NamedSharding(mesh, P(None, 'x')))
gradient = jax.grad(lambda w, x: jnp.sum(jnp.tanh(x @ w)))
def accumulate(w, xs):
    return jax.lax.scan(lambda total, x: (total + gradient(w, x), None), jnp.zeros_like(w), xs)[0]
def moved(x):
    return jax.shard_map(lambda x: jax.lax.ppermute(x, 'x', [(i, (i + 1) % 8) for i in range(8)]), mesh=mesh,
                         in_specs=P('x'), out_specs=P('x'))(x)
def turned(x):
    return jax.shard_map(lambda x: jax.lax.all_to_all(x, 'x', 1, 0, tiled=True), mesh=mesh, in_specs=P('x'),
                         out_specs=P(None, 'x'))(x)
def scattered(x):
    return jax.shard_map(lambda x: jax.lax.psum_scatter(x, 'x', tiled=True), mesh=mesh, in_specs=P(),
                         out_specs=P('x'), check_vma=False)(x)
result = {}
for name, function, arguments, out in [
    ('gradient', gradient, (w, x), whole), ('accumulate', accumulate, (w, xs), whole),
    ('gathered', lambda x: x, (x,), whole), ('moved', moved, (x,), cut),
    ('turned', turned, (x,), NamedSharding(mesh, P(None, 'x'))), ('scattered', scattered, (w,), cut),
]:
    analysis = program_costs.analyse(jax.jit(function, out_shardings=out).lower(*arguments).compile())
    result[name] = {kind: (each.count, each.bytes) for kind, each in analysis.collectives.items()}
print(json.dumps(result))
"""


def test_eight_devices():
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '--xla_force_host_platform_device_count=8'}
    done = subprocess.run(
        [sys.executable, '-c', PROGRAMS], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        'gradient': {'all-reduce': [1, 64 * 32 * 4]},
        'accumulate': {'all-reduce': [3, 3 * 64 * 32 * 4]},
        'gathered': {'all-gather': [1, 16 * 64 * 4]},
        'moved': {'collective-permute': [1, 2 * 64 * 4]},
        'turned': {'all-to-all': [1, 2 * 64 * 4]},
        'scattered': {'reduce-scatter': [1, 64 * 32 * 4]},
    }


def test_the_table_has_every_number():
    analysis = program_costs.Analysis(
        2.5e12, 2**30, 2**20, 2**29, 2**20, 0, {'all-reduce': Collective(3, 3 * 2**20)}, 1
    )
    cells = [list(column.cells) for column in program_costs.table(analysis, leading=[('batch', '8')]).columns]
    shown = dict(zip(*cells, strict=True))
    assert shown['batch'] == '8'
    assert shown['memory'] == '1.5 GiB'
    assert shown['arithmetic'] == '2.5 TFLOP'
    assert shown['all-reduce'] == '3 MiB in 3'
    assert shown['loops of unknown length'].startswith('1;')


@pytest.mark.parametrize(
    ('count', 'text'), [(0, '0 B'), (999, '999 B'), (1020 * 2**20, '0.996 GiB'), (15.75 * 2**30, '15.8 GiB')]
)
def test_sizes_for_people(count, text):
    assert program_costs.size(count) == text
