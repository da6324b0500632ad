"""Files that a reader never sees half of, and work directories that belong to one config."""

import json
import re
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backbones.errors import UserError
from experiments.cli import atomic_files, work_directories


def names(directory) -> set[str]:
    return {file.name for file in directory.iterdir()}


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    file = tmp_path / 'deep' / 'er' / 'table.csv'
    with atomic_files.atomic_write(file) as stream:
        stream.write('first')
        stream.flush()
        assert not file.exists()
    assert file.read_text() == 'first'
    with atomic_files.atomic_write(file) as stream:
        stream.write('second')
        stream.flush()
        assert file.read_text() == 'first'
    assert file.read_text() == 'second'
    assert names(file.parent) == {'table.csv'}


@pytest.mark.parametrize('interruption', [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, interruption):
    file = tmp_path / 'table.csv'
    file.write_text('old')
    with pytest.raises(interruption), atomic_files.atomic_write(file) as stream:
        stream.write('half of the n')
        raise interruption
    assert file.read_text() == 'old'
    assert names(tmp_path) == {'table.csv'}


def test_an_exception_leaves_no_new_file(tmp_path):
    with pytest.raises(RuntimeError), atomic_files.atomic_write(tmp_path / 'table.csv') as stream:
        stream.write('half')
        raise RuntimeError
    assert names(tmp_path) == set()


def test_a_failed_rename_leaves_nothing_behind(tmp_path):
    (tmp_path / 'table.csv').mkdir()
    with pytest.raises(OSError, match='directory'), atomic_files.atomic_write(tmp_path / 'table.csv') as stream:
        stream.write('whole')
    assert names(tmp_path) == {'table.csv'}


def test_binary_mode(tmp_path):
    with atomic_files.atomic_write(tmp_path / 'array.bin', 'wb') as stream:
        stream.write(b'\x00\xff\n')
    assert (tmp_path / 'array.bin').read_bytes() == b'\x00\xff\n'


def test_other_users_can_read_the_file(tmp_path):
    """Temporary files are private; results are not."""
    atomic_files.write_json(tmp_path / 'result.json', {})
    assert stat.S_IMODE((tmp_path / 'result.json').stat().st_mode) == 0o644


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=6
)
rows = st.lists(st.dictionaries(st.text(), json_values, max_size=4), max_size=5)


@settings(max_examples=100, deadline=None)
@given(rows=rows)
def test_jsonl_reads_back_what_was_written(tmp_path_factory, rows):
    """Whatever the strings hold, line separators of Unicode included."""
    file = tmp_path_factory.mktemp('rows') / 'rows.jsonl'
    atomic_files.write_jsonl(file, rows)
    assert atomic_files.read_jsonl(file) == rows
    assert len(file.read_bytes().splitlines()) == len(rows)


def test_jsonl_is_replaced_and_not_appended_to(tmp_path):
    atomic_files.write_jsonl(tmp_path / 'rows.jsonl', [{'step': 1}, {'step': 2}])
    atomic_files.write_jsonl(tmp_path / 'rows.jsonl', [{'step': 3}])
    assert atomic_files.read_jsonl(tmp_path / 'rows.jsonl') == [{'step': 3}]


def test_a_missing_jsonl_has_no_rows(tmp_path):
    assert atomic_files.read_jsonl(tmp_path / 'rows.jsonl') == []


def test_write_json(tmp_path):
    atomic_files.write_json(tmp_path / 'value.json', {'a': [1, None], 'b': 'ü'})
    text = (tmp_path / 'value.json').read_text()
    assert json.loads(text) == {'a': [1, None], 'b': 'ü'}
    assert text.endswith('}\n')


CONFIG = {'seed': 0, 'sizes': (1, 2), 'optimizer': {'name': 'adamw', 'rate': 0.1}}


def test_claiming_writes_the_config_and_the_same_one_may_come_back(tmp_path):
    directory = tmp_path / 'deep' / 'run'
    assert work_directories.claim(directory, CONFIG) == directory
    written = (directory / 'config.json').read_text()
    assert json.loads(written) == {**CONFIG, 'sizes': [1, 2]}
    (directory / 'results.jsonl').write_text('kept')
    assert work_directories.claim(directory, dict(reversed(CONFIG.items()))) == directory
    assert (directory / 'config.json').read_text() == written
    assert names(directory) == {'config.json', 'results.jsonl'}


