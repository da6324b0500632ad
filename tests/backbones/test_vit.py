"""Vision transformers: images of any size, tokens, ways to pool, and the names that their layouts have in files."""

import functools
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image
from safetensors.numpy import save_file

import backbones
from backbones import UserError
from backbones.heads.classification import DistilledHead
from backbones.layers.attention import AttentionPooling
from backbones.layers.positions import METHODS, resample_positions, table_for
from backbones.layers.rotary import rotation_for
from backbones.pretrained.save import to_layout

SMALL = {'channels': 24, 'depth': 4, 'heads': 3}


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.cache
def make(name: str, size: int, classes: int = 0, **options):
    """A small module and random variables made for images of a size."""
    options = SMALL | options
    create = functools.partial(backbones.create_classifier, num_classes=classes) if classes else backbones.create
    model = create(name, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    leaves, structure = jax.tree.flatten(shapes)
    return model, structure.unflatten([0.3 * normal(index, *leaf.shape) for index, leaf in enumerate(leaves)])


def features(model, variables, images: np.ndarray) -> backbones.Features:
    return jax.jit(model.apply)(variables, images)


# --- Positions. -------------------------------------------------------------------------------------------------------


def cubic(distance: float, a: float) -> float:
    x = abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def interpolated(line: np.ndarray, new: int, scale: float) -> np.ndarray:
    """One axis, pixel by pixel, with the border repeated."""
    values = []
    for index in range(new):
        centre = (index + 0.5) / scale - 0.5
        first = math.floor(centre)
        near = range(first - 1, first + 3)
        values.append(sum(cubic(centre - at, -0.75) * line[min(max(at, 0), len(line) - 1)] for at in near))
    return np.array(values)


@pytest.mark.parametrize('grid', [(5, 9), (9, 9), (3, 12)], ids=str)
@pytest.mark.parametrize(('method', 'offset'), [('transformers', 0.0), ('dinov2', 0.1)])
def test_positions_without_antialiasing(method: str, offset: float, grid: tuple[int, int]):
    table = normal(0, 1, 1 + 49, 2)
    maps = table[0, 1:].reshape(7, 7, 2).astype(np.float64)
    for axis, new in enumerate(grid):
        maps = np.apply_along_axis(interpolated, axis, maps, new, (new + offset) / 7)
    actual = resample_positions(table, grid, 1, method)
    np.testing.assert_allclose(actual[0, 1:], maps.reshape(-1, 2), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(actual[0, 0], table[0, 0])


@pytest.mark.parametrize('grid', [(5, 9), (9, 9), (3, 12)], ids=str)
@pytest.mark.parametrize('method', ['timm', 'dinov2_registers'])
def test_positions_with_antialiasing_are_pils(method: str, grid: tuple[int, int]):
    table = normal(0, 1, 2 + 49, 3)
    actual = np.asarray(resample_positions(table, grid, 2, method))[0, 2:].reshape(*grid, 3)
    for channel in range(3):
        plane = Image.fromarray(table[0, 2:, channel].reshape(7, 7))
        expected = np.asarray(plane.resize((grid[1], grid[0]), Image.Resampling.BICUBIC))
        np.testing.assert_allclose(actual[..., channel], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('method', METHODS)
def test_positions_of_the_same_grid_are_left_as_they_are(method: str):
    for tokens, grid in ((1 + 36, (6, 6)), (1 + 35, (5, 7))):
        table = normal(0, 1, tokens, 2)
        np.testing.assert_array_equal(resample_positions(table, grid, 1, method), table)


def test_positions_that_can_not_be_resampled():
    with pytest.raises(UserError, match=r'36 positions are no square grid after 1 prefix tokens.*6x6'):
        resample_positions(normal(0, 1, 36, 2), (6, 6), 1)
    with pytest.raises(UserError, match="unknown way to resample positions 'tim'; did you mean 'timm'"):
        resample_positions(normal(0, 1, 37, 2), (6, 6), 1, 'tim')


def test_a_table_of_an_oblong_grid_is_none_that_the_forward_pass_would_take_for_a_square_one():
    table = normal(0, 1, 36, 2)
    hiera = backbones.create('hiera_tiny')
    # 32x128 and 64x64 patches are as many.
    assert table_for(table, (32, 128), 0, 'timm') is None
    assert hiera.resize_parameter('position_embedding', table, (1, 4096, 2), (128, 512)) is None
    resized = hiera.resize_parameter('position_embedding', table, (1, 2048, 2), (128, 256))
    np.testing.assert_array_equal(resized, resample_positions(table, (32, 64), 0))
    assert table_for(normal(0, 1, 35, 2), (6, 6), 0, 'timm') is None


# --- Images of any size. ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'name',
    [
        'vit_micro',
        pytest.param('deit_tiny_distilled_patch16', marks=pytest.mark.exhaustive),
        'dinov2_small_reg',
        pytest.param('siglip_vit_base_patch16', marks=pytest.mark.exhaustive),
    ],
)
def test_images_of_another_size_resample_the_positions(name: str):
    """With the parameters of one size; the same as with a table that was resampled beforehand."""
    patch = backbones.create(name).patch
    model, variables = make(name, 6 * patch, position_grid=None)
    images = normal(1, 2, 4 * patch, 5 * patch, 3)
    table = resample_positions(
        variables['params']['position_embedding'], (4, 5), len(model.prefix), model.position_method
    )
    resampled = {'params': variables['params'] | {'position_embedding': table}}
    actual, expected = (features(model, each, images) for each in (variables, resampled))
    jax.tree.map(lambda left, right: np.testing.assert_allclose(left, right, rtol=0, atol=1e-4), actual, expected)
    assert actual.stages['stage4'].shape == (2, 4, 5, 24)


def test_dinov2_keeps_its_table(tmp_path: Path):
    model, variables = make('dinov2_small', 42)
    assert variables['params']['position_embedding'].shape == (1, 1 + 37**2, 24)
    backbones.save_weights(tmp_path / 'weights.safetensors', variables)
    loaded, report = backbones.load_weights('dinov2_small', tmp_path / 'weights.safetensors', image_size=70, **SMALL)
    assert not report.reshaped
    assert loaded['params']['position_embedding'].shape == (1, 1 + 37**2, 24)
    assert features(model, loaded, normal(0, 1, 28, 70, 3)).stages['stage1'].shape == (1, 2, 5, 24)


def test_padding_fills_up_to_whole_patches():
    model, variables = make('vit_micro', 32)
    images = normal(0, 2, 30, 25, 3)
    padded = np.pad(images, ((0, 0), (0, 2), (0, 3), (0, 0)))
    actual, expected = features(model.clone(pad=True), variables, images), features(model, variables, padded)
    assert actual.stages['stage1'].shape == (2, 8, 7, 24)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_hiera_speaks_of_mask_units_and_not_of_an_option_that_it_does_not_have():
    model = backbones.create('hiera_tiny')
    with pytest.raises(UserError, match=r'40x64 pixels do not divide into mask units of 32; .* are 32x64 and 64x64\n'):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 40, 64, 3)))


