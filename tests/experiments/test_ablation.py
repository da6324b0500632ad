"""The ablation engine from config to table, on made-up data."""

import dataclasses
import json
import re
import shutil
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import make_config, make_dataset

import backbones
from backbones import UserError, cost
from experiments import ablate
from experiments.ablation import cells, estimate, left_out
from experiments.ablation.cells import Cell, Variant
from experiments.ablation.engine import Engine
from experiments.cli import atomic_files, versions
from experiments.cli.exit_status import Preempted
from experiments.commands import report
from experiments.data import loading
from experiments.features.extractor import Extractor
from experiments.features.frozen_backbone import FrozenBackbone
from experiments.features.store import Store
from experiments.results import aggregates, tables


def run(config, workdir, store=None) -> Engine:
    made = make_dataset('digits')
    runner = Engine(config, workdir, lambda name: made, store)
    runner.run(cells.plan(config))
    return runner


def metrics(workdir) -> list:
    return [(row['cell'], row['metrics']) for row in atomic_files.read_jsonl(workdir / 'results.jsonl')]


# Two fractions and two seeds.
FINISHED = make_config(backbones=('resnet_micro@random', 'pixels'), regimes=('linear', 'knn'))


@pytest.fixture(scope='module')
def finished(tmp_path_factory) -> tuple[Path, list]:
    """The work directory of ``FINISHED``, and which backbones were asked for their features on the way."""
    workdir, passes = tmp_path_factory.mktemp('finished'), []
    with pytest.MonkeyPatch.context() as patched:
        spied = _spy(Extractor.__call__, lambda backbone, dataset: passes.append(backbone))
        patched.setattr(Extractor, '__call__', spied)
        run(FINISHED, workdir)
    return workdir, passes


# One fraction of every regime, training included.
ALL_REGIMES = make_config(
    backbones=('resnet_micro@random', 'pixels'),
    regimes=('linear', 'knn', 'ridge', 'scratch'),
    runtime='xla',  # whose compiler reports memory
    fractions=(1.0,),
    seeds=(0,),
)


@pytest.fixture(scope='module')
def all_regimes(tmp_path_factory) -> Path:
    """The work directory of ``ALL_REGIMES``."""
    workdir = tmp_path_factory.mktemp('regimes')
    run(ALL_REGIMES, workdir)
    return workdir


class TestPlan:
    def test_axes_span_all_cells(self):
        config = make_config()
        planned = cells.plan(config)
        assert len(planned) == len(set(planned)) == 3 * 2 * 2 * 2
        assert planned[0] == Cell('digits', Variant('resnet_micro', 'random'), 'linear', 0.5, 0)

    def test_scratch_is_one_cell_per_backbone_and_finetune_needs_weights(self):
        config = make_config(
            backbones=('resnet_micro@random', 'resnet_micro@w.safetensors', 'pixels'),
            regimes=('scratch', 'finetune'),
            fractions=(1.0,),
            seeds=(0,),
        )
        assert {(cell.regime, cell.variant.weights) for cell in cells.plan(config)} == {
            ('scratch', 'random'),
            ('finetune', 'w.safetensors'),
        }

    @pytest.mark.parametrize(
        ('changes', 'message'),
        [
            ({'backbones': ('resnet_mikro@random',)}, "unknown backbone 'resnet_mikro'; did you mean 'resnet_micro'"),
            ({'backbones': ('yolo11n',)}, r'no published weights are known for yolo11n; say yolo11n@FILE'),
            ({'regimes': ('liner',)}, "unknown regime 'liner'; did you mean 'linear'"),
            ({'datasets': ('digit',)}, "unknown data set 'digit'; did you mean 'digits'"),
            ({'fractions': (0.0,)}, r'label fractions lie in \(0, 1\], not 0.0'),
            ({'fractions': (1.5,)}, r'label fractions lie in \(0, 1\], not 1.5'),
            ({'seeds': ()}, "'seeds' is empty"),
            ({'seeds': (0, -1)}, "'seeds' must lie between 0 and 4294967295, not -1"),
            ({'seeds': (1 << 70,)}, "'seeds' must lie between 0 and 4294967295"),
            ({'seeds': (0.5,)}, "'seeds' must lie between 0 and 4294967295, not 0.5"),
            ({'stored_size': 0}, "'stored_size' must be positive, not 0"),
            ({'batch_size': 0}, "'batch_size' must be positive, not 0"),
            ({'stored_size': 0}, "'stored_size' must be positive, not 0"),
            ({'fit': 'nonsense'}, "unknown fit 'nonsense'"),
            ({'backbones': ('pixels',), 'regimes': ('scratch',)}, 'the axes span no cell'),
        ],
    )
    def test_bad_axes_are_one_line(self, changes, message):
        with pytest.raises(UserError, match=message):
            cells.plan(make_config(**changes))

    def test_published_weights_are_the_default(self):
        assert cells.parse_variant('efficientnet_lite0') == Variant('efficientnet_lite0', 'pip:efficientnet-lite0')
        assert cells.parse_variant('vit_micro@a@b.pth') == Variant('vit_micro', 'a@b.pth')

    def test_a_training_names_its_weights_once(self):
        random = Variant('text_micro', 'random')
        assert cells.trained_variant('text_micro@random', '', 'linear') == random
        assert cells.trained_variant('text_micro', 'random', 'linear') == random
        assert cells.trained_variant('text_micro', '', 'scratch') == Variant('text_micro', '')
        for backbone, weights, regime, message in (
            ('text_micro', '', 'linear', 'say text_micro@FILE, or text_micro@random'),
            ('text_micro@random', 'a.pth', 'linear', 'names weights, and so does weights=a.pth'),
            ('text_micro@random', '', 'scratch', 'begins with random weights; leave out'),
            ('text_micro', 'a.pth', 'scratch', 'begins with random weights; leave out'),
        ):
            with pytest.raises(UserError, match=message):
                cells.trained_variant(backbone, weights, regime)

    def test_cells_survive_json(self):
        cell = Cell('digits', Variant('vit_micro', 'random'), 'knn', 0.5, 3)
        assert Cell.from_json(json.loads(json.dumps(cell.as_json()))) == cell


