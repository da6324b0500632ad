"""What of a plan has no result yet, as terminal, table.md and page tell it."""

import dataclasses

from experiments import report
from experiments.cli import atomic_files
from experiments.results import aggregates, failures, planned_cells, unfinished
from experiments.results.unfinished import FewerSeeds
from tests.experiments.made_rows import make_row, write

ROWS = [make_row(backbone, seed) for backbone in ('whole', 'part_of') for seed in (0, 1)]


def make(path, *made, planned, seeds=(0, 1)):
    """A work directory with a config and a plan."""
    write(path, *made)
    atomic_files.write_json(path / 'config.json', {'backbones': ['b'], 'seeds': list(seeds)})
    planned_cells.write(path, planned)
    return path


def read(*workdirs):
    return unfinished.read(workdirs, aggregates.load(*workdirs))


def test_a_line_with_one_of_two_seeds_is_named(tmp_path, capsys):
    path = make(tmp_path / 'run', *ROWS[:3], planned=[row.cell for row in ROWS])
    text = '1 planned cell is not finished. Fewer seeds than planned: part_of · linear · fraction 1 (1 of 2).'
    found = read(path)
    assert found.text() == text
    report.main(['--workdir', str(path)])
    assert text in capsys.readouterr().out
    assert (path / 'table.md').read_text().endswith(f'\n\n{text}\n')


def test_failed_cells_are_missing_from_their_lines_alone(tmp_path):
    path = make(tmp_path / 'run', *ROWS[:3], planned=[row.cell for row in ROWS])
    failures.write(path, [failures.Failure(ROWS[3].cell, 'no memory')])
    found = read(path)
    assert (found.cells, found.lines) == (0, (FewerSeeds('part_of · linear · fraction 1', 1, 2),))
    assert found.text().startswith('Fewer seeds')


def test_seeds_that_no_row_has_are_those_of_the_config(tmp_path):
    planned = [dataclasses.replace(ROWS[0].cell, seed=seed) for seed in (0, 7, 8)]
    (line,) = read(make(tmp_path / 'run', ROWS[0], planned=planned, seeds=(0, 7, 8))).lines
    assert (line.seeds, line.planned) == (1, 3)


def test_each_directory_has_a_plan_of_its_own(tmp_path):
    one = make(tmp_path / 'one', *ROWS[:2], planned=[row.cell for row in ROWS[:2]])
    other = [dataclasses.replace(ROWS[0], config={**ROWS[0].config, 'fit': 'pad'})]
    other = make(tmp_path / 'other', *other, planned=[ROWS[0].cell])
    assert read(one, other) == unfinished.Unfinished()
    # Seeds of one line in two directories; together they are all.
    first, second = (make(tmp_path / f'{seed}', ROWS[seed], planned=[ROWS[seed].cell]) for seed in (0, 1))
    assert read(first, second).text() == ''


def test_without_a_plan_nothing_is_missing(tmp_path):
    write(tmp_path, *ROWS[:3])
    found = read(tmp_path)
    assert (found.text(), found.markdown()) == ('', '')


def test_many_lines_are_counted():
    lines = tuple(FewerSeeds(f'line {number}', 1, 3) for number in range(10))
    assert unfinished.Unfinished(20, lines).text().endswith('line 7 (1 of 3); 2 more.')
