"""What a running training tells, and to whom."""

import io
import re
import sys
import types

import pytest
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from backbones import UserError
from experiments.cli import atomic_files, display
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


def test_a_note_is_kept_and_not_shown(tmp_path, capsys):
    with make_monitor(tmp_path) as monitor:
        monitor.note('preempted', 'step 5 is saved', step=5)
    (row,) = atomic_files.read_jsonl(tmp_path / 'events.jsonl')
    assert (row['event'], row['step'], row['text']) == ('preempted', 5, 'step 5 is saved')
    assert capsys.readouterr().err == ''


def test_all_that_is_printed_of_one_of_several_trainings_names_it(tmp_path, capsys):
    with Monitor(tmp_path, default_config(), 0, True, label='cell [1] · rate 0.1') as monitor:
        monitor.event('resumed', 'resumed after step 5')
        monitor.say('epoch 1')
    assert capsys.readouterr().err.splitlines() == [
        'cell [1] · rate 0.1: resumed after step 5',
        'cell [1] · rate 0.1: epoch 1',
    ]
    assert atomic_files.read_jsonl(tmp_path / 'events.jsonl')[0]['text'] == 'resumed after step 5'


def lines(seconds=30.0):
    """Progress as a log shows it, its lines, and a clock that is set by hand."""
    clock, out = [0.0], io.StringIO()
    return display.ProgressLines(Console(file=out, width=200), seconds, lambda: clock[0]), out, clock


def test_a_log_has_a_line_at_the_beginning_and_the_end_and_few_between():
    bar, out, clock = lines()
    with bar:
        task = bar.add_task('checking [images]', total=2000, note='')
        for second in range(100):
            clock[0] = float(second)
            bar.advance(task, 20)
        bar.update(task, note='odd [ones]')
    assert out.getvalue().splitlines() == [
        'checking [images]: 0 of 2,000',
        'checking [images]: 620 of 2,000',
        'checking [images]: 1,220 of 2,000',
        'checking [images]: 1,820 of 2,000',
        'checking [images]: 2,000 of 2,000, odd [ones] after 99 s',
    ]


def test_what_is_usually_brief_is_only_told_if_it_takes_long():
    bar, out, clock = lines()
    with bar:
        task = bar.add_task('validation', total=9, note='', brief=True)
        bar.update(task, advance=9)
        bar.remove_task(task)
        assert out.getvalue() == ''
        task = bar.add_task('validation', total=9, note='', brief=True)
        clock[0] = 31.0
        bar.update(task, advance=4)
        clock[0] = 33.0
        bar.update(task, advance=5)
        bar.remove_task(task)
    assert out.getvalue().splitlines() == ['validation: 4 of 9', 'validation: 9 of 9 after 33 s']


def test_a_quiet_log_says_nothing():
    bar, out, _ = lines(0.0)
    bar.disable = True
    with bar:
        task = bar.add_task('training', total=3, note='')
        bar.update(task, completed=2)
        bar.remove_task(task)
    assert out.getvalue() == ''


def test_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch):
    monkeypatch.setattr(display, 'console', Console(file=io.StringIO(), force_terminal=True))
    assert type(display.progress()) is Progress
    monkeypatch.setattr(display, 'console', Console(file=io.StringIO()))
    assert type(display.progress()) is display.ProgressLines


def test_the_last_a_bar_shows_is_its_end(tmp_path, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(display, 'console', Console(file=out, force_terminal=True, width=100))
    with make_monitor(tmp_path) as monitor:
        task = monitor.bar('validation', 288, brief=True)
        monitor.advance(task, by=256)
        monitor.advance(task, by=32)
        monitor.done(task)
    shown = re.findall(r'(\d+)/288', out.getvalue())
    assert shown[-1] == '288', shown


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


@pytest.mark.parametrize(('columns', 'wraps'), [('', False), ('100', True)])
def test_tables_wrap_in_a_pipe_only_if_its_width_is_set(monkeypatch, columns, wraps):
    monkeypatch.setenv('COLUMNS', columns)
    heading = 'a heading of some length ' * 20
    console = display.make_console(stderr=False)
    with console.capture() as captured:
        console.print(Table(heading.strip()))
    assert (heading.strip() not in captured.get()) == wraps
