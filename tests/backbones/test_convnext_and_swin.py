"""What ConvNeXt and Swin do beyond what every backbone does; their outputs are compared in test_parity.py."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

import backbones
from backbones.pretrained.keymaps import layouts
from backbones.pretrained.keymaps.rules import KeyMap, export, translate

SMALL_CONVNEXT = {'channels': (4, 4, 8, 8), 'depths': (1, 1, 1, 1)}
SMALL_SWIN = {'channels': 4, 'depths': (1, 1, 1, 1), 'heads': (1, 2, 2, 4)}
SHIFTED_SWIN = SMALL_SWIN | {'depths': (2, 2, 2, 2)}


def images(*size: int) -> jax.Array:
    return jax.random.normal(jax.random.key(1), (2, *size, 3))


def random_variables(model) -> dict:
    """Values of the shapes that the model has; its own initialisation would take long to compile."""
    variables = jax.eval_shape(model.init, jax.random.key(0), images(32, 32))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), variables)


@pytest.mark.parametrize(('size', 'nearest'), [((31, 40), '32x40'), ((64, 3), '64x32'), ((8, 8), '32x32')])
def test_a_convnext_rejects_an_image_of_which_nothing_would_be_left(size, nearest):
    model = backbones.create('convnext_tiny', **SMALL_CONVNEXT)
    message = f'images of {size[0]}x{size[1]} pixels leave nothing .* the nearest size that suffices is {nearest}'
    with pytest.raises(backbones.UserError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), images(*size))


def test_the_tokens_of_dinov3s_convnext_are_the_mean_and_the_positions_normalised_alike():
    model = backbones.create('dinov3_convnext_tiny', **SMALL_CONVNEXT)
    assert model.prefix_tokens() == 1
    variables = random_variables(model)
    seen = jax.jit(model.apply)(variables, images(64, 96))
    last = np.asarray(seen.stages['stage4'], np.float64).reshape(2, 6, 8)
    tokens = np.concatenate([last.mean(1, keepdims=True), last], axis=1)
    deviations = tokens - tokens.mean(-1, keepdims=True)
    norm = variables['params']['norm']
    expected = deviations / np.sqrt((deviations**2).mean(-1, keepdims=True) + 1e-6) * norm['scale'] + norm['bias']
    np.testing.assert_allclose(seen.tokens, expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(seen.pooled, seen.tokens[:, 0])
    plain = jax.jit(backbones.create('convnext_tiny', **SMALL_CONVNEXT).apply)(variables, images(64, 96))
    np.testing.assert_allclose(plain.pooled, seen.pooled, rtol=0, atol=1e-4)


def test_swin_pads_an_image_if_asked_to():
    model = backbones.create('swin_tiny', window=2, pad=True, **SMALL_SWIN)
    variables = random_variables(model)
    odd = images(33, 38)
    padded = jnp.pad(odd, ((0, 0), (0, 3), (0, 2), (0, 0)))
    apply = jax.jit(lambda images: model.apply(variables, images))
    jax.tree.map(np.testing.assert_array_equal, apply(odd), apply(padded))


def test_swin_tells_how_to_have_an_image_padded():
    model = backbones.create('swin_tiny', **SMALL_SWIN)
    with pytest.raises(backbones.UserError, match=r'33x38 pixels .* are 32x36 and 36x40, and pad=True fills'):
        jax.eval_shape(model.init, jax.random.key(0), images(33, 38))


def test_swin_rejects_a_window_of_nothing():
    model = backbones.create('swin_tiny', window=0, **SMALL_SWIN)
    with pytest.raises(backbones.UserError, match='the window of a Swin transformer must be at least 1, not 0'):
        jax.eval_shape(model.init, jax.random.key(0), images(32, 32))


@pytest.mark.parametrize(('name', 'options'), [('convnext_tiny', SMALL_CONVNEXT), ('swin_tiny', SMALL_SWIN)])
def test_an_unknown_activation_offers_the_nearest(name, options):
    model = backbones.create(name, activation='gelu_tan', **options)
    with pytest.raises(backbones.UserError, match=r"unknown activation 'gelu_tan'; did you mean 'gelu_tanh'"):
        jax.eval_shape(model.init, jax.random.key(0), images(32, 32))


@pytest.mark.parametrize(
    ('name', 'options'),
    [('convnext_tiny', SMALL_CONVNEXT), pytest.param('swin_tiny', SMALL_SWIN, marks=pytest.mark.exhaustive)],
)
def test_stochastic_depth_acts_in_training_alone(name, options):
    model = backbones.create(name, stochastic_depth=0.9, **options)
    variables = random_variables(model)

    @partial(jax.jit, static_argnames='train')
    def pooled(seed: int, train: bool) -> jax.Array:
        rngs = {'dropout': jax.random.key(seed)} if train else None
        return model.apply(variables, images(32, 32), train=train, rngs=rngs).pooled

    always = np.asarray(pooled(0, train=False))
    trained = np.stack([pooled(seed, train=True) for seed in range(4)])
    assert (trained != always).any()
    assert (trained != trained[0]).any()


# --- Files of ConvNeXt. -----------------------------------------------------------------------------------------------


def exported(name: str, layout: str, **options) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Random leaves of a small classifier, and the file that a layout makes of them."""
    options = SMALL_CONVNEXT | options
    model = backbones.create_classifier(name, 5, **options)
    leaves = flatten_dict(random_variables(model), sep='/')
    arrays, homeless = export(leaves, KeyMap(layouts(backbones.create(name, **options))[layout]))
    assert not homeless
    return leaves, arrays


