"""The store of features: interrupted, damaged, full, used by several processes at once."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from backbones import UserError
from experiments.cli import atomic_files
from experiments.features import __main__ as command
from experiments.features import locks, store
from experiments.features.entry_files import Shard
from experiments.features.store import Store, Wanted, parse_size

ROOT = Path(__file__).parents[2]
IDENTITY = {'weights': 'abc', 'tap': 'pooled'}
ABOUT = {'backbone': 'resnet_micro', 'data': 'digits', 'tap': 'pooled', 'examples': '20'}
BOUNDS = [(0, 8), (8, 16), (16, 20)]
WANTED = Wanted(IDENTITY, ABOUT, BOUNDS)
VALUES = np.arange(60, dtype=np.float32).reshape(20, 3)


class Computing:
    """Computes shards, and counts them."""

    def __init__(self, happens=lambda number: None, unreadable=()):
        self.numbers: list[int] = []
        self._happens, self._unreadable = happens, unreadable

    def __call__(self, missing):
        for number in missing[0]:
            start, stop = BOUNDS[number]
            self._happens(number)
            self.numbers.append(number)
            bad = {index: 'damaged' for index in self._unreadable if start <= index < stop}
            yield 0, Shard(number, VALUES[start:stop], bad)


def fetch(directory, computing=None, identity=IDENTITY, **options):
    computing = computing or Computing()
    (stored,) = Store(directory, **options).fetch([Wanted(identity, ABOUT, BOUNDS)], computing)
    np.testing.assert_array_equal(stored.array(), VALUES)
    return computing.numbers


def entry_of(directory) -> Path:
    (path,) = [path for path in directory.iterdir() if path.is_dir()]
    return path


def flip(file: Path, place: int = -1) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_what_is_stored_is_not_computed_again(tmp_path):
    assert fetch(tmp_path / 'store') == [0, 1, 2]
    assert fetch(tmp_path / 'store') == []
    assert fetch(tmp_path / 'store', identity={**IDENTITY, 'tap': 'stages'}) == [0, 1, 2]


def test_features_are_read_by_index_from_their_shards(tmp_path):
    (stored,) = Store(tmp_path).fetch([WANTED], Computing(unreadable=[3, 17]))
    again = Store(tmp_path).find(IDENTITY, BOUNDS)
    indices = np.array([19, 0, 8, 7, 16, 0])
    for each in (stored, again):
        assert each.shape == (20, 3)
        np.testing.assert_array_equal(each[indices], VALUES[indices])
        assert each.unreadable == {3: 'damaged', 17: 'damaged'}


def test_the_manifest_says_what_the_features_depend_on(tmp_path):
    fetch(tmp_path)
    manifest = (entry_of(tmp_path) / 'manifest.json').read_text()
    assert '"weights": "abc"' in manifest
    assert '"backbone": "resnet_micro"' in manifest
    assert {path.suffix for path in entry_of(tmp_path).iterdir()} == {'.json', '.npy'}
    assert len(list(entry_of(tmp_path).iterdir())) == 1 + len(BOUNDS)


def test_an_interrupted_pass_goes_on_with_what_is_missing(tmp_path, capsys):
    def interrupt(number):
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, Computing(interrupt))
    assert Store(tmp_path).find(IDENTITY, BOUNDS) is None
    (entry,) = Store(tmp_path).entries()
    assert not entry.complete
    assert entry.about == ABOUT
    assert fetch(tmp_path) == [2]
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('place', [0, 90, -1], ids=['magic', 'header', 'value'])
def test_a_flipped_byte_costs_its_shard_and_is_said(tmp_path, capsys, place):
    fetch(tmp_path)
    flip(entry_of(tmp_path) / '00001.npy', place)
    assert fetch(tmp_path) == [1]
    error = capsys.readouterr().err
    assert 'stored features of resnet_micro on digits: 00001.npy has changed: its SHA-256 is another' in error
    assert fetch(tmp_path) == []
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize(
    ('old', 'new'), [('"3"', '"4"'), ('"unreadable"', '"unreadablf"'), ('"examples"', '"examplez"')]
)
def test_a_changed_record_of_an_unfinished_pass(tmp_path, capsys, old, new):
    """It says which examples could not be read: another one would become features of zeros."""
    with pytest.raises(UserError, match='no more'):
        fetch(tmp_path, Computing(lambda number: _raise(UserError('no more')) if number == 2 else None, [3]))
    record = entry_of(tmp_path) / '00000.json'
    assert old in record.read_text()
    record.write_text(record.read_text().replace(old, new))
    assert fetch(tmp_path, Computing(unreadable=[3])) == [0, 2]
    assert '00000.npy' in capsys.readouterr().err
    assert Store(tmp_path).find(IDENTITY, BOUNDS).unreadable == {3: 'damaged'}


def test_a_flipped_byte_in_an_unfinished_pass(tmp_path, capsys):
    with pytest.raises(UserError, match='no more'):
        fetch(tmp_path, Computing(lambda number: _raise(UserError('no more')) if number == 2 else None))
    flip(entry_of(tmp_path) / '00000.npy')
    assert fetch(tmp_path) == [0, 2]
    assert '00000.npy has changed' in capsys.readouterr().err


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ('damage', 'computed'),
    [
        (lambda entry: (entry / '00002.npy').unlink(), [2]),
        (lambda entry: (entry / '00002.npy').write_bytes(b''), [2]),
        (lambda entry: (entry / 'manifest.json').write_text('{'), [0, 1, 2]),
        # A reason that was never given would otherwise be believed.
        (lambda entry: _replace(entry / 'manifest.json', '"unreadable": {}', '"unreadable": {"3": "x"}'), [0, 1, 2]),
        (lambda entry: _replace(entry / 'manifest.json', '"abc"', '"xyz"'), [0, 1, 2]),
    ],
    ids=['shard missing', 'shard empty', 'manifest broken', 'manifest changed', 'identity changed'],
)
def test_other_damage_is_mended(tmp_path, capsys, damage, computed):
    fetch(tmp_path)
    damage(entry_of(tmp_path))
    assert fetch(tmp_path) == computed
    assert 'recomputing it' in capsys.readouterr().err
    assert fetch(tmp_path) == []


def _replace(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_other_shards_of_another_version_are_computed_again(tmp_path, capsys):
    fetch(tmp_path)
    values = [Shard(0, VALUES[:10], {}), Shard(1, VALUES[10:], {})]
    wanted = Wanted(IDENTITY, ABOUT, [(0, 10), (10, 20)])
    (stored,) = Store(tmp_path).fetch([wanted], lambda missing: ((0, values[n]) for n in missing[0]))
    np.testing.assert_array_equal(stored.array(), VALUES)
    assert '00000.npy holds other examples' in capsys.readouterr().err


def test_a_full_disk_ends_in_one_line_and_keeps_what_is_finished(tmp_path, monkeypatch):
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 6:  # what the entry holds, then a shard and its checksum, twice
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic_files.os, 'fsync', full)
    with pytest.raises(UserError) as caught:
        fetch(tmp_path)
    message = str(caught.value)
    assert '\n' not in message
    assert re.search(r'No space left on device \(.*00002\.npy\); 2 of 3 shards of the features of resnet', message)
    assert '--cache_dir' in message
    monkeypatch.undo()
    assert not list(tmp_path.rglob('.*'))
    assert fetch(tmp_path) == [2]


def test_a_directory_that_cannot_be_written(tmp_path, monkeypatch):
    fetch(tmp_path)

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path))

    monkeypatch.setattr(locks.os, 'open', refuse)
    monkeypatch.setattr(store.os, 'utime', refuse)
    assert fetch(tmp_path) == []  # reading needs no more than reading
    with pytest.raises(UserError, match=r'Read-only file system .*0 of 3 shards .* are kept .*--cache_dir'):
        fetch(tmp_path, identity={'weights': 'other'})


def test_a_file_in_the_place_of_the_directory_is_one_line(tmp_path):
    (tmp_path / 'store').write_text('')
    with pytest.raises(UserError, match='lies in, a file; choose a directory with --cache_dir'):
        fetch(tmp_path / 'store')


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, 'tests/experiments')
from test_features_store import Computing, fetch

def tell(number):
    print('computing', number, flush=True)
    if number == 2 and 'stop' in sys.argv:
        time.sleep(600)
    time.sleep(0.2)

fetch(Path(sys.argv[1]), Computing(tell))
print('ended')
"""