def planned(config, dataset, is_stored=lambda cell, dataset: False) -> tuple[list[dict[str, str]], str]:
    """The rows of a plan, by column, and its caption."""
    pending = cells.plan(config)
    table = estimate.table(pending, len(pending), config, lambda name: dataset, is_stored)
    columns = {column.header: list(column.cells) for column in table.columns}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return rows, table.caption


class TestEstimate:
    @pytest.fixture(autouse=True)
    def speed(self, monkeypatch):
        monkeypatch.setattr(estimate, 'measured_speed', lambda: 1e10)

    def test_large_images_are_as_many_pixels_as_their_pass_gives(self):
        """256 x 256 x 3 values are stored, but the heads see 32 x 32 x 3."""
        config = make_config(backbones=('pixels',), regimes=('linear', 'ridge', 'knn'), fractions=(1.0,))
        found = [
            estimate._heads(cells.plan(config), estimate._network(Variant('pixels', ''), data, config), data, config)
            for data in (make_dataset('digits', size=side, channels=3) for side in (32, 64))
        ]
        assert found[0] == found[1]

    def test_what_is_stored_costs_nothing(self):
        config = make_config(backbones=('vit_micro@random', 'pixels'), regimes=('knn',), fractions=(1.0,))
        config.image_size = 32
        data = make_dataset('digits', examples=2000)
        (vit, pixels), caption = planned(config, data)
        assert (vit['passes'], pixels['passes']) == ('2', '1')
        assert 'stored' not in caption
        (one, _), _ = planned(config, data, lambda cell, dataset: cell.seed == 1)
        (none, kept), caption = planned(config, data, lambda cell, dataset: True)
        assert (one['passes'], none['passes'], kept['passes']) == ('1 + 1 stored', 'stored', 'stored')
        seconds = [int(row['about'].removesuffix(' s')) for row in (vit, one, none)]
        assert seconds[0] > seconds[1] > seconds[2]
        assert '; stored: the features are there, and the backbone need not run' in caption

    @pytest.mark.parametrize(
        'backbone',
        [
            FrozenBackbone('pixels'),
            FrozenBackbone('vit_micro', 'bundled:vit_micro'),
            pytest.param(FrozenBackbone('vit_micro', 'random', 0), marks=pytest.mark.slow),
        ],
        ids=lambda each: each.label,
    )
    def test_the_store_is_asked(self, tmp_path, backbone):
        name = f'{backbone.name}@{backbone.weights}' if backbone.weights else backbone.name
        config = make_config(backbones=(name,), regimes=('knn',), fractions=(1.0,), seeds=(0,))
        store, data = Store(tmp_path / 'store'), make_dataset('digits')
        runner = Engine(config, tmp_path / 'one', lambda name: data, store)
        runner.check_without_data(cells.plan(config))
        (cell,) = cells.plan(config)
        assert not runner.is_stored(cell, data)
        runner.run(cells.plan(config))
        again = Engine(config, tmp_path / 'other', lambda name: data, store)
        again.check_without_data(cells.plan(config))
        assert again.is_stored(cell, data)
        assert not again.is_stored(cell, make_dataset('digits', seed=1))
        if backbone.weights == 'random':
            assert not again.is_stored(dataclasses.replace(cell, seed=1), data)

    def test_evaluations_and_the_first_phase_count(self):
        config = make_config(backbones=('vit_micro',), regimes=('finetune', 'lpft'), fractions=(1.0,), seeds=(0,))
        data = make_dataset('digits')
        network = estimate._Network(flops=1.0, features=1)
        finetune, lpft = (estimate._trained_flops([cell], network, data, config) for cell in cells.plan(config))
        train, validation = len(data.splits['train']), len(data.splits['validation'])
        assert finetune == 3 * train + validation
        assert lpft == (3 + 5) * train + (1 + 5) * validation


