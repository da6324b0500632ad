"""What makes the tests faster and smaller without changing what they test, and which of the exhaustive ones run."""

import ctypes
import gc
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rotation import FIFTHS, fifth_of_commit, fifth_of_test

# Every collection has XLA look for garbage of its own, and there are hundreds of thousands of long-lived objects.
gc.set_threshold(100_000, 20, 20)

# Lines for the end of the run, from this process and from those of pytest-xdist.
ENDING = pytest.StashKey[list[str]]()
# MiB from which on compiled programs are forgotten; a worker may need 2,048.
LARGE = 1200.0
# The module of tests that needed most memory.
LARGEST = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--fifth-of',
        metavar='COMMIT',
        help=f'of the tests marked exhaustive, run only those of one fifth in {FIFTHS}, which the commit chooses',
    )


def pytest_configure(config: pytest.Config) -> None:
    """Leave LLVM's expensive passes out, as JAX's own tests do: most of the time of these tests is compilation."""
    config.stash[ENDING] = []
    # Not the user's own store of features; tests that count what is computed have one of their own.
    os.environ['VISION_BACKBONES_CACHE'] = tempfile.mkdtemp(prefix='features-')
    config.add_cleanup(lambda: shutil.rmtree(os.environ['VISION_BACKBONES_CACHE'], ignore_errors=True))
    # Read when jax is imported, here and in processes that tests start.
    os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
    if 'not slow' in config.getoption('markexpr'):
        # The older of XLA's two code generators takes half the time to compile a step.
        os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_cpu_use_fusion_emitters=false'.strip()


# Before pytest-xdist adds the group to a test's name.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out the exhaustive tests of the other fifths."""
    commit = config.getoption('fifth_of')
    if commit is None:
        return
    fifth = fifth_of_commit(commit)
    others = [item for item in items if item.get_closest_marker('exhaustive') and fifth_of_test(item.nodeid) != fifth]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in set(others)]


def pytest_report_header(config: pytest.Config) -> str | None:
    commit = config.getoption('fifth_of')
    if commit is None:
        return None
    return f'exhaustive: fifth {fifth_of_commit(commit) + 1} of {FIFTHS}, chosen by commit {commit}'


def pytest_collection_finish(session: pytest.Session) -> None:
    """Take everything that was imported out of future collections, and note the exhaustive tests that are to run."""
    gc.collect()
    gc.freeze()
    grouped = [item for item in session.items if item.get_closest_marker('xdist_group')]
    if session.config.getoption('loadgroup', False) and not all('@' in item.nodeid for item in grouped):
        raise pytest.UsageError('this pytest and this pytest-xdist do not keep groups of tests together')
    if session.config.getoption('fifth_of') is not None:
        chosen = [item.nodeid for item in session.items if item.get_closest_marker('exhaustive')]
        session.config.stash[ENDING].append(f'exhaustive tests of this fifth: {", ".join(chosen) or "none"}')


@pytest.fixture(scope='module', autouse=True)
def optimisations(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compile the slow tests of the modules that say ``AS_USERS_COMPILE`` with every optimisation."""
    if 'not slow' in request.config.getoption('markexpr') or not getattr(request.module, 'AS_USERS_COMPILE', False):
        yield
        return
    import jax

    jax.config.update('jax_disable_most_optimizations', False)
    yield
    jax.config.update('jax_disable_most_optimizations', True)


@pytest.fixture(scope='module', autouse=True)
def programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Forget a module's compiled programs after its tests: JAX keeps several gigabytes of them alive.

    The C library then has the memory of many small objects to give back. Notes the module that needed most so far.
    """
    stash, before = request.config.stash, peak_memory(resource.RUSAGE_SELF)
    yield
    if peak_memory(resource.RUSAGE_SELF) > before:
        stash[LARGEST] = request.path.relative_to(request.config.rootpath)
    forget_programs()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Forget compiled programs between the tests of a module that has compiled many large ones."""
    if resident_memory() > LARGE:
        forget_programs()


def forget_programs() -> None:
    if 'jax' in sys.modules:
        sys.modules['jax'].clear_caches()
        gc.collect()
        if sys.platform == 'linux':
            # Of glibc; another C library has no need of it.
            getattr(ctypes.CDLL(None), 'malloc_trim', int)(0)


def resident_memory() -> float:
    """MiB that this process has in memory now; 0 where the system does not say."""
    file = Path('/proc/self/statm')
    return int(file.read_text().split()[1]) * resource.getpagesize() / 2**20 if file.exists() else 0.0


def peak_memory(who: int) -> float:
    """MiB that a process had in memory at most."""
    return resource.getrusage(who).ru_maxrss / (2**20 if sys.platform == 'darwin' else 2**10)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Note the memory, and hand the lines to the process that prints."""
    lines = session.config.stash[ENDING]
    own, started = peak_memory(resource.RUSAGE_SELF), peak_memory(resource.RUSAGE_CHILDREN)
    worker = os.environ.get('PYTEST_XDIST_WORKER')
    where = session.config.stash.get(LARGEST, 'no test')
    lines.append(
        f'peak memory of {worker or "this process"}: {own:,.0f} MiB, in {where}; '
        f'of the largest it started: {started:,.0f} MiB'
    )
    if worker:
        session.config.workeroutput['ending'] = lines


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error) -> None:
    """Take the lines of a process of pytest-xdist; all of them chose the same tests."""
    ending = node.config.stash[ENDING]
    ending += [line for line in getattr(node, 'workeroutput', {}).get('ending', ()) if line not in ending]


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    for line in config.stash[ENDING]:
        terminalreporter.write_line(line)
