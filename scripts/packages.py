"""Build edge-far's wheel and sdist, check what is in them, install them in clean environments, and use them there.

    python scripts/packages.py                      all of it; python3.11, 3.12 and 3.13 as far as they are here
    python scripts/packages.py --python PROGRAM ... these interpreters instead
    python scripts/packages.py --build DIR          wheel and sdist into DIR, checked; nothing is installed

Each interpreter gets three environments: the wheel with pip and `[device]`, the sdist the same way, and `small`, as
deploy/install.sh makes one. In each the installed command verifies, trains, evaluates, merges and predicts with a tiny
bundle; then some of the device's tests run against the installed package.
Needs git, a package index and build/test-bundles (scripts/make_tiny_bundles.py). Exit code 1: something was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PLACE = REPOSITORY / "build" / "packages"
BUNDLES = REPOSITORY / "build" / "test-bundles"
VERSIONS = ("3.11", "3.12", "3.13")
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")
DEPLOY = REPOSITORY / "deploy"

# What setuptools adds to the sources.
METADATA = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}
EGG_INFO = {"PKG-INFO", "SOURCES.txt", "dependency_links.txt", "entry_points.txt", "requires.txt", "top_level.txt"}
SDIST_METADATA = {"PKG-INFO", "setup.cfg", *(f"edge_far.egg-info/{name}" for name in EGG_INFO)}
# Files and folders of the checkout that the sdist has beside edge_far/: see MANIFEST.in.
SDIST_FILES = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "MANIFEST.in",
    "README.md",
    "constraints.txt",
    "pyproject.toml",
}
SDIST_FOLDERS = ("deploy/", "docs/")

# These tests need no torch; those that need a bundle take it from build/test-bundles.
TESTS = ("bundles", "profile", "texts", "test_environment.py")
LAWS = "not whoever_opens_a_bundle"  # a law of the source tree, which says nothing of a package
TEST_PACKAGES = ("pytest", "pytest-xdist", "hypothesis")
# What `small` must do without.
NOT_NEEDED = ("huggingface_hub", "hf_xet", "httpx2", "google.protobuf", "flatbuffers", "packaging")


@dataclass(frozen=True)
class Built:
    """The two files."""

    wheel: Path
    sdist: Path


@dataclass(frozen=True)
class Trial:
    """What one clean environment showed."""

    python: str
    source: str
    install_s: float
    mib: float
    packages: int
    used_s: float
    tests: str


def run(command: Sequence[object], *, cwd: Path | None = None, **variables: str) -> str:
    """Run a command with a bare environment's Python variables and return its output; raise where it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


# --- building ----------------------------------------------------------------------------------------------------


def source_files() -> list[str]:
    """Return the checkout's files, new ones too, but for those that git ignores."""
    told = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPOSITORY)
    return sorted(name for name in told.split("\0") if name and os.path.lexists(REPOSITORY / name))


def tools() -> Path:
    """Return the interpreter of an environment of its own that can build; it is made once."""
    venv = PLACE / "tools"
    if not (venv / ".complete").exists():
        shutil.rmtree(venv, ignore_errors=True)
        run([sys.executable, "-m", "venv", venv])
        run([venv / "bin/python", *PIP, "install", "build", "setuptools>=77"])
        (venv / ".complete").touch()
    return venv / "bin/python"


def build(target: Path) -> Built:
    """Build both from a copy of the sources, so that nothing of an earlier build is in them."""
    program = tools()
    target.mkdir(parents=True, exist_ok=True)
    for former in [*target.glob("edge_far-*.whl"), *target.glob("edge_far-*.tar.gz")]:
        former.unlink()
    with tempfile.TemporaryDirectory(prefix="edge-far-sources-") as folder:
        for name in source_files():
            copy = Path(folder, name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, copy, follow_symlinks=False)
        run([program, "-m", "build", "--no-isolation", "--outdir", target, folder])
    (wheel,), (sdist,) = target.glob("edge_far-*.whl"), target.glob("edge_far-*.tar.gz")
    return Built(wheel, sdist)


def wanted_of_package(files: Iterable[str]) -> set[str]:
    """Return what both must hold of edge_far/: every file of it, and the profiles that a link shows there."""
    wanted = {name for name in files if name.startswith("edge_far/") and name != "edge_far/device_profiles"}
    return wanted | {f"edge_far/{name}" for name in files if name.startswith("device_profiles/")}


