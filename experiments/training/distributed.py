"""Several processes that compute as one; each joins before it uses a device."""

import jax

from backbones.errors import UserError


def join(
    detect: bool,
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Join the other processes, if there are any.

    Args:
        detect: whether to ask the cluster (SLURM, Cloud TPU, GKE, Open MPI; see ``jax.distributed.initialize``).
        coordinator_address: ``HOST:PORT`` of process 0.
        num_processes: number of processes.
        process_id: number of this process.

    Raises:
        UserError: only some of the last three are given, no cluster was found, or the other processes cannot be
            reached.
    """
    given = (coordinator_address, num_processes, process_id)
    if given == (None, None, None) and not detect:
        return
    if given != (None, None, None) and None in given:
        raise UserError('--coordinator_address, --num_processes and --process_id belong together; one is missing')
    # One process writes the programs that it has compiled. Those that find them would wait for those that do not, for
    # longer than the first collective has time.
    jax.config.update('jax_enable_compilation_cache', False)
    try:
        jax.distributed.initialize(coordinator_address, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f'the processes could not join: {str(error).splitlines()[0]}. --distributed asks SLURM, Cloud TPU, GKE or '
            'Open MPI; elsewhere give --coordinator_address, --num_processes and --process_id'
        ) from None
