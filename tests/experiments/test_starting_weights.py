"""Pretrained weights in a training and in an ablation: what is refused before anything runs, and what is said."""

import dataclasses
import re
import types
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from made_rows import make_row
from safetensors.numpy import load_file, save_file
from tiny import make_config, make_dataset
from tiny_dense import dense_config, make_dense

import backbones
from backbones import UserError
from backbones.pretrained.sources import resolve
from experiments.ablation import cells, growth
from experiments.ablation.cells import Cell, Variant
from experiments.ablation.engine import Engine
from experiments.cli import display, work_directories
from experiments.features import network
from experiments.training import mesh, starting_weights
from experiments.training.config import default_config
from experiments.training.session import Session

KERNEL = 'params/backbone/stage2/block1/conv1/kernel'


@pytest.fixture(scope='module')
def resnet() -> dict[str, np.ndarray]:
    """The bundled file; its arrays by our own paths."""
    return load_file(resolve('bundled:resnet_micro'))


@pytest.fixture(scope='module')
def vit_of_48(tmp_path_factory) -> Path:
    """A bare file of vit_micro, which is for 32 pixels, that was made for images of 48."""
    variables, _ = backbones.load_weights('vit_micro', 'bundled:vit_micro', image_size=48)
    path = tmp_path_factory.mktemp('weights') / 'vit.safetensors'
    backbones.save_weights(path, variables)
    return path


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What is printed."""
    lines: list[str] = []
    monkeypatch.setattr(display.console, 'print', lambda text, **_: lines.append(str(text)))
    return lines


def written(path: Path, arrays: dict[str, np.ndarray]) -> str:
    save_file(arrays, path)
    return str(path)


def start_training(monkeypatch, directory: Path, backbone: str, weights: str, **changes) -> dict:
    """The variables with which a training begins; where nothing is loaded they are all 7."""
    config = default_config()
    config.update({'backbone': backbone, 'weights': weights, 'regime': 'finetune', 'batch_size': 16, **changes})
    session = Session(config, make_dataset(), directory)
    sevens = jax.tree.map(lambda leaf: np.full(leaf.shape, 7, np.float32), session.programs.abstract_variables)
    monkeypatch.setattr(session.programs, 'init', lambda key: sevens)
    return flatten_dict(session._initial_variables(), sep='/')


def start_ablation(directory: Path, variant: str, **changes) -> None:
    """Run the cells of one frozen backbone; a test that expects an error expects it before the pass."""
    values = {'backbones': (variant,), 'regimes': ('knn',), 'fractions': (1.0,), 'seeds': (0,), **changes}
    config = make_config(**values)
    Engine(config, directory, lambda name: make_dataset(name)).run(cells.plan(config))


def check_ablation(directory: Path, variant: str, **changes) -> None:
    """What is checked before an ablation reads its data and claims its directory."""
    config = make_config(backbones=(variant,), regimes=('knn',), fractions=(1.0,), seeds=(0,), **changes)
    Engine(config, directory, None).check_without_data(cells.plan(config))


# --- Values that no network has. --------------------------------------------------------------------------------------


def test_damaged_values_stop_a_training_and_an_ablation(monkeypatch, tmp_path, resnet):
    damaged = resnet[KERNEL].copy()
    damaged[0, 0, 0, 0] = np.nan
    file = written(tmp_path / 'damaged.safetensors', resnet | {KERNEL: damaged})
    message = f'{re.escape(file)} is damaged, or its training diverged: 1 NaN in 1 of .* arrays, first {KERNEL}'
    with pytest.raises(UserError, match=message):
        start_training(monkeypatch, tmp_path, 'resnet_micro', file, image_size=8)
    monkeypatch.setattr('experiments.features.frozen_pass.FrozenPass.run', None)
    with pytest.raises(UserError, match=message):
        start_ablation(tmp_path / 'ablation', f'resnet_micro@{file}')


# --- Sizes. -----------------------------------------------------------------------------------------------------------


def test_a_size_that_nobody_chose_is_not_resampled_without_a_word(monkeypatch, tmp_path, vit_of_48):
    message = (
        f'{vit_of_48}: its positions are a grid of 12x12, for images of 48 pixels where ours are 32 (pass '
        'image_size=48, or image_size=32 to have them resampled); the config key image_size is 0, which keeps the size '
        'of the backbone: set it (--config.image_size=32)'
    )
    with pytest.raises(UserError, match=re.escape(message)):
        start_training(monkeypatch, tmp_path, 'vit_micro', str(vit_of_48))
    with pytest.raises(UserError, match=re.escape(message)):
        start_ablation(tmp_path / 'ablation', f'vit_micro@{vit_of_48}', image_size=0)


def test_it_is_refused_before_an_ablation_claims_its_directory(tmp_path, vit_of_48):
    with pytest.raises(UserError, match='the config key image_size is 0, which keeps the size of the backbone'):
        check_ablation(tmp_path / 'ablation', f'vit_micro@{vit_of_48}', image_size=0)
    check_ablation(tmp_path / 'ablation', f'vit_micro@{vit_of_48}', image_size=32)


@pytest.mark.parametrize('size', [32, 48, 16])
def test_a_size_that_was_chosen_is(monkeypatch, tmp_path, vit_of_48, size):
    variables = start_training(monkeypatch, tmp_path, 'vit_micro', str(vit_of_48), image_size=size)
    positions = variables['params/backbone/position_embedding']
    assert positions.shape == (1, 1 + (size // 4) ** 2, 96)
    expected, _ = backbones.load_weights('vit_micro', vit_of_48, image_size=size)
    np.testing.assert_array_equal(positions, expected['params']['position_embedding'])


def test_bundled_weights_need_no_size(monkeypatch, tmp_path, said):
    for name in ('resnet_micro', 'vit_micro'):
        variables = start_training(monkeypatch, tmp_path, name, f'bundled:{name}')
        assert not any((leaf == 7).all() for path, leaf in variables.items() if '/backbone/' in path)
    assert not said


# --- Neck and head. ---------------------------------------------------------------------------------------------------


def dense_start(monkeypatch, directory: Path, classes: int = 6, **changes) -> dict:
    """The variables with which a detector's training begins; where nothing is loaded they are all 7."""
    data = make_dense('detection')
    truth = dataclasses.replace(data.truth, classes=np.minimum(data.truth.classes, classes - 1))
    data = dataclasses.replace(data, truth=truth, classes=data.classes[:classes])
    session = Session(dense_config('detection', 'resnet_micro', **changes), data, directory)
    sevens = jax.tree.map(lambda each: np.full(each.shape, 7, each.dtype), session.programs.abstract_variables)
    monkeypatch.setattr(session.programs, 'init', lambda key: sevens)
    return flatten_dict(session._initial_variables(), sep='/')


