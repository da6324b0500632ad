"""Attention rollout, Grad-CAM, principal components and similar images, against the same things computed otherwise."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import special
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

import backbones
from backbones import UserError
from backbones.detection_input import DetectionInput
from backbones.explanation import heat_maps, methods, principal_components, similarity
from backbones.explanation.grad_cam import grad_cam, grad_cam_stages
from backbones.explanation.observation import observe, stage_names
from backbones.explanation.rollout import attention_rollout, rollout
from backbones.features import Features
from backbones.heads.classification import ClassificationHead
from backbones.model import Model
from backbones.prediction import fitting
from backbones.preprocessing import SMALL_IMAGES, TORCHVISION
from backbones.vit.vit import Block, Stage, VisionTransformer

EPSILON = 1e-6


def random_like(shapes, seed=0, scale=0.3):
    """Variables that none of the initial zeros hides anything in."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(0, scale, leaf.shape).astype(np.float32), shapes)


def tiny(pooling='token', prefix=('class_token',), **options):
    """A classifier on four blocks of twelve channels, with random variables, and two images of 4x3 patches."""
    backbone = VisionTransformer(4, 12, 4, 3, prefix=prefix, pooling=pooling, epsilon=EPSILON, **options)
    model = Model(backbone, None, ClassificationHead(5, distilled=pooling == 'distillation'))
    images = np.random.default_rng(1).normal(size=(2, 16, 12, 3)).astype(np.float32)
    return model, random_like(jax.eval_shape(model.init, jax.random.key(0), images)), images


def normalised(x, layer):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * layer['scale'] + layer['bias']


def affine(x, layer):
    return x @ layer['kernel'] + layer['bias']