def claimed_and_used(directory, config):
    work_directories.claim(directory, config)
    (directory / 'metrics.jsonl').write_text('{"step": 1}\n')


# A change of the config, and how the message tells of it.
CHANGES = {
    'value': ({'seed': 1}, 'seed: 0 there, 1 here'),
    'nested value': ({'optimizer': {'name': 'sgd', 'rate': 0.1}}, "optimizer.name: 'adamw' there, 'sgd' here"),
    'tuple': ({'sizes': (1, 3)}, 'sizes: [1, 2] there, [1, 3] here'),
    'new key': ({'fold': 3}, 'fold: nothing there, 3 here'),
    'new key without a value': ({'fold': None}, 'fold: nothing there, None here'),
    'new empty group': ({'extra': {}}, 'extra: nothing there, {} here'),
    'two': ({'seed': 1, 'sizes': (1,)}, 'seed: 0 there, 1 here; sizes: [1, 2] there, [1] here'),
}


@pytest.mark.parametrize('change', CHANGES)
def test_the_work_directory_of_another_config_names_the_differing_key(tmp_path, change):
    changed, told = CHANGES[change]
    claimed_and_used(tmp_path, CONFIG)
    before = (tmp_path / 'config.json').read_text()
    message = f'the work directory {str(tmp_path)!r} belongs to another config ({told}); choose another --workdir'
    with pytest.raises(UserError) as caught:
        work_directories.claim(tmp_path, {**CONFIG, **changed})
    assert str(caught.value) == message
    assert (tmp_path / 'config.json').read_text() == before


def test_a_key_that_is_gone_is_named(tmp_path):
    claimed_and_used(tmp_path, CONFIG)
    with pytest.raises(UserError, match=r'\(seed: 0 there, nothing here\)'):
        work_directories.claim(tmp_path, {name: value for name, value in CONFIG.items() if name != 'seed'})


def test_many_differences_are_counted(tmp_path):
    claimed_and_used(tmp_path, dict.fromkeys('abcde', 0))
    message = '(a: 0 there, 1 here; b: 0 there, 1 here; c: 0 there, 1 here; and 2 more)'
    with pytest.raises(UserError, match=re.escape(message)):
        work_directories.claim(tmp_path, dict.fromkeys('abcde', 1))


nested = st.recursive(
    st.integers(0, 2) | st.none(),
    lambda inner: st.dictionaries(st.sampled_from('abc'), inner, max_size=2),
    max_leaves=5,
)
configs = st.dictionaries(st.sampled_from('abc'), nested, min_size=1, max_size=3)


@settings(max_examples=100, deadline=None)
@given(earlier=configs, later=configs)
def test_configs_share_a_work_directory_exactly_if_they_are_equal(tmp_path_factory, earlier, later):
    directory = tmp_path_factory.mktemp('run')
    claimed_and_used(directory, earlier)
    if earlier == later:
        work_directories.claim(directory, later)
    else:
        with pytest.raises(UserError, match=r'\([abc.]+: .* there, .* here'):
            work_directories.claim(directory, later)


@pytest.mark.parametrize(
    'computed',
    [
        'results.jsonl', 'result.json', 'metrics.jsonl', 'weights.safetensors', 'checkpoints/3',
        'checkpoints/3.unfinished', 'predictions/a.npz', 'trainings/a/0.1/metrics.jsonl',
        'trainings/a/0.1/checkpoints/3',
    ],
)  # fmt: skip
def test_a_directory_in_which_something_was_computed_is_not_taken_over(tmp_path, computed):
    work_directories.claim(tmp_path, CONFIG)
    (tmp_path / computed).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / computed).write_text('')
    with pytest.raises(UserError, match='belongs to another config'):
        work_directories.claim(tmp_path, {**CONFIG, 'seed': 1})


