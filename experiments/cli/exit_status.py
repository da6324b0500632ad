"""The end of a run that was asked to stop."""

# EX_TEMPFAIL of sysexits.h: a temporary failure, to be retried.
EXIT_STATUS = 75


class Preempted(Exception):
    """The process was asked to stop, and its state is saved.

    Args:
        step: number of finished steps in the checkpoint; ``None`` if there was nothing to save.
    """

    def __init__(self, step: int | None = None):
        saved = '' if step is None else f'step {step:,} is saved, and '
        super().__init__(f'asked to stop: {saved}the same command continues')
