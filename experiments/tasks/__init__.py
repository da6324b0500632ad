"""Tasks, one file each; only they know what a target is. To add a task, add a file and a row here."""

from experiments.tasks.classification import Classification
from experiments.tasks.task import Task

TABLE: dict[str, type[Classification]] = {'classification': Classification}

__all__ = ['TABLE', 'Task']