def test_a_directory_in_which_nothing_was_computed_is_taken_over(tmp_path, capsys):
    work_directories.claim(tmp_path, CONFIG)
    # What a run leaves that fails before its first checkpoint.
    for name in ('parameters.json', 'events.jsonl', 'wandb_id'):
        (tmp_path / name).write_text('')
    (tmp_path / 'checkpoints').mkdir()
    assert work_directories.check(tmp_path, {**CONFIG, 'seed': 1}) is None
    assert work_directories.read_config(tmp_path)['seed'] == 0
    assert capsys.readouterr().err == ''
    work_directories.claim(tmp_path, {**CONFIG, 'seed': 1})
    assert work_directories.read_config(tmp_path)['seed'] == 1
    assert not (tmp_path / 'wandb_id').exists()
    assert capsys.readouterr().err == (
        f'the work directory {str(tmp_path)!r} belonged to another config (seed: 0 there, 1 here), but nothing has '
        'been computed in it: it now belongs to this one\n'
    )


def test_a_directory_in_which_a_run_is_under_way_is_not_taken_over(tmp_path):
    work_directories.claim(tmp_path, CONFIG)
    with work_directories.used(tmp_path):
        work_directories._ours.clear()  # as another process sees it
        with pytest.raises(UserError, match='belongs to another config'):
            work_directories.claim(tmp_path, {**CONFIG, 'seed': 1})
        work_directories.claim(tmp_path, CONFIG)
    with work_directories.used(tmp_path):
        work_directories.claim(tmp_path, {**CONFIG, 'seed': 1})  # the run that is under way is this one


def test_a_damaged_config_is_named(tmp_path):
    (tmp_path / 'config.json').write_text('{"seed": ')
    with pytest.raises(
        UserError, match=r'config\.json is not a JSON file of a run \(Expecting value.*; choose another --workdir'
    ):
        work_directories.claim(tmp_path, CONFIG)


@pytest.mark.parametrize('below', ['file', 'file/run', 'file/deep/run'])
@pytest.mark.parametrize(
    'function',
    [work_directories.make, work_directories.check_writable, lambda path: work_directories.claim(path, CONFIG)],
)
def test_a_file_in_the_way_of_the_work_directory(tmp_path, function, below):
    (tmp_path / 'file').write_text('precious')
    message = f'cannot write to the work directory {str(tmp_path / below)!r}: '
    with pytest.raises(UserError, match=re.escape(message) + '(Not a directory|File exists|.*is not a directory)'):
        function(tmp_path / below)
    assert (tmp_path / 'file').read_text() == 'precious'


def test_making_a_work_directory_leaves_it_empty(tmp_path):
    assert work_directories.make(tmp_path / 'run') == tmp_path / 'run'
    assert names(tmp_path / 'run') == set()
    (tmp_path / 'run' / 'kept').write_text('')
    work_directories.make(tmp_path / 'run')
    assert names(tmp_path / 'run') == {'kept'}


def test_a_directory_that_cannot_be_written_is_found_without_making_it(tmp_path, monkeypatch):
    work_directories.check_writable(tmp_path / 'deep' / 'run')
    assert names(tmp_path) == set()
    # Permissions do not stop the superuser, who may run the tests.
    monkeypatch.setattr(work_directories.os, 'access', lambda path, mode: path != tmp_path)
    message = f'cannot write to the work directory {str(tmp_path / "run")!r}: {str(tmp_path)!r} cannot be written'
    with pytest.raises(UserError, match=re.escape(message)):
        work_directories.check_writable(tmp_path / 'run')


def test_two_runs_never_share_a_directory(tmp_path):
    """Each would overwrite the other's rows and checkpoints."""
    with (
        work_directories.used(tmp_path),
        pytest.raises(UserError, match='another run is under way in the work directory'),
        work_directories.used(tmp_path),
    ):
        raise AssertionError('the second run has begun')
    with work_directories.used(tmp_path):
        pass


def test_an_error_of_the_system_without_a_number_is_one_line():
    """Numpy's on a full disk, for one."""
    with (
        pytest.raises(UserError, match=r'^1024 requested and 512 written; all rows are kept$'),
        atomic_files.os_errors_as_user_errors(lambda: 'all rows are kept'),
    ):
        raise OSError('1024 requested and 512 written')