@pytest.fixture
def whole(monkeypatch, tmp_path) -> str:
    """A file of a detector, all of whose values are 0.5."""
    variables = dense_start(monkeypatch, tmp_path)
    halves = {path: np.full(leaf.shape, 0.5, leaf.dtype) for path, leaf in variables.items()}
    return written(tmp_path / 'whole.safetensors', halves)


@pytest.mark.parametrize(
    ('parts', 'taken', 'told'),
    [
        ('backbone', {'backbone'}, 'backbone; random: neck, head (--config.weights_parts)'),
        ('neck', {'backbone', 'neck'}, 'backbone, neck; random: head (--config.weights_parts)'),
        ('all', {'backbone', 'neck', 'head'}, 'backbone, neck, head'),
    ],
)
def test_a_training_takes_the_parts_that_it_is_asked_to(monkeypatch, tmp_path, whole, said, parts, taken, told):
    variables = dense_start(monkeypatch, tmp_path, weights=whole, weights_parts=parts)
    assert {path.split('/')[1] for path, leaf in variables.items() if (leaf == 0.5).all()} == taken
    assert {path.split('/')[1] for path, leaf in variables.items() if (leaf == 7).all()} == {
        'backbone', 'neck', 'head'
    } - taken  # fmt: skip
    assert said == [f'{whole}: {told}']