def test_timm_has_1x1_convolutions_in_the_smaller_sizes_of_the_v2():
    shapes = {}
    for channels in ((80, 8, 8, 8), (96, 8, 8, 8)):
        leaves, arrays = exported('convnextv2_atto', 'timm', channels=channels)
        shapes[channels[0]] = arrays['stages.0.blocks.0.mlp.fc1.weight'].shape
        # Files of either kind are read into modules of either size.
        other = {key: array.reshape(array.shape[:2]) if '.mlp.fc' in key and array.ndim == 4 else array
                 for key, array in arrays.items()}  # fmt: skip
        keymap = KeyMap(layouts(backbones.create('convnextv2_atto', **SMALL_CONVNEXT))['timm'])
        read = translate(other, keymap).arrays
        assert read.keys() == leaves.keys()
        for path, leaf in leaves.items():
            np.testing.assert_array_equal(read[path], leaf)
    assert shapes == {80: (320, 80, 1, 1), 96: (384, 96)}


def test_dinov3s_convnext_of_transformers_by_the_names_in_memory():
    leaves, arrays = exported('dinov3_convnext_tiny', 'transformers')
    in_memory = {f'model.{key}' if key.startswith('stages') else key: array for key, array in arrays.items()}
    assert in_memory.keys() != arrays.keys()
    keymap = KeyMap(layouts(backbones.create('dinov3_convnext_tiny', **SMALL_CONVNEXT))['transformers'])
    read = translate(in_memory, keymap).arrays
    assert all(np.array_equal(read[path], leaf) for path, leaf in leaves.items())


def test_the_last_normalisation_of_dinov3s_convnext_stands_twice_in_its_authors_files(tmp_path: Path):
    _, arrays = exported('dinov3_convnext_tiny', 'facebook')
    np.testing.assert_array_equal(arrays['norms.3.weight'], arrays['norm.weight'])
    arrays = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
    arrays['norms.3.weight'] = arrays['norm.weight'] + 1
    save_file(arrays, tmp_path / 'weights.safetensors')
    with pytest.raises(backbones.UserError, match=r'norms?\.(3\.)?weight and norms?\..*, and they differ'):
        backbones.load_weights('dinov3_convnext_tiny', tmp_path / 'weights.safetensors', **SMALL_CONVNEXT)


def test_a_convnext_v2_is_no_layout_of_torchvision():
    assert set(layouts(backbones.create('convnextv2_atto'))) == {'timm', 'transformers', 'facebook'}


# --- Files of Swin. ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def swin_leaves() -> dict[str, np.ndarray]:
    """Paths of a small classifier and random values; the window is the published one."""
    model = backbones.create_classifier('swin_tiny', 5, **SHIFTED_SWIN)
    return flatten_dict(random_variables(model), sep='/')


@pytest.fixture(scope='module')
def swin_maps() -> dict[str, KeyMap]:
    lines = layouts(backbones.create('swin_tiny', **SHIFTED_SWIN))
    return {layout: KeyMap(each) for layout, each in lines.items()}


