"""Tasks: one file each, the only places that know what a target is. A new task is one file and one row here."""

from experiments.tasks.classification import Classification
from experiments.tasks.task import Task

TABLE: dict[str, type[Classification]] = {'classification': Classification}

__all__ = ['TABLE', 'Task']