def test_a_head_of_other_classes_is_taken_where_it_fits(monkeypatch, tmp_path, whole, said):
    values = {'weights': whole, 'weights_parts': 'all'}
    with pytest.raises(UserError, match=r'its head has 6 classes: .*--config\.strict_weights=False'):
        dense_start(monkeypatch, tmp_path, classes=2, **values)
    variables = dense_start(monkeypatch, tmp_path, classes=2, **values, strict_weights=False)
    random = {path for path, leaf in variables.items() if (leaf == 7).all()}
    assert random == {'params/head/class_logits/bias', 'params/head/class_logits/kernel'}
    assert 'arrays of another shape in the file, so they keep their random values: 2' in said[0]


# --- Weights that do not fit. -----------------------------------------------------------------------------------------


@pytest.fixture
def partly(tmp_path, resnet) -> str:
    """A file that lacks an array, has one of another shape, and one too many."""
    arrays = {path: leaf for path, leaf in resnet.items() if path != KERNEL}
    other = 'params/backbone/stage3/block1/norm1/scale'
    extra = {'params/backbone/stage9/kernel': np.ones(3, np.float32), other: np.ones(5, np.float32)}
    return written(tmp_path / 'partly.safetensors', arrays | extra)


SAID = (
    'arrays missing from the file, so they keep their random values: 1 (params/backbone/stage2/block1/conv1/kernel)',
    'arrays of another shape in the file, so they keep their random values: 1 '
    '(params/backbone/stage3/block1/norm1/scale)',
    'arrays in the file and not in the model, so they are not used: 1 (params/backbone/stage9/kernel)',
)


def test_strict_is_the_default(monkeypatch, tmp_path, partly):
    with pytest.raises(UserError, match=r'partly\.safetensors does not fit resnet_micro'):
        start_training(monkeypatch, tmp_path, 'resnet_micro', partly, image_size=8)
    with pytest.raises(UserError, match=r'partly\.safetensors does not fit resnet_micro'):
        start_ablation(tmp_path / 'ablation', f'resnet_micro@{partly}')


def test_a_lenient_training_says_what_stays_random(monkeypatch, tmp_path, partly, resnet, said):
    variables = start_training(monkeypatch, tmp_path, 'resnet_micro', partly, image_size=8, strict_weights=False)
    random = {path for path, leaf in variables.items() if '/backbone/' in path and (leaf == 7).all()}
    assert random == {KERNEL, 'params/backbone/stage3/block1/norm1/scale'}
    stem = 'params/backbone/stem_conv/kernel'
    np.testing.assert_array_equal(variables[stem], resnet[stem])
    assert re.match(r'strict_weights=False: .*partly\.safetensors does not fit resnet_micro', said[0])
    assert said[1:] == [f'strict_weights=False: {line}' for line in SAID]


def test_a_lenient_ablation_passes_its_checks(tmp_path, partly, said):
    with pytest.raises(UserError, match=r'partly\.safetensors does not fit resnet_micro'):
        check_ablation(tmp_path / 'ablation', f'resnet_micro@{partly}')
    assert not said
    check_ablation(tmp_path / 'ablation', f'resnet_micro@{partly}', strict_weights=False)
    assert said[1:] == [f'strict_weights=False: {line}' for line in SAID]


