"""The rotation of the exhaustive tests: every test in one part, every part of about the same size."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rotation import PARTS, part_of_commit, part_of_test

NODE_IDS = [f'tests/test_{file}.py::test_{name}[{case}]' for file in 'abc' for name in 'defgh' for case in range(40)]
HASHES = st.text('0123456789abcdef', min_size=40, max_size=40)


@given(st.text())
def test_each_test_is_in_exactly_one_part(node_id):
    assert [part_of_test(node_id) == part for part in range(PARTS)].count(True) == 1


@given(HASHES)
def test_each_commit_runs_exactly_one_part(commit):
    assert part_of_commit(commit) in range(PARTS)
    assert part_of_commit(commit) == part_of_commit(f'{commit}\n')


def test_both_are_spread_evenly():
    for counts in (
        Counter(map(part_of_test, NODE_IDS)),
        Counter(part_of_commit(f'{number:040x}') for number in range(600)),
    ):
        assert sorted(counts) == list(range(PARTS))
        assert max(counts.values()) < 1.5 * 600 / PARTS


TESTS = """
import pytest

@pytest.mark.exhaustive
@pytest.mark.parametrize('seed', range(200))
def test_repeated(seed):
    pass

def test_always():
    pass
"""


def selected(directory: Path, *options: str) -> str:
    """What pytest says to the collection of ``TESTS`` under this repository's conftest."""
    tests = Path(__file__).parent
    command = [
        sys.executable,
        '-m',
        'pytest',
        '--collect-only',
        '-q',
        '-p',
        'no:cacheprovider',
        f'--rootdir={directory}',
    ]
    return subprocess.run(
        [*command, f'--confcutdir={directory}', '-p', 'tests.conftest', '-W', 'ignore', *options, 'test_repetition.py'],
        cwd=directory,
        env={'PYTHONPATH': str(tests.parent), 'PATH': ''},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.slow
def test_commits_of_different_parts_run_everything_once(tmp_path):
    (tmp_path / 'test_repetition.py').write_text(TESTS)
    (tmp_path / 'pytest.ini').write_text('[pytest]\nmarkers = exhaustive\n')
    commits = {part_of_commit(str(number)): str(number) for number in range(100)}
    assert len(commits) == PARTS
    seen: Counter[str] = Counter()
    for part, commit in commits.items():
        output = selected(tmp_path, f'--part-of={commit}')
        tests = [line for line in output.splitlines() if line.startswith('test_repetition.py::')]
        seen.update(tests)
        repeated = [test for test in tests if 'repeated' in test]
        assert {part_of_test(test) for test in repeated} == {part}
        assert f'exhaustive tests of this part: {", ".join(repeated)}' in output
    assert seen.pop('test_repetition.py::test_always') == PARTS
    assert len(seen) == 200
    assert set(seen.values()) == {1}
    assert selected(tmp_path).count('::test_repeated') == 200
