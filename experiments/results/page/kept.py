"""What sections read of the scores that are kept of every line, and which lines they show."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from backbones.errors import UserError
from experiments.data import record
from experiments.results import calibration, older_rows, scores
from experiments.results.aggregates import Aggregate
from experiments.results.page import estimates
from experiments.results.page.content import Report
from experiments.results.scores import Scores


def lines(report: Report, dataset: str, most: int) -> tuple[list[Aggregate], str]:
    """The best lines of a data set with the most labels, and a sentence if these are not all."""
    found = estimates.columns(report.aggregates, dataset)[0]
    if len(found) <= most:
        return found, ''
    return found[:most], f'The {most} best of {len(found)} lines with {estimates.labelled(found[0])}.'


def names(chosen: Sequence[Aggregate]) -> list[str]:
    """A name for each of several lines."""
    if len(chosen) > 1:
        return estimates.names(chosen)
    return [' · '.join(value for value in estimates.axes(chosen[0]).values() if value != '–')]


def classes(line: Aggregate, least: int = 0) -> list[str]:
    """Names of the classes of a line's data set; numbers where they are not known, and at least so many."""
    workdir, row = line.members[0]
    found: list[str] = []
    with contextlib.suppress(UserError):
        found = list(record.classes(workdir, row.cell.dataset))
    return [*found, *map(str, range(len(found), least))]


class Classified(NamedTuple):
    """What is kept of a seed whose examples are of one class each."""

    targets: Int[np.ndarray, ' examples']
    predictions: Int[np.ndarray, ' examples']
    scores: Scores


def classified(line: Aggregate) -> list[Classified]:
    """What is kept of each seed, where an example is of one class; files that cannot be read are left out."""
    found = []
    for workdir, row in line.members:
        with contextlib.suppress(UserError):
            kept = scores.read(workdir / row.predictions)
            if kept.targets is not None and kept.predictions is not None:
                found.append(Classified(kept.targets, kept.predictions, kept))
    return found


def arrays(line: Aggregate, wanted: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
    """The named arrays of each seed that has all of them; files that cannot be read are left out."""
    for workdir, row in line.members:
        try:
            with np.load(workdir / row.predictions) as file:
                if all(name in file for name in wanted):
                    yield {name: file[name] for name in wanted}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
            continue


def probabilities(line: Aggregate, kept: Scores) -> np.ndarray | None:
    """The probabilities of all classes, where all scores are kept and have some."""
    if kept.logits is None or kept.classes is not None:
        return None
    return calibration.probabilities(np.asarray(kept.logits, np.float32), kind(line, kept))


def kind(line: Aggregate, kept: Scores) -> scores.ScoreKind:
    """What the scores are."""
    return kept.score_kind or older_rows.score_kind(line.members[0][1].cell.regime)