def test_rotary_positions_need_no_table_and_take_every_size():
    model, variables = make('dinov3_vit_small_plus', 32)
    assert 'position_embedding' not in variables['params']
    images = normal(0, 1, 48, 80, 3)
    seen = features(model, variables, images)
    assert seen.stages['stage4'].shape == (1, 3, 5, 24)
    # The order of the patches is in their positions alone.
    swapped = np.concatenate([images[:, :, 16:], images[:, :, :16]], axis=2)
    assert np.abs(features(model, variables, swapped).pooled - seen.pooled).max() > 1e-3


def test_rotary_positions_that_can_not_be():
    for options, message in (
        ({'rotary': 'dinov4'}, "unknown kind of rotary positions 'dinov4'; did you mean 'dinov3'"),
        ({'channels': 18, 'heads': 3}, 'rotary positions need heads whose channels are a multiple of 4, not of 6'),
        ({'attention_biases': 'non'}, "unknown choice of biases in attention 'non'; did you mean 'none'"),
    ):
        model = backbones.create('dinov3_vit_small', **options)
        with pytest.raises(UserError, match=message):
            jax.eval_shape(model.init, jax.random.key(0), normal(0, 1, 32, 32, 3))


# --- Tokens and pooling. ----------------------------------------------------------------------------------------------


