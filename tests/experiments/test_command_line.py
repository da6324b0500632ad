"""The command line: overrides with types, help, and one line for bad input (config files: test_config_files.py)."""

import inspect
import os
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import ml_collections
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_config_files import CONFIG

from backbones.errors import UserError
from experiments import ablate, plan, report, train
from experiments.ablation import cells, growth
from experiments.cli import atomic_files, command_line, commands, platforms, work_directories
from experiments.features import __main__ as features
from experiments.training.config import KEYS as TRAINING_KEYS
from experiments.training.config_keys import ConfigKey, default_config
from experiments.training.value_checks import one_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def config_file(tmp_path_factory):
    file = tmp_path_factory.mktemp('configs') / 'transfer.py'
    file.write_text(CONFIG)
    return file


@pytest.fixture
def config(config_file):
    return command_line.load_config(str(config_file))


# Key, text, and the value that the config then holds.
OVERRIDES = [
    ('seed', '3', 3),
    ('seed', '-3', -3),
    ('rate', '1e-3', 1e-3),
    ('rate', '1', 1.0),
    ('flip', 'False', False),
    ('backbones', 'vit_micro', 'vit_micro'),
    ('backbones', '5', '5'),
    ('backbones', '', ''),
    ('backbones', 'a=b,c', 'a=b,c'),
    ('limit', '7', 7),
    ('limit', 'all', 'all'),
    ('limit', 'None', None),
    ('sizes', '(16,)', (16,)),
    ('sizes', '16,', (16,)),
    ('scales', '1', (1.0,)),
    ('scales', '0.25', (0.25,)),
    ('sizes', '16,24', (16, 24)),
    ('sizes', '(16, 24)', (16, 24)),
    ('sizes', '[16, 24]', (16, 24)),
    ('sizes', '()', ()),
    ('scales', '1,0.25', (1.0, 0.25)),
    ('names', 'c', ('c',)),
    ('names', 'c,d,e', ('c', 'd', 'e')),
    ('names', "('c', 'd')", ('c', 'd')),
    ('names', '1,2', ('1', '2')),
    ('names', 'tfds:cifar10,digits', ('tfds:cifar10', 'digits')),
    ('optimizer.name', 'sgd', 'sgd'),
    ('optimizer.schedule.warmup', '9', 9),
]


def value_of(config: ml_collections.ConfigDict, key: str):
    for name in key.split('.'):
        config = config[name]
    return config


def assert_same(actual, expected):
    """Equal and of equal types, also inside a tuple: 1 is neither True nor 1.0."""
    assert repr(actual) == repr(expected)


@pytest.mark.parametrize(('key', 'text', 'expected'), OVERRIDES)
def test_override(config, key, text, expected):
    before = config.to_dict()
    command_line.override(config, key, text)
    assert_same(value_of(config, key), expected)
    # Nothing else has changed.
    *parents, last = key.split('.')
    node = config
    for parent in parents:
        node = node[parent]
    with node.ignore_type():
        node[last] = value_of(ml_collections.ConfigDict(before), key)
    assert_same(config.to_dict(), before)


values = st.one_of(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.lists(st.integers()).map(tuple),
    st.lists(st.booleans(), min_size=1).map(tuple),
    st.lists(st.floats(allow_nan=False, allow_infinity=False)).map(tuple),
    st.lists(st.text()).map(tuple),
)


@settings(max_examples=200, deadline=None)
@given(value=values)
def test_overriding_with_what_python_prints_restores_the_value(value):
    initial = tuple(type(item)() for item in value) if isinstance(value, tuple) else type(value)()
    config = ml_collections.ConfigDict({'value': initial})
    command_line.override(config, 'value', repr(value))
    assert_same(config.value, value)


@settings(max_examples=100, deadline=None)
@given(text=st.text())
def test_a_text_is_taken_as_it_is(text):
    config = ml_collections.ConfigDict({'value': 'x'})
    command_line.override(config, 'value', text)
    assert_same(config.value, text)


