"""Matched pairs: their sources are published ones, and a pair of the hub runs where only the hub's cache has it."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import make_dataset

import backbones
from backbones import UserError, registry
from backbones.cnn.convnext import ConvNeXt
from backbones.vit.swin import SwinTransformer
from backbones.vit.vit import VisionTransformer
from configs.ablations.matched_pairs import PAIRS
from experiments import ablate
from experiments.ablation import cells
from experiments.ablation.engine import Engine
from experiments.cli.command_line import load_config
from experiments.results import aggregates, tables

FILE = Path(__file__).parents[2] / 'configs' / 'ablations' / 'matched_pairs.py'
COMMIT = '0123456789abcdef0123456789abcdef01234567'
SMALL = {
    ConvNeXt: {'channels': (8, 16, 24, 32), 'depths': (1, 1, 1, 1)},
    SwinTransformer: {'channels': 12, 'depths': (1, 1, 1, 1)},
    VisionTransformer: {'channels': 24, 'depth': 4, 'heads': 3},
}


def test_by_default_nothing_is_downloaded():
    config = load_config(str(FILE))
    assert config.backbones == PAIRS['micro'][1]
    assert all(text.partition('@')[2].startswith('bundled:') for text in config.backbones)
    assert set(config.datasets) <= {'digits', 'mnist5k'}


def test_an_unknown_pair_offers_the_nearest():
    with pytest.raises(UserError, match="unknown pair 'imagnet'; did you mean 'imagenet'"):
        load_config(f'{FILE}:pair=imagnet')


@pytest.mark.parametrize('pair', PAIRS)
def test_members_have_published_weights_and_the_docstring_says_why(pair: str):
    config = load_config(f'{FILE}:pair={pair},seeds=1')
    variants = [cells.parse_variant(text) for text in config.backbones]
    assert len(variants) > 1
    for variant in variants:
        assert variant.weights in backbones.info(variant.backbone).weights
    assert len(cells.plan(config)) == len(variants) * 2 * 2 * 2
    assert f'- ``{pair}``: ' in FILE.read_text()


def write_repository(cache: Path, name: str, source: str) -> None:
    """What the hub's cache holds of a repository of timm, with random weights of the registered shapes."""
    repository = source.removeprefix('hf:timm/')
    place = cache / f'models--timm--{repository}'
    (place / 'refs').mkdir(parents=True)
    (place / 'refs' / 'main').write_text(COMMIT)
    directory = place / 'snapshots' / COMMIT
    directory.mkdir(parents=True)
    size = backbones.info(name).image_size
    shapes = jax.eval_shape(backbones.create(name).init, jax.random.key(0), np.zeros((1, size, size, 3), np.float32))
    random = np.random.default_rng(0)

    def value(path, leaf):
        # Timm's DINOv3 has no biases for queries, keys and values.
        return np.float32(path[-1].key != 'bias') * 0.1 * random.standard_normal(leaf.shape, np.float32)

    variables = jax.tree.map_with_path(value, shapes)
    backbones.save_weights(directory / 'model.safetensors', variables, 'timm', name)
    configuration = {
        'architecture': repository.partition('.')[0],
        'pretrained_cfg': {
            'input_size': [3, size, size],
            'interpolation': 'bicubic',
            'crop_pct': 0.9,
            'mean': [0.5] * 3,
            'std': [0.5] * 3,
        },
    }
    (directory / 'config.json').write_text(json.dumps(configuration))


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all backbones small: all of them, as timm's architecture is looked up by another name."""
    for name, row in registry.TABLE.items():
        module = row.constructor()
        options = next((options for kind, options in SMALL.items() if isinstance(module, kind)), {})
        small = module.clone(**options)
        monkeypatch.setitem(registry.TABLE, name, dataclasses.replace(row, constructor=lambda small=small: small))


def test_a_plan_needs_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    make_small(monkeypatch)
    config = f'{FILE}:pair=dinov3,datasets=digits,regimes=linear,seeds=1'
    arguments = ['--config', config, '--workdir', str(tmp_path / 'run'), '--config.image_size=32']
    ablate.main([*arguments, '--plan'])
    told = capsys.readouterr().err
    assert 'plan: 4 of 4 cells to run' in told
    for text in PAIRS['dinov3'][1]:
        name, _, source = text.partition('@')
        assert f'{name} · {source} is planned with the usual input of the backbone, and its weights are not' in told
        assert f'{source} is not in the cache' in told
    with pytest.raises(UserError, match='is not in the cache'):
        ablate.main(arguments)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    'pair',
    [
        pytest.param(pair, marks=pytest.mark.slow if pair == 'imagenet' else pytest.mark.exhaustive)
        for pair in PAIRS
        if pair != 'micro'
    ],
)
def test_a_pair_of_the_hub_runs_from_its_cache(pair: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    config = load_config(f'{FILE}:pair={pair},datasets=digits,seeds=1')
    make_small(monkeypatch)
    for variant in map(cells.parse_variant, config.backbones):
        write_repository(tmp_path / 'cache', variant.backbone, variant.weights)
    config.image_size = 64
    config.linear.values_of_c, config.knn.neighbours = 3, (1, 3)
    engine = Engine(config, tmp_path / 'run', make_dataset)
    planned, _ = engine.possible(cells.plan(config))
    engine.run(planned)
    assert engine.pending(planned) == []
    table = tables.markdown(tables.view(aggregates.load(tmp_path / 'run'), 'digits'))
    for text in config.backbones:
        assert f'| {text.partition("@")[0]} |' in table