def wrong_files(built: Built, files: Iterable[str]) -> list[str]:
    """Return one line for each file that is missing or not wanted in the wheel or the sdist."""
    files = list(files)
    package = wanted_of_package(files)
    with zipfile.ZipFile(built.wheel) as archive:
        in_wheel = {name for name in archive.namelist() if not name.endswith("/")}
    label = "-".join(built.wheel.name.split("-")[:2])
    with tarfile.open(built.sdist) as archive:
        in_sdist = {member.name.partition("/")[2] for member in archive.getmembers() if not member.isdir()}
    beside = {name for name in files if name in SDIST_FILES or name.startswith(SDIST_FOLDERS)}
    lists = {
        built.wheel.name: (in_wheel, package | {f"{label}.dist-info/{name}" for name in METADATA}),
        built.sdist.name: (in_sdist, package | beside | SDIST_METADATA),
    }
    found = []
    for name, (held, wanted) in lists.items():
        found += [f"{name}: {path} is missing" for path in sorted(wanted - held)]
        found += [f"{name}: {path} is not wanted" for path in sorted(held - wanted)]
    return found


# --- using what was built ----------------------------------------------------------------------------------------


def interpreters() -> dict[str, str | None]:
    """Return a program for each version that has all the device needs; None where there is none."""
    return {version: next(filter(is_whole, candidates(version)), None) for version in VERSIONS}


def candidates(version: str) -> list[str]:
    """Return where a version may be: on the PATH, or kept by pyenv."""
    name = f"python{version}"
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return [*filter(None, [shutil.which(name)]), *map(str, sorted(kept.glob(f"{version}*/bin/{name}")))]