def test_registers_lie_between_the_class_token_and_the_patches_and_have_no_position():
    model, variables = make('dinov2_small_reg', 42, position_grid=3)
    assert model.prefix_tokens() == 5
    still = {'params': dict(variables['params'])}
    still['params']['position_embedding'] = np.zeros((1, 10, 24), np.float32)
    # Blocks that add nothing: tokens are what the embedding made of them, normalised.
    for params in (still['params'], variables['params']):
        for stage in ('stage1', 'stage2', 'stage3', 'stage4'):
            block = params[stage]['block1']
            params[stage] = {
                'block1': block | {name: {'scale': np.zeros(24)} for name in ('layer_scale1', 'layer_scale2')}
            }
    images = normal(0, 1, 42, 42, 3)
    with_positions, without = (features(model, each, images).tokens for each in (variables, still))
    same = np.isclose(with_positions, without).all((0, 2))
    np.testing.assert_array_equal(same, [False] + [True] * 4 + [False] * 9)


def test_a_normalisation_after_the_pooling():
    """Registers are first among the tokens, and are not pooled."""
    model, variables = make('vit_medium_patch16_reg4_gap', 48)
    seen = features(model, variables, normal(0, 2, 48, 48, 3))
    assert seen.tokens.shape == (2, 4 + 9, 24)
    np.testing.assert_array_equal(seen.stages['stage4'].reshape(2, 9, 24), seen.tokens[:, 4:])
    expected = layer_norm(np.asarray(seen.tokens[:, 4:], np.float64).mean(1), variables['params']['norm'], 1e-6)
    np.testing.assert_allclose(seen.pooled, expected, rtol=0, atol=1e-5)


def test_the_mask_token_changes_nothing():
    model, variables = make('dinov2_small', 42, position_grid=3)
    other = {'params': variables['params'] | {'mask_token': np.ones((1, 24), np.float32)}}
    images = normal(0, 1, 42, 42, 3)
    jax.tree.map(np.testing.assert_array_equal, *(features(model, each, images) for each in (variables, other)))


def layer_norm(x: np.ndarray, params: dict, epsilon: float) -> np.ndarray:
    normalised = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return normalised * params['scale'] + params['bias']


def dense(x: np.ndarray, params: dict) -> np.ndarray:
    return x @ np.asarray(params['kernel'], np.float64) + params['bias']


def test_attention_pooling():
    """Head by head: a query made of the probe, keys and values of the tokens, a residual feed-forward block."""
    tokens, heads, width = normal(0, 2, 7, 12), 3, 4
    layer = AttentionPooling(heads, epsilon=1e-3, activation='relu')
    shapes = jax.eval_shape(layer.init, jax.random.key(0), tokens)
    leaves, structure = jax.tree.flatten(shapes['params'])
    params = structure.unflatten([0.5 * normal(1 + index, *leaf.shape) for index, leaf in enumerate(leaves)])
    kernel, bias = params['qkv']['kernel'], params['qkv']['bias']
    outputs = []
    for image in tokens.astype(np.float64):
        query = params['probe'][0] @ kernel[:, :12] + bias[:12]
        keys, values = np.split(image @ kernel[:, 12:] + bias[12:], 2, axis=1)
        mixed = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            weights = np.exp(keys[:, part] @ query[0, part] / math.sqrt(width))
            mixed.append(weights @ values[:, part] / weights.sum())
        x = dense(np.concatenate(mixed), params['projection'])
        hidden = np.maximum(dense(layer_norm(x, params['norm'], 1e-3), params['mlp']['dense1']), 0)
        outputs.append(x + dense(hidden, params['mlp']['dense2']))
    actual = jax.jit(layer.apply)({'params': params}, tokens)
    np.testing.assert_allclose(actual, np.stack(outputs), rtol=0, atol=1e-4)


