"""Every config of an ablation can be planned, and says how it is started."""

import runpy
from pathlib import Path

import pytest
from tiny import make_dataset

from experiments.ablation import cells
from experiments.ablation.engine import Engine
from experiments.cli.command_line import load_config
from experiments.results import aggregates, tables

DIRECTORY = Path(__file__).parents[2] / 'configs' / 'ablations'
# Number of cells, with the default arguments.
CELLS = {
    'cnn_vs_vit': 3 * 2 * 3 * 3,
    'dense': 4,
    'depth_of_features': 2 * 2 * 2 * 6,
    'image_size': 2 * 2 * 2 * 5,
    'label_fraction': 3 * 2 * 7 * 5,
    'matched_pairs': 2 * 2 * 2 * 2 * 3,
    'normalisation_of_features': 3 * 2 * 5 * 2 * 3,
    'pretraining': 2 * 6 * 2 * 2 * 3,
    'quickstart': 2 * 6 * 2 * 3 * 5,
    'regimes': 2 * 8 * 3,
    'robustness': 3 * 2,
    'shots': 3 * 2 * 6 * 10,
    'text': 3 * 2 * 3 * 3,
    'vtab': 2 * 5 * 3,
}


QUICK = ('pretraining', 'quickstart', 'robustness', 'shots', 'vtab')


@pytest.mark.parametrize('name', CELLS)
def test_number_of_cells(name):
    planned = cells.plan(load_config(str(DIRECTORY / f'{name}.py')))
    assert len(planned) == len(set(planned)) == CELLS[name]


def test_weights_of_ones_own_in_that_of_texts():
    config = load_config(f'{DIRECTORY / "text.py"}:backbone=bert_base@/x/bert')
    assert config.backbones == ('bert_base@/x/bert', 'bert_base@random', 'tfidf')
    config = load_config(f'{DIRECTORY / "text.py"}:backbone=text_micro@random')
    assert config.backbones == ('text_micro@random', 'tfidf')


@pytest.mark.parametrize('file', ['transfer', 'detection', 'segmentation'])
def test_a_training_takes_a_backbone_with_weights(file):
    config = load_config(f'{DIRECTORY.parent / file}.py:backbone=vit_micro@/x/a.pth,dataset=folder:/x')
    assert (config.backbone, config.weights) == ('vit_micro', '/x/a.pth')


@pytest.mark.parametrize('file', sorted(DIRECTORY.glob('*.py')), ids=lambda file: file.stem)
def test_it_says_how_it_is_started(file):
    text = runpy.run_path(str(file))['__doc__']
    assert f'python -m experiments.ablate --config configs/ablations/{file.name}' in text


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=pytest.mark.slow if name in QUICK else pytest.mark.exhaustive)
        for name in sorted(CELLS.keys() - {'dense', 'regimes', 'text'})
    ],
)
def test_a_tiny_version_ends_in_a_table(tmp_path, name):
    config = load_config(str(DIRECTORY / f'{name}.py'))
    config.backbones, config.datasets, config.seeds = ('vit_micro', 'pixels'), ('digits',), (0, 1)
    config.image_size = (8, 12) if isinstance(config.image_size, tuple) else 8
    config.linear.values_of_c = config.ridge.penalties = 3
    config.knn.neighbours = (1, 3)
    config.validation_images //= 20
    config.shots = (1, 3) if isinstance(config.shots, tuple) else config.shots // 20
    if config.corruptions:
        config.corruptions, config.severities = ('contrast',), (3,)
    engine = Engine(config, tmp_path, make_dataset)
    planned, _ = engine.possible(cells.plan(config))
    engine.run(planned)
    assert engine.pending(planned) == []
    assert '| vit_micro |' in tables.markdown(tables.view(aggregates.load(tmp_path), 'digits'))
