"""Config files: where their names end, their arguments with types, and one line for an error in them."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.errors import UserError
from experiments.cli import command_line

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


def test_only_a_key_of_the_config_is_said_to_be_one(config_file):
    keys = {'head': None}
    with pytest.raises(UserError, match=r"'head'; .*; a value of the config is changed by --config\.head=…"):
        command_line.load_config(f'{config_file}:head=fcos', keys)
    with pytest.raises(UserError, match=r"unknown argument .*'heads'") as caught:
        command_line.load_config(f'{config_file}:heads=fcos', keys)
    assert '--config.heads' not in str(caught.value)


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
