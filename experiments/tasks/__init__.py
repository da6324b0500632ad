"""Tasks: one file each, the only places that know what a target is. A new task is one file and one row here."""

from experiments.tasks import classification
from experiments.tasks.task import Task

TABLE = {'classification': classification.create}

__all__ = ['TABLE', 'Task']