def start(directory, *arguments) -> subprocess.Popen:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
    command = [sys.executable, '-c', SCRIPT, str(directory), *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.slow
def test_killed_in_the_middle_then_two_at_once(tmp_path):
    killed = start(tmp_path, 'stop')
    for line in killed.stdout:
        if line == 'computing 2\n':
            break
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    (entry_of(tmp_path) / '.00002.npy.half').write_bytes(b'half')
    both = [start(tmp_path) for _ in range(2)]
    told = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    # One of them computes what is missing; the other waits for it, or comes when it is done.
    assert sorted(out for out, _ in told) == ['computing 2\nended\n', 'ended\n']
    assert fetch(tmp_path) == []
    assert not list(tmp_path.rglob('.*'))


def test_a_second_writer_waits_for_the_first_and_computes_nothing(tmp_path, capsys):
    begun, go_on = threading.Event(), threading.Event()

    def wait(number):
        begun.set()
        assert go_on.wait(60)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(fetch, tmp_path, Computing(wait))
        assert begun.wait(60)
        threading.Timer(0.2, go_on.set).start()
        assert fetch(tmp_path) == []
        assert first.result() == [0, 1, 2]
    assert 'another process is computing the features of resnet_micro on digits' in capsys.readouterr().err


class TestSeveralEntries:
    OTHER = Wanted({**IDENTITY, 'tap': 'stages'}, ABOUT, [(0, 12), (12, 20)])

    def computing(self, entries, numbers, happens=lambda place, number: None):
        """Computes every missing shard, in the order of their ends, and notes it."""

        def compute(missing):
            todo = [(entries[place].bounds[number], place, number) for place in range(2) for number in missing[place]]
            for (start, stop), place, number in sorted(todo, key=lambda each: each[0][1]):
                happens(place, number)
                numbers.append((entries[place].identity['tap'], number))
                yield place, Shard(number, VALUES[start:stop], {})

        return compute

    def test_each_keeps_what_is_finished(self, tmp_path):
        entries, numbers, told = [WANTED, self.OTHER], [], []

        def interrupt(place, number):
            if (place, number) == (1, 1):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Store(tmp_path).fetch(entries, self.computing(entries, numbers, interrupt))
        assert numbers == [('pooled', 0), ('stages', 0), ('pooled', 1), ('pooled', 2)]
        numbers.clear()
        stored = Store(tmp_path).fetch(entries, self.computing(entries, numbers), told.append)
        assert (numbers, told) == ([('stages', 1)], [[[0, 1, 2], [0]]])
        for each in stored:
            np.testing.assert_array_equal(each.array(), VALUES)
        assert all(entry.complete and entry.in_use for entry in Store(tmp_path).entries())

    def test_two_that_name_them_in_another_order_do_not_wait_for_each_other(self, tmp_path):
        numbers, both = [], threading.Barrier(2)

        def one(entries):
            both.wait(60)
            stored = Store(tmp_path).fetch(entries, self.computing(entries, numbers, lambda *_: time.sleep(0.02)))
            return [each.array().tobytes() for each in stored]

        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(one, ([WANTED, self.OTHER], [self.OTHER, WANTED])))
        assert found == [[VALUES.tobytes()] * 2] * 2
        assert len(numbers) == 5