def attention_by_hand(parameters, images, prefix, registers=0):
    """Probabilities of the four blocks, one head and one block after the other, in numpy; and the last tokens."""
    parameters = jax.tree.map(np.float64, parameters['backbone'])
    batch, height, width, _ = images.shape
    patches = images.reshape(batch, height // 4, 4, width // 4, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    kernel = parameters['patch_embedding']['kernel'].reshape(48, 12)
    x = patches.reshape(batch, -1, 48).astype(np.float64) @ kernel + parameters['patch_embedding']['bias']
    first = [np.repeat(parameters[name], batch, 0) for name in prefix]
    x = np.concatenate([*first, x], 1) + parameters['position_embedding']
    if registers:
        held = np.repeat(parameters['register_tokens'], batch, 0)
        x = np.concatenate([x[:, : len(prefix)], held, x[:, len(prefix) :]], 1)
    found = []
    for number in range(1, 5):
        block = parameters[f'stage{number}']['block1']
        packed = affine(normalised(x, block['norm1']), block['attention']['qkv'])
        mixed, matrices = [], []
        for head in range(3):
            query, key, value = (packed[..., start + 4 * head : start + 4 * head + 4] for start in (0, 12, 24))
            scores = query @ key.transpose(0, 2, 1) / np.sqrt(4)
            matrices.append(special.softmax(scores, -1))
            mixed.append(matrices[-1] @ value)
        x = x + affine(np.concatenate(mixed, -1), block['attention']['projection'])
        hidden = affine(normalised(x, block['norm2']), block['mlp']['dense1'])
        x = x + affine(hidden * special.ndtr(hidden), block['mlp']['dense2'])
        found.append(np.stack(matrices, 1))
    return found, normalised(x, parameters['norm'])


def rollout_by_hand(matrices, merge):
    """The product of all blocks, as the paper writes it, image by image."""
    result = []
    for image in range(len(matrices[0])):
        product = np.eye(matrices[0].shape[-1])
        for block in matrices:
            mixed = merge(block[image], 0)
            mixed = mixed / mixed.sum(1, keepdims=True)
            product = (0.5 * mixed + 0.5 * np.eye(len(mixed))) @ product
        result.append(product)
    return np.stack(result)


def test_attention_with_rotary_positions_is_that_of_the_turned_queries_and_keys():
    """What is observed gives, with the values, what the layer returns."""
    model, variables, images = tiny(
        registers=2, position_table=False, rotary='dinov3', attention_biases='queries_and_values'
    )
    seen = observe(model, variables, images)
    kept = model.apply(variables, images, capture_intermediates=True, mutable=['intermediates'])[1]['intermediates']
    for number, probabilities in enumerate(seen.attention, start=1):
        layer = kept['backbone'][f'stage{number}']['block1']['attention']
        values = layer['qkv']['__call__'][0][..., 24:].reshape(2, 15, 3, 4)
        mixed = np.einsum('bhqk,bkhd->bqhd', probabilities, values).reshape(2, 15, 12)
        projection = variables['params']['backbone'][f'stage{number}']['block1']['attention']['projection']
        np.testing.assert_allclose(affine(mixed, projection), layer['__call__'][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('heads', ['mean', 'min', 'max'])
def test_rollout_is_the_product_of_the_blocks(heads):
    rng = np.random.default_rng(0)
    matrices = [special.softmax(3 * rng.normal(size=(2, 3, 6, 6)), -1) for _ in range(5)]
    expected = rollout_by_hand(matrices, {'mean': np.mean, 'min': np.min, 'max': np.max}[heads])
    reading = special.softmax(rng.normal(size=(2, 6)), -1)
    found = rollout([jnp.asarray(each, jnp.float32) for each in matrices], jnp.asarray(reading, jnp.float32), heads)
    np.testing.assert_allclose(found, np.einsum('bq,bqk->bk', reading, expected), rtol=2e-5)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)


def test_heads_are_merged_in_one_of_three_ways():
    with pytest.raises(UserError, match="unknown way to merge heads 'maen'; did you mean 'mean'"):
        rollout([np.ones((1, 1, 2, 2))], np.ones((1, 2)), 'maen')


@pytest.mark.parametrize(
    ('pooling', 'prefix', 'registers'),
    [
        ('token', ('class_token',), 3),
        pytest.param('token', ('class_token',), 0, marks=pytest.mark.slow),
        pytest.param('distillation', ('class_token', 'distillation_token'), 0, marks=pytest.mark.slow),
        pytest.param('average', (), 0, marks=pytest.mark.slow),
        pytest.param('attention', (), 0, marks=pytest.mark.slow),
    ],
)
def test_rollout_is_of_the_attention_that_the_parameters_give(pooling, prefix, registers):
    model, variables, images = tiny(pooling, prefix, registers=registers)
    matrices, tokens = attention_by_hand(variables['params'], images, prefix, registers)
    found, seen = jax.jit(partial(attention_rollout, model))(variables, images)
    for block, expected in zip(seen.attention, matrices, strict=True):
        np.testing.assert_allclose(block, expected, atol=1e-4)
    np.testing.assert_allclose(seen.features.tokens, tokens, atol=1e-3)
    product = rollout_by_hand(matrices, np.mean)
    before = len(prefix) + registers
    if pooling == 'average':
        expected = product[:, before:].mean(1)
    elif pooling == 'attention':
        layer = jax.tree.map(np.float64, variables['params']['backbone']['attention_pooling'])
        kernels, biases = np.split(layer['qkv']['kernel'], 3, 1), np.split(layer['qkv']['bias'], 3)
        query, key = layer['probe'] @ kernels[0] + biases[0], tokens @ kernels[1] + biases[1]
        rows = [
            special.softmax(query[..., part] @ key[..., part].transpose(0, 2, 1) / 2, -1)
            for part in (slice(0, 4), slice(4, 8), slice(8, 12))
        ]
        expected = (np.mean(rows, 0) @ product)[:, 0]
    else:
        expected = product[:, : len(prefix)].mean(1)
    assert found.shape == (2, 4, 3)
    np.testing.assert_allclose(found.reshape(2, -1), expected[:, before:], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_backbone_alone_has_the_same_rollout():
    model, variables, images = tiny()
    alone = {'params': variables['params']['backbone']}
    expected, _ = jax.jit(partial(attention_rollout, model))(variables, images)
    found, seen = jax.jit(partial(attention_rollout, model.backbone))(alone, images)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_array_equal(seen.outputs.pooled, seen.features.pooled)


def test_windows_have_no_rollout():
    with pytest.raises(UserError, match=r'attention rollout needs .* SwinTransformer is none; Grad-CAM'):
        attention_rollout(backbones.create('swin_tiny'), {}, np.zeros((1, 32, 32, 3), np.float32))


class Corners(nn.Module):
    """A backbone whose only stage is its input: channels 0, 1 and 2 are lit where the image is."""

    def stage_channels(self):
        return (3,)

    @nn.compact
    def __call__(self, images, train=False):
        stage = nn.Conv(3, (1, 1), name='stage1')(images)
        return Features(stages={'stage1': stage}, pooled=stage.mean((1, 2)))


def test_grad_cam_finds_the_corner_that_speaks_for_the_class():
    model = Model(Corners(), None, ClassificationHead(2))
    variables = {
        'params': {
            'backbone': {'stage1': {'kernel': np.eye(3, dtype=np.float32)[None, None], 'bias': np.zeros(3)}},
            # Class 0 is told by channel 0 and contradicted by channel 1; class 1 by channels 1 and 2.
            'head': {'kernel': np.array([[2, 0], [-1, 1], [0, 3]], np.float32), 'bias': np.zeros(2, np.float32)},
        }
    }
    image = np.zeros((1, 4, 6, 3), np.float32)
    image[0, 0, 0, 0], image[0, 3, 5, 1], image[0, 0, 5, 2] = 12, 12, 12
    first, _ = grad_cam(model, variables, image, 'stage1', jnp.array([0]))
    expected = np.zeros((4, 6))
    expected[0, 0] = 1  # 2 / 24 positions * 12; what contradicts is no evidence
    np.testing.assert_allclose(first[0], expected, rtol=1e-6)
    second, seen = grad_cam(model, variables, image, 'stage1')
    assert seen.outputs.argmax() == 1
    expected = np.zeros((4, 6))
    expected[3, 5], expected[0, 5] = 0.5, 1.5
    np.testing.assert_allclose(second[0], expected, rtol=1e-6)


@pytest.fixture(scope='module')
def micro():
    model = backbones.create_classifier('resnet_micro', 10)
    variables, _ = backbones.load_weights('resnet_micro', 'bundled:resnet_micro', classifier=True)
    return model, variables, np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)


def test_grad_cam_of_the_last_stage_is_the_class_activation_map(micro):
    """Where a mean and a linear head follow, it is the map of Zhou et al. 2016, over the number of positions."""
    model, variables, images = micro
    found, seen = jax.jit(partial(grad_cam, model, stage='stage4'))(variables, images)
    features, kernel = np.asarray(seen.features.stages['stage4']), np.asarray(variables['params']['head']['kernel'])
    logits = features.mean((1, 2)) @ kernel + variables['params']['head']['bias']
    np.testing.assert_allclose(seen.outputs, logits, atol=1e-4)
    best = kernel[:, logits.argmax(-1)]
    expected = np.maximum(np.einsum('bijc,cb->bij', features, best), 0) / features[0, ..., 0].size
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_grad_cam_of_an_inner_stage_agrees_with_differences(micro):
    """The mean gradient of a channel is how much the logit grows when the whole channel does."""
    model, variables, images = micro
    chosen, step = 4, 1e-3
    found, seen = jax.jit(partial(grad_cam, model, stage='stage2'))(variables, images[:1], classes=jnp.array([chosen]))
    features = np.asarray(seen.features.stages['stage2'])[0]
    steps = step * np.eye(features.shape[-1], dtype=np.float32)
    changes = np.concatenate([steps, -steps])[:, None, None]
    copies = images[:1].repeat(len(changes), 0)
    logits = np.asarray(jax.jit(partial(observe, model, stage='stage2'))(variables, copies, change=changes).outputs)
    more, less = np.split(logits[:, chosen].astype(np.float64), 2)
    expected = np.maximum(features @ ((more - less) / (2 * step)), 0) / features[..., 0].size
    assert expected.max() > 1e-3
    np.testing.assert_allclose(found[0], expected, atol=0.02 * expected.max())


@pytest.mark.slow
def test_grad_cam_of_a_transformer_leaves_its_first_tokens_out():
    model, variables, images = tiny(registers=2)
    parameters = variables['params']
    backbone = parameters['backbone']
    memory = {}

    def keep(call, arguments, keywords, context):
        memory[context.module.path] = call(*arguments, **keywords)
        return memory[context.module.path]

    with nn.intercept_methods(keep):
        model.apply(variables, images)
    tokens = memory['backbone', 'stage3']

    def logits(x):
        x = Stage(partial(Block, 3, EPSILON), (0.0,)).apply({'params': backbone['stage4']}, x)
        x = nn.LayerNorm(epsilon=EPSILON).apply({'params': backbone['norm']}, x[:, 0])
        return x @ parameters['head']['kernel'] + parameters['head']['bias']

    gradient = jax.grad(lambda x: logits(x)[:, 2].sum())(tokens)
    weights = np.asarray(gradient[:, 3:]).mean(1)
    expected = np.maximum((np.asarray(tokens[:, 3:]) * weights[:, None]).sum(-1), 0).reshape(2, 4, 3)
    found, _ = grad_cam(model, variables, images, 'stage3', jnp.array([2, 2]))
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_grad_cam_says_which_stages_it_can_be_of():
    model, variables, images = tiny()
    with pytest.raises(
        UserError, match=r'Grad-CAM of stage4 is not defined: .*possible stages: stage1, stage2, stage3'
    ):
        grad_cam(model, variables, images, 'stage4')
    with pytest.raises(UserError, match="unknown stage 'stage9'; did you mean"):
        grad_cam(model, variables, images, 'stage9')
    averaged, variables, _ = tiny('average', ())
    assert grad_cam_stages(averaged, variables) == stage_names(averaged.backbone)


def check_every_method(name):
    """Each stage that is offered can be followed, and gradients reach it; nothing is computed."""
    model = backbones.create_classifier(name, 7)
    side = 56 if name.startswith(('dinov2', 'eva02')) else 64
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    seen = jax.eval_shape(partial(observe, model), variables, images)
    stages = grad_cam_stages(model, variables)
    assert set(stages) < set(seen.features.stages) or stages == tuple(seen.features.stages)
    for stage in stages:
        grids = jax.eval_shape(lambda given, x, stage=stage: grad_cam(model, given, x, stage)[0], variables, images)
        assert grids.shape == seen.features.stages[stage].shape[:-1]
    if methods.usual(model) == 'rollout':
        assert len(seen.attention) == model.backbone.depth
        share = jax.eval_shape(lambda given, x: attention_rollout(model, given, x)[0], variables, images)
        assert share.shape == seen.features.stages['stage4'].shape[:-1]


@pytest.mark.parametrize(
    'name',
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in ('vit_micro', 'yolo11n', 'swin_tiny')),
        pytest.param('deit_tiny_distilled_patch16', marks=pytest.mark.exhaustive),
    ],
)
def test_methods_are_defined_for_families(name):
    check_every_method(name)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    'name',
    [
        'vgg16', 'googlenet', 'efficientnet_b0', 'mobilenet_v3_small', 'mobilenet_v4_hybrid_medium',
        'convnext_tiny', 'convnextv2_atto', 'dinov3_convnext_tiny', 'cspresnet50', 'dinov2_small_reg',
        'dinov3_vit_small', 'eva02_base_patch14', 'clip_vit_base_patch16', 'siglip_vit_base_patch16',
        'hiera_tiny', 'vit_wee_patch16_reg1_gap',
    ],
)  # fmt: skip
def test_methods_are_defined_for_further_families(name):
    check_every_method(name)


