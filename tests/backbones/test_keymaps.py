"""Key maps read in both directions: templates, parts, made and absent arrays; and every backbone has stored keys."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backbones
from backbones import registry
from backbones.cnn.convnext import ConvNeXtWithTokens
from backbones.cnn.yolo import YOLO
from backbones.pretrained import keymaps
from backbones.pretrained.keymaps.rules import (
    CONVOLUTION,
    TRANSPOSE,
    Absent,
    Ignored,
    KeyMap,
    Line,
    Made,
    Rule,
    batch_norm_rules,
    convolution_rules,
    dense_rules,
    export,
    fill,
    match,
    translate,
)
from backbones.text.encoder import TextEncoder
from tests.parity import weights
from tests.parity.text import cases as texts

numbers = st.integers(0, 10**6)


@given(first=numbers, second=numbers, shift=st.integers(-3, 3))
def test_a_filled_template_matches_with_the_same_values(first: int, second: int, shift: int):
    template = f'layer{{a}}.{{b{shift:+d}}}.conv.weight'
    text = fill(template, {'a': first, 'b': second + 3})
    assert text == f'layer{first}.{second + 3 + shift}.conv.weight'
    assert match(template, text) == {'a': first, 'b': second + 3}


@pytest.mark.parametrize('text', ['layer1-0-conv', 'layer1.0.convX', 'Xlayer1.0.conv', 'layerx.0.conv', 'layer.0.conv'])
def test_only_the_whole_text_matches(text: str):
    assert match('layer{a}.{b}.conv', 'layer1.0.conv') == {'a': 1, 'b': 0}
    assert match('layer{a}.{b}.conv', text) is None


def test_the_same_field_twice_has_one_value():
    assert match('a{n}.b{n}', 'a7.b7') == {'n': 7}
    assert match('a{n}.b{n}', 'a7.b8') is None


def test_what_is_in_brackets_may_be_missing_and_is_written():
    template = '[vit.]encoder.{n}.weight'
    assert match(template, 'encoder.3.weight') == match(template, 'vit.encoder.3.weight') == {'n': 3}
    assert fill(template, {'n': 3}) == 'vit.encoder.3.weight'


def some(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


LINES: list[Line] = [
    *convolution_rules('stem', 'stem', bias=True),
    *batch_norm_rules('blocks.{n}.norm', 'block{n+1}/norm'),
    *dense_rules('blocks.{n}.mlp', 'block{n+1}/mlp'),
    *(Rule(f'blocks.{{n}}.{key}', 'params/block{n+1}/qkv', TRANSPOSE, (part, 3)) for part, key in enumerate('qkv')),
    Rule('old_head', 'params/head', alias=True),
    Rule('head', 'params/head'),
    Rule('auxiliary', 'params/auxiliary', optional=True),
    Made('index', 'params/head', lambda head: np.arange(len(head))),
    Absent('params/mask_token', 0.5),
    Ignored(r'neck\..*'),
]

FILE = {
    'stem.weight': some(4, 3, 2, 2),
    'stem.bias': some(4),
    **{f'blocks.{n}.norm.{leaf}': some(4) for n in range(2) for leaf in ('weight', 'bias', 'running_mean')},
    **{f'blocks.{n}.norm.running_var': some(4) for n in range(2)},
    **{f'blocks.{n}.norm.num_batches_tracked': np.zeros((), np.int64) for n in range(2)},
    **{f'blocks.{n}.mlp.weight': some(5, 4) for n in range(2)},
    **{f'blocks.{n}.mlp.bias': some(5) for n in range(2)},
    **{f'blocks.{n}.{key}': some(4, 4) + index for n in range(2) for index, key in enumerate('qkv')},
    'head': some(7),
    'index': np.arange(7),
}


def test_there_and_back():
    found = translate(FILE, KeyMap(LINES))
    assert not found.unexpected
    assert not found.incomplete
    assert found.arrays['params/stem/kernel'].shape == (2, 2, 3, 4)
    np.testing.assert_array_equal(
        found.arrays['params/block2/qkv'], np.concatenate([FILE[f'blocks.1.{key}'].T for key in 'qkv'], axis=1)
    )
    assert found.converted['params/block1/qkv'] == '3 arrays joined, transposed'
    assert set(found.dropped) == {key for key in FILE if 'num_batches' in key} | {'index'}
    back, homeless = export(found.arrays, KeyMap(LINES))
    assert not homeless
    assert back.keys() == FILE.keys()
    for key, array in FILE.items():
        np.testing.assert_array_equal(back[key], array, strict=True)


def test_a_missing_part_is_named():
    arrays = {key: array for key, array in FILE.items() if key != 'blocks.1.k'}
    found = translate(arrays, KeyMap(LINES))
    assert found.incomplete == {'params/block2/qkv': ('blocks.1.k',)}
    assert 'params/block2/qkv' not in found.arrays


def test_older_names_are_read_and_never_written():
    found = translate({'old_head': FILE['head']}, KeyMap(LINES))
    back, _ = export(found.arrays, KeyMap(LINES))
    assert set(back) == {'head', 'index'}


def test_unknown_ignored_and_optional_keys():
    found = translate({'neck.0.weight': some(2), 'auxiliary': some(3), 'mystery': some(4)}, KeyMap(LINES))
    assert found.unexpected == ('mystery',)
    assert found.dropped == ('neck.0.weight',)
    assert found.optional == {'params/auxiliary'}
    assert [line.path for line in found.absent] == ['params/mask_token']
    assert KeyMap(LINES).known(['neck.0.weight', 'head', 'mystery']) == 1


def test_paths_without_a_place():
    _, homeless = export({'params/head': some(7), 'params/mask_token': some(1), 'params/extra': some(1)}, KeyMap(LINES))
    assert homeless == ['params/extra']


def test_another_number_of_axes_is_told_with_key_and_path():
    with pytest.raises(ValueError) as raised:
        translate({'stem.weight': some(4, 12)}, KeyMap(LINES))
    assert raised.value.args == ('stem.weight', 'params/stem/kernel', (4, 12))


@settings(max_examples=30)
@given(shape=st.tuples(*[st.integers(1, 4)] * 4))
def test_transforms_are_inverse(shape: tuple[int, ...]):
    array = some(*shape)
    np.testing.assert_array_equal(CONVOLUTION.inverse(CONVOLUTION.forward(array)), array)
    np.testing.assert_array_equal(TRANSPOSE.inverse(TRANSPOSE.forward(array[0, 0])), array[0, 0])


# --- Every registered backbone. ---------------------------------------------------------------------------------------

OUR_OWN = {'resnet_micro', 'vit_micro', 'text_micro'}  # no reference implementation has them


@pytest.mark.parametrize('name', sorted(set(backbones.names()) - OUR_OWN))
def test_every_backbone_is_compared_with_a_reference(name: str):
    """In full or by its keys; a name that is registered without a stored answer fails here."""
    cases = (*weights.CASES, *weights.KEYS_ONLY, *texts.CASES)
    assert any(case.backbone == name and case.path.is_file() for case in cases)


@pytest.mark.parametrize('name', backbones.names())
def test_every_backbone_has_a_layout(name: str):
    assert keymaps.layouts(registry.create(name))


def test_every_layout_of_every_family_is_compared_with_its_reference():
    compared = {(type(backbones.create(case.backbone)), case.layout) for case in (*weights.CASES, *weights.KEYS_ONLY)}
    compared.add((YOLO, 'ultralytics_fused'))  # test_yolo_files.py
    compared.add((TextEncoder, 'transformers'))  # test_text_parity.py
    compared.add((ConvNeXtWithTokens, 'facebook'))  # of the cases that name no layout
    for kind, maps in keymaps.TABLE.items():
        first, *others = maps
        assert (kind, '') in compared or (kind, first) in compared
        distinct = [name for name in others if maps[name] is not maps[first]]
        assert {name for name in distinct if (kind, name) not in compared} == set()