@pytest.mark.parametrize('strict', [True, False])
def test_what_a_reader_warns_of_is_said_whether_strict_or_not(monkeypatch, said, strict):
    read = backbones.load_weights

    def load_weights(*arguments, **options):
        warnings.warn('mean and std are taken to be those of resnet_micro', stacklevel=1)
        return read(*arguments, **options)

    monkeypatch.setattr(backbones, 'load_weights', load_weights)
    starting_weights.load('resnet_micro', 'bundled:resnet_micro', (32, 32), size_is_chosen=False, strict=strict)
    assert said == ['mean and std are taken to be those of resnet_micro']


def test_what_libraries_tell_programmers_stays_a_warning(monkeypatch, said):
    read = backbones.load_weights

    def load_weights(*arguments, **options):
        warnings.warn('soon another name', DeprecationWarning, stacklevel=1)
        return read(*arguments, **options)

    monkeypatch.setattr(backbones, 'load_weights', load_weights)
    with pytest.warns(DeprecationWarning, match='soon another name'):
        starting_weights.load('resnet_micro', 'bundled:resnet_micro', (32, 32), size_is_chosen=False, strict=True)
    assert not said


def test_a_lenient_pass_says_it_too_and_is_always_the_same(tmp_path, partly, resnet, said):
    preprocessing = backbones.preprocess('resnet_micro').replace(size=8)
    made = network.make_network('resnet_micro', preprocessing, 'float32', 4, mesh.make())
    calls = []

    def init(key):
        calls.append(jax.random.key_data(key).tolist())
        return jax.tree.map(lambda leaf: np.full(leaf.shape, 7, np.float32), made.shapes)

    made.__dict__['_init'] = init
    loaded = flatten_dict(made.load(partly, size_is_chosen=True, strict=False), sep='/')
    assert loaded.keys() == flatten_dict(made.shapes, sep='/').keys()
    assert {path for path, leaf in loaded.items() if (leaf == 7).all()} == {
        path.replace('/backbone/', '/') for path in (KERNEL, 'params/backbone/stage3/block1/norm1/scale')
    }
    assert said[1:] == [f'strict_weights=False: {line}' for line in SAID]
    made.load(partly, size_is_chosen=True, strict=False)
    assert calls == [[0, 0]] * 2
    made.load('bundled:resnet_micro', size_is_chosen=True, strict=False)
    assert len(calls) == 2


def test_a_lenient_size_is_said(vit_of_48, said):
    starting_weights.load('vit_micro', str(vit_of_48), (32, 32), size_is_chosen=False, strict=False)
    assert [line.partition(' where')[0] for line in said] == [
        f'strict_weights=False: {vit_of_48}: its positions are a grid of 12x12, for images of 48 pixels'
    ]


def test_windows_that_nobody_chose_are_not_resampled_without_a_word(monkeypatch):
    path = 'params/backbone/stage1/block1/attention/relative_position_bias_table'
    report = types.SimpleNamespace(reshaped=[(path, (529, 3), (169, 3))], missing=(), misfit=(), unexpected=())
    monkeypatch.setattr(backbones, 'load_weights', lambda *_, **__: ({}, report))
    arguments = 'swin_tiny', 'swin.pth', (224, 224)
    message = r'swin\.pth: its relative positions are those of windows of 12x12 .* set it \(--config\.image_size=224\)'
    with pytest.raises(UserError, match=message):
        starting_weights.load(*arguments, size_is_chosen=False, strict=True)
    assert starting_weights.load(*arguments, size_is_chosen=True, strict=True) == {}


def test_finished_cells_depend_on_it_where_weights_are_loaded(tmp_path):
    config = work_directories.as_read_back(make_config().to_dict())
    for regime in ('knn', 'finetune'):
        dependent = Cell('digits', Variant('vit_micro', 'x.pth'), regime, 1.0, 0)
        assert growth.dependencies(dependent, config)['strict_weights'] is True
        changed = make_config(strict_weights=False).to_dict()
        rows = [make_row(cell=dependent, config=config)]
        with pytest.raises(UserError, match='depends on strict_weights, which is True there and False here'):
            growth.check(tmp_path, changed, rows)
        # A row of a version without the key was read strictly.
        older = {key: value for key, value in config.items() if key != 'strict_weights'}
        growth.check(tmp_path, config, [make_row(cell=dependent, config=older)])
    for weights, regime in (('random', 'knn'), ('random', 'scratch')):
        cell = Cell('digits', Variant('vit_micro', weights), regime, 1.0, 0)
        assert 'strict_weights' not in growth.dependencies(cell, config)


