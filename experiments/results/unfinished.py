"""What of a plan has no result yet: how many cells, and which lines of the tables have fewer seeds than planned."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from experiments.cli import work_directories
from experiments.results import failures, markdown_text, planned_cells, rows
from experiments.results.aggregates import Aggregate
from experiments.results.visible_text import shown

# Lines that are named.
_MOST_NAMES = 8


@dataclasses.dataclass(frozen=True)
class FewerSeeds:
    """A line with fewer seeds than planned.

    Attributes:
        line: what it is, for people.
        seeds: how many it has.
        planned: how many it is to have.
    """

    line: str
    seeds: int
    planned: int


@dataclasses.dataclass(frozen=True)
class Unfinished:
    """What has no result yet.

    Attributes:
        cells: number of planned cells that neither have a result nor failed.
        lines: those with fewer seeds than planned, because cells are not finished or failed.
    """

    cells: int = 0
    lines: tuple[FewerSeeds, ...] = ()

    def text(self) -> str:
        """Sentences for the terminal; empty if nothing is missing."""
        sentences = []
        if self.cells:
            sentences.append(f'{self.cells:,} planned cell{" is" if self.cells == 1 else "s are"} not finished.')
        if self.lines:
            names = [f'{each.line} ({each.seeds} of {each.planned})' for each in self.lines[:_MOST_NAMES]]
            more = len(self.lines) - _MOST_NAMES
            names += [f'{more:,} more'] if more > 0 else []
            sentences.append(f'Fewer seeds than planned: {"; ".join(names)}.')
        return shown(' '.join(sentences))

    def markdown(self) -> str:
        """A paragraph of ``table.md``; empty if nothing is missing."""
        text = self.text()
        return f'\n{markdown_text.escaped(text)}\n' if text else ''


def read(workdirs: Sequence[Path], aggregates: Sequence[Aggregate]) -> Unfinished:
    """What the plans of work directories have and their results lack.

    Args:
        workdirs: the directories; of one without a plan, as of trainings and earlier versions, nothing is missing.
        aggregates: the lines of their tables.

    Raises:
        UserError: a file of a directory is damaged.
    """
    plans = {workdir: planned_cells.read(workdir) or frozenset() for workdir in workdirs}
    finished = {workdir: rows.read(workdir) for workdir in workdirs}
    seeds = {workdir: _seeds(workdir) | {row.cell.seed for row in finished[workdir]} for workdir in workdirs}
    cells = 0
    for workdir, plan in plans.items():
        failed = {each.cell.key() for each in failures.remaining([workdir])}
        cells += len(plan - failed - {row.cell.key() for row in finished[workdir]})

    # The plan has the keys of cells alone, so whether it has a seed is found by the key with that seed.
    def planned(aggregate: Aggregate) -> set[int]:
        found = set()
        for part, row in aggregate.members:
            workdir = next(each for each in workdirs if each in (part, *part.parents))
            others = {seed: dataclasses.replace(row.cell, seed=seed) for seed in seeds[workdir]}
            found |= {seed for seed, cell in others.items() if cell.key() in plans[workdir]}
        return found

    several = len({aggregate.dataset for aggregate in aggregates}) > 1
    lines = []
    for aggregate in aggregates:
        known = {row.cell.seed for _, row in aggregate.members}
        missing = planned(aggregate) - known
        if missing:
            lines.append(FewerSeeds(_line(aggregate, several), len(known), len(known | missing)))
    return Unfinished(cells, tuple(lines))


def _seeds(workdir: Path) -> set[int]:
    found = (work_directories.read_config(workdir) or {}).get('seeds', ())
    return {*found} if isinstance(found, list) else set()


def _line(aggregate: Aggregate, several_datasets: bool) -> str:
    dataset = aggregate.dataset if several_datasets else ''
    share = aggregate.share_in_words if aggregate.shots else f'fraction {aggregate.share_in_words}'
    return ' · '.join(filter(None, [dataset, aggregate.variant.label, aggregate.head, aggregate.method, share]))
