"""A configuration that describes another function than ours is refused, with the option that would make it ours."""

import json
from pathlib import Path

import pytest
from safetensors.numpy import save_file

import backbones
from backbones.pretrained import compatibility, keymaps
from backbones.published import WEIGHTS
from tests.parity import weights


def differences(name: str, configuration: dict | None, layout: str = '', **options) -> list[str]:
    return compatibility.differences(configuration, layout, name, backbones.create(name, **options))


@pytest.mark.parametrize('layout', ['lukemelas', 'transformers'])
def test_a_layout_that_only_tensorflow_trained(layout: str):
    expected = [f"weights in the {layout} layout have padding 'same' where ours is None (pass padding='same')"]
    assert differences('efficientnet_b0', None, layout)[:1] == expected
    assert not differences('efficientnet_b0', None, layout, padding='same', epsilon=1e-3)
    assert not differences('efficientnet_b0', None, 'torchvision')
    assert not differences('efficientnet_lite0', None, layout)


def asked(name: str, layout: str, **given) -> list[str]:
    """What a bare file is asked where the user passed these options."""
    return compatibility.differences(None, layout, name, backbones.create(name, **given), given)


@pytest.mark.parametrize('name', ['mobilenet_v3_large', 'mobilenet_v3_small'])
def test_mobilenet_in_timms_layout_must_say_whose_it_is(name: str):
    (line,) = asked(name, 'timm')
    assert 'ours (padding None, epsilon 0.001)' in line
    assert line.endswith(
        "pass padding=None, epsilon=1e-05 (timm's own) or padding='same', epsilon=0.001 (timm's tf_ models)"
    )
    for options in ({'epsilon': 1e-5}, {'padding': 'same'}, {'padding': None, 'epsilon': 1e-3}):
        assert not asked(name, 'timm', **options)
    assert not asked(name, 'torchvision')


@pytest.mark.parametrize(
    ('given', 'option'), [({'epsilon': 1e-3}, "padding='same'"), ({'padding': None}, 'epsilon=1e-05')]
)
def test_half_an_answer_is_asked_for_the_other_half(given: dict, option: str):
    (line,) = asked('mobilenet_v3_large', 'timm', **given)
    assert line.endswith(f'(pass {option})')


def test_a_configuration_settles_what_a_bare_file_is_asked():
    architectures = {'mobilenetv3_large_100': {'epsilon': 1e-5}, 'tf_mobilenetv3_large_100': {'padding': 'same'}}
    for architecture, options in architectures.items():
        configuration = {'architecture': architecture}
        assert not differences('mobilenet_v3_large', configuration, 'timm', **options)
        assert differences('mobilenet_v3_large', configuration, 'timm')


@pytest.mark.parametrize('siglip', ['siglip_vit_base_patch16', 'siglip2_vit_base_patch16'])
def test_siglip_in_timms_layout_must_say_its_activation(siglip: str):
    expected = "weights in the timm layout have activation 'gelu' where ours is 'gelu_tanh' (pass activation='gelu')"
    assert asked(siglip, 'timm') == [expected]
    assert not asked(siglip, 'timm', activation='gelu')
    assert not asked(siglip, 'timm', activation='gelu_tanh')
    assert not asked(siglip, 'transformers')
    assert not asked(siglip, 'big_vision')


@pytest.mark.parametrize(
    ('name', 'layout', 'options'),
    [
        *((f'efficientnet_b{size}', 'timm', ['epsilon=1e-05', "padding='same'"]) for size in (5, 6, 7)),
        ('convnext_tiny', 'transformers', ['head_epsilon=1e-12']),
        ('vit_tiny_patch16', 'transformers', ['epsilon=1e-12']),
        ('deit_tiny_distilled_patch16', 'transformers', ['epsilon=1e-12']),
    ],
)
def test_other_layouts_without_a_writer_of_our_defaults(name: str, layout: str, options: list[str]):
    (line,) = asked(name, layout)
    assert all(option in line for option in options)


def test_dinov3s_own_files_have_rounded_periods():
    (line,) = asked('dinov3_vit_small', 'dinov3')
    assert line.endswith("rotary 'dinov3_bfloat16' where ours is 'dinov3' (pass rotary='dinov3_bfloat16')")
    for rotary in ('dinov3', 'dinov3_bfloat16'):
        assert not asked('dinov3_vit_small', 'dinov3', rotary=rotary)
        assert not asked('dinov3_vit_small', 'timm', rotary=rotary)


