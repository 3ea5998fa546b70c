"""Fixtures for both environments; nothing here imports torch."""

from __future__ import annotations

import functools
import gc
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Test modules share tests.tiny_cases and, where there is torch, tests.tiny_models; plain `pytest` needs the path.
sys.path.insert(0, str(Path(__file__).parents[1]))

# One thread is quicker than two for matrices this small, and leaves the machine to others.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What this machine's speed is measured as, is kept here between test runs, not in the user's cache.
os.environ["XDG_CACHE_HOME"] = str(Path(__file__).parents[1] / "build" / "test-cache")
os.environ.pop("CACHE_DIRECTORY", None)
# Each of a thousand commands would compile all of our modules anew, and pytest its tests in each worker.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Under nohup a child would ignore SIGHUP too, as it should, and tests ask what it does with one.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)  # a handler is not inherited

from edge_far.bundles.bundle import Bundle, open_bundle
from tests.tiny_cases import BUNDLES, REPOSITORY, TRAIN_FILE, Oracle, built_from, sources_hash

sys.dont_write_bytecode = False  # PYTHONDONTWRITEBYTECODE of this process


def in_memory() -> Path | None:
    """Return a file system in memory with 2 GiB of room, where programs may run, or None."""
    shared = Path("/dev/shm")
    try:
        found = os.statvfs(shared)
    except OSError:
        return None
    room = found.f_bavail * found.f_frsize
    return shared if room >= 2 << 30 and not found.f_flag & os.ST_NOEXEC and os.access(shared, os.W_OK) else None


# All is written with care for power cuts: on a disk, tests of the store wait for it four fifths of their time.
if (memory := in_memory()) is not None:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what has been imported: with torch that is a sixth of a compilation."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def test_bundles() -> Path:
    """Return the folder of tiny bundles, built for the present sources.

    The workstation's environment builds them where need be; without torch a test that needs them is skipped when
    the workstation's tests have not run before.
    """
    if built_from() == sources_hash():
        return BUNDLES
    if importlib.util.find_spec("torch") is None:
        state = "are not built" if built_from() is None else "are of other sources"
        pytest.skip(f"the tiny bundles {state}: run the workstation's tests first ('make test' does)")
    script = REPOSITORY / "scripts" / "make_tiny_bundles.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{script.name} failed:\n{done.stdout}{done.stderr}", pytrace=False)
    return BUNDLES


@pytest.fixture(scope="session")
def tiny_bundle(test_bundles: Path) -> Callable[[str], Bundle]:
    """Return a function that opens the bundle of a case of tiny_cases.CASES, by name, once; do not change its files."""
    return functools.cache(lambda name: open_bundle(test_bundles / name))


@pytest.fixture(scope="session")
def oracle(test_bundles: Path) -> Callable[[str], Oracle]:
    """Return a function that loads torch's results for a case, by name."""
    return lambda name: Oracle(test_bundles / f"{name}.oracle.npz")


@pytest.fixture(scope="session")
def tiny_data(test_bundles: Path) -> Path:
    """Return a JSONL file of three batches for the bundles of five labels."""
    return test_bundles / TRAIN_FILE


@pytest.fixture(autouse=True)
def umask_is_given_back() -> Iterator[None]:
    """Give each test the umask of the first: a daemon that runs in this process sets its own for good."""
    mask = os.umask(0o022)
    os.umask(mask)
    yield
    os.umask(mask)
