"""Help, a wrong option and missing arguments are answered before anything heavy is imported."""

import os
import subprocess
import sys
from pathlib import Path

from backbones import preprocessing
from experiments import models, probes
from experiments.ablation import config_keys
from experiments.commands import models as work
from experiments.data import options
from experiments.probes import sweeps

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(
    '.'.join(file.with_suffix('').relative_to(ROOT).parts)
    for file in (*ROOT.glob('experiments/*.py'), *ROOT.glob('experiments/*/__main__.py'))
    if file.name != '__init__.py'
)
# These do something without arguments.
WITHOUT_ARGUMENTS = ('experiments.models', 'experiments.demo')
HEAVY = ('jax', 'flax', 'optax', 'orbax', 'scipy', 'sklearn', 'matplotlib', 'tensorflow', 'grain', 'pandas')

# Prints which command imported what, and the exit status of each.
PROGRAM = """
import contextlib, io, runpy, sys

heavy, commands = sys.argv[1].split(','), sys.argv[2:]
for command in commands:
    name, *words = command.split(' ')
    sys.argv = [name, *words]
    output = io.TextIOWrapper(io.BytesIO())
    with contextlib.redirect_stdout(output):
        try:
            runpy.run_module(name, run_name='__main__', alter_sys=True)
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
    print(status, command, *sorted({each.partition('.')[0] for each in sys.modules} & {*heavy}), sep='|')
"""


def test_help_and_errors_of_every_command_import_nothing_heavy():
    assert len(COMMANDS) == 12
    asked = {f'{name}{words}': status for name in COMMANDS for words, status in ((' --help', 0), (' --wrng', 2))}
    asked |= {name: 2 for name in COMMANDS if name not in WITHOUT_ARGUMENTS}
    run = subprocess.run(
        [sys.executable, '-c', PROGRAM, ','.join(HEAVY), *asked],
        env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.splitlines() == [f'{status}|{command}' for command, status in asked.items()], run.stderr
    # One line for each that was wrong.
    assert len(run.stderr.splitlines()) == sum(status == 2 for status in asked.values())


def test_what_is_said_without_jax_is_so():
    assert options.FITS == preprocessing.FITS
    assert [*sweeps.TABLE] == [*probes.TABLE]
    assert (*work.SORT_KEYS,) == models.SORTS
    assert {name: type(config_keys.default_config()[name]) for name in sweeps.TABLE}