@pytest.mark.parametrize('headless', [False, True])
@pytest.mark.parametrize('layout', ['torchvision', 'timm', 'transformers', 'microsoft'])
def test_each_layout_of_swin_is_recognised_without_the_buffers(swin_leaves, swin_maps, layout, headless):
    """The layout of a file is the one that knows most of its keys; timm's and the authors' share most of theirs."""
    arrays, homeless = export(swin_leaves, swin_maps[layout])
    assert not homeless
    keys = [key for key in arrays if not key.endswith(('_index', '_mask'))]
    if headless:
        keys = [key for key in keys if not key.startswith(('head', 'classifier'))]
    known = {each: keymap.known(keys) for each, keymap in swin_maps.items()}
    assert known[layout] == len(keys)
    assert all(count < len(keys) for each, count in known.items() if each != layout)


def test_swin_of_transformers_by_the_names_of_its_modules(swin_leaves, swin_maps):
    """Version 5 renames what it reads; a state dictionary of its module is read too."""
    renamed = {
        'attention.self.query': 'attention.q_proj',
        'attention.self.key': 'attention.k_proj',
        'attention.self.value': 'attention.v_proj',
        'attention.output.dense': 'attention.o_proj',
        'attention.self.relative_position': 'attention.relative_position_bias.relative_position',
        'intermediate.dense': 'mlp.fc1',
        'output.dense': 'mlp.fc2',
    }
    published, _ = export(swin_leaves, swin_maps['transformers'])
    arrays = {}
    for key, array in published.items():
        for old, new in renamed.items():
            key = key.replace(old, new)
        arrays[key.removeprefix('swin.')] = array
    assert len(arrays.keys() & published.keys()) == len(('classifier.weight', 'classifier.bias'))
    translation = translate(arrays, swin_maps['transformers'])
    assert not translation.unexpected
    assert not translation.incomplete
    assert translation.arrays.keys() == swin_leaves.keys()
    for path, leaf in swin_leaves.items():
        np.testing.assert_array_equal(translation.arrays[path], leaf)


def test_the_buffers_of_swins_authors(swin_leaves, swin_maps):
    """Those of images of 224 pixels with windows of 7: the last map is a single window, which has no mask."""
    arrays, _ = export(swin_leaves, swin_maps['microsoft'])
    masks = {key: array.shape for key, array in arrays.items() if key.endswith('attn_mask')}
    assert masks == {
        'layers.0.blocks.1.attn_mask': (64, 49, 49),
        'layers.1.blocks.1.attn_mask': (16, 49, 49),
        'layers.2.blocks.1.attn_mask': (4, 49, 49),
    }
    indices = [array for key, array in arrays.items() if key.endswith('relative_position_index')]
    assert len(indices) == 8
    assert all((array.dtype, array.shape) == (np.int64, (49, 49)) for array in indices)


def test_swin_with_another_window_than_its_file(tmp_path: Path):
    """Only the tables change; what they become is in test_parity.py, against timm's own."""
    options = {'depths': (1, 1, 1, 1)}
    model = backbones.create('swin_tiny', **options)
    variables = jax.eval_shape(model.init, jax.random.key(0), images(32, 32))
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), variables)
    path = tmp_path / 'weights.safetensors'
    backbones.save_weights(path, variables, 'microsoft', 'swin_tiny', **options)
    loaded, report = backbones.load_weights('swin_tiny', path, window=12, **options)
    assert report.layout == 'microsoft'
    tables = {
        f'params/backbone/stage{stage}/block1/attention/relative_position_bias_table': ((169, heads), (529, heads))
        for stage, heads in enumerate((3, 6, 12, 24), start=1)
    }
    assert {name: (file, ours) for name, file, ours in report.reshaped} == tables
    assert all((leaf == 0.5).all() for leaf in jax.tree.leaves(loaded))

    arrays = load_file(path)
    damaged = 'layers.0.blocks.0.attn.relative_position_bias_table'
    save_file(arrays | {damaged: np.ones((168, 3), np.float32)}, path)
    with pytest.raises(backbones.UserError, match=r'bias_table is \[168, 3\] in the file and \[169, 3\] in the model'):
        backbones.load_weights('swin_tiny', path, **options)
    save_file(arrays | {damaged: np.ones((169, 4), np.float32)}, path)
    with pytest.raises(backbones.UserError, match=r'bias_table is \[169, 4\] in the file and \[529, 3\] in the model'):
        backbones.load_weights('swin_tiny', path, window=12, **options)
