"""Progress of a run: what a resumed run needs besides the state on the devices."""

import dataclasses
from collections.abc import Mapping
from typing import Any

# Names in checkpoints of earlier versions.
_EARLIER_NAMES = {'last_accuracy': 'last_score', 'best': 'best_score'}


@dataclasses.dataclass
class Progress:
    """Progress of a run, saved as JSON with the state.

    Attributes:
        step: number of finished steps in all phases.
        phase: number of the current phase.
        phase_start: number of finished steps when it began.
        over: whether it has ended.
        evaluation_due: whether an evaluation is due at this step and not yet done.
        sums: sums of the metrics over the steps since the last evaluation.
        counted: number of those steps.
        last_score: the primary metric in the newest evaluation of this phase; -1 before the first.
        best_score: the highest score of this phase.
        stale: number of evaluations since the best one.
        skipped: steps whose update was skipped.
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
        """Read it from the metadata of a checkpoint, including checkpoints of earlier versions."""
        return Progress(**{_EARLIER_NAMES.get(name, name): value for name, value in metadata.items()})

    def add(self, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a finite step."""
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in metrics.items()}
        self.counted += 1

    def evaluated(self, score: float) -> dict[str, float]:
        """Record a validation score; returns the mean metrics over the steps since the last one."""
        means = {name: total / self.counted for name, total in self.sums.items()}
        self.sums, self.counted = {}, 0
        self.stale = 0 if score > self.best_score else self.stale + 1
        self.last_score, self.best_score = score, max(self.best_score, score)
        return means

    def next_phase(self) -> 'Progress':
        """The progress at the beginning of the next phase."""
        return Progress(self.step, self.phase + 1, self.step, skipped=self.skipped, bad=self.bad)