class TestRun:
    def test_all_regimes_end_in_results_predictions_and_report(self, all_regimes, tmp_path, capsys):
        config = ALL_REGIMES
        rows = atomic_files.read_jsonl(all_regimes / 'results.jsonl')
        assert {Cell.from_json(row['cell']) for row in rows} == set(cells.plan(config))
        for row in rows:
            with np.load(all_regimes / row['predictions']) as predictions:
                right = predictions['predictions'] == predictions['targets']
                assert right.mean() == row['metrics']['test']['accuracy']
                assert predictions['ids'].tolist() == sorted(predictions['ids'].tolist())
                assert predictions['logits'].shape == (32, 4)
                validated = predictions['validation_predictions'] == predictions['validation_targets']
                assert validated.mean() == row['metrics']['validation']['accuracy']
            # What is fitted on the validation split is not measured on it.
            further = row['metrics']['test'].keys() - row['metrics']['validation'].keys()
            assert {'temperature', 'nll_scaled', 'ece_scaled'} <= further
            assert ('retrieval_mAP' in further) == (row['cell']['regime'] == 'knn')
            assert {'macro_f1', 'auroc'} < row['metrics']['validation'].keys() < row['metrics']['test'].keys()
            assert ('nll' in row['metrics']['test']) == (row['cell']['regime'] != 'ridge')
            assert row['data']['train_examples'] == 112
            assert row['data']['test_examples'] == 32
            assert row['versions']['jax'] == jax.__version__
            network, trained = row['cell']['backbone'] != 'pixels', row['cell']['regime'] == 'scratch'
            assert (row['costs']['weight_bytes'] >= 4 * row['costs']['parameters'] > 0) == network
            assert (row['costs']['peak_memory_bytes'] is not None) == (network and not trained)
        by_regime = {(row['cell']['backbone'], row['cell']['regime']): row for row in rows}
        assert by_regime['pixels', 'linear']['metrics']['test']['accuracy'] > 0.9
        assert by_regime['pixels', 'linear']['costs']['trainable_parameters'] == 65 * 4
        network = backbones.info('resnet_micro')
        assert by_regime['resnet_micro', 'scratch']['costs']['trainable_parameters'] > network.params * 0.9
        assert by_regime['resnet_micro', 'knn']['costs']['trainable_parameters'] == 0
        assert by_regime['resnet_micro', 'knn']['costs']['flops_per_image'] == cost.count_flops(
            backbones.create('resnet_micro'), 16
        )
        sizes = {key: row['costs']['input'] for key, row in by_regime.items()}
        assert {sizes['resnet_micro', regime] == [16, 16] for regime in ('knn', 'scratch')} == {True}
        assert sizes['pixels', 'knn'] == [8, 8]
        assert by_regime['resnet_micro', 'scratch']['choices'] == 1
        assert by_regime['resnet_micro', 'linear']['choices'] == config.linear.values_of_c
        assert by_regime['pixels', 'knn']['depends_on_seed'] is False
        assert by_regime['resnet_micro', 'knn']['depends_on_seed'] is True
        assert by_regime['resnet_micro', 'scratch']['config']['training']['learning_rate'] == 1e-3
        assert not (all_regimes / 'features').exists()

        report.write([all_regimes], tmp_path)
        assert 'resnet_micro' in capsys.readouterr().out
        assert all((tmp_path / name).stat().st_size > 100 for name in report.FILES)

    def test_its_trainings_keep_what_whoever_loads_them_needs(self, all_regimes):
        dataset = make_dataset('digits')
        trained = sorted((all_regimes / 'trainings').glob('*/0.001'))
        assert len(trained) == len(ALL_REGIMES.seeds)
        for directory in trained:
            _, report = backbones.load_weights('resnet_micro', directory, classifier=True)
            assert report.classes == dataset.classes
            assert report.preprocessing == backbones.preprocess('resnet_micro').replace(size=16, crop=1.0)
            assert report.description.head['regime'] == 'scratch'
            assert report.description.data == {'name': 'digits', 'fingerprint': dataset.fingerprint()}

    @pytest.mark.slow
    def test_same_config_and_seed_give_identical_metrics(self, all_regimes, tmp_path):
        """A cell of each regime."""
        config = make_config(
            backbones=('resnet_micro@random',), regimes=ALL_REGIMES.regimes, fractions=(1.0,), seeds=(0,),
            runtime=ALL_REGIMES.runtime,
        )  # fmt: skip
        run(config, tmp_path)
        again = metrics(tmp_path)
        assert len(again) == 4
        assert all(each in metrics(all_regimes) for each in again)

    @pytest.mark.exhaustive
    def test_same_config_and_seed_give_identical_metrics_whatever_is_stored(self, tmp_path):
        config = make_config(regimes=ALL_REGIMES.regimes, fractions=(1.0,))
        for name in ('one', 'other'):
            run(config, tmp_path / name, store=Store(tmp_path / f'store of {name}'))
        assert metrics(tmp_path / 'one') == metrics(tmp_path / 'other')

    def test_finished_cells_are_not_run_again(self, finished, tmp_path):
        config = FINISHED
        shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
        runner = Engine(config, tmp_path, lambda name: make_dataset('digits'))
        assert runner.pending(cells.plan(config)) == []
        before = (tmp_path / 'results.jsonl').read_bytes()
        assert len(before.splitlines()) == len(cells.plan(config))

        def fail(*_):
            raise AssertionError('a finished ablation reads no data')

        Engine(config, tmp_path, fail).run(cells.plan(config))
        assert (tmp_path / 'results.jsonl').read_bytes() == before

    def test_each_frozen_backbone_runs_once_per_data_set(self, finished):
        _, passes = finished
        # Random weights are drawn anew for each seed; pixels are one pass.
        assert len(passes) == len(set(passes)) == 2 + 1

    def test_error_in_one_data_set_keeps_what_is_finished(self, tmp_path):
        config = make_config(datasets=('digits', 'mnist5k'), backbones=('pixels',), regimes=('knn', 'ridge'))
        good = make_dataset('digits')

        def load(name):
            if name == 'mnist5k':
                raise UserError('gone')
            return good

        with pytest.raises(UserError, match='gone'):
            Engine(config, tmp_path, load).run(cells.plan(config))
        assert len(atomic_files.read_jsonl(tmp_path / 'results.jsonl')) == 8

    def test_fraction_without_examples_of_a_class_names_it_before_anything_runs(self, tmp_path):
        with pytest.raises(UserError, match=r'label fraction 0\.01 leaves 4 of 4 classes without a training example'):
            run(make_config(fractions=(0.01, 1.0)), tmp_path)
        assert not (tmp_path / 'results.jsonl').exists()

    def ablate(self, tmp_path, monkeypatch, *arguments):
        monkeypatch.setattr(loading, 'load', lambda name, *_, **__: make_dataset('digits'))
        config = 'configs/ablations/cnn_vs_vit.py:dataset=digits,backbones=pixels,regimes=knn'
        cache = f'--cache_dir={tmp_path / "cache"}'
        ablate.main([f'--config={config}', f'--workdir={tmp_path / "run"}', cache, *arguments])

    SENTENCE = (
        "label fraction 0.01 of 'digits' is left out: the class 'a' has the fewest training images, 28, and keeps none "
        'of them; the smallest that works is 0.018 (--config.fractions)'
    )

    def test_a_fraction_that_is_too_small_for_a_data_set_is_left_out(self, tmp_path, monkeypatch, capsys):
        self.ablate(tmp_path, monkeypatch, '--plan')
        plan = capsys.readouterr().err
        assert 'plan: 6 of 6 cells to run' in plan
        assert plan.splitlines()[-1] == self.SENTENCE
        assert not (tmp_path / 'run').exists()
        self.ablate(tmp_path, monkeypatch)
        said = capsys.readouterr()
        assert self.SENTENCE in said.err.splitlines()
        # Nothing in the report looks unfinished.
        columns = (tmp_path / 'run' / 'table.md').read_text().splitlines()[2]
        assert [word.strip() for word in columns.split('|')][4:6] == ['0.1 (12 images)', '1 (112 images)']
        # Started again, it is finished.
        self.ablate(tmp_path, monkeypatch)
        said = capsys.readouterr().err.splitlines()
        place = said.index('all 6 cells are finished')
        assert said[place + 1] == self.SENTENCE

    def test_where_no_fraction_is_left_nothing_can_be_run(self, tmp_path, monkeypatch):
        for plan in ([], ['--plan']):
            with pytest.raises(UserError, match=f'^no cell of the ablation can be run; {re.escape(self.SENTENCE)}$'):
                self.ablate(tmp_path, monkeypatch, '--config.fractions=(0.01,)', *plan)
        assert not (tmp_path / 'run').exists()

    def test_the_fraction_that_is_named_works(self):
        dataset = make_dataset('digits', examples=61)
        sentence = left_out.too_small(dataset, (0.04, 0.5))[0.04]
        smallest = float(re.search(r'the smallest that works is ([\d.]+) ', sentence)[1])
        assert len(np.unique(dataset.targets[dataset.fraction(smallest, 0)])) == 4
        assert left_out.too_small(dataset, (smallest,)) == {}
        with pytest.raises(UserError, match=f'the smallest that works is {smallest} '):
            dataset.fraction(0.04, 0)

    def test_fractions_of_groups_and_of_classes_without_images(self):
        dataset = make_dataset('digits')
        groups = np.arange(160, dtype=np.int32) % 2
        sentence = left_out.too_small(dataclasses.replace(dataset, groups=groups), (0.001,))[0.001]
        assert "the group '0' has the fewest training images, 56," in sentence
        sentence = left_out.too_small(dataclasses.replace(dataset, classes=(*'abcde',)), (1.0,))[1.0]
        assert sentence.endswith(
            "the class 'e' has the fewest training images, 0, and keeps none of them; no fraction works"
        )

    def test_weights_that_do_not_fit_name_both_shapes(self, tmp_path):
        model = backbones.create('vit_micro', channels=48)
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        backbones.save_weights(tmp_path / 'narrow.safetensors', variables)
        config = make_config(backbones=(f'vit_micro@{tmp_path / "narrow.safetensors"}',))
        with pytest.raises(UserError, match=r'class_token is \[1, 1, 48\] in the file and \[1, 1, 96\] in the model'):
            run(config, tmp_path / 'work')