@pytest.mark.parametrize('pool', ['avg', 'token'])
@pytest.mark.parametrize('pooling', ['token', 'average'])
def test_how_to_pool_dinov3_is_left_to_the_user(pool: str, pooling: str):
    """No classifier was trained on either: timm means the patches because its class does."""
    configuration = {'architecture': 'vit_small_plus_patch16_dinov3', 'global_pool': pool}
    assert not differences('dinov3_vit_small_plus', configuration, pooling=pooling)
    (line, *_) = differences('dinov3_vit_small', configuration)
    assert line.endswith("(pass activation='silu')")


def test_what_a_user_passes_is_not_questioned():
    """Though it is the default, and not what all published weights of the layout have."""
    for name, layout, given in (
        ('efficientnet_b0', 'lukemelas', {'padding': None}),
        ('efficientnet_b5', 'timm', {'padding': None, 'epsilon': 1e-3}),
        ('convnext_tiny', 'transformers', {'head_epsilon': 1e-6}),
        ('vit_tiny_patch16', 'transformers', {'epsilon': 1e-6}),
    ):
        assert asked(name, layout)
        assert not asked(name, layout, **given)


@pytest.mark.parametrize('name', backbones.names())
def test_every_other_layout_takes_a_bare_file(name: str):
    """The pairs that are asked are those above and EfficientNets of TensorFlow, and no others."""
    module = backbones.create(name)
    asking = {layout for layout in keymaps.layouts(module) if asked(name, layout)}
    plain_vit = name.startswith(('vit_', 'deit_')) and not name.endswith('_gap')
    expected = {
        'timm': name.startswith(('mobilenet_v3', 'siglip', *(f'efficientnet_b{size}' for size in (5, 6, 7)))),
        'transformers': plain_vit or name.startswith(('convnext', 'efficientnet_b')),
        'lukemelas': name.startswith('efficientnet_b'),
        'dinov3': name.startswith('dinov3_vit'),
    }
    assert asking == {layout for layout, asks in expected.items() if asks}


def test_a_bare_file_that_must_ask_is_refused(tmp_path: Path):
    shapes = json.loads(dict(_stored('mobilenet_v3_small', 'timm'))['shapes'].tobytes())
    path = tmp_path / 'mobilenet.safetensors'
    save_file(weights.state_dict(weights.Case('mobilenet_v3_small', 131, 131, 'timm'), shapes), path)
    with pytest.raises(backbones.UserError, match=r"epsilon=1e-05 \(timm's own\) or padding='same'"):
        backbones.load_weights('mobilenet_v3_small', path)
    _, report = backbones.load_weights('mobilenet_v3_small', path, padding=None, epsilon=1e-3)
    assert not report.problems()


def test_a_configuration_of_transformers_implies_as_much():
    lines = differences('efficientnet_b0', {'model_type': 'efficientnet'}, 'transformers')
    assert [line.partition('(pass ')[2] for line in lines] == ["padding='same')", 'epsilon=0.001)']


def test_timm_and_ours_are_the_same_function():
    assert not differences('resnet50', {'architecture': 'resnet50', 'num_features': 2048})
    assert not differences('efficientnet_lite0', {'architecture': 'tf_efficientnet_lite0'})
    assert not differences('vit_tiny_patch16', {'architecture': 'vit_tiny_patch16_384', 'global_pool': 'token'})


@pytest.mark.parametrize(
    ('name', 'source'),
    [(name, source) for name, sources in WEIGHTS.items() for source in sources if source.startswith('hf:timm/')],
)
def test_published_weights_of_timm_fit_without_options(name: str, source: str):
    architecture = source.removeprefix('hf:timm/').partition('.')[0]
    pool = {'attention': 'map', 'average': 'avg'}.get(getattr(backbones.create(name), 'pooling', ''), 'token')
    assert not differences(name, {'architecture': architecture, 'global_pool': pool})


VISION = {'hidden_act': 'gelu', 'num_attention_heads': 12, 'patch_size': 16, 'layer_norm_eps': 1e-12}