def test_a_training_of_an_ablation_gets_what_its_cells_share(tmp_path):
    """All keys that help says are the ablation's own, and no others."""
    cell = Cell('digits', Variant('vit_micro', 'bundled:vit_micro'), 'finetune', 1.0, 0)
    shared = {
        'strict_weights': False, 'image_size': 24, 'bad_files_limit': 0, 'stored_size': 24, 'fit': 'squash',
        'layout': 'classes', 'exclude': 'b', 'background': 'black', 'group': 'g', 'drop_duplicates': True,
        'image_height': 16, 'ignore_label': 11, 'class_names': 'a,b', 'bad_boxes_limit': 0.1,
        'shots': 2, 'text_length': 32, 'text_column': 't', 'label_column': 'l', 'split_column': 's',
    }  # fmt: skip
    meanings = {key: cells.KEYS[f'training.{key}'].meaning for key in default_config() if key != 'mesh'}
    told = {key for key, text in meanings.items() if text.endswith(f"; not read here: the ablation's own {key} holds")}
    assert told == shared.keys()
    config = make_config(**shared)
    made = Engine(config, tmp_path, make_dataset)._configs.training(cell, 1e-3)
    assert {key: made[key] for key in shared} == shared
    # What each cell sets is said of exactly the other keys that a training has otherwise than ``config.training``.
    config.update_from_flattened_dict(
        {'training.seed': 7, 'training.fraction': 0.1, 'training.learning_rate': 5.0, 'training.head': 'fcn'}
    )
    made = Engine(config, tmp_path, make_dataset)._configs.training(cell, 1e-3)
    differing = {key for key in meanings if made[key] != config.training[key]} - shared.keys()
    assert differing == {key for key, text in meanings.items() if text.endswith('; not read here: each cell sets it')}
    assert not any(f'training.{key}' in growth.dependencies(cell, config.to_dict()) for key in {*shared, *differing})


# --- One network of a file that holds several. ------------------------------------------------------------------------


def test_a_part_of_a_file_is_named_in_a_config(monkeypatch, tmp_path, resnet):
    teacher = {f'teacher.{path}': leaf for path, leaf in resnet.items()}
    student = {f'student.{path}': 2 * leaf for path, leaf in resnet.items()}
    file = written(tmp_path / 'both.safetensors', teacher | student)
    with pytest.raises(
        UserError, match=r"several networks that could be resnet_micro: 'student' .*both.safetensors#stu"
    ):
        start_training(monkeypatch, tmp_path, 'resnet_micro', file, image_size=8)
    variables = start_training(monkeypatch, tmp_path, 'resnet_micro', f'{file}#teacher', image_size=8)
    np.testing.assert_array_equal(variables[KERNEL], resnet[KERNEL])
    (variant,) = {cell.variant for cell in cells.plan(make_config(backbones=(f'resnet_micro@{file}#student',)))} - {
        Variant('resnet_micro', 'random')
    }
    assert variant == Variant('resnet_micro', f'{file}#student')
    assert growth.weights_digest(variant) == growth.weights_digest(Variant('resnet_micro', file))
    loaded = starting_weights.load('resnet_micro', variant.weights, (32, 32), size_is_chosen=False, strict=True)
    kernel = loaded['params']['stage2']['block1']['conv1']['kernel']
    np.testing.assert_array_equal(kernel, 2 * resnet[KERNEL])