def is_whole(program: str) -> bool:
    """Say whether an interpreter starts and has the modules that edge-far and venv need."""
    command = [program, "-c", "import ctypes, ensurepip, sqlite3, ssl, venv"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def install(program: str, venv: Path, source: str, built: Built) -> float:
    """Make a clean environment and install one of `wheel`, `sdist` or `small` there; return the seconds of pip."""
    run([program, "-m", "venv", venv])
    began = time.monotonic()
    if source == "small":
        script = '. "$here/environment.sh"; put_environment'
        variables = {"here": str(DEPLOY), "opt": str(venv.parent), "package": str(built.wheel), "bridges": ""}
        run(["sh", "-euc", script], **variables)
    else:
        package = built.wheel if source == "wheel" else built.sdist
        run([venv / "bin/python", *PIP, "install", f"{package}[device]"])
    return time.monotonic() - began


def packages_of(venv: Path) -> Path:
    """Return an environment's site-packages."""
    return Path(run([venv / "bin/python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]).strip())


def size_in_mib(packages: Path) -> tuple[float, int]:
    """Return the disk that an environment's packages take, but for pip's own, and how many they are."""
    names = [path for path in packages.iterdir() if not path.name.startswith(("pip", "setuptools", "pkg_resources"))]
    kibibytes = sum(int(line.split()[0]) for line in run(["du", "-sk", *names]).splitlines())
    return kibibytes / 1024, sum(path.suffix == ".dist-info" for path in names)


def use(venv: Path, folder: Path) -> None:
    """Verify, train, evaluate, merge and predict by the installed command, in a folder that holds nothing of ours."""
    folder.mkdir()
    command, bundle, data = venv / "bin/edge-far", BUNDLES / "tiny-fp32", BUNDLES / "tiny.jsonl"
    with_data = ("--data", data, "--json")
    run([command, "--version"], cwd=folder)
    run([command, "verify", bundle], cwd=folder)
    run([command, "profiles", "show", "rpi4-2gb"], cwd=folder)
    settings = ("--profile", "workstation", "--epochs", "1", "--json")
    trained = run([command, "train", bundle, "--train", data, "--out", "run", *settings], cwd=folder)
    if json.loads(trained)["steps"] != 3:
        raise RuntimeError(f"train: 3 steps were expected\n{trained}")
    run([command, "eval", bundle, "--run", "run", *with_data], cwd=folder)
    run([command, "merge", bundle, "--run", "run", "--out", "model"], cwd=folder)
    of_run, of_model = (
        json.loads(run([command, "predict", *words, "turn the lights on", "--json"], cwd=folder))["predictions"]
        for words in ((bundle, "--run", "run"), ("model",))
    )
    if [row["label"] for row in of_run] != [row["label"] for row in of_model]:
        raise RuntimeError(f"predict: run and model differ: {of_run}, {of_model}")


def names_that_import(venv: Path, names: Sequence[str]) -> list[str]:
    """Return those modules that an environment has."""
    commands = {name: [str(venv / "bin/python"), "-c", f"import {name}"] for name in names}
    ended = {name: subprocess.run(command, capture_output=True, check=False) for name, command in commands.items()}
    return [name for name, done in ended.items() if done.returncode == 0]


def run_tests(venv: Path, folder: Path) -> str:
    """Run some of the device's tests on the installed package; return pytest's last line.

    The folder looks like a checkout whose edge_far is the installed one.
    """
    versions = {line.partition("==")[0].lower(): line for line in (REPOSITORY / "constraints.txt").read_text().split()}
    run([venv / "bin/python", *PIP, "install", *(versions[name] for name in TEST_PACKAGES)])
    folder.mkdir()
    for path in REPOSITORY.iterdir():
        if path.name not in ("tests", "edge_far", ".git"):
            (folder / path.name).symlink_to(path)
    (folder / "edge_far").symlink_to(packages_of(venv) / "edge_far")
    shutil.copytree(REPOSITORY / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    script = "import os, edge_far; print(os.path.realpath(edge_far.__file__))"
    where = run([venv / "bin/python", "-c", script], cwd=folder)
    if not where.startswith(str(venv)):
        raise RuntimeError(f"the tests would run {where}")
    pytest = [venv / "bin/python", "-m", "pytest", "-m", "not host", "-k", LAWS, "-p", "no:cacheprovider"]
    told = run([*pytest, *(f"tests/{name}" for name in TESTS)], cwd=folder)
    return told.strip().splitlines()[-1]


def try_out(version: str, program: str, source: str, built: Built) -> Trial:
    """Install one thing for one interpreter and use it."""
    folder = PLACE / f"{version}-{source}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    venv = folder / "venv"
    seconds = install(program, venv, source, built)
    mib, count = size_in_mib(packages_of(venv))
    began = time.monotonic()
    use(venv, folder / "use")
    used = time.monotonic() - began
    if source == "small" and (there := names_that_import(venv, NOT_NEEDED)):
        raise RuntimeError(f"{venv} should do without {', '.join(there)}")
    tests = run_tests(venv, folder / "checkout") if source != "sdist" else "the wheel's"
    shutil.rmtree(folder)
    return Trial(version, source, seconds, mib, count, used, tests)


def main() -> int:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", metavar="DIR", type=Path, help="only build and check, into DIR")
    parser.add_argument("--python", action="append", metavar="PROGRAM", help="an interpreter; may be repeated")
    arguments = parser.parse_args()
    built = build(arguments.build or PLACE / "dist")
    for path in (built.wheel, built.sdist):
        print(f"built {path} ({path.stat().st_size / 1e3:.0f} kB)", flush=True)
    wrong = wrong_files(built, source_files())
    print("\n".join(wrong) or "each file that should be in them is, and no other", flush=True)
    if arguments.build or wrong:
        return 1 if wrong else 0
    if not (BUNDLES / "tiny-fp32").is_dir():
        sys.exit(f"{BUNDLES} is not there: .venv/bin/python scripts/make_tiny_bundles.py")
    chosen: dict[str, str | None] = {Path(name).name: name for name in arguments.python or ()}
    chosen = chosen or interpreters()
    failed = False
    for version, program in chosen.items():
        if program is None:
            print(f"Python {version}: skipped, there is none here with venv, sqlite3, ctypes and ssl", flush=True)
            continue
        for source in ("wheel", "sdist", "small"):
            try:
                trial = try_out(version, program, source, built)
            except RuntimeError as error:
                print(f"Python {version}, {source}: FAILED: {error}", flush=True)
                failed = True
                continue
            print(
                f"Python {version}, {source}: installed in {trial.install_s:.0f} s, {trial.packages} packages, "
                f"{trial.mib:.0f} MiB; used in {trial.used_s:.0f} s; tests: {trial.tests}",
                flush=True,
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