@pytest.mark.parametrize(
    ('key', 'text', 'kind'),
    [
        ('seed', 'one', 'int'),
        ('seed', '1.5', 'int'),
        ('seed', 'True', 'int'),
        ('seed', 'None', 'int'),
        ('seed', '1,2', 'int'),
        ('rate', 'high', 'float'),
        ('rate', 'True', 'float'),
        ('flip', '1', 'bool'),
        ('flip', 'yes', 'bool'),
        ('flip', 'false', 'bool'),
        ('sizes', '1,x', 'tuple'),
        ('sizes', '1.5', 'tuple'),
        ('sizes', 'None', 'tuple'),
        ('scales', '0.5,x', 'tuple'),
        ('optimizer.schedule.warmup', 'long', 'int'),
    ],
)
def test_a_value_of_the_wrong_type(config, key, text, kind):
    before = config.to_dict()
    present = value_of(config, key)
    message = f'config key {key!r} takes a value of type {kind} such as {present!r}, not {text!r}'
    with pytest.raises(UserError, match=re.escape(message)):
        command_line.override(config, key, text)
    assert_same(config.to_dict(), before)


@pytest.mark.parametrize(
    ('key', 'nearest'),
    [
        ('sed', 'seed'),
        ('optimizer.nam', 'optimizer.name'),
        ('optimiser.name', 'optimizer.name'),
        ('optimizer.schedule.warmups', 'optimizer.schedule.warmup'),
        ('seed.value', 'seed'),
        ('optimizer.schedule', 'optimizer.schedule.decay'),
    ],
)
def test_an_unknown_key_offers_the_nearest(config, key, nearest):
    with pytest.raises(
        UserError, match=f"unknown config key '{re.escape(key)}'; did you mean .*'{re.escape(nearest)}'"
    ):
        command_line.override(config, key, '1')


@pytest.mark.parametrize(
    ('key', 'text', 'told'),
    [
        ('sizes', '3', "say --config.sizes='(3,)' for the one value 3"),
        ('sizes', '-3', "say --config.sizes='(-3,)' for the one value -3"),
        ('seeds', '3', "say --config.seeds='(3,)' for the one value 3, or --config.seeds='(0, 1, 2)' for 3"),
        ('seeds', '1', "say --config.seeds='(1,)' for the one value 1"),
    ],
)
def test_a_number_for_a_key_that_takes_several_is_refused(config, key, text, told):
    config.seeds = (7, 8)
    with pytest.raises(UserError) as caught:
        command_line.override(config, key, text)
    assert str(caught.value) == (
        f'config key {key!r} takes a tuple, and {text} may be meant as a value or as a number of values: {told}'
    )
    assert (config.seeds, config.sizes) == ((7, 8), (32, 64))


@pytest.mark.parametrize('key', ['', '.', 'optimizer.', '.seed'])
def test_an_empty_key_is_unknown(config, key):
    with pytest.raises(UserError, match=f'unknown config key {key!r}'):
        command_line.override(config, key, '1')


def parse(config_file, *words: str):
    arguments = command_line.parser('A command.')
    command_line.add_data_directory(arguments)
    return command_line.parse(arguments, ['--config', str(config_file), '--workdir', 'runs/x', *words])


def test_overrides_with_and_without_an_equals_sign(config_file):
    options, config = parse(
        config_file,
        *('--config.seed=1', '--config.rate', '0.25', '--data_dir', 'd', '--config.optimizer.schedule.warmup', '7'),
        *('--config.names', 'c,d', '--config.backbones=a=b', '--config.sizes', '1,'),
    )
    assert (config.seed, config.rate, config.optimizer.schedule.warmup) == (1, 0.25, 7)
    assert (config.names, config.backbones, config.sizes) == (('c', 'd'), 'a=b', (1,))
    assert (str(options.workdir), str(options.data_dir)) == ('runs/x', 'd')


@pytest.mark.parametrize('name', ['workdir', 'data_dir'])
def test_a_path_may_begin_with_the_home_directory(config_file, monkeypatch, name):
    monkeypatch.setenv('HOME', '/home/someone')
    for words in ([f'--{name}=~/runs/x'], [f'--{name}', '~/runs/x']):
        assert str(getattr(parse(config_file, *words)[0], name)) == '/home/someone/runs/x'
    assert str(getattr(parse(config_file, f'--{name}=./~')[0], name)) == '~'