def test_each_family_has_a_method_of_its_own():
    vit, cnn, windows = (backbones.create_classifier(name, 3) for name in ('vit_micro', 'resnet_micro', 'swin_tiny'))
    assert [methods.usual(each) for each in (vit, cnn, windows)] == ['rollout', 'gradcam', 'gradcam']
    assert [methods.usual(each.backbone) for each in (vit, cnn, windows)] == ['rollout', 'pca', 'pca']
    with pytest.raises(UserError, match=r'attention rollout is not defined for a CNN: .*--method gradcam or pca'):
        methods.check('rollout', 'a CNN', cnn)
    with pytest.raises(UserError, match=r'Grad-CAM is not defined for b: .* head; it takes --method pca'):
        methods.check('gradcam', 'b', cnn.backbone)
    with pytest.raises(UserError, match="unknown method 'gradcma'; did you mean 'gradcam'"):
        methods.check('gradcma', 'b', cnn)


def test_no_method_of_images_is_of_texts():
    model = backbones.create_classifier('text_micro', 3)
    assert not any(method.has(network) for method in methods.METHODS.values() for network in (model, model.backbone))
    asked = [
        lambda: methods.usual(model),
        lambda: methods.usual(model.backbone),
        lambda: methods.check('gradcam', 'a text encoder', model),
        lambda: grad_cam(model, {}, np.zeros((1, 8), np.int32), 'stage4'),
    ]
    for ask in asked:
        with pytest.raises(UserError, match=r'this network reads texts, .*; its tokens are explained by occlusion'):
            ask()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_components_are_those_of_scikit_learn(seed):
    channels = 7  # one shape, so that it is compiled once
    rng = np.random.default_rng(seed)
    positions = (rng.normal(size=(60, channels)) * np.linspace(4, 1, channels) + rng.normal(size=channels)).astype('f')
    theirs = PCA(3, svd_solver='full').fit(positions)
    apart = -np.diff(PCA(svd_solver='full').fit(positions).explained_variance_ratio_[:4])
    directions, shares = principal_components.components(jnp.asarray(positions), 3)
    np.testing.assert_allclose(shares, theirs.explained_variance_ratio_, rtol=1e-3)
    if apart.min() > 0.01:  # otherwise two of them may turn into each other
        ordered = np.sort(np.abs(theirs.components_), 1)
        clear = ordered[:, -1] - ordered[:, -2] > 1e-3  # as to which element is the largest
        np.testing.assert_allclose(directions[clear], theirs.components_[clear], atol=2e-3)


