"""python -m experiments.models: what it lists, what it describes, and what it refuses."""

import pytest

import backbones
from backbones import cost, published_models
from backbones.errors import UserError
from experiments import models
from experiments.commands import models as work


def names(**conditions) -> list[str]:
    arguments = {'patterns': [], 'family': None, 'max_params': None, 'max_gflops': None, 'sort': 'name'} | conditions
    return [info.name for info in work.select(**arguments)]


def test_all_of_them_sorted_by_name():
    assert names() == backbones.names()


def test_conditions_narrow():
    assert names(family='vit') == backbones.names('vit')
    assert names(patterns=['resnet1*', 'vit_micro']) == ['resnet101', 'resnet152', 'resnet18', 'vit_micro']
    assert set(names(max_params=1e6)) == {'resnet_micro', 'vit_micro', 'text_micro'}
    light = names(max_gflops=1.0)
    assert 'efficientnet_lite0' in light
    assert 'resnet50' not in light


def test_published_models_are_listed(capsys):
    models.main(['--published'])
    out = capsys.readouterr().out
    assert all(name in out for name in published_models.TABLE) and 'faster_rcnn' in out
    assert 'AGPL-3.0' in out and 'BSD-3-Clause' in out


@pytest.mark.parametrize('sort', ['params', 'gflops'])
def test_sorted(sort: str):
    values = [work.SORT_KEYS[sort](backbones.info(name)) for name in names(sort=sort)]
    assert values == sorted(values)


def test_what_fits_nothing():
    with pytest.raises(UserError, match="unknown backbone 'resnet5'; did you mean 'resnet50'"):
        names(patterns=['resnet5'])
    with pytest.raises(UserError, match='no backbone meets these conditions'):
        names(max_params=10)


def test_listing_has_every_name(capsys):
    models.main([])
    printed = capsys.readouterr().out
    assert all(name in printed for name in backbones.names())
    assert '23,508,032' in printed


def test_listing_has_licences_and_the_input_that_gflops_are_of(capsys):
    models.main(['*micro', 'hiera_tiny', 'googlenet', 'yolo11n'])
    rows = {cells[1]: cells for line in capsys.readouterr().out.splitlines() if len(cells := line.split()) > 12}
    assert rows['text_micro'][9:14] == ['256', 'tokens', '│', '–', '│']
    assert rows['hiera_tiny'][9:13] == ['224', 'px', '│', 'CC-BY-NC-4.0']
    assert rows['googlenet'][12] == 'BSD-3-Clause' and rows['yolo11n'][12] == 'AGPL-3.0'


@pytest.mark.parametrize(
    ('width', 'left_out'),
    [
        (80, ': licence, channels of the stages (strides), loads and saves;'),
        (100, ': channels of the stages (strides), loads and saves;'),
        (200, ''),
    ],
)
def test_listing_breaks_no_word(width, left_out, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', str(width))
    models.main([])
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if '│' in line) <= width
    assert all(any(f'│ {name} ' in line for line in lines) for name in backbones.names())
    assert not any('…' in line for line in lines)
    assert ('left out' in lines[-1]) == bool(left_out) and left_out in lines[-1]


def test_a_description_is_readable_in_a_pipe(capsys, monkeypatch):
    monkeypatch.delenv('COLUMNS', raising=False)
    models.main(['dinov3_vit_small'])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 120
    monkeypatch.setenv('COLUMNS', '80')
    models.main(['dinov3_vit_small'])
    assert '…' not in capsys.readouterr().out


def test_a_description_of_an_encoder_that_has_a_tokenizer_of_its_own(capsys):
    models.main(['text_micro', 'minilm_l6'])
    printed = capsys.readouterr().out
    assert 'a tokenizer of its own (259 tokens); at most 256 tokens' in printed
    assert 'the tokenizer.json of the weights; at most 256 tokens' in printed


def test_description(capsys):
    models.main(['resnet50'])
    printed = capsys.readouterr().out
    for fact in (
        '23,508,032',
        '8.174',
        'stage3: 1024 channels, stride 16, 14x14',
        'torchvision',
        'shorter side to 256',
    ):
        assert fact in printed


def test_a_description_names_the_licence_beside_each_source(capsys):
    models.main(['vit_micro', 'resnet50', 'yolo26n', 'googlenet'])
    lines = [line.strip('│ ').rpartition('│ ')[2] for line in capsys.readouterr().out.splitlines()]
    assert 'bundled:vit_micro: Apache-2.0' in lines
    start = lines.index('hf:timm/resnet50.tv_in1k: BSD-3-Clause')
    assert lines[start + 1] == 'hf:timm/resnet50.a1_in1k: Apache-2.0'
    # Of backbones without a source: GoogLeNet and YOLO.
    assert sum(line.startswith('a file of torchvision: BSD-3-Clause (') for line in lines) == 1
    assert sum(line.startswith('a file of ultralytics: AGPL-3.0 (') for line in lines) == 1


def test_several_descriptions_and_a_pattern(capsys):
    models.main(['vit_micro', 'resnet_micro'])
    assert capsys.readouterr().out.count('bundled:') == 2
    models.main(['vit_micro', 'resnet_mic*'])
    assert '2 backbones' in capsys.readouterr().out


def test_every_backbone_has_its_gflops():
    assert sorted(cost.GFLOPS) == backbones.names()


def gflops(name: str) -> float:
    return cost.count_flops(backbones.create(name), backbones.info(name).preprocessing.size) / 1e9


# Multiply-adds that torchvision (``_ops`` of its weights) and timm publish, with the classifier.
PUBLISHED = {
    'vgg16': 15.470,
    'googlenet': 1.498,
    'resnet18': 1.814,
    'resnet50': 4.089,
    'resnext50_32x4d': 4.230,
    'wide_resnet50_2': 11.398,
    'efficientnet_b0': 0.386,
    'efficientnet_lite0': 0.385,
    'mobilenet_v3_large': 0.217,
    'convnext_tiny': 4.456,
    'convnextv2_atto': 0.55,
    'vit_base_patch16': 17.564,
    'swin_tiny': 4.491,
}
# They repeat the operations of the ones above.
OTHERS = ('resnext50_32x4d', 'wide_resnet50_2', 'efficientnet_b0')


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=pytest.mark.exhaustive if name in OTHERS else ()) for name in PUBLISHED]
)
def test_counted_and_published_gflops(name: str):
    classifier = 2 * 1000 * backbones.info(name).pooled / 1e9
    counted = gflops(name)
    assert counted == pytest.approx(cost.GFLOPS[name], rel=1e-3)
    assert counted + classifier == pytest.approx(2 * PUBLISHED[name], rel=0.005)


@pytest.mark.exhaustive
@pytest.mark.parametrize('name', backbones.names())
def test_gflops_of_every_backbone(name: str):
    assert gflops(name) == pytest.approx(cost.GFLOPS[name], rel=1e-3)
