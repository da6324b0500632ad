"""What a running training tells, and to whom."""

import sys
import types

import pytest

from backbones import UserError
from experiments.cli import atomic_files
from experiments.training.config import default_config
from experiments.training.monitor import Meter, Monitor


def make_monitor(directory, first=0, is_main_process=True, **changes) -> Monitor:
    config = default_config()
    config.update(changes)
    return Monitor(directory, config, first, is_main_process)


def test_rows_after_the_checkpoint_are_forgotten(tmp_path):
    with make_monitor(tmp_path) as monitor:
        for step in (1, 2, 3):
            monitor.row(step, {'loss': 1 / step})
    with make_monitor(tmp_path, first=2) as monitor:
        monitor.row(3, {'loss': 7.0})
    assert [(row['step'], row['loss']) for row in atomic_files.read_jsonl(tmp_path / 'metrics.jsonl')] == [
        (1, 1.0),
        (2, 0.5),
        (3, 7.0),
    ]


def test_a_quiet_one_writes_nothing(tmp_path, capsys):
    with make_monitor(tmp_path, is_main_process=False, tensorboard=True) as monitor:
        monitor.row(1, {'loss': 1.0}, now=True)
        monitor.event('resumed', 'resumed after step 0')
        monitor.advance(monitor.bar('training', 10), completed=1, note='loss 1')
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ('', '')


def test_events_are_kept_with_their_time_and_shown(tmp_path, capsys):
    for step in (5, 9):
        with make_monitor(tmp_path) as monitor:
            monitor.event('resumed', f'resumed after step {step}', step=step)
    rows = atomic_files.read_jsonl(tmp_path / 'events.jsonl')
    assert [(row['event'], row['step']) for row in rows] == [('resumed', 5), ('resumed', 9)]
    assert all(row['time'].startswith('20') for row in rows)
    assert 'resumed after step 9' in capsys.readouterr().err


class FakeRun:
    def __init__(self, **arguments):
        self.arguments, self.rows, self.finished = arguments, [], False

    def log(self, values, step):
        self.rows.append((step, values))

    def finish(self):
        self.finished = True


def test_weights_and_biases_go_on_in_the_same_run(tmp_path, monkeypatch):
    runs = []
    module = types.ModuleType('wandb')
    module.init = lambda **arguments: runs.append(FakeRun(**arguments)) or runs[-1]
    module.util = types.SimpleNamespace(generate_id=lambda: f'id{len(runs)}')
    monkeypatch.setitem(sys.modules, 'wandb', module)
    for step in (1, 2):
        with make_monitor(tmp_path, wandb_project='study') as monitor:
            monitor.row(step, {'loss': 0.5, 'phase': 'linear'})
    assert [run.arguments['id'] for run in runs] == ['id0', 'id0']
    assert all(run.arguments['resume'] == 'allow' and run.finished for run in runs)
    assert [run.rows for run in runs] == [[(1, {'loss': 0.5})], [(2, {'loss': 0.5})]]
    assert runs[0].arguments['project'] == 'study'


@pytest.mark.parametrize(
    ('package', 'changes'), [('wandb', {'wandb_project': 'study'}), ('tensorboardX', {'tensorboard': True})]
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, package, changes):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf'needs the package {package}: pip install'):
        make_monitor(tmp_path, **changes)


def test_the_meter_leaves_out_the_first_lap_and_pauses(monkeypatch):
    clock = iter([10.0, 11.0, 50.0, 51.0])
    monkeypatch.setattr('experiments.training.monitor.time.perf_counter', lambda: next(clock))
    meter = Meter()
    assert meter.steps_per_second == 0
    meter.lap(1)
    meter.lap(5)
    meter.pause()
    meter.lap(6)
    meter.lap(8)
    assert meter.steps_per_second == pytest.approx((4 + 2) / (1 + 1))