@pytest.mark.parametrize(
    ('given', 'told'),
    [('', 'a path is empty'), ('~nobody-at-all/x', "no home directory '~nobody-at-all'; say ./~nobody")],
)
def test_a_path_that_is_none(config_file, capsys, given, told):
    with pytest.raises(SystemExit) as caught:
        parse(config_file, f'--workdir={given}')
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_every_path_of_every_command_expands_the_home_directory():
    for module in (ablate, features, plan, report, train):
        source = inspect.getsource(module)
        assert 'type=Path' not in source
        for name in re.findall(r"'--(\w*dir|output|json)'", source):
            assert re.search(rf"'--{name}'[^)]*type=command_line.path", source, re.DOTALL), (module.__name__, name)


KEYS = {
    'seed': ConfigKey(0, 'a number'),
    'mesh.data': ConfigKey(-1, 'devices'),
    'fit': ConfigKey('crop', 'how', one_of('crop', 'squash')),
    'names': ConfigKey(
        ('a', 'b'), 'a meaning that is so long that it takes more than one line of a terminal of 80 columns'
    ),
}


def parse_known(tmp_path, body, *words):
    file = tmp_path / 'config.py'
    file.write_text(f'import ml_collections\ndef get_config():\n    return ml_collections.ConfigDict({body})\n')
    return command_line.parse(
        command_line.parser('A command.', workdir=False, keys=KEYS), ['--config', str(file), *words]
    )


def test_keys_that_a_config_leaves_out_have_their_defaults(tmp_path):
    _, config = parse_known(tmp_path, {'seed': 3}, '--config.mesh.data=2')
    assert config.to_dict() == {'seed': 3, 'mesh': {'data': 2}, 'fit': 'crop', 'names': ('a', 'b')}


@pytest.mark.parametrize(
    ('body', 'key', 'near'), [({'sead': 3}, 'sead', 'seed'), ({'mesh': {'date': 1}}, 'mesh.date', 'mesh.data')]
)
def test_keys_that_nothing_reads_are_refused(tmp_path, body, key, near):
    with pytest.raises(
        UserError, match=f"unknown config key '{key}'; did you mean '{near}'\\? .it is set by .*config.py"
    ):
        parse_known(tmp_path, body)


def test_help_lists_every_key(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    with pytest.raises(SystemExit) as caught:
        parse_known(tmp_path, {'seed': 7}, '--help')
    assert not caught.value.code
    of_file = capsys.readouterr().out
    with pytest.raises(SystemExit):
        command_line.parser('A command.', keys=KEYS).parse_args(['-h'])
    shown = capsys.readouterr().out
    assert '  seed = 7 (default: 0)\n' in of_file
    assert '  seed = 0\n      a number\n' in shown
    assert "  fit = 'crop'\n      how ('crop', 'squash')\n" in shown
    assert '  mesh.data = -1\n      devices\n' in shown
    assert '--workdir' in shown
    assert max(map(len, [*shown.splitlines(), *of_file.replace(str(tmp_path), '').splitlines()])) <= 80


@pytest.mark.parametrize(('command', 'keys'), [(train, TRAINING_KEYS), (plan, TRAINING_KEYS), (ablate, cells.KEYS)])
def test_help_of_the_commands(capsys, monkeypatch, command, keys):
    monkeypatch.setenv('COLUMNS', '80')
    with pytest.raises(SystemExit):
        command.main(['--help'])
    shown = capsys.readouterr().out
    for key, row in keys.items():
        assert re.search(rf'^  {re.escape(key)} = ', shown, re.MULTILINE), key
        assert row.meaning, key
        assert ' '.join(row.meaning.split()) in ' '.join(shown.split()), key
    assert max(map(len, shown.splitlines())) <= 80


def test_every_key_of_the_configs_has_a_row():
    assert work_directories.flatten(cells.default_config().to_dict()).keys() == cells.KEYS.keys()
    assert work_directories.flatten(default_config().to_dict()).keys() == TRAINING_KEYS.keys()


@pytest.mark.parametrize('words', [['--config.seed=-1'], ['--config.seed', '-1']])
def test_a_negative_value(config_file, words):
    assert parse(config_file, *words)[1].seed == -1


def test_the_last_override_wins(config_file):
    assert parse(config_file, '--config.seed=1', '--config.seed=2')[1].seed == 2


def test_an_empty_value(config_file):
    assert parse(config_file, '--config.backbones=')[1].backbones == ''


def test_arguments_of_the_config_and_overrides_together(config_file):
    _, config = parse(f'{config_file}:backbones=a,b', '--config.dataset=mnist5k')
    assert (config.backbones, config.dataset) == ('a,b', 'mnist5k')


def test_a_bad_override_is_an_error_of_the_user(config_file):
    with pytest.raises(UserError, match="unknown config key 'sead'; did you mean 'seed'"):
        parse(config_file, '--config.sead=1')


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--sead=1'], 'unrecognized argument: --sead=1'),
        (['extra'], 'unrecognized argument: extra'),
        (['--config.seed'], '--config.seed needs a value: --config.seed=VALUE'),
        (['--config.backbones', '--config.seed=1'], '--config.backbones needs a value: --config.backbones=VALUE'),
        (['--work', 'runs/y'], 'unrecognized argument: --work'),
    ],
)
def test_words_that_are_no_arguments_end_with_status_2(config_file, capsys, words, message):
    with pytest.raises(SystemExit) as caught:
        parse(config_file, *words)
    assert caught.value.code == 2
    assert capsys.readouterr().err == f'error: {message} (see --help)\n'


