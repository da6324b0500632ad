"""What trains and where: shown before the first step, and written to ``parameters.json``."""

import dataclasses

from rich.table import Table

from backbones import freezing
from experiments.cli import atomic_files, display
from experiments.data import texts
from experiments.training.session import Session


def freeze_tables(session: Session) -> list[Table]:
    """What trains, one table per phase."""
    params, tables = session.programs.abstract_variables['params'], []
    for phase, name in enumerate(session.phase_names):
        steps = f'{session.phase_steps(phase):,} steps'
        title = f'{session.config.backbone} · {name} · {session.dataset.name} · {steps}'
        tables.append(display.freeze_table(title, freezing.table(params, session.programs.rules[phase])))
    return tables


def show(session: Session) -> None:
    """Print the tables, the devices and the batch."""
    for table in freeze_tables(session):
        display.console.print(table)
    inputs = texts.inputs_of(session.dataset)
    wanted, why = session.config.batch_size, ''
    if session.batch_size < wanted:
        why = f' (batch_size is {wanted}, and there are {len(session.indices):,} training {inputs})'
    display.console.print(f'{session.programs.device_mesh.describe()}, {session.batch_size} {inputs} per step{why}')


def save(session: Session) -> None:
    """Write ``parameters.json``: the rules of each phase and what they cover."""
    params = session.programs.abstract_variables['params']
    phases = [
        {'phase': name, 'rules': [dataclasses.asdict(row) for row in freezing.table(params, rules)]}
        for name, rules in zip(session.phase_names, session.programs.rules, strict=True)
    ]
    atomic_files.write_json(session.directory / 'parameters.json', phases)
