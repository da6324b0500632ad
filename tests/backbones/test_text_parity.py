"""Text encoders against transformers' under the same weights (tests/parity/text), and what their tokens depend on."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from backbones import UserError, inputs
from backbones.cost import count_flops
from backbones.text.encoder import PADDING
from backbones.text.table import TABLE
from tests.parity.text import cases
from tests.parity.text.compare import compare, module_of, variables_of

# As in test_parity.py.
TOLERANCE = 2e-5

# Name → parameters (transformers' own number, without a pooler but for BERT's), and GFLOPs of a text of the usual
# length: each matrix product of the blocks by hand.
SIZES = {
    'bert_base': (109_482_240, 96.64),
    'distilbert_base': (66_362_880, 48.32),
    'roberta_base': (124_055_040, 96.64),
    'minilm_l6': (22_565_376, 6.040),
    'text_micro': (496_992, 0.3272),
}


@pytest.mark.parametrize('case', cases.CASES, ids=str)
def test_every_quarter_equals_the_reference(case: cases.Case):
    """Padding on the right and on the left, holes, two types, and a text as long as the table of positions."""
    with np.load(case.path) as stored:
        errors = compare(case, dict(stored))
    assert {name.split('/')[0] for name in errors} >= {'right', 'left', 'holes', 'longest'}
    print(case, f'{max(errors.values()):.1e}')
    assert max(errors.values()) <= TOLERANCE, errors


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=() if 'micro' in name else pytest.mark.slow) for name in TABLE]
)
def test_parameters_and_flops(name):
    row = TABLE[name]
    module, size = row.constructor(), row.preprocessing.size
    shapes = jax.eval_shape(module.init, jax.random.key(0), inputs.spec(size))
    parameters, gflops = SIZES[name]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == row.params == parameters
    assert count_flops(module, size) / 1e9 == pytest.approx(gflops, rel=1e-3)
    length, width, hidden = size[0], module.channels, module.hidden
    block = 2 * length * width * (4 * width + 2 * hidden) + 4 * length**2 * width
    pooler = 2 * width**2 if module.pooling == 'pooler' else 0
    assert count_flops(module, size) == module.depth * block + pooler


def test_a_padded_batch_gives_what_each_text_gives_alone():
    case = cases.CASES[-1]
    module = module_of(case)
    tokens = np.random.default_rng(0).integers(3, module.vocabulary, (1, 7))
    with np.load(case.path) as stored:
        variables = variables_of(case, json.loads(str(stored['shapes'])))
    run = jax.jit(module.apply)
    padded = run(variables, np.pad(tokens, ((0, 1), (0, 9)), constant_values=PADDING))
    alone = run(variables, tokens)
    np.testing.assert_allclose(padded.pooled[:1], alone.pooled, atol=1e-6)
    np.testing.assert_allclose(padded.tokens[:1, :7], alone.tokens, atol=5e-6)
    # Not even a text without any token makes values that are none.
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(padded))


def test_the_last_stages_have_no_more_blocks_than_the_first():
    assert [module_of(cases.CASES[0]).clone(depth=depth).stage_depths() for depth in (4, 6, 7, 12)] == [
        (1, 1, 1, 1),
        (2, 1, 2, 1),
        (2, 2, 2, 1),
        (3, 3, 3, 3),
    ]


def test_an_unknown_activation():
    module = module_of(cases.CASES[0]).clone(activation='swishy')
    with pytest.raises(UserError, match="unknown activation 'swishy'"):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))


def test_heads_and_types_that_it_cannot_have():
    module, tokens = TABLE['text_micro'].constructor(), jnp.zeros((1, 4), jnp.int32)
    with pytest.raises(UserError, match=r'96 channels .* into heads=7; the nearest numbers .* are 6 and 8'):
        jax.eval_shape(module.clone(heads=7).init, jax.random.key(0), tokens)
    with pytest.raises(UserError, match=r'this encoder has no table of them \(types=0\): leave them out'):
        jax.eval_shape(lambda key: module.init(key, tokens, types=tokens), jax.random.key(0))


def test_bytes_need_no_vocabulary():
    expects = TABLE['text_micro'].preprocessing
    tokens = expects.encode(['', 'a[SEP]', 'é中😀\n', 'x' * 999])
    assert tokens.shape == (4, 256)
    begin, end = 1, 2
    assert tokens[0, :3].tolist() == [begin, end, PADDING]
    assert tokens[1, [0, 2, 3, 4]].tolist() == [begin, end, end, PADDING]  # the name of a token is the token
    assert (tokens != PADDING).sum(1).tolist() == [2, 4, 2 + len('é中😀\n'.encode()), 256]
    assert tokens.max() < TABLE['text_micro'].constructor().vocabulary
    every = expects.encode([''.join(map(chr, range(256)))[:120], ''.join(map(chr, range(120, 256)))[:120]])
    assert len({*every.ravel().tolist()}) > 128
