"""The command line: config files with arguments, overrides with types, and one line for bad input."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import ml_collections
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.errors import UserError
from experiments import ablate, plan, report, train
from experiments.ablation import cells
from experiments.cli import command_line, platforms, work_directories
from experiments.features import __main__ as features
from experiments.training.config import KEYS as TRAINING_KEYS
from experiments.training.config import ConfigKey, default_config, one_of

ROOT = Path(__file__).parents[2]
CONFIG = """
import ml_collections


def get_config(backbones: str = 'resnet50', dataset: str = 'digits'):
    config = ml_collections.ConfigDict()
    config.backbones = backbones
    config.dataset = dataset
    config.seed = 0
    config.rate = 0.5
    config.flip = True
    config.sizes = (32, 64)
    config.scales = (0.5, 1.0)
    config.names = ('a', 'b')
    config.limit = None
    config.optimizer = ml_collections.ConfigDict({'name': 'adamw', 'schedule': {'warmup': 5, 'decay': 0.1}})
    return config
"""

RETURNED = 'import ml_collections\ndef returned(value):\n    return ml_collections.ConfigDict({"value": value})\n'


@pytest.fixture(scope='module')
def config_file(tmp_path_factory):
    file = tmp_path_factory.mktemp('configs') / 'transfer.py'
    file.write_text(CONFIG)
    return file


@pytest.fixture
def config(config_file):
    return command_line.load_config(str(config_file))


def test_a_config_file_without_arguments(config_file):
    config = command_line.load_config(str(config_file))
    assert (config.backbones, config.dataset) == ('resnet50', 'digits')


def test_arguments_with_commas_and_colons(config_file):
    config = command_line.load_config(f'{config_file}:backbones=resnet50,vit_small_patch16,dataset=tfds:cifar10')
    assert (config.backbones, config.dataset) == ('resnet50,vit_small_patch16', 'tfds:cifar10')


# Quotes at its beginning have a meaning.
TEXTS = st.text(st.characters(exclude_characters='=', exclude_categories=['Cs'])).filter(
    lambda text: text[:1] not in '\'"'
)


@settings(max_examples=50, deadline=None)
@given(value=TEXTS | st.just(''))
def test_an_argument_takes_any_text_without_an_equals_sign(config_file, value):
    config = command_line.load_config(f'{config_file}:dataset={value},backbones={value}')
    assert (config.backbones, config.dataset) == (value, value)


def test_only_the_first_equals_sign_of_a_piece_counts(config_file):
    assert command_line.load_config(f'{config_file}:dataset=folder:a=b').dataset == 'folder:a=b'


@settings(max_examples=50, deadline=None)
@given(value=st.text(st.characters(exclude_categories=['Cs'])), quote=st.sampled_from('\'"'))
def test_a_quoted_argument_takes_any_text_without_that_quote(config_file, value, quote):
    value = value.replace(quote, '')
    config = command_line.load_config(f'{config_file}:backbones=x,dataset={quote}{value}{quote},backbones=a,b')
    assert (config.backbones, config.dataset) == ('a,b', value)


@pytest.mark.parametrize('value', ["'a", "'a'b", "it's", '"a', "'", 'a"b"'])
def test_quotes_that_do_not_enclose_a_value_are_part_of_it(config_file, value):
    assert command_line.load_config(f'{config_file}:dataset={value},backbones=x').dataset == value


def test_a_path_with_a_comma_and_an_equals_sign(config_file):
    path = 'folder:/data/a,b=c/d'
    with pytest.raises(
        UserError, match=r"argument of .* 'b'.*; if it belongs to the value of 'dataset', quote that value: "
    ):
        command_line.load_config(f'{config_file}:dataset={path}')
    assert command_line.load_config(f"{config_file}:dataset='{path}'").dataset == path
    # What is no name continues the value.
    assert command_line.load_config(f'{config_file}:dataset=folder:/a,/b=c').dataset == 'folder:/a,/b=c'


@pytest.mark.parametrize('folder', ['runs:old', 'runs:dataset=a', 'x.py:y', 'a,b=c', 'ünï [1]'])
def test_a_config_file_in_a_folder_of_any_name(tmp_path, folder):
    (tmp_path / folder).mkdir()
    file = tmp_path / folder / 'config.py'
    file.write_text(CONFIG)
    assert command_line.load_config(str(file)).dataset == 'digits'
    assert command_line.load_config(f'{file}:dataset=tfds:cifar10').dataset == 'tfds:cifar10'
    with pytest.raises(UserError, match=re.escape(f"unknown argument of {file} 'datset'")):
        command_line.load_config(f'{file}:datset=x')


def test_a_config_file_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'config.py').write_text(CONFIG)
    assert command_line.load_config('~/config.py:dataset=mnist5k').dataset == 'mnist5k'
    with pytest.raises(UserError, match=r'unknown config file .*did you mean'):
        command_line.load_config('~/confg.py:dataset=mnist5k')


BROKEN = [
    ('def get_config(:\n', 1, 'SyntaxError: invalid syntax'),
    ('x = 1\n  y = 2\n', 2, 'IndentationError: unexpected indent'),
    ('\nimport nowhere.to_be_found\n', 2, "ModuleNotFoundError: No module named 'nowhere'"),
    ('from backbones import nothing_such\n', 1, "ImportError: cannot import name 'nothing_such'"),
    ('def get_config():\n    return undefined\n', 2, "NameError: name 'undefined' is not defined"),
    ('def get_config():\n    x = 1\n    return 1 / 0\n', 3, 'ZeroDivisionError: division by zero'),
    ('def get_config():\n    raise ValueError("two\\nlines")\n', 2, 'ValueError: two lines'),
    ('def get_config(x: Undefined = 1):\n    return 1\n', 1, "NameError: name 'Undefined' is not defined"),
    (
        'from experiments.training.config import default_config\ndef get_config():\n    config = default_config()\n'
        '    config.epochs = "ten"\n    return config\n', 4, 'TypeError: ',
    ),
]  # fmt: skip


@pytest.mark.parametrize(('text', 'line', 'told'), BROKEN)
def test_an_error_in_a_config_file_is_one_line_that_names_its_own(tmp_path, text, line, told):
    file = tmp_path / 'broken.py'
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        command_line.load_config(str(file))
    assert str(caught.value).startswith(f'error in the config file {str(file)!r}, line {line}: {told}')
    assert '\n' not in str(caught.value)


def test_a_config_file_that_is_no_text(tmp_path):
    file = tmp_path / 'broken.py'
    file.write_bytes(b'\xff\x00\xfe')
    with pytest.raises(UserError, match=r'error in the config file .*Error: '):
        command_line.load_config(str(file))


def test_a_user_error_of_a_config_file_is_told_as_it_is(tmp_path):
    file = tmp_path / 'own.py'
    file.write_text('from backbones import UserError\ndef get_config():\n    raise UserError("in my words")\n')
    with pytest.raises(UserError, match=r'^in my words$'):
        command_line.load_config(str(file))


@pytest.mark.parametrize(('value', 'kind'), [('None', 'nothing'), ('{"seed": 1}', 'dict'), ('3', 'int')])
def test_a_config_file_that_returns_no_config(tmp_path, value, kind):
    file = tmp_path / 'other.py'
    file.write_text(f'def get_config():\n    return {value}\n')
    with pytest.raises(
        UserError, match=rf'get_config\(\) of .* must return an ml_collections.ConfigDict, .* not {kind}'
    ):
        command_line.load_config(str(file))


def test_an_unknown_argument_offers_the_nearest(config_file):
    with pytest.raises(UserError, match=r"unknown argument of .*transfer\.py 'backbone'; did you mean 'backbones'"):
        command_line.load_config(f'{config_file}:backbone=resnet50')


def test_an_argument_without_a_name(config_file):
    with pytest.raises(UserError, match="have the form name=value, not 'resnet50'"):
        command_line.load_config(f'{config_file}:resnet50')


def test_a_required_argument_that_is_missing(tmp_path):
    file = tmp_path / 'strict.py'
    file.write_text(RETURNED + 'def get_config(backbone, seed=0):\n    return returned(backbone)\n')
    message = f"{file} needs the argument 'backbone': --config {file}:backbone=…"
    with pytest.raises(UserError, match=re.escape(message)):
        command_line.load_config(f'{file}:seed=1')
    assert command_line.load_config(f'{file}:backbone=x').value == 'x'


def test_a_missing_file_offers_the_nearest(config_file):
    with pytest.raises(UserError, match=f"unknown config file .*did you mean '{re.escape(str(config_file))}'"):
        command_line.load_config(str(config_file.with_name('transfr.py')))


def test_a_directory_is_no_config_file(tmp_path):
    with pytest.raises(UserError, match='is a directory; expected a config file'):
        command_line.load_config(str(tmp_path))


@pytest.mark.parametrize('where', ['nothing.py', 'nowhere/nothing.py'])
def test_a_missing_file_where_there_is_no_other(tmp_path, where):
    with pytest.raises(UserError, match=f'there is no config file {re.escape(repr(str(tmp_path / where)))}'):
        command_line.load_config(str(tmp_path / where))


@pytest.mark.parametrize(
    ('given', 'value'), [('seeds=3', 3), ('fraction=1', 1.0), ('fraction=1e-2', 0.01), ('flip=False', False), ('', 2)]
)
def test_arguments_of_a_config_file_have_types(tmp_path, given, value):
    file = tmp_path / 'typed.py'
    file.write_text(
        f'{RETURNED}def get_config(seeds: int = 2, fraction: float = 2, flip: bool = 2):\n'
        '    return returned(next((each for each in (seeds, fraction, flip) if each != 2), 2))\n'
    )
    made = command_line.load_config(f'{file}:{given}' if given else str(file)).value
    assert (made, type(made)) == (value, type(value))


@pytest.mark.parametrize(
    ('given', 'told'),
    [
        ('seeds=two', "'seeds' of the config file takes a value of type int, not 'two'"),
        ('seeds=1.5', "'seeds' of the config file takes a value of type int, not '1.5'"),
        ('flip=maybe', "'flip' of the config file takes true or false, not 'maybe'"),
    ],
)
def test_an_argument_of_another_type(tmp_path, given, told):
    file = tmp_path / 'typed.py'
    file.write_text('def get_config(seeds: int = 2, flip: bool = True):\n    return seeds\n')
    with pytest.raises(UserError, match=told):
        command_line.load_config(f'{file}:{given}')


def test_a_file_without_get_config(tmp_path):
    file = tmp_path / 'empty.py'
    file.write_text('')
    with pytest.raises(UserError, match=r'defines no get_config\(\)'):
        command_line.load_config(str(file))


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

    with pytest.raises(SystemExit) as caught:
        command_line.run(main)
    assert caught.value.code == 130
    assert capsys.readouterr().err == 'interrupted; the same command continues from what is finished\n'


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