def test_colours_are_scaled_over_all_maps_together():
    rng, spread = np.random.default_rng(0), np.array([9, 5, 3, 1, 1, 1])
    maps = [(spread * rng.normal(size=(*size, 6))).astype(np.float32) for size in ((5, 8), (4, 3))]
    found = principal_components.colours(maps)
    assert [each.shape for each in found] == [(5, 8, 3), (4, 3, 3)]
    positions = np.concatenate([each.reshape(-1, 6) for each in maps])
    scores = PCA(3, svd_solver='full').fit_transform(positions)
    low, high = np.percentile(scores, (2, 98), axis=0)
    together = np.concatenate([np.asarray(each).reshape(-1, 3) for each in found])
    np.testing.assert_allclose(together, np.clip((scores - low) / (high - low), 0, 1), atol=1e-4)


def test_colours_of_nothing_are_grey():
    flat = principal_components.colours([np.ones((2, 3, 4), np.float32)])
    np.testing.assert_array_equal(flat[0], 0.5)
    line = np.zeros((1, 30, 4), np.float32)
    line[0, :, 1] = np.arange(30)
    (found,) = principal_components.colours([line])
    assert np.ptp(found[..., 0]) == 1 and (found[..., 1:] == 0.5).all()
    with pytest.raises(UserError, match='at least three channels, not 2'):
        principal_components.colours([np.ones((2, 2, 2), np.float32)])


