"""Settings that make the tests faster and smaller without changing what they test; the choice of exhaustive tests."""

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

from experiments.cli import allocator
from tests.rotation import PARTS, part_of_commit, part_of_test

# Each collection also makes XLA collect garbage, and there are hundreds of thousands of long-lived objects.
gc.set_threshold(100_000, 20, 20)

# Lines to print at the end of the run, from this process and from the workers of pytest-xdist.
ENDING = pytest.StashKey[list[str]]()
# MiB above which compiled programs are dropped, after a module and after a test; a worker may need 2,048.
GROWN, LARGE = 1000.0, 1200.0
# The test module that needed the most memory.
LARGEST = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--part-of',
        metavar='COMMIT',
        help=f'of the tests marked exhaustive, run one part in {PARTS}, chosen by the commit',
    )


def pytest_configure(config: pytest.Config) -> None:
    """Skip LLVM's expensive passes, as JAX's own tests do: these tests mostly spend their time compiling."""
    config.stash[ENDING] = []
    # Keeps the user's feature store untouched; tests that count frozen passes have stores of their own.
    os.environ['VISION_BACKBONES_CACHE'] = tempfile.mkdtemp(prefix='features-')
    config.add_cleanup(lambda: shutil.rmtree(os.environ['VISION_BACKBONES_CACHE'], ignore_errors=True))
    # Tables are as wide as they need, whatever the terminal.
    os.environ.pop('COLUMNS', None)
    # Read when jax is imported, here and in the processes that tests start.
    os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
    if 'not slow' in config.getoption('markexpr'):
        # The older of XLA's two code generators compiles a step in half the time.
        os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_cpu_use_fusion_emitters=false'.strip()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the exhaustive tests of the other parts; long files go first, so that the workers end together."""
    items.sort(key=lambda item: item.path.stat().st_size, reverse=True)
    commit = config.getoption('part_of')
    if commit is None:
        return
    part = part_of_commit(commit)
    others = [item for item in items if item.get_closest_marker('exhaustive') and part_of_test(item.nodeid) != part]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in set(others)]


def pytest_report_header(config: pytest.Config) -> str | None:
    commit = config.getoption('part_of')
    if commit is None:
        return None
    return f'exhaustive: part {part_of_commit(commit) + 1} of {PARTS}, chosen by commit {commit}'


def pytest_collection_finish(session: pytest.Session) -> None:
    """Exclude imported objects from future collections, and note which exhaustive tests run."""
    gc.collect()
    gc.freeze()
    if session.config.getoption('part_of') is not None:
        chosen = [item.nodeid for item in session.items if item.get_closest_marker('exhaustive')]
        session.config.stash[ENDING].append(f'exhaustive tests of this part: {", ".join(chosen) or "none"}')


@pytest.fixture(scope='module', autouse=True)
def optimisations(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compile with all optimisations for the slow tests of modules that set ``AS_USERS_COMPILE``."""
    if 'not slow' in request.config.getoption('markexpr') or not getattr(request.module, 'AS_USERS_COMPILE', False):
        yield
        return
    import jax

    jax.config.update('jax_disable_most_optimizations', False)
    yield
    jax.config.update('jax_disable_most_optimizations', True)


@pytest.fixture(scope='module', autouse=True)
def programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Drop a module's compiled programs after its tests: JAX would keep several gigabytes of them alive.

    Also notes the module that has needed the most memory so far.
    """
    stash, before = request.config.stash, peak_memory(resource.RUSAGE_SELF)
    yield
    if peak_memory(resource.RUSAGE_SELF) > before:
        stash[LARGEST] = request.path.relative_to(request.config.rootpath)
    if resident_memory() > GROWN:
        forget_programs()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    """Call a test as the commands call theirs."""
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    allocator.call_with_room(lambda: pyfuncitem.obj(**arguments))
    return True


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Drop compiled programs between tests where they are many and large; a module may set a ``LARGE`` of its own."""
    if resident_memory() > getattr(getattr(item, 'module', None), 'LARGE', LARGE):
        forget_programs()


def forget_programs() -> None:
    if 'experiments.training.programs' in sys.modules:
        # They hold compiled steps of their own.
        sys.modules['experiments.training.programs'].programs.cache_clear()
    if 'jax' in sys.modules:
        sys.modules['jax'].clear_caches()
        gc.collect()
        # What is alive after a collection mostly stays; the next one need not look at it.
        gc.freeze()
        if sys.platform == 'linux':
            # glibc keeps freed memory otherwise; other C libraries have no such function.
            getattr(ctypes.CDLL(None), 'malloc_trim', int)(0)


def resident_memory() -> float:
    """Resident memory of this process in MiB; 0 if the system does not report it."""
    file = Path('/proc/self/statm')
    return int(file.read_text().split()[1]) * resource.getpagesize() / 2**20 if file.exists() else 0.0


def peak_memory(who: int) -> float:
    """Peak resident memory in MiB."""
    return resource.getrusage(who).ru_maxrss / (2**20 if sys.platform == 'darwin' else 2**10)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Note the peak memory, and pass the lines to the process that prints."""
    lines = session.config.stash[ENDING]
    own, started = peak_memory(resource.RUSAGE_SELF), peak_memory(resource.RUSAGE_CHILDREN)
    worker = os.environ.get('PYTEST_XDIST_WORKER')
    where = session.config.stash.get(LARGEST, 'no test')
    lines.append(
        f'peak memory of {worker or "this process"}: {own:,.0f} MiB, in {where}; '
        f'of the largest process it started: {started:,.0f} MiB'
    )
    if worker:
        session.config.workeroutput['ending'] = lines


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error) -> None:
    """Collect the lines of a worker; lines that several workers share are printed once."""
    ending = node.config.stash[ENDING]
    ending += [line for line in getattr(node, 'workeroutput', {}).get('ending', ()) if line not in ending]


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    for line in config.stash[ENDING]:
        terminalreporter.write_line(line)
