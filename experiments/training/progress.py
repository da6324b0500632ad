"""Where a run is: the bookkeeping beside the state on the devices that a resumed run needs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

# What earlier versions called these, in the checkpoints that they wrote.
_EARLIER_NAMES = {'last_accuracy': 'last_score', 'best': 'best_score'}


@dataclasses.dataclass
class Progress:
    """Where a run is; saved with the state, as JSON.

    Attributes:
        step: finished steps of all phases.
        phase: number of the present phase.
        phase_start: finished steps when it began.
        over: whether it has ended.
        evaluation_due: whether this step ends with an evaluation that is not done yet.
        sums: of the metrics of the steps since the last evaluation.
        counted: number of those steps.
        last_score: the primary metric of the newest evaluation of this phase; -1 before the first.
        best_score: the highest of them.
        stale: evaluations since then.
        skipped: steps whose update was left out.
        bad: training examples that could not be read.
    """

    step: int = 0
    phase: int = 0
    phase_start: int = 0
    over: bool = False
    evaluation_due: bool = False
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    counted: int = 0
    last_score: float = -1.0
    best_score: float = -1.0
    stale: int = 0
    skipped: list[int] = dataclasses.field(default_factory=list)
    bad: list[str] = dataclasses.field(default_factory=list)

    @staticmethod
    def from_metadata(metadata: Mapping[str, Any]) -> 'Progress':
        """As a checkpoint holds it, also one of an earlier version."""
        return Progress(**{_EARLIER_NAMES.get(name, name): value for name, value in metadata.items()})

    def add(self, metrics: Mapping[str, float]) -> None:
        """Count a finite step in."""
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in metrics.items()}
        self.counted += 1

    def evaluated(self, score: float) -> dict[str, float]:
        """Note a validation score; returns the means of the metrics of the steps before it."""
        means = {name: total / self.counted for name, total in self.sums.items()}
        self.sums, self.counted = {}, 0
        self.stale = 0 if score > self.best_score else self.stale + 1
        self.last_score, self.best_score = score, max(self.best_score, score)
        return means

    def next_phase(self) -> 'Progress':
        """At the beginning of the phase after this one."""
        return Progress(self.step, self.phase + 1, self.step, skipped=self.skipped, bad=self.bad)