def test_nearest_images_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    queries, candidates = rng.normal(size=(5, 7)), rng.normal(size=(40, 7))
    distances, indices = NearestNeighbors(n_neighbors=6, metric='cosine').fit(candidates).kneighbors(queries)
    found, similarities = similarity.nearest(queries, candidates, 6)
    np.testing.assert_array_equal(found, indices)
    np.testing.assert_allclose(similarities, 1 - distances, atol=1e-6)
    _, none = similarity.nearest(np.zeros((1, 7)), candidates, 2)
    np.testing.assert_array_equal(none, 0)


@pytest.mark.parametrize(
    'expected',
    [
        TORCHVISION.replace(size=(56, 56)),
        TORCHVISION.replace(size=(40, 64), crop=1.0),
        TORCHVISION.replace(size=(56, 56), fit='squash', crop=1.0),
        TORCHVISION.replace(size=(56, 56), fit='squash', crop=0.75),
        TORCHVISION.replace(size=(64, 64), fit='letterbox'),
        TORCHVISION.replace(size=(56, 56), stored_size=(70, 90)),
        TORCHVISION.replace(size=(56, 56), stored_size=(70, 90), fit='letterbox'),
        TORCHVISION.replace(size=(64, 64), crop=1.0, fit='shorter_side'),
        DetectionInput(64, 100),
    ],
    ids=lambda expected: getattr(expected, 'fit', 'detection'),
)
@pytest.mark.parametrize('size', [(120, 180), (200, 110)])
def test_windows_say_where_inputs_lie_in_images(expected, size):
    """Images whose red tells the column and whose green tells the row: what the input shows tells where it is from."""
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = np.arange(width), np.arange(height)[:, None], 255
    fitted = fitting.fit(image, expected)
    pixels = fitted.pixels.astype(np.float32)
    if isinstance(expected, DetectionInput):
        pixels = 255 * (pixels * np.array(expected.std) + np.array(expected.mean))
    top, left, bottom, right = fitted.window
    rows, columns = pixels.shape[:2]
    inside = pixels[..., 2] > 250
    y, x = np.nonzero(inside)
    away = (y > 2) & (x > 2)  # at the borders of an image, interpolation has only one side
    told_y = top + (y + 0.5) * (bottom - top) / rows - 0.5
    told_x = left + (x + 0.5) * (right - left) / columns - 0.5
    clear = away & (told_y > 8) & (told_y < height - 9) & (told_x > 8) & (told_x < width - 9)
    assert clear.sum() > 500
    # Each of up to three passes of resizing rounds by up to half a grey level.
    assert np.abs(pixels[y, x, 1] - told_y)[clear].max() < 1.5
    assert np.abs(pixels[y, x, 0] - told_x)[clear].max() < 1.5