@pytest.mark.parametrize(
    ('name', 'configuration', 'expected'),
    [
        ('vit_base_patch16', {'model_type': 'vit'} | VISION, ['epsilon=1e-12']),
        ('vit_base_patch16', {'model_type': 'vit', 'qkv_bias': False, 'layer_norm_eps': 1e-6}, ['']),
        ('deit_tiny_patch16', {'model_type': 'deit', 'num_attention_heads': 3}, ['epsilon=1e-12']),
        ('dinov2_base', {'model_type': 'dinov2', 'patch_size': 14, 'layer_norm_eps': 1e-6}, []),
        ('dinov2_base', {'model_type': 'dinov2', 'num_attention_heads': 16}, ['heads=16']),
        ('dinov2_base_reg', {'model_type': 'dinov2_with_registers', 'patch_size': 14}, []),
        ('dinov3_vit_small', {'model_type': 'dinov3_vit', 'num_register_tokens': 4}, []),
        (
            'dinov3_vit_small_plus',
            {'model_type': 'dinov3_vit', 'num_register_tokens': 4, 'use_gated_mlp': True, 'hidden_act': 'silu'},
            [],
        ),
        ('dinov3_vit_small', {'model_type': 'dinov3_vit', 'key_bias': True, 'num_register_tokens': 4}, ['']),
        ('clip_vit_base_patch16', {'model_type': 'clip', 'vision_config': {'patch_size': 16}}, []),
        (
            'clip_vit_base_patch16',
            {'model_type': 'clip', 'vision_config': {'patch_size': 16, 'hidden_act': 'gelu'}},
            ["activation='gelu'"],
        ),
        ('siglip_vit_base_patch16', {'model_type': 'siglip', 'vision_config': {}}, []),
        (
            'siglip_vit_base_patch16',
            {'architecture': 'vit_base_patch16_siglip_224', 'global_pool': 'map'},
            ["activation='gelu'"],
        ),
        (
            'vit_medium_patch16_reg4_gap',
            {'architecture': 'vit_medium_patch16_reg4_gap_256', 'global_pool': 'token'},
            ["pooling='token'"],
        ),
        ('vit_betwixt_patch16_reg4_gap', {'architecture': 'vit_betwixt_patch16_reg4_gap_384'}, []),
        (
            'vit_little_patch16_reg4_gap',
            {'architecture': 'vit_little_patch16_reg1_gap_256', 'model_args': {'mlp_ratio': 5.0}},
            ['registers=1', 'mlp_ratio=5.0'],
        ),
        # As google/siglip2-base-patch16-224, timm and open_clip say it of SigLIP 2.
        (
            'siglip2_vit_base_patch16',
            {'model_type': 'siglip', 'vision_config': {'model_type': 'siglip_vision_model'}},
            [],
        ),
        (
            'siglip2_vit_base_patch16',
            {'architecture': 'vit_base_patch16_siglip_224', 'global_pool': 'map'},
            ["activation='gelu'"],
        ),
        (
            'siglip2_vit_base_patch16',
            {'model_cfg': {'vision_cfg': {'timm_model_name': 'vit_base_patch16_siglip_224', 'timm_pool': 'map'}}},
            ["activation='gelu'"],
        ),
        (
            'siglip2_vit_base_patch16',
            {'model_cfg': {'vision_cfg': {'timm_model_name': 'vit_base_patch16_siglip_224', 'timm_pool': 'avg'}}},
            ["activation='gelu'", "pooling='average'"],
        ),
        ('siglip2_vit_base_patch16', {'model_type': 'siglip2', 'vision_config': {}}, ['']),
        ('hiera_tiny', {'model_type': 'hiera'}, []),
        ('hiera_tiny', {'model_type': 'hiera', 'num_query_pool': 2}, ['']),
        ('swin_tiny', {'model_type': 'swin'}, []),
        ('swin_tiny', {'model_type': 'swin', 'window_size': 12}, ['window=12']),
        ('convnext_tiny', {'model_type': 'convnext'}, ['head_epsilon=1e-12']),
        ('convnextv2_tiny', {'model_type': 'convnextv2'}, ['head_epsilon=1e-12']),
        ('dinov3_convnext_tiny', {'model_type': 'dinov3_convnext'}, []),
        (
            'dinov3_convnext_tiny',
            {'model_type': 'dinov3_convnext', 'layer_norm_eps': 1e-5},
            ['epsilon=1e-05', 'head_epsilon=1e-05'],
        ),
        (
            'clip_vit_base_patch16',
            {'model_cfg': {'vision_cfg': {'patch_size': 16, 'width': 768}}},
            ["activation='gelu'"],
        ),
        ('clip_vit_base_patch16', {'model_cfg': {'quick_gelu': True, 'vision_cfg': {'patch_size': 16}}}, []),
    ],
)
def test_vision_transformers(name: str, configuration: dict, expected: list[str]):
    lines = differences(name, configuration, 'transformers')
    assert [line.partition('(pass ')[2].removesuffix(')') for line in lines] == expected


