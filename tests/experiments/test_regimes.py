"""Regimes: over all families, the mask trains what a statement of the regime by the names of parameters says."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

import backbones
from backbones import UserError, depth, freezing, inputs, lora
from experiments.training import regimes, trained_parameters
from tests.backbones import small_networks

# One of each way to build a backbone.
SOME = (
    ('clip_vit_base_patch16', ()),
    ('convnext_tiny', ()),
    ('convnextv2_atto', ()),
    ('cspresnet50', ()),
    ('deit_tiny_distilled_patch16', ()),
    ('dinov2_small_reg', ()),
    ('dinov3_convnext_tiny', ()),
    ('dinov3_vit_small_plus', ()),
    ('efficientnet_lite0', ()),
    ('eva02_base_patch14', ()),
    ('googlenet', (('auxiliary_classes', 10),)),
    ('mobilenet_v3_small', ()),
    ('mobilenet_v4_hybrid_medium', tuple(small_networks.MOBILENET_V4.items())),
    ('resnet_micro', ()),
    ('siglip_vit_base_patch16', ()),
    ('hiera_tiny', (('channels', 24), ('depths', (1, 2, 2, 1)))),
    ('swin_tiny', ()),
    ('vgg16_bn', ()),
    ('vit_micro', ()),
    ('vit_wee_patch16_reg1_gap', ()),
    ('yolo11n', ()),
)
# Another of the same module is quick.
OTHERS = (
    'clip_vit_base_patch16',
    'deit_tiny_distilled_patch16',
    'dinov2_small_reg',
    'dinov3_convnext_tiny',
    'dinov3_vit_small_plus',
    'eva02_base_patch14',
    'siglip_vit_base_patch16',
    'vit_wee_patch16_reg1_gap',
)
some = pytest.mark.parametrize(
    ('name', 'options'),
    [pytest.param(*each, id=each[0], marks=pytest.mark.exhaustive if each[0] in OTHERS else ()) for each in SOME],
)
ALL = tuple((name, ()) for name in backbones.names())
REGIMES = ('linear', 'partial:1', 'partial:3', 'partial:1blocks', 'partial:3blocks', 'finetune', 'bitfit', 'scratch')

OUTPUT = ('norm', 'head_conv', 'head_norm', 'head_dense', 'pre_logits', 'attention_pooling', 'projection', 'pooler')
INPUT = (
    'embedding',
    'stem_conv',
    'stem_norm',
    'patch_embedding',
    'patch_norm',
    'position_embedding',
    'class_token',
    'distillation_token',
    'register_tokens',
    'mask_token',
    'norm_pre',
)
HEAD = ('auxiliary1', 'auxiliary2')
# Of the layers that YOLO has instead of numbered blocks, and of what CSPNet has behind its blocks.
YOLO_LAYERS = ('downsample', 'c3k2', 'sppf', 'c2psa')
BEHIND = ('block_transition', 'transition')


@functools.cache
def built(name, options=()):
    """The shapes of the parameters, the order and what LoRA can adapt."""
    model = backbones.create_classifier(name, 10, **dict(options))
    side = 70 if name.startswith(('dinov2', 'eva02')) else 64
    shape = (1, 16) if name in backbones.names('text') else (1, side, side, 3)
    variables = jax.eval_shape(model.init, jax.random.key(0), inputs.spec_of_shape(shape))
    order, targets = depth.execution_order(model, variables, shape), lora.targets(model, variables, shape)
    return variables['params'], order, targets


def place(path, paths) -> tuple[int, int]:
    """Stage and block of a parameter by its names: 0 before the first stage, 100 behind the last, 200 in the head."""
    parts = path.split('/')
    if parts[0] == 'head' or parts[1] in HEAD:
        return (200, 0)
    if parts[1] in INPUT:
        return (0, 0)
    if parts[1] in OUTPUT:
        return (100, 0)
    child, number = parts[2], re.fullmatch(r'[a-z]+(\d+)', parts[2])
    in_stage = [each.split('/')[2] for each in paths if each.startswith(f'backbone/{parts[1]}/')]
    blocks = [int(each[5:]) for each in in_stage if re.fullmatch(r'block\d+', each)]
    if number and child != 'c3k2':
        block = int(number[1])
    elif blocks:
        block = max(blocks) if child in BEHIND else 1
    else:
        block = YOLO_LAYERS.index(child) if child in YOLO_LAYERS else 1
    return (int(parts[1].removeprefix('stage')), block)


def should_train(regime, paths) -> set[str]:
    """What the regime trains, by names alone."""
    places = {path: place(path, paths) for path in paths}
    if regime in ('finetune', 'scratch'):
        return set(paths)
    trained = {path for path, (stage, _) in places.items() if stage == 200}
    if regime == 'bitfit':
        trained |= {path for path in paths if path.endswith('/bias')}
    if regime.startswith('lora'):
        trained |= {path for path in paths if path.endswith(('/lora_a', '/lora_b'))}
    if regime.startswith('partial'):
        count = int(re.search(r'\d+', regime)[0])
        width = 2 if regime.endswith('blocks') else 1
        counted = sorted({each[:width] for each in places.values() if 0 < each[0] < 100})
        trained |= {path for path, each in places.items() if each[:width] >= counted[-count]}
    return trained


def trained_by(regime, params, order) -> list[set[str]]:
    """What the mask of each phase trains."""
    rules = [trained_parameters.rules(phase, params, order) for phase in regimes.parse(regime).phases]
    masks = [freezing.mask(params, each) for each in rules]
    return [{path for path, trains in flatten_dict(mask, sep='/').items() if trains} for mask in masks]


def check_all_regimes(name, options) -> None:
    params, order, targets = built(name, options)
    paths = list(flatten_dict(params, sep='/'))
    for regime in REGIMES:
        assert trained_by(regime, params, order) == [should_train(regime, paths)], regime
    assert trained_by('lpft', params, order) == [should_train('linear', paths), set(paths)]
    adapted = jax.eval_shape(lambda params, key: lora.add(params, targets, 4, key), params, jax.random.key(0))
    with_adapters = list(flatten_dict(adapted, sep='/'))
    assert set(with_adapters) - set(paths) == {
        f'{path.removesuffix("kernel")}{leaf}' for path in adaptable(params) for leaf in lora.LEAVES
    }
    assert trained_by('lora:4', adapted, order) == [should_train('lora:4', with_adapters)]


def adaptable(params) -> list[str]:
    """Kernels of dense layers and 1x1 convolutions of the backbone by their shapes."""
    return [
        path
        for path, leaf in flatten_dict(params, sep='/').items()
        if re.fullmatch(r'backbone/(?!auxiliary).*/kernel', path)
        and (leaf.ndim == 2 or leaf.shape[:2] == (1, 1))
        and path != 'backbone/attention_pooling/qkv/kernel'  # packed for two inputs
    ]


@some
def test_a_regime_trains_what_its_statement_says(name, options):
    check_all_regimes(name, options)


@pytest.mark.exhaustive
@pytest.mark.parametrize(('name', 'options'), ALL, ids=[name for name, _ in ALL])
def test_a_regime_trains_what_its_statement_says_for_every_backbone(name, options):
    check_all_regimes(name, options)


@some
@pytest.mark.parametrize('kind', depth.KINDS)
def test_units_hold_every_parameter_once_and_in_order(name, options, kind):
    params, order, _ = built(name, options)
    paths = list(flatten_dict(params, sep='/'))
    units = depth.units(params, order, kind)
    assert sorted(path for unit in units for path in unit.paths) == sorted(paths)
    assert [units[0].name, units[-2].name, units[-1].name] == ['input', 'output', 'head']
    width = 2 if kind == 'block' else 1
    found = [{place(path, paths)[:width] for path in unit.paths} for unit in units]
    assert all(len(places) == 1 for places in found[1:-2])
    places = [each for group in found for each in group]
    assert places == sorted(set(places))


def test_patterns_are_few():
    params, order, _ = built('resnet_micro')
    assert trained_parameters.rules(regimes.parse('partial:2').phases[0], params, order) == (
        ('backbone/(stage3|stage4)/.*', 'trainable'),
        ('backbone/.*', 'frozen', 'optional'),
        ('.*', 'trainable', 'optional'),
    )
    params, order, _ = built('swin_tiny')
    rules = trained_parameters.rules(regimes.parse('partial:4blocks').phases[0], params, order)
    assert rules[0] == ('backbone/(stage3/block5|stage3/block6|stage4|norm)/.*', 'trainable')


def test_layer_scales_are_those_of_mae():
    params, order, _ = built('clip_vit_base_patch16')
    scales = flatten_dict(trained_parameters.layer_scales(params, order, 0.75), sep='/')
    assert scales.keys() == flatten_dict(params, sep='/').keys()
    # util/lr_decay.py: num_layers = 12 + 1; tokens, positions and patches have layer 0, block i (from 0) layer i + 1.
    for path, scale in scales.items():
        match = re.match(r'backbone/stage(\d)/block(\d)/', path)
        outside = 0 if path.split('/')[1] in INPUT else 13
        layer = 3 * (int(match[1]) - 1) + int(match[2]) if match else outside
        assert scale == pytest.approx(0.75 ** (13 - layer), rel=1e-12), path
    assert scales['backbone/position_embedding'] == 0.75**13
    assert scales['head/kernel'] == scales['backbone/norm/scale'] == 1.0


@some
def test_layer_scales_grow_with_the_depth(name, options):
    params, order, _ = built(name, options)
    assert set(jax.tree.leaves(trained_parameters.layer_scales(params, order, 1.0))) == {1.0}
    scales = flatten_dict(trained_parameters.layer_scales(params, order, 0.5), sep='/')
    by_place = {}
    for path, scale in scales.items():
        by_place.setdefault(min(place(path, list(scales)), (100, 0)), set()).add(scale)
    assert all(len(found) == 1 for found in by_place.values())
    ordered = [by_place[each].pop() for each in sorted(by_place)]
    assert ordered == [0.5**below for below in range(len(ordered) - 1, -1, -1)]
    assert ordered[-1] == 1.0


def test_which_regimes_need_pretrained_weights():
    assert [name for name in regimes.NAMES if name != 'partial' and not regimes.parse(name).pretrained] == ['scratch']
    assert regimes.parse('partial:2').pretrained


def test_lora_without_a_rank_has_rank_8():
    assert regimes.parse('lora') == regimes.parse('lora:8')
    assert regimes.parse('lora:16').phases[0].rank == 16


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('finetun', "unknown regime 'finetun'; did you mean 'finetune'"),
        ('partial', "'partial' needs a positive whole number .* 'partial:2' or 'partial:3blocks'"),
        ('partial:0', "'partial:0' needs a positive whole number"),
        ('partial:-1', "'partial:-1' needs a positive whole number"),
        ('partial:twoblocks', "'partial:twoblocks' needs a positive whole number"),
        ('partial:1.5', "'partial:1.5' needs a positive whole number"),
        ('lora:', "'lora:' needs a positive whole number .* 'lora:8'"),
        ('finetune:3', "'finetune' takes no number: write 'finetune' instead of 'finetune:3'"),
    ],
)
def test_what_is_no_regime(text, message):
    with pytest.raises(UserError, match=message):
        regimes.parse(text)


@pytest.mark.parametrize(
    ('name', 'regime', 'message'),
    [
        ('resnet_micro', 'partial:5', "has 4 with parameters; the most is 'partial:4'"),
        ('vgg16_bn', 'partial:6', "has 5 with parameters; the most is 'partial:5'"),
        ('vgg16_bn', 'partial:14blocks', "has 13 with parameters; the most is 'partial:13blocks'"),
    ],
)
def test_more_units_than_there_are(name, regime, message):
    params, order, _ = built(name)
    with pytest.raises(UserError, match=message):
        trained_parameters.rules(regimes.parse(regime).phases[0], params, order)


def test_lora_rules_without_adapters():
    params, order, _ = built('vit_micro')
    with pytest.raises(ValueError, match='no adapters'):
        trained_parameters.rules(regimes.parse('lora').phases[0], params, order)


@pytest.mark.parametrize('decay', [0, -0.5, 1.01])
def test_a_decay_out_of_range(decay):
    params, order, _ = built('vit_micro')
    with pytest.raises(UserError, match=f'at most 1, not {decay}'):
        trained_parameters.layer_scales(params, order, decay)


def test_parameters_of_no_classifier():
    with pytest.raises(UserError, match='no stage in a backbone'):
        depth.units({'head': {'kernel': jnp.zeros((2, 2))}}, {'head': 0}, 'stage')
    with pytest.raises(UserError, match="unknown kind of unit 'blocks'; did you mean 'block'"):
        depth.units({}, {}, 'blocks')