@pytest.mark.parametrize('words', [['--workdir', 'x'], ['--config', 'x']])
def test_config_and_workdir_are_required(capsys, words):
    with pytest.raises(SystemExit) as caught:
        command_line.parse(command_line.parser('A command.'), words)
    assert caught.value.code == 2
    assert 'the following arguments are required' in capsys.readouterr().err


def test_run_turns_bad_input_into_one_line_and_status_2(capsys):
    def main(argv):
        assert argv is None
        raise UserError('there is no such thing')

    with pytest.raises(SystemExit) as caught:
        command_line.run(main)
    assert caught.value.code == 2
    assert tuple(capsys.readouterr()) == ('', 'error: there is no such thing\n')


def test_run_reports_an_interruption(capsys):
    def main(argv):
        raise KeyboardInterrupt

    for continues, told in (
        (False, 'interrupted\n'),
        (True, 'interrupted; the same command continues from what is finished\n'),
    ):
        with pytest.raises(SystemExit) as caught:
            command_line.run(main, continues)
        assert caught.value.code == 130
        assert capsys.readouterr().err == told


def test_a_command_that_does_not_continue_cleans_up_when_asked_to_stop(tmp_path, capsys):
    def main(argv):
        with atomic_files.atomic_write(tmp_path / 'results.txt'):
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        command_line.run(main)
    assert caught.value.code == 143
    assert capsys.readouterr().err == 'asked to stop\n'
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


def test_run_leaves_success_and_bugs_alone(capsys):
    command_line.run(lambda argv: None)
    assert tuple(capsys.readouterr()) == ('', '')
    with pytest.raises(ZeroDivisionError):
        command_line.run(lambda argv: 1 / 0)


@pytest.mark.parametrize(
    ('error', 'reason'),
    [
        (
            RuntimeError("Unable to initialize backend 'cuda': none found (set JAX_PLATFORMS='' to choose)"),
            "(Unable to initialize backend 'cuda': none found)",
        ),
        (RuntimeError('of another kind'), None),
        (AssertionError(), None),
    ],
)
def test_a_platform_that_cannot_be_used(monkeypatch, capsys, error, reason):
    import jax

    jax.devices()
    monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
    monkeypatch.setattr(platforms, '_present', lambda: 'cpu')

    def main(argv):
        raise error

    if reason is None:
        with pytest.raises(type(error)):
            command_line.run(main)
        return
    with pytest.raises(SystemExit) as caught:
        command_line.run(main)
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        f"error: JAX_PLATFORMS is 'cuda', which cannot be used here {reason}; this machine has cpu: set JAX_PLATFORMS "
        'to one of these, or unset it\n'
    )