def test_a_heat_map_is_bright_where_it_is_large():
    values = np.zeros((4, 4), np.float32)
    values[1, 3] = 5
    picture = Image.new('RGB', (120, 80), (90, 90, 90))
    drawn = np.asarray(heat_maps.over(picture, values, (0, 40, 80, 120)), np.float32)
    brightness = drawn.sum(-1)
    seen = brightness[:, 40:]
    row, column = np.argwhere(seen == seen.max()).mean(0)
    # The cell spans rows 20 to 40 and, at the border, columns 60 to 80 of what was seen.
    assert abs(row - 29.5) < 1 and 69 < column < 80
    assert (drawn[:, :40] == drawn[0, 0]).all() and drawn[0, 0, 0] > 150  # what was not seen is pale
    assert np.abs(np.diff(seen, axis=0)).max() < 60  # smooth, not in squares
    assert picture.getpixel((0, 0)) == (90, 90, 90)


def test_a_map_larger_than_its_image_is_cut():
    values = np.zeros((8, 8), np.float32)
    values[:2] = 9  # in the padding of a letterbox
    values[4, 4] = 9
    drawn = np.asarray(heat_maps.over(Image.new('RGB', (80, 40)), values, (-20, 0, 60, 80)), np.float32).sum(-1)
    row, column = np.unravel_index(drawn.argmax(), drawn.shape)
    assert 20 <= row < 30 and 40 <= column < 50


@pytest.mark.parametrize('values', [np.full((2, 2), 3.0), np.zeros((1, 1)), np.full((2, 2), np.nan)])
def test_a_flat_map_is_dark(values):
    drawn = np.asarray(heat_maps.over(Image.new('RGB', (8, 8)), values, (0, 0, 8, 8)))
    assert (drawn == drawn[0, 0]).all() and drawn.max() < 10


def test_colours_take_the_place_of_what_was_seen():
    colours = np.zeros((1, 2, 3), np.float32)
    colours[0, 0, 0] = colours[0, 1, 2] = 1
    drawn = np.asarray(heat_maps.in_place_of(Image.new('RGB', (40, 10)), colours, (0, 0, 10, 40)))
    assert (drawn[:, 2] == (255, 0, 0)).all() and (drawn[:, -3] == (0, 0, 255)).all()


def test_small_images_are_shown_as_they_were_fitted():
    fitted = fitting.fit(np.zeros((64, 32, 3), np.uint8), SMALL_IMAGES)
    assert fitted.window == (16.0, 0.0, 48.0, 32.0)