def test_a_distilled_classifier_is_the_mean_of_two():
    model, variables = make('deit_tiny_distilled_patch16', 32, classes=5)
    head = variables['params']['head']
    assert jax.tree.map(np.shape, head) == {
        'kernel': (24, 5),
        'bias': (5,),
        'distillation': {'kernel': (24, 5), 'bias': (5,)},
    }
    images = normal(0, 2, 32, 32, 3)
    seen = features(model.backbone, {'params': variables['params']['backbone']}, images)
    np.testing.assert_allclose(seen.pooled, seen.tokens[:, :2].mean(1), rtol=1e-5)
    tokens = np.asarray(seen.tokens, np.float64)
    expected = (dense(tokens[:, 0], head) + dense(tokens[:, 1], head['distillation'])) / 2
    np.testing.assert_allclose(jax.jit(model.apply)(variables, images), expected, rtol=0, atol=1e-4)
    low = DistilledHead(5, dtype=jnp.bfloat16).apply({'params': head}, seen.tokens[:, :2])
    assert low.dtype == jnp.bfloat16


def test_the_class_token_alone_has_one_classifier():
    _, variables = make('deit_tiny_distilled_patch16', 32, classes=5, pooling='token')
    assert jax.tree.map(np.shape, variables['params']['head']) == {'kernel': (24, 5), 'bias': (5,)}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'pooling': 'atention'}, "unknown way to pool 'atention'; did you mean 'attention'"),
        (
            {'prefix': ()},
            r"pooling='token' needs prefix=\('class_token',\), not \(\); pooling='average' needs no token",
        ),
        ({'pooling': 'distillation'}, r"needs prefix=\('class_token', 'distillation_token'\), not \('class_token',\)"),
        (
            {'norm_after_pooling': True},
            "norm_after_pooling needs pooling='average', not 'token'; norm_after_pooling=False normalises each token",
        ),
        ({'activation': 'geluu'}, "unknown activation 'geluu'; did you mean 'gelu'"),
        ({'position_method': 'dino'}, "unknown way to resample positions 'dino'; did you mean 'dinov2'"),
    ],
)
def test_options_that_do_not_fit(options: dict, message: str):
    with pytest.raises(UserError, match=message):
        make('vit_micro', 32, **options)


# --- Names in files. --------------------------------------------------------------------------------------------------


def exported(name: str, layout: str, size: int, classes: int = 0, **options) -> tuple[dict, dict]:
    """Random variables, and the file that a layout makes of them."""
    _, variables = make(name, size, classes, **options)
    flat = flatten_dict(variables, sep='/')
    return flat, to_layout(flat, layout, name, SMALL | options)


def assert_loads(name: str, arrays: dict, expected: dict, layout: str, directory: Path, size: int, classifier: bool):
    file = directory / 'weights.safetensors'
    save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, file)
    trained_with = {'epsilon': 1e-12} if layout == 'transformers' and classifier else {}
    loaded, report = backbones.load_weights(name, file, classifier, image_size=size, **SMALL, **trained_with)
    assert report.layout == layout
    assert not report.problems()
    loaded = flatten_dict(loaded, sep='/')
    assert loaded.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(loaded[path], array)