@pytest.mark.parametrize(
    ('configuration', 'size'),
    [
        ({'architecture': 'vit_base_patch16_384', 'pretrained_cfg': {'input_size': [3, 384, 384]}}, 384),
        ({'model_type': 'vit', 'image_size': 224}, 224),
        ({'model_type': 'siglip', 'vision_config': {'image_size': 256}}, 256),
        ({'model_type': 'clip', 'vision_config': None}, None),
        ({'model_cfg': {'vision_cfg': {'image_size': 240}}}, 240),
        ({'model_type': 'resnet'}, None),
    ],
)
def test_size_of_images_that_a_configuration_states(configuration: dict, size: int | None):
    assert compatibility.image_size(configuration) == (size and (size, size))


def test_timm_does_not_tell_dinov3s_convnext_from_others():
    for name in ('convnext_tiny', 'dinov3_convnext_tiny'):
        assert not differences(name, {'architecture': 'convnext_tiny', 'global_pool': 'avg'})
    assert differences('convnext_tiny', {'architecture': 'convnextv2_tiny'}) == [
        'its configuration has layer_scale None where ours is 1e-06 (pass layer_scale=None)',
        'its configuration has response_norm True where ours is False (pass response_norm=True)',
    ]


def test_timm_of_another_depth():
    (line, *_) = differences('resnet50', {'architecture': 'resnet101'})
    assert 'depths (3, 4, 23, 3) where ours is (3, 4, 6, 3)' in line


def test_timm_of_another_family():
    assert differences('resnet50', {'architecture': 'vit_tiny_patch16_224'}) == [
        "its configuration is for 'vit_tiny_patch16_224', which is vit_tiny_patch16 here, not resnet50"
    ]


@pytest.mark.parametrize('architecture', ['resnet50d', 'vit_base_patch16_rope_224', 'resnet50_gn'])
def test_timm_of_an_architecture_that_is_not_known(architecture: str):
    (line,) = differences('resnet50', {'architecture': architecture})
    assert repr(architecture) in line


def test_what_timm_builds_differently_is_an_option():
    lines = differences('efficientnet_lite0', {'architecture': 'efficientnet_lite0'})
    assert [line.partition('(pass ')[2] for line in lines] == ['padding=None)', 'epsilon=1e-05)']
    assert not differences('efficientnet_lite0', {'architecture': 'efficientnet_lite0'}, padding=None, epsilon=1e-5)


def test_arguments_of_timm():
    (line,) = differences('resnet18', {'architecture': 'resnet18', 'model_args': {'block_args': {'attn': 'se'}}})
    assert 'block_args' in line
    assert not differences('resnet18', {'architecture': 'resnet18', 'model_args': {'num_classes': 7}})


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        ({}, []),
        ({'hidden_act': 'silu'}, ["its configuration sets hidden_act='silu'; here it is always 'relu'"]),
        (
            {'downsample_in_bottleneck': True},
            ['its configuration sets downsample_in_bottleneck=True; here it is always False'],
        ),
    ],
)
def test_transformers(change: dict, expected: list[str]):
    assert differences('resnet50', {'model_type': 'resnet'} | change) == expected


def test_transformers_of_a_model_that_is_not_known():
    assert differences('resnet50', {'model_type': 'bit'}) == [
        "its configuration is for 'bit', which is not a kind of model known here"
    ]


def test_a_difference_is_an_error_and_a_warning_where_it_is_not_strict(tmp_path: Path):
    shapes = json.loads(dict(_stored('efficientnet_lite0'))['shapes'].tobytes())
    save_file(weights.state_dict(weights.Case('efficientnet_lite0', 97, 97), shapes), tmp_path / 'model.safetensors')
    (tmp_path / 'config.json').write_text(json.dumps({'architecture': 'efficientnet_lite0', 'pretrained_cfg': CFG}))
    with pytest.raises(backbones.UserError, match=r"padding None where ours is 'same' \(pass padding=None\)"):
        backbones.load_weights('efficientnet_lite0', tmp_path)
    with pytest.warns(UserWarning, match='padding None where ours'):
        _, report = backbones.load_weights('efficientnet_lite0', tmp_path, strict=False)
    assert len(report.differences) == 2
    _, report = backbones.load_weights('efficientnet_lite0', tmp_path, padding=None, epsilon=1e-5)
    assert not report.problems()


CFG = {'input_size': [3, 224, 224], 'mean': [0.5] * 3, 'std': [0.5] * 3, 'crop_pct': 0.9, 'interpolation': 'bicubic'}


def _stored(backbone: str, layout: str = ''):
    import numpy as np

    cases = (case for case in weights.CASES if case.backbone == backbone and layout in ('', case.layout))
    return np.load(next(cases).path)
