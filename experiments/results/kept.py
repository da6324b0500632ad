"""Small copies of work directories, so that a repository can hold the rows behind its tables.

A copy is read like a work directory. It has every row, and of the scores what intervals and comparisons need: the
prediction for each test example (and whether those for corrupted ones are right), or the metric of its bootstrap
samples. Scores of all classes, boxes and masks, checkpoints and metrics of single steps stay behind.
"""

from pathlib import Path

from backbones.errors import UserError
from experiments.cli import atomic_files, work_directories
from experiments.results import rows as result_rows
from experiments.results import scores


def keep(workdir: Path, output: Path) -> int:
    """Copy what tables need; an earlier copy is replaced.

    Args:
        workdir: of ``experiments.ablate`` or ``experiments.train``.
        output: the copy.

    Returns:
        Bytes of the copy.

    Raises:
        UserError: there are no results, or they cannot be read.
        OSError: a write fails.
    """
    rows = result_rows.read(workdir)
    if not rows:
        raise UserError(f'there are no results in {str(workdir)!r}; expected {result_rows.RESULTS}')
    if output.exists() and not (output / result_rows.RESULTS).exists():
        raise UserError(f'{str(output)!r} is no copy of a work directory; choose another name')
    if output.resolve() == workdir.resolve():
        raise UserError(f'{str(output)!r} is the work directory itself; choose another name')
    for row in rows:
        file = workdir / row.predictions
        corrupted = scores.read_corrupted(file)[1] if row.robustness else None
        scores.write_compact(output / row.predictions, scores.read(file), corrupted)
    wanted = {row.predictions for row in rows}
    for file in (output / 'predictions').glob('*.npz'):
        if f'predictions/{file.name}' not in wanted:
            file.unlink()
    result_rows.write(output, rows)
    config = work_directories.read_config(workdir)
    if config is not None:
        atomic_files.write_json(output / 'config.json', config)
    return sum(file.stat().st_size for file in output.rglob('*') if file.is_file())