def renamed(arrays: dict, *changes: tuple[str, str]) -> dict:
    """Keys with each pattern replaced; every replacement must change something."""
    for pattern, replacement in changes:
        after = {re.sub(pattern, replacement, key): array for key, array in arrays.items()}
        assert len(after) == len(arrays)
        assert after.keys() != arrays.keys(), pattern
        arrays = after
    return arrays


IN_MEMORY = (
    (
        r'attention\.attention\.(q)uery|attention\.attention\.(k)ey|attention\.attention\.(v)alue',
        r'attention.\1\2\3_proj',
    ),
    (r'attention\.output\.dense', 'attention.o_proj'),
)
VIT_IN_MEMORY = (
    *IN_MEMORY,
    (r'encoder\.layer\.', 'layers.'),
    (r'intermediate\.dense', 'mlp.fc1'),
    (r'output\.dense', 'mlp.fc2'),
)
NEWER_FLAX = (
    ('MultiHeadDotProductAttention_1', 'MultiHeadDotProductAttention_0'),
    ('LayerNorm_2', 'LayerNorm_1'),
    ('MlpBlock_3', 'MlpBlock_0'),
    ('Transformer/posembed_input/', ''),
)


@pytest.mark.parametrize(
    ('name', 'layout', 'changes'),
    [
        ('vit_tiny_patch16', 'torchvision', [(r'mlp\.0', 'mlp.linear_1'), (r'mlp\.3', 'mlp.linear_2')]),
        ('vit_tiny_patch16', 'transformers', VIT_IN_MEMORY),
        ('vit_tiny_patch16', 'transformers', [(r'^vit\.', '')]),
        ('vit_tiny_patch16', 'transformers', [*VIT_IN_MEMORY, (r'^vit\.', '')]),
        ('deit_tiny_distilled_patch16', 'transformers', VIT_IN_MEMORY),
        ('vit_tiny_patch16', 'big_vision', NEWER_FLAX),
        ('vit_tiny_patch16', 'big_vision', [*NEWER_FLAX, ('^', 'params/')]),
        ('vit_tiny_patch16', 'big_vision', [('^', 'opt/target/')]),
    ],
)
def test_other_names_of_a_classifier(name: str, layout: str, changes, tmp_path: Path):
    expected, arrays = exported(name, layout, 32, classes=5)
    assert_loads(name, renamed(arrays, *changes), expected, layout, tmp_path, 32, classifier=True)


TEXT = {
    'clip': (
        'positional_embedding',
        'text_projection',
        'logit_scale',
        'transformer.resblocks.0.attn.in_proj_weight',
        'token_embedding.weight',
        'ln_final.bias',
        'input_resolution',
        'context_length',
        'vocab_size',
    ),
    'transformers': (
        'text_model.embeddings.token_embedding.weight',
        'text_projection.weight',
        'logit_scale',
        'logit_bias',
        'vision_model.embeddings.position_ids',
    ),
    'big_vision': ('params/t', 'params/b', 'params/txt/Encoder_0/encoderblock_0/LayerNorm_0/scale'),
}


@pytest.mark.parametrize(
    ('name', 'layout'),
    [
        ('clip_vit_base_patch16', 'clip'),
        ('clip_vit_base_patch16', 'transformers'),
        ('siglip_vit_base_patch16', 'transformers'),
        ('siglip_vit_base_patch16', 'big_vision'),
        ('siglip2_vit_base_patch16', 'transformers'),
    ],
)
def test_the_text_tower_is_left_out(name: str, layout: str, tmp_path: Path):
    expected, arrays = exported(name, layout, 32)
    text = {key: np.ones((2, 2), np.float32) for key in TEXT[layout]}
    assert_loads(name, arrays | text, expected, layout, tmp_path, 32, classifier=False)