def test_a_lock_that_was_deleted_protects_nobody(tmp_path):
    path = tmp_path / 'lock'
    held = locks.acquire(path, shared=False, wait=True)
    assert locks.acquire(path, shared=True, wait=False) is None
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(locks.acquire, path, shared=False, wait=True)
        time.sleep(0.05)
        path.unlink()
        held.close()
        other = waiting.result()
    assert locks.acquire(path, shared=False, wait=False) is None
    other.close()


class TestPrune:
    def fill(self, directory, count=3) -> list[str]:
        """Entries that were used one after the other; their addresses."""
        names = []
        for number in range(count):
            identity = {'weights': str(number)}
            fetch(directory, identity=identity)
            names.append(store.address(identity))
            os.utime(directory / f'{names[-1]}.lock', (1e9 + number, 1e9 + number))
        return names

    def left(self, directory) -> set[str]:
        return {entry.address for entry in Store(directory).entries()}

    def test_what_was_used_least_recently_goes_first(self, tmp_path):
        names = self.fill(tmp_path)
        size = Store(tmp_path).entries()[0].size
        removed, kept = Store(tmp_path).prune(limit=2 * size)
        assert ([entry.address for entry in removed], kept) == (names[:1], [])
        assert self.left(tmp_path) == set(names[1:])
        fetch(tmp_path, identity={'weights': '1'})  # now the last one that was used
        Store(tmp_path).prune(limit=size)
        assert self.left(tmp_path) == {names[1]}
        assert {path.name for path in tmp_path.iterdir()} == {names[1], f'{names[1]}.lock'}

    def test_what_is_in_use_stays(self, tmp_path):
        names = self.fill(tmp_path)
        used = Store(tmp_path).find({'weights': '0'}, BOUNDS)
        os.utime(tmp_path / f'{names[0]}.lock', (1e9, 1e9))
        removed, kept = Store(tmp_path).prune(limit=0)
        assert {entry.address for entry in removed} == set(names[1:])
        assert [entry.address for entry in kept] == names[:1]
        np.testing.assert_array_equal(used.array(), VALUES)
        del used
        Store(tmp_path).prune(limit=0)
        assert self.left(tmp_path) == set()

    def test_new_features_push_old_ones_out(self, tmp_path):
        names = self.fill(tmp_path)
        size = Store(tmp_path).entries()[0].size
        wanted = [Wanted({'weights': name}, ABOUT, BOUNDS) for name in ('new', 'large')]
        (stored,) = Store(tmp_path, limit=2 * size + 100).fetch(wanted[:1], Computing())
        assert self.left(tmp_path) == {names[2], store.address({'weights': 'new'})}
        # Even where they alone are too large.
        (other,) = Store(tmp_path, limit=0).fetch(wanted[1:], Computing())
        np.testing.assert_array_equal(other.array(), stored.array())

    def test_commands(self, tmp_path, capsys):
        names = self.fill(tmp_path)
        where = ['--cache_dir', str(tmp_path)]
        command.main(['list', *where])
        shown = capsys.readouterr().out
        assert '3 entries' in shown
        assert shown.index(names[2][:12]) < shown.index(names[0][:12])
        assert all(text in shown for text in ('resnet_micro', 'digits', 'pooled', '2001-09-09', 'complete'))
        fetch(tmp_path, identity={'weights': '1'})
        command.main(['prune', *where, '--days', '30'])
        assert '2 entries removed' in capsys.readouterr().out
        assert self.left(tmp_path) == {names[1]}
        command.main(['prune', *where, '--size', '1MB'])
        assert '0 entries removed' in capsys.readouterr().out
        command.main(['prune', *where, '--all'])
        assert self.left(tmp_path) == set()
        command.main(['list', *where])
        assert '0 entries' in capsys.readouterr().out

    @pytest.mark.parametrize(
        ('arguments', 'told'),
        [
            (['prune'], 'prune needs one of --size, --days and --all'),
            (['prune', '--size', '5 apples'], "'5 apples' is not a size; expected a number with B, KB, MB, GB or TB"),
            (['prune', '--size=-1GB'], "'-1GB' is not a size"),
            (['prune', '--days', '-1'], '--days takes a number of days of at least 0, not -1'),
            (['list', '--all'], 'list takes none of them'),
        ],
    )
    def test_bad_input_is_one_line(self, tmp_path, arguments, told):
        with pytest.raises(UserError, match=re.escape(told)):
            command.main([*arguments, '--cache_dir', str(tmp_path)])

    def test_no_such_directory_is_one_line(self, tmp_path):
        with pytest.raises(UserError, match='there is no directory'):
            command.main(['list', '--cache_dir', str(tmp_path / 'x')])

    @pytest.mark.parametrize('arguments', [['lst'], ['prune', '--size=1GB', '--all'], []])
    def test_bad_arguments_exit_with_2(self, arguments, capsys):
        with pytest.raises(SystemExit) as ended:
            command.main(arguments)
        assert ended.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_sizes():
    assert [parse_size(text) for text in ('20GB', '1.5 mb', '12', '3kb')] == [20 * 10**9, 1_500_000, 12, 3000]
    assert store.format_size(20e9) == '20.0GB'


def test_the_default_directory_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv('VISION_BACKBONES_CACHE', str(tmp_path))
    assert Store().directory == tmp_path
    monkeypatch.delenv('VISION_BACKBONES_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    assert Store().directory.name == 'features'
    assert 'vision-backbones' in str(Store().directory)


def test_time_of_last_use(tmp_path):
    fetch(tmp_path)
    lock = tmp_path / f'{entry_of(tmp_path).name}.lock'
    os.utime(lock, (1e9, 1e9))
    fetch(tmp_path)
    assert time.time() - Store(tmp_path).entries()[0].last_use < 100