def _spy(function, tell):
    def spied(self, *arguments, **keywords):
        tell(*arguments[:2])
        return function(self, *arguments, **keywords)

    return spied


class TestTables:
    def test_text_csv_and_markdown_agree(self, finished):
        entries = aggregates.load(finished[0])
        view = tables.view(entries, 'digits')
        lines = tables.markdown(view).split('\n\n')[1].splitlines()  # the main table
        rows = [line for line in lines if line.startswith('| ')][1:]
        assert len(rows) == 2 * 2
        csv_rows = tables.csv_text(entries).splitlines()
        assert len(csv_rows) == 1 + 2 * 2 * 2
        for entry in entries:
            mean = np.mean(entry.scores)
            assert any(f',{mean}' in row for row in csv_rows)
            varies = entry.depends_on_seed
            assert varies == (entry.variant.backbone != 'pixels' or entry.fraction < 1)
            assert any(f'| {100 * mean:.1f} ({100 * entry.low:.1f}–{100 * entry.high:.1f})' in row for row in rows)

    def test_best_differs_over_seeds_and_images(self):
        def entry(name, *counts, first=0):
            """For each seed, so many of 400 images are right, beginning with one."""
            correct = np.stack([np.isin(np.arange(400), np.arange(first, first + count)) for count in counts])
            scores = tuple(correct.mean(1).tolist())
            return aggregates.Aggregate(
                Variant(name, ''), 'linear', 'd', 1.0, 'accuracy', scores, correct, np.arange(400), {}, {}
            )

        def best(*entries):
            return [each.variant.backbone for each in aggregates._marked(entries) if each.best]

        good, poor = entry('good', 360, 361, 359), entry('poor', 200, 201, 199)
        assert best(good, poor) == best(poor, good) == ['good']
        # Another seed might change the order:
        assert best(entry('good', 360, 280, 396), poor) == []
        # Seeds agree, but on few images the other one is not as good:
        assert best(good, entry('close', 358, 359, 357, first=2)) == []
        # Every other one must be worse, and there must be another one:
        assert best(good, poor, entry('same', 361, 360, 359)) == []
        assert best(poor) == []
        # Nothing is known of other seeds:
        assert best(entry('good', 360), poor) == []

    def test_all_comparisons_of_a_table_are_adjusted_together(self):
        def entry(name, fraction, right):
            correct = np.arange(400)[None] < right
            return aggregates.Aggregate(
                Variant(name, ''), 'linear', 'd', fraction, 'accuracy', (right / 400,), correct, np.arange(400), {}, {},
                depends_on_seed=False,
            )  # fmt: skip

        given = [entry('a', 1.0, 300), entry('b', 1.0, 295)]
        (one, other) = aggregates._marked(given)
        alone = aggregates.p_value(*given)
        assert 0.01 < alone < 0.05
        assert (one.p_best, other.p_best, one.best, other.best) == (alone, alone, True, False)
        # In the other column are two comparisons, of which one is surer and one is not.
        more = [entry('a', 0.5, 300), entry('b', 0.5, 299), entry('c', 0.5, 100)]
        found = aggregates._marked([*given, *more])
        assert [each.best for each in found] == [False] * 5
        assert found[0].p_best == found[1].p_best == pytest.approx(2 * alone)
        assert found[2].p_best == found[3].p_best > found[4].p_best

    def test_no_results_is_one_line(self, tmp_path):
        with pytest.raises(UserError, match='there are no results in'):
            aggregates.load(tmp_path)