def test_the_image_tower_of_timm_inside_open_clips_file(tmp_path: Path):
    """As in timm/ViT-B-16-SigLIP2; its text tower has blocks of other names."""
    expected, arrays = exported('siglip2_vit_base_patch16', 'timm', 32)
    text = {key: np.ones((2, 2), np.float32) for key in ('logit_bias', *(f'text.{each}' for each in TEXT['clip']))}
    arrays = renamed(arrays, ('^', 'visual.trunk.')) | text
    file = tmp_path / 'open_clip_model.safetensors'
    save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, file)
    with pytest.raises(UserError, match=r"activation 'gelu' where ours is 'gelu_tanh' \(pass activation='gelu'\)"):
        backbones.load_weights('siglip2_vit_base_patch16', file, image_size=32, **SMALL)
    loaded, report = backbones.load_weights('siglip2_vit_base_patch16', file, image_size=32, activation='gelu', **SMALL)
    assert report.layout == 'timm'
    assert set(report.dropped) == set(text)
    loaded = flatten_dict(loaded, sep='/')
    assert loaded.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(loaded[path], array)


@pytest.mark.parametrize(
    ('name', 'changes'),
    [
        ('clip_vit_base_patch16', [(r'^vision_model\.', '')]),
        ('siglip_vit_base_patch16', [(r'^vision_model\.', '')]),
        ('dinov2_small', [('^', 'dinov2.')]),
        ('dinov2_small_reg', [('^', 'dinov2_with_registers.')]),
        ('dinov2_small_reg', IN_MEMORY),
        ('dinov3_vit_small', [(r'^layer\.', 'model.layer.')]),
    ],
)
def test_other_names_of_a_tower(name: str, changes, tmp_path: Path):
    patch = backbones.create(name).patch
    expected, arrays = exported(name, 'transformers', 2 * patch)
    arrays = renamed(arrays, *changes)
    assert_loads(name, arrays, expected, 'transformers', tmp_path, 2 * patch, classifier=False)


def test_a_layout_that_a_variant_never_had():
    with pytest.raises(UserError, match="unknown layout for dinov2_small 'torchvision'"):
        exported('dinov2_small', 'torchvision', 28)


@pytest.mark.parametrize(
    ('name', 'layout', 'options', 'part'),
    [
        ('vit_tiny_patch16', 'timm', {'gated': True}, 'mlp/dense1/kernel'),
        ('vit_tiny_patch16', 'torchvision', {'hidden_norm': True}, 'mlp/norm/scale'),
        ('clip_vit_base_patch16', 'clip', {'layer_scale': 1.0}, 'layer_scale1/scale'),
        ('eva02_tiny_patch14', 'eva02', {'gated': False}, 'mlp/dense1/kernel'),
    ],
)
def test_a_layout_has_no_place_for_what_it_has_no_name_for(name: str, layout: str, options: dict, part: str):
    _, variables = make(name, 2 * backbones.create(name).patch, **options)
    flat = flatten_dict(variables, sep='/')
    with pytest.raises(UserError, match=rf'the {layout} layout has no place for .*{part}'):
        to_layout({path: np.asarray(leaf) for path, leaf in flat.items()}, layout, name, {**SMALL, **options})


def test_timm_has_no_place_for_the_position_of_the_class_token_beside_registers():
    with pytest.raises(UserError, match=r'add position_embedding\[:, 0\] to class_token'):
        exported('dinov2_small_reg', 'timm', 28)


def test_timm_leaves_out_the_biases_of_queries_and_values_of_dinov3(tmp_path: Path):
    with pytest.raises(UserError, match=r'the timm layout has no place for .*attention/qkv/bias'):
        exported('dinov3_vit_small', 'timm', 32)
    _, arrays = exported('dinov3_vit_small', 'timm_qkvb', 32)
    bare = {key: array for key, array in arrays.items() if not key.endswith(('q_bias', 'v_bias'))}
    save_file({key: np.ascontiguousarray(array) for key, array in bare.items()}, tmp_path / 'weights.safetensors')
    variables, report = backbones.load_weights('dinov3_vit_small', tmp_path / 'weights.safetensors', **SMALL)
    assert report.layout == 'timm'
    assert not variables['params']['stage1']['block1']['attention']['qkv']['bias'].any()
    back = to_layout(flatten_dict(variables, sep='/'), 'timm', 'dinov3_vit_small', SMALL)
    assert back.keys() == bare.keys()


