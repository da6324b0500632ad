"""Ablations of dense tasks: cells over backbones, heads and regimes, tables with intervals over seeds and images."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_rows import make_row
from scipy import stats
from tiny_dense import make_dense

from backbones import UserError
from experiments import tasks
from experiments.ablation import cells, dependencies, estimate, left_out
from experiments.ablation.cells import Cell, Variant
from experiments.ablation.engine import Engine
from experiments.cli import command_line
from experiments.commands import report, train
from experiments.results import aggregates, rows, scores, tables

CONFIG = Path(__file__).parents[2] / 'configs' / 'ablations' / 'dense.py'


def make_config(task: str, **changes):
    """Two seeds of a matched pair, frozen and random."""
    config = cells.default_config()
    config.backbones = ('vit_micro@bundled:vit_micro', 'vit_micro@random')
    config.datasets, config.regimes, config.seeds = ('shapes',), ('frozen',), (0, 1)
    config.image_size = 32
    training = config.training
    training.task = task
    training.strides, training.neck_channels, training.head_channels = (4, 8), 16, 16
    if task == 'detection':
        training.head_depth = 1
    training.batch_size, training.epochs, training.warmup_epochs, training.threads = 8, 1.0, 0.0, 1
    config.training_learning_rates, config.training_extra_learning_rates = (3e-3,), 0
    for key, value in changes.items():
        config[key] = value
    return config


class TestPlan:
    def test_heads_are_an_axis(self):
        planned = cells.plan(make_config('detection', heads=('fcos', 'retinanet'), seeds=(0,)))
        assert [(cell.head, cell.variant.weights) for cell in planned] == [
            ('fcos', 'bundled:vit_micro'),
            ('retinanet', 'bundled:vit_micro'),
            ('fcos', 'random'),
            ('retinanet', 'random'),
        ]
        assert len({cell.key() for cell in planned}) == 4
        assert Cell.from_json(json.loads(json.dumps(planned[1].as_json()))) == planned[1]

    @pytest.mark.parametrize(
        ('arguments', 'count'),
        [('', 4), pytest.param(':task=detection,heads=fcos,retinanet', 8, marks=pytest.mark.exhaustive)],
    )
    def test_the_config_of_dense_tasks_spans_its_cells(self, tmp_path, arguments, count):
        config = command_line.load_config(f'{CONFIG}{arguments}')
        planned = cells.plan(config)
        assert len(planned) == count
        of_one = [cell for cell in planned if cell.variant == Variant('vit_micro', 'random')]
        Engine(config, tmp_path, lambda name: make_dense(config.training.task)).check_without_data(of_one)

    def test_the_usual_head_has_its_name(self):
        assert {cell.head for cell in cells.plan(make_config('segmentation'))} == {'fcn'}

    def test_every_head_takes_the_values_that_all_share(self, tmp_path):
        heads = tuple(tasks.find('segmentation').heads)
        config = make_config('segmentation', heads=heads, backbones=('vit_micro@random',), seeds=(0,))
        Engine(config, tmp_path, lambda name: make_dense('segmentation')).check_without_data(cells.plan(config))

    def test_a_head_that_cannot_be_made_is_named_before_the_data_are_read(self, tmp_path):
        config = make_config('segmentation', heads=('fcn', 'linear'), seeds=(0,))
        config.training.auxiliary_head = True
        with pytest.raises(UserError, match=r"'training\.auxiliary_head' is True, but the head 'linear' has none"):
            Engine(config, tmp_path, lambda name: make_dense('segmentation')).check_without_data(cells.plan(config))

    @pytest.mark.parametrize(
        ('changes', 'message'),
        [
            ({'strides': (32, 64)}, "config key 'training.strides' is (32, 64), but the input has 32x32 pixels"),
            ({'neck': 'none'}, "config key 'training.strides' is (4, 8), but the neck is 'none'"),
            ({'largest_scale': 0.5}, 'config key training.smallest_scale is 1.0, more than largest_scale, 0.5'),
            ({'dice': -1.0}, "config key 'training.dice' must not be negative"),
            ({'mixup': 0.1}, "config key 'training.mixup' is 0.1, but it is only for classification"),
            ({'output_stride': 8}, "config key 'training.output_stride' is 8, but the backbone vit_micro"),
        ],
    )
    def test_a_key_of_the_trainings_is_named_as_the_ablation_has_it(self, tmp_path, changes, message):
        config = make_config('segmentation', seeds=(0,))
        config.training.update(changes)
        with pytest.raises(UserError) as refused:
            Engine(config, tmp_path, lambda name: make_dense('segmentation')).check_without_data(cells.plan(config))
        assert message in str(refused.value)

    @pytest.mark.parametrize('regime', ['frozen', 'linear'])
    def test_a_size_that_a_backbone_does_not_take_is_a_key_of_the_ablation(self, tmp_path, regime):
        config = make_config('classification' if regime == 'linear' else 'segmentation', regimes=(regime,), seeds=(0,))
        config.image_size = 33
        config.training.strides, config.training.neck_channels, config.training.head_channels = (), 0, 0
        with pytest.raises(UserError, match=r'of 4; set --config\.image_size=32 or --config\.image_size=36$'):
            Engine(config, tmp_path, lambda name: make_dense('segmentation')).check_without_data(cells.plan(config))

    @pytest.mark.parametrize('task', ['classification', 'segmentation', 'detection'])
    def test_a_training_is_the_cell_that_an_ablation_would_have(self, task):
        """So that a report of both has them on one line, and two heads on two."""
        config = make_config(task, regimes=('finetune',), fractions=(0.5,), seeds=(3,), datasets=('shapes',))
        (cell,) = cells.plan(config)
        training = config.training.copy_and_resolve_references()
        training.update(dependencies.training_values(cell, config, 1e-3))
        assert train._cell(training) == cell
        training.head = ''
        assert train._cell(training) == cell

    def test_random_weights_stay_frozen_and_scratch_trains_them(self):
        config = make_config('segmentation', regimes=('frozen', 'finetune', 'scratch'), seeds=(0,))
        planned = {(cell.regime, cell.variant.weights) for cell in cells.plan(config)}
        assert planned == {
            ('frozen', 'bundled:vit_micro'),
            ('frozen', 'random'),
            ('finetune', 'bundled:vit_micro'),
            ('scratch', 'random'),
        }
        values = {
            cell.regime: dependencies.training_values(cell, config, 1e-3)['weights']
            for cell in cells.plan(config)
            if cell.variant.weights == 'random'
        }
        assert values == {'frozen': 'random', 'scratch': ''}

    @pytest.mark.parametrize(
        ('task', 'changes', 'message'),
        [
            ('detection', {'regimes': ('linear',)}, "the task is detection; use 'frozen', which trains neck and head"),
            ('detection', {'heads': ('fcn',)}, "unknown detection head 'fcn'"),
            ('detection', {'image_size': 0, 'image_height': 32}, 'image_height is 32, but image_size, the width, is 0'),
            ('classification', {'heads': ('fcn',)}, 'there is no choice of heads for classification'),
            (
                'segmentation',
                {'datasets': ('digits',)},
                "'digits' has a class for each image, but the task needs masks",
            ),
        ],
    )
    def test_what_does_not_fit_is_refused(self, task, changes, message):
        with pytest.raises(UserError) as refused:
            cells.plan(make_config(task, **changes))
        assert message in str(refused.value)

    def test_a_label_fraction_counts_images(self):
        assert not left_out.too_small(make_dense('detection'), (0.5,))


def test_the_plan_knows_what_each_head_costs():
    config = make_config('segmentation', heads=('linear', 'upernet', ''), seeds=(0,))
    data = make_dense('segmentation')
    network = estimate._network(Variant('vit_micro', 'random'), data, config)
    assert 0 < network.rest['linear'] < network.rest['fcn'] < network.rest['upernet']
    cheap, dear = (
        estimate._trained_flops([cell], network, data, config)
        for cell in cells.plan(config)
        if cell.variant.weights == 'random' and cell.head in ('linear', 'upernet')
    )
    train, validation = len(data.splits['train']), len(data.splits['validation'])
    # The frozen backbone costs the same with either.
    assert dear - cheap == (3 * train + validation) * (network.rest['upernet'] - network.rest['linear'])


def run(tmp_path, task: str, **changes):
    config = make_config(task, **changes)
    data = make_dense(task, splits=(16, 8, 12))
    Engine(config, tmp_path, lambda name: data).run(cells.plan(config))
    return rows.read(tmp_path), data


@pytest.fixture(scope='module')
def segmented(tmp_path_factory):
    workdir = tmp_path_factory.mktemp('segmented')
    return workdir, *run(workdir, 'segmentation')


def test_every_cell_has_a_row_with_every_metric(segmented):
    _, found, _ = segmented
    assert [(row.cell.variant, row.cell.seed) for row in found] == [
        (Variant('vit_micro', weights), seed) for weights in ('bundled:vit_micro', 'random') for seed in (0, 1)
    ]
    for row in found:
        assert (row.task, row.primary) == ('segmentation', 'mIoU')
        assert {'mIoU', 'pixel_accuracy', 'IoU/background'} <= row.test.keys()
        assert row.costs['trainable_parameters'] > 0
        assert row.depends_on_seed
        assert row.data['test_examples'] == 12
        # Nothing of the other cells: a row is the same in an ablation with other axes.
        assert not {'backbones', 'datasets', 'regimes', 'heads', 'fractions', 'seeds'} & row.config.keys()


def test_the_kept_scores_give_the_metric_and_its_interval(segmented):
    workdir, found, _ = segmented
    for row in found:
        kept = scores.read(workdir / row.predictions)
        assert kept.correct is None
        assert kept.resampled is not None
        assert kept.resampled.shape == (scores.SAMPLES,)
        low, high = np.quantile(kept.resampled, [0.001, 0.999])
        assert low <= row.score <= high
        with np.load(workdir / row.predictions) as arrays:
            summed = arrays['confusion'].sum(0)
        right, union = np.diag(summed), summed.sum(0) + summed.sum(1) - np.diag(summed)
        assert row.score == pytest.approx((right[union > 0] / union[union > 0]).mean(), abs=1e-12)


def test_the_table_has_intervals_other_metrics_and_classes(segmented):
    workdir, _, data = segmented
    view = tables.view(aggregates.load(workdir), 'shapes')
    assert view.header[:4] == ['backbone', 'weights', 'head', 'regime']
    assert {'val − test', 'worst IoU'} <= {*view.header}
    text = tables.markdown(view)
    assert all(each.low < each.mean < each.high for each in view.aggregates)
    assert 'and test images (from 1,000 bootstrap samples)' in text
    assert 'Test split: further metrics, in per cent' in text
    assert '| pixel accuracy |' in text
    assert 'Test split: IoU of each class, in per cent' in text
    for name in data.classes:
        assert f'| {name} ' in text or f' {name} |' in text
    report.write([workdir], workdir)
    assert (workdir / 'table.md').read_text().startswith('### shapes')
    assert 'fcn' in (workdir / 'table.csv').read_text()


@pytest.mark.slow
def test_detection_from_config_to_table(tmp_path):
    found, data = run(tmp_path, 'detection', heads=('fcos', 'retinanet'), seeds=(0,))
    assert [row.cell.head for row in found] == ['fcos', 'retinanet'] * 2
    for row in found:
        assert {'AP', 'AP50', 'AP75', 'AP_small'} <= row.test.keys()
        with np.load(tmp_path / row.predictions) as arrays:
            assert arrays['boxes'].shape == (12, 100, 4)
            np.testing.assert_array_equal(arrays['truth_boxes'], data.truth.boxes[data.splits['test']])
    text = tables.markdown(tables.view(aggregates.load(tmp_path), 'shapes'))
    assert 'retinanet' in text
    assert 'AP50' in text
    # A rerun finds every cell finished.
    Engine(make_config('detection', heads=('fcos', 'retinanet'), seeds=(0,)), tmp_path, lambda name: data).run(
        cells.plan(make_config('detection', heads=('fcos', 'retinanet'), seeds=(0,)))
    )
    assert rows.read(tmp_path) == found


@pytest.mark.parametrize('other', [('a', 'b', 'd'), ('a', 'c', 'b'), ('a', 'b')])
def test_samples_of_other_images_are_not_paired(tmp_path, other):
    """Of two seeds, one could not read every image, or has them in another order."""
    (first, second) = (
        make_row(seed=seed, primary='mIoU', test={'mIoU': score}, validation={'mIoU': 0.5})
        for seed, score in enumerate((0.5, 0.52))
    )
    for row, ids in ((first, ('a', 'b', 'c')), (second, other)):
        matrices = {'confusion': np.ones((len(ids), 2, 2), np.int32)}
        scores.write(tmp_path / row.predictions, ids, np.zeros(len(ids), int), matrices, np.full(1000, 0.5))
    rows.write(tmp_path, [first, second])
    (found,) = aggregates.load(tmp_path)
    assert found.resampled is None
    assert (found.varies_over_seeds, found.varies_over_images) == (True, False)
    expected = stats.t.interval(0.95, 1, 0.51, 0.01)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.005)  # Wilson's bounds are nearer to 0.5
    assert 'over 2 seeds (training subset, batch order, random weights) alone where single images are unknown' in (
        tables.view([found], 'digits').note()
    )
    rows.write(tmp_path, [first])
    (found,) = aggregates.load(tmp_path)
    assert (found.varies_over_seeds, found.varies_over_images) == (False, True)


def test_differences_over_images_mark_the_best():
    """The paired bootstrap tells apart what differs on the same resampled images, and nothing that does not."""
    generator = np.random.default_rng(0)
    shared = generator.normal(0.5, 0.05, 1000)
    near = shared + generator.normal(0, 0.01, 1000)
    far = shared - 0.1 + generator.normal(0, 0.01, 1000)

    def aggregate(score: float, samples) -> aggregates.Aggregate:
        return aggregates.Aggregate(
            variant=Variant('resnet_micro', str(score)),
            regime='frozen',
            dataset='shapes',
            fraction=1.0,
            metric='mIoU',
            scores=(score, score + 0.001, score - 0.001),
            correct=None,
            examples=np.arange(12),
            costs={},
            data={},
            resampled=np.stack([samples] * 3),
        )

    best, rival, worse = aggregate(0.51, near), aggregate(0.5, shared), aggregate(0.4, far)
    assert not any(each.best for each in aggregates._marked([best, rival]))
    assert [each.best for each in aggregates._marked([worse, best])] == [False, True]


def test_a_fraction_that_leaves_no_image_is_left_out():
    data = make_dense('detection')
    assert left_out.too_small(data, (0.01, 0.5)) == {
        0.01: "label fraction 0.01 of 'shapes' is left out: it has 16 training images, and keeps none of them; the "
        'smallest that works is 0.032 (--config.fractions)'
    }
