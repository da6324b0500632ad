"""What the work directory of an ablation holds: the rows of finished cells, and the cells that failed."""

import dataclasses
import traceback
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path

import ml_collections

from backbones.errors import UserError, listed
from experiments.ablation import growth, settings
from experiments.cli import display
from experiments.cli.exit_status import CellsFailed
from experiments.data.dataset import Dataset
from experiments.results import failures, planned_cells, shards
from experiments.results import rows as result_rows
from experiments.results.axes import Cell, Variant
from experiments.results.failures import Failure
from experiments.results.rows import Row


class Journal:
    """Finished and failed cells.

    Args:
        config: the ablation's config.
        workdir: the work directory.
        root: the work directory that this one is a shard of; what is finished there, or in another shard, counts.

    Attributes:
        rows: of the finished cells, with a setting for every key of ``axes`` that they depend on.
        axes: keys that are axes now, or were when a cell was finished.
        places: of a shard, the place of each cell in the whole ablation.

    Raises:
        UserError: the work directory is not an ablation's, or its finished cells depend on other config values.
    """

    def __init__(self, config: ml_collections.ConfigDict, workdir: Path, root: Path | None = None):
        self._config, self._workdir, self._root = config.to_dict(), workdir, root
        self._written = self.rows = result_rows.read(workdir)
        self._elsewhere: list[Row] = []
        if root is not None:
            mine = {row.predictions for row in self.finished}
            self._elsewhere = [row for row in result_rows.read(root) if row.predictions not in mine]
        growth.check(self._whole, self._config, self.finished)
        self.axes = growth.axis_keys(self.finished, self._config)
        self.rows = growth.with_settings(self._written, self.axes)
        self.places: Mapping[Cell, int] = {}
        self._elsewhere = growth.with_settings(self._elsewhere, self.axes)
        self._failures = {each.cell: each for each in failures.read(workdir)}

    @property
    def _whole(self) -> Path:
        return self._root or self._workdir

    @property
    def finished(self) -> list[Row]:
        """Every row of a finished cell, in this shard or elsewhere in the ablation; their files are in the whole."""
        inside = self._workdir.relative_to(self._whole)
        own = [dataclasses.replace(row, predictions=(inside / row.predictions).as_posix()) for row in self.rows]
        return [*own, *self._elsewhere]

    def check_weights(self, variants: Iterable[Variant]) -> None:
        """Check that finished cells of some variants were computed from their current weights.

        Raises:
            UserError: a weight file has changed; the cells are named.
        """
        growth.check_weights(self._whole, variants, self.finished)

    def settled(self, cells: Sequence[Cell]) -> list[Cell]:
        """Cells with a setting for every key of ``axes`` that they depend on."""
        return [settings.with_values(cell, self._config, self.axes) for cell in cells] if self.axes else list(cells)

    def pending(self, cells: Sequence[Cell]) -> list[Cell]:
        """The cells without a result, with the settings that their rows will have."""
        finished = {row.cell for row in (*self.rows, *self._elsewhere)}
        return [cell for cell in self.settled(cells) if cell not in finished]

    def check_data(self, dataset: Dataset, accepted: bool) -> None:
        """Check that finished cells were computed from these data (``growth.check_data``).

        Args:
            accepted: whether the user accepts that they have changed; the cells are then pending again.

        Raises:
            UserError: they were not.
        """
        self.rows = growth.check_data(self._workdir, dataset, self.rows, accepted)
        if self._root is not None:
            self._elsewhere = growth.check_data(self._root, dataset, self._elsewhere, accepted)

    def claim(self, cells: Sequence[Cell], plan: Sequence[Cell] | None = None, left_out: Iterable[Cell] = ()) -> None:
        """Record the config as the work directory's (``growth.claim``), and the cells that it spans.

        Failures of cells that are planned no longer, or are finished, are dropped.

        Args:
            cells: those to be run, or finished, by this command.
            plan: all cells of the config; ``None``: the same.
            left_out: of the plan, those that were found to be impossible.

        Raises:
            UserError: weights have changed since cells of the same variant were finished.
        """
        self.check_weights({cell.variant for cell in self.pending(cells)})
        cells, plan, left_out = (self.settled(list(each)) for each in (cells, plan or cells, left_out))
        growth.claim(self._workdir, self._config, plan, self.rows)
        planned_cells.write(self._whole, plan, cells, left_out)
        if self._root is not None:
            planned_cells.write(self._workdir, cells)
        self._keep_failures({*self.pending(plan)} - {*left_out})
        if len(self.rows) < len(self._written):
            growth.set_aside(self._workdir, self.rows, self._written)
        elif self.rows != self._written:
            result_rows.write(self._workdir, self.rows)
        self._written = list(self.rows)

    def _keep_failures(self, cells: Set[Cell]) -> None:
        """Keep the failures of some cells alone, in shards too: none is under way while the whole is."""
        for part in shards.parts(self._workdir):
            found = failures.read(part)
            cells_now = self.settled([each.cell for each in found])
            settled = [dataclasses.replace(each, cell=cell) for each, cell in zip(found, cells_now, strict=True)]
            kept = [each for each in settled if each.cell in cells]
            if kept != found:
                failures.write(part, kept)
            if part == self._workdir:
                self._failures = {each.cell: each for each in kept}

    def append(self, rows: Sequence[Row]) -> None:
        """Write the rows of cells that are finished now.

        Raises:
            OSError: writing fails; earlier rows are kept.
        """
        self.rows += [dataclasses.replace(row, place=self.places.get(row.cell)) for row in rows]
        result_rows.write(self._workdir, self.rows)
        mended = [row.cell for row in rows if row.cell in self._failures]
        for cell in mended:
            del self._failures[cell]
        if mended:
            failures.write(self._workdir, list(self._failures.values()))

    def note_failure(self, cells: Sequence[Cell], error: Exception) -> None:
        """Tell and write that cells failed.

        Raises:
            OSError: writing fails.
        """
        told = isinstance(error, UserError)
        reason = ' '.join((str(error) if told else f'{type(error).__name__}: {error}').split())
        where = '' if told else ''.join(traceback.format_exception(error))
        for cell in cells:
            self._failures[cell] = Failure(cell, reason, where)
            display.console.print(f'failed: {cell.label}: {reason}', style='red', soft_wrap=True, markup=False)
        failures.write(self._workdir, list(self._failures.values()))

    def raise_if_failed(self, cells: Sequence[Cell]) -> None:
        """Raise if any of the cells have failed and are not finished.

        Raises:
            CellsFailed: they are named with their reasons.
        """
        failed = [self._failures[cell] for cell in self.pending(cells) if cell in self._failures]
        if failed:
            reasons = listed((f'{each.label}: {each.error}' for each in failed), separator='; ')
            raise CellsFailed(
                f'{len(failed)} of {len(cells)} cells failed ({reasons}); the others are finished, and the same '
                'command tries these again'
            )