class TestInterruption:
    @pytest.mark.parametrize(
        ('number', 'status'), [(signal.SIGTERM, 75), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
    )
    def test_asked_to_stop_it_says_that_it_can_go_on(self, tmp_path, monkeypatch, number, status):
        monkeypatch.setattr(Engine, 'run', lambda *_: signal.raise_signal(number))
        arguments = ['--config', 'configs/ablations/quickstart.py', "--config.datasets=('digits',)"]
        arguments += ["--config.backbones=('pixels',)"]
        before = signal.signal(number, signal.default_int_handler)
        try:
            with pytest.raises(Preempted, match='the same command continues') as caught:
                ablate.main([*arguments, '--workdir', str(tmp_path / 'run')])
            assert caught.value.status == status
            assert signal.getsignal(number) is signal.default_int_handler
        finally:
            signal.signal(number, before)

    @pytest.mark.slow
    def test_what_is_said_of_a_training_names_its_cell_and_rate(self, tmp_path, capsys):
        config = make_config(backbones=('vit_micro@random',), regimes=('scratch',), fractions=(1.0,), seeds=(0,))
        run(config, tmp_path)
        said = capsys.readouterr().err
        label = 'digits · vit_micro · random · scratch · fraction 1 · seed 0 · learning rate 0.001'
        assert re.search(rf'^{re.escape(label)}: epoch 1 of 1 .*validation accuracy 0\.\d', said, re.MULTILINE), said
        assert f'\n{label}: 0 of ' in f'\n{said}'
        assert ': 0 of 0' not in said


def test_results_name_the_versions_they_depend_on():
    assert {'python', 'jax', 'flax', 'optax', 'device'} <= versions.versions().keys()


def test_quickstart_names_only_things_that_exist():
    for name in ('ablations/quickstart.py', 'ablations/cnn_vs_vit.py'):
        from experiments.cli.command_line import load_config

        config = load_config(str(Path(__file__).parents[2] / 'configs' / name))
        assert cells.plan(config)
        for dataset in config.datasets:
            loading.check_name(dataset)