@pytest.mark.parametrize('platform', ['cuda', 'no_such_platform'])
def test_a_real_process_on_a_platform_that_is_not_there(platform, tmp_path):
    script = 'import jax; from experiments.cli import command_line; command_line.run(lambda _: print(jax.devices()))'
    environment = {**os.environ, 'JAX_PLATFORMS': platform, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, '-c', script], env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        pytest.skip(f'{platform} is here: {done.stdout}')
    assert done.returncode == 2
    line = [line for line in done.stderr.splitlines() if 'error:' in line][-1]
    assert line.startswith(f"error: JAX_PLATFORMS is '{platform}', which cannot be used here (")
    assert re.search(r'this machine has [\w, ]*cpu', line)
    assert 'Traceback' not in done.stderr


def test_standard_output_takes_any_name(tmp_path):
    script = (
        "import os; from experiments.cli import command_line; command_line.run(lambda _: print(os.fsdecode(b'a\\xff')))"
    )
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONIOENCODING': 'utf-8:strict'}
    done = subprocess.run([sys.executable, '-c', script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == 'a\\udcff\n'


def test_a_work_directory_remembers_its_command(tmp_path, monkeypatch):
    assert commands.of_this_process() == ''
    assert commands.read(tmp_path) == []
    main = types.SimpleNamespace(__spec__=types.SimpleNamespace(name='experiments.ablate'))
    monkeypatch.setitem(sys.modules, '__main__', main)
    monkeypatch.setattr(sys, 'argv', ['/x/ablate.py', '--config', 'a.py', '--workdir', 'with space \udcff'])
    work_directories.write_config(tmp_path, {'seed': 0})
    whole = "python -m experiments.ablate --config a.py --workdir 'with space \udcff'"
    assert commands.read(tmp_path) == [whole]
    # Nothing was computed by it.
    monkeypatch.setattr(sys, 'argv', ['/x/ablate.py', '--config', 'b.py'])
    growth.claim(tmp_path, {'backbones': ['b'], 'seeds': [0]}, [], [])
    (tmp_path / 'results.jsonl').touch()
    # Another command with the same config, then one that changes it, then the first again.
    monkeypatch.setattr(sys, 'argv', ['/x/ablate.py', '--config', 'b.py', '--only', 'linear'])
    growth.claim(tmp_path, {'backbones': ['b'], 'seeds': [0]}, [], [])
    monkeypatch.setattr(sys, 'argv', ['/x/ablate.py', '--config', 'b.py', "--config.tap=('pooled','stages')"])
    growth.claim(tmp_path, {'backbones': ['b'], 'seeds': [0, 1]}, [], [])
    b, only, grown = commands.read(tmp_path)
    assert (b, only) == tuple(f'python -m experiments.ablate --config b.py{more}' for more in ('', ' --only linear'))
    assert grown == """python -m experiments.ablate --config b.py "--config.tap=('pooled','stages')\""""
    monkeypatch.setattr(sys, 'argv', ['/x/ablate.py', '--config', 'b.py'])
    growth.claim(tmp_path, {'backbones': ['b'], 'seeds': [0, 1]}, [], [])
    assert commands.read(tmp_path) == [only, grown, b]


def test_a_training_that_continues_otherwise_adds_its_command(tmp_path, monkeypatch):
    main = types.SimpleNamespace(__spec__=types.SimpleNamespace(name='experiments.train'))
    monkeypatch.setitem(sys.modules, '__main__', main)
    for option in ('--config.mesh.data=1', '--config.mesh.data=1', '--config.mesh.data=2'):
        monkeypatch.setattr(sys, 'argv', ['train', option])
        work_directories.claim(tmp_path, {'seed': 0})
        (tmp_path / 'metrics.jsonl').touch()
    assert commands.read(tmp_path) == [f'python -m experiments.train --config.mesh.data={count}' for count in (1, 2)]


@pytest.mark.parametrize('text', ["('a','b')", "it's $HOME", 'a\nb', "a\n'\\b'\r", '"x" \'y\'!', '', 'plain', '*a*'])
def test_a_command_is_one_line_that_bash_reads_as_it_was(text):
    line = commands.joined(['printf', '%s', text])
    assert len(line.splitlines()) == 1
    done = subprocess.run(['bash', '-c', line], capture_output=True, check=True)
    assert done.stdout == text.encode()