def test_what_the_pretraining_of_eva02_leaves_in_its_files(tmp_path: Path):
    """The authors' normalisation of all tokens is read as that of the mean; mask token and head have no place."""
    expected, arrays = exported('eva02_base_patch14', 'eva02', 70)
    renamed = {re.sub('^fc_norm', 'norm', key): np.ascontiguousarray(array) for key, array in arrays.items()}
    unused = {'mask_token': (1, 1, 24), 'lm_head.weight': (6, 24), 'lm_head.bias': (6,)}
    save_file(renamed | {key: normal(0, *shape) for key, shape in unused.items()}, tmp_path / 'w.safetensors')
    options = SMALL | {'image_size': 70}
    loaded, report = backbones.load_weights('eva02_base_patch14', tmp_path / 'w.safetensors', **options)
    assert (report.layout, report.problems()) == ('eva02', [])
    for path, leaf in flatten_dict(loaded, sep='/').items():
        np.testing.assert_array_equal(leaf, expected[path])


def test_the_authors_layout_of_eva02_has_no_place_for_an_oblong_grid():
    _, variables = make('eva02_tiny_patch14', 28)
    flat = {path: np.asarray(leaf) for path, leaf in flatten_dict(variables, sep='/').items()}
    flat['params/position_embedding'] = normal(0, 1, 1 + 2 * 3, 24)
    with pytest.raises(
        UserError, match=r"a square grid of patches, and 6 positions are not those of one: save .*'timm'"
    ):
        to_layout(flat, 'eva02', 'eva02_tiny_patch14', SMALL)
    assert to_layout(flat, 'timm', 'eva02_tiny_patch14', SMALL)['pos_embed'].shape == (1, 7, 24)


def test_rotary_positions_of_eva02_are_those_of_its_pretraining_on_every_grid():
    """Halfway down the image is row 8 of 16, whatever the number of rows; neighbouring channels are a pair."""
    coarse, fine = (rotation_for('eva02', (rows, 2 * rows), 8) for rows in (2, 6))
    np.testing.assert_allclose(coarse.cosine[4], np.cos(np.array([8, 0.08, 0, 0])), rtol=1e-6)
    np.testing.assert_allclose(fine.sine[3 * 12 + 6], np.sin(np.array([8, 0.08, 8, 0.08])), rtol=1e-6)
    assert coarse.pairing == 'interleaved'


def test_dinov3_of_satellite_images_has_a_normalisation_that_only_training_uses(tmp_path: Path):
    expected, arrays = exported('dinov3_vit_large', 'dinov3', 32)
    unused = {f'local_cls_norm.{name}': np.ones(24, np.float32) for name in ('weight', 'bias')}
    save_file({key: np.ascontiguousarray(each) for key, each in (arrays | unused).items()}, tmp_path / 'w.safetensors')
    loaded, report = backbones.load_weights('dinov3_vit_large', tmp_path / 'w.safetensors', rotary='dinov3', **SMALL)
    assert not report.problems()
    for path, leaf in flatten_dict(loaded, sep='/').items():
        np.testing.assert_array_equal(leaf, expected[path])


def test_a_projection_in_two_pieces_needs_both(tmp_path: Path):
    _, arrays = exported('siglip_vit_base_patch16', 'timm', 32)
    del arrays['attn_pool.kv.weight']
    save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, tmp_path / 'weights.safetensors')
    with pytest.raises(UserError, match=r'attention_pooling/qkv/kernel \(attn_pool\.kv\.weight\) is missing'):
        backbones.load_weights('siglip_vit_base_patch16', tmp_path / 'weights.safetensors', image_size=32, **SMALL)
