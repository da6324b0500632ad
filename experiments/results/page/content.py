"""What the page is made of: the results of work directories, read once for all sections."""

import contextlib
import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.cli import commands, json_files, work_directories
from experiments.data import nouns
from experiments.results import aggregates, failures, rows, unfinished
from experiments.results.aggregates import Aggregate
from experiments.results.failures import Failure
from experiments.results.rows import Row
from experiments.results.unfinished import Unfinished

# What ``parameters.json`` has: per phase its name and its rules, each with pattern, state and number of parameters.
Phases = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Report:
    """The results of one or several work directories.

    Attributes:
        workdirs: where they come from.
        aggregates: the lines of the tables, in their order.
        rows: every row with its work directory, that of its shard where it has one.
        failures: cells that failed.
        missing: what of the plans has no result.
        configs: ``config.json`` per work directory.
        commands: those of each, as far as they are known, in the order of their last runs.
        rules: (backbone, regime) → the freezing rules of each phase of its training, as ``parameters.json`` has them.
        command: the command that writes this report again.
        written: when the report was written.
    """

    workdirs: tuple[Path, ...]
    aggregates: tuple[Aggregate, ...]
    rows: tuple[tuple[Path, Row], ...]
    failures: tuple[Failure, ...] = ()
    missing: Unfinished = dataclasses.field(default_factory=Unfinished)
    configs: Mapping[Path, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    commands: Mapping[Path, Sequence[str]] = dataclasses.field(default_factory=dict)
    rules: Mapping[tuple[str, str], Phases] = dataclasses.field(default_factory=dict)
    command: str = ''
    written: datetime.datetime = datetime.datetime.min

    @property
    def versions(self) -> dict[str, list[str]]:
        """Package, or ``device`` → its versions in the rows, in the order of the rows."""
        found: dict[str, dict[str, None]] = {}
        for _, row in self.rows:
            for package, version in row.versions.items():
                found.setdefault(package, {})[version] = None
        return {package: list(versions) for package, versions in found.items()}

    @property
    def noun(self) -> str:
        """What an example is called, such as ``'image'``."""
        return nouns.common(each.noun for each in self.aggregates)

    @property
    def datasets(self) -> list[str]:
        """Labels of the data sets, in the order of the tables."""
        return aggregates.datasets(self.aggregates)


def read(workdirs: Sequence[Path], command: str = '') -> Report:
    """Read work directories.

    Raises:
        UserError: a directory has no results, or they cannot be read.
    """
    found = tuple(rows.held(workdir, row) for workdir in workdirs for row in rows.read(workdir))
    lines = tuple(aggregates.load(*workdirs))
    return Report(
        workdirs=tuple(workdirs),
        aggregates=lines,
        rows=found,
        missing=unfinished.read(workdirs, lines),
        failures=tuple(failures.remaining(workdirs)),
        configs={workdir: work_directories.read_config(workdir) or {} for workdir in workdirs},
        commands={workdir: commands.read(workdir) for workdir in workdirs},
        rules=_rules(found),
        command=command,
        written=datetime.datetime.now().astimezone(),
    )


def _rules(found: Sequence[tuple[Path, Row]]) -> dict[tuple[str, str], Phases]:
    """What trained, from the directories of trainings and from those of an ablation's trainings."""
    rules: dict[tuple[str, str], Phases] = {}
    for workdir, row in found:
        key = (row.cell.variant.backbone, row.cell.regime)
        if key in rules:
            continue
        inner = workdir / 'trainings' / row.key
        for file in (
            sorted(inner.glob('*/parameters.json')) if 'training' in row.config else [workdir / 'parameters.json']
        ):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                phases = json_files.parse(file.read_text())
                if all({'pattern', 'state', 'parameters'} <= {*rule} for phase in phases for rule in phase['rules']):
                    rules.setdefault(key, phases)
    return rules
