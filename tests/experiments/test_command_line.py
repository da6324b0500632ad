"""The command line: config files with arguments, overrides with types, and one line for bad input."""

import re

import ml_collections
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.errors import UserError
from experiments.cli import command_line

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


@settings(max_examples=50, deadline=None)
@given(value=st.text(st.characters(exclude_characters='=', exclude_categories=['Cs'])))
def test_an_argument_takes_any_text_without_an_equals_sign(config_file, value):
    config = command_line.load_config(f'{config_file}:dataset={value},backbones={value}')
    assert (config.backbones, config.dataset) == (value, value)


def test_only_the_first_equals_sign_of_a_piece_counts(config_file):
    assert command_line.load_config(f'{config_file}:dataset=folder:a=b').dataset == 'folder:a=b'


def test_an_unknown_argument_offers_the_nearest(config_file):
    with pytest.raises(UserError, match=r"unknown argument of .*transfer\.py 'backbone'; did you mean 'backbones'"):
        command_line.load_config(f'{config_file}:backbone=resnet50')


def test_an_argument_without_a_name(config_file):
    with pytest.raises(UserError, match="have the form name=value, not 'resnet50'"):
        command_line.load_config(f'{config_file}:resnet50')


def test_a_required_argument_that_is_missing(tmp_path):
    file = tmp_path / 'strict.py'
    file.write_text('def get_config(backbone, seed=0):\n    return backbone\n')
    message = f"{file} needs the argument 'backbone': --config {file}:backbone=…"
    with pytest.raises(UserError, match=re.escape(message)):
        command_line.load_config(f'{file}:seed=1')
    assert command_line.load_config(f'{file}:backbone=x') == 'x'


def test_a_missing_file_offers_the_nearest(config_file):
    with pytest.raises(UserError, match=f"unknown config file .*did you mean '{re.escape(str(config_file))}'"):
        command_line.load_config(str(config_file.with_name('transfr.py')))


@pytest.mark.parametrize('where', ['nothing.py', 'nowhere/nothing.py', '.'])
def test_a_missing_file_where_there_is_no_other(tmp_path, where):
    with pytest.raises(UserError, match=f'there is no config file {re.escape(repr(str(tmp_path / where)))}'):
        command_line.load_config(str(tmp_path / where))


@pytest.mark.parametrize(
    ('given', 'value'), [('seeds=3', 3), ('fraction=1', 1.0), ('fraction=1e-2', 0.01), ('flip=False', False), ('', 2)]
)
def test_arguments_of_a_config_file_have_types(tmp_path, given, value):
    file = tmp_path / 'typed.py'
    file.write_text(
        'def get_config(seeds: int = 2, fraction: float = 2, flip: bool = 2):\n'
        '    return next((each for each in (seeds, fraction, flip) if each != 2), 2)\n'
    )
    made = command_line.load_config(f'{file}:{given}' if given else str(file))
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
    ('sizes', '16', (16,)),
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
        *('--config.names', 'c,d', '--config.backbones=a=b', '--config.sizes', '1'),
    )
    assert (config.seed, config.rate, config.optimizer.schedule.warmup) == (1, 0.25, 7)
    assert (config.names, config.backbones, config.sizes) == (('c', 'd'), 'a=b', (1,))
    assert (str(options.workdir), str(options.data_dir)) == ('runs/x', 'd')


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
