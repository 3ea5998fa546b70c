"""Commands under hostile surroundings, as a table: what is around it, the command, how it must end.

Whatever the row, a command ends with an exit code of the design and one line at most besides warnings, prints one JSON
document where stdout can take it, leaves its output complete or not at all, and writes nothing elsewhere.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge_far.bundles.bundle import Bundle
from tests.daemon.field import Field
from tests.faults.processes import succeed
from tests.faults.surroundings import (
    Place,
    Surrounding,
    becomes,
    both,
    changes,
    dated,
    furnish,
    has,
    ignoring,
    limited,
    littered,
    masked,
    mounted,
    orphaned,
    someone_else,
    spoken,
    start,
    streamed,
    unread,
)

pytestmark = pytest.mark.device

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NOT_UTF8, CYRILLIC = b"\xff\xfe bad", "свет".encode()
Done = subprocess.CompletedProcess[bytes]
Check = Callable[[Done, Place], None]

SURROUNDINGS = {
    "no home": has(HOME=None),
    "read-only temporary files": mounted("temporary", "ro"),
    "full temporary files": mounted("temporary", "rw", fill=True),
    "small temporary files": mounted("temporary", "rw"),
    "full home": mounted("home", "rw", fill=True),
    "full state": mounted("state/spool", "rw", fill=True),
    "stdin closed": streamed(0, None),
    "stdin for writing": streamed(0, "/dev/null", "w"),
    "stdout closed": streamed(1, None),
    "stdout full": streamed(1, "/dev/full", "w"),
    "stdout unread": unread(),
    "stderr closed": streamed(2, None),
    "stderr full": streamed(2, "/dev/full", "w"),
    "ascii, text in UTF-8": spoken(CYRILLIC, **ASCII),
    "ascii, text in Latin-1": spoken(b"caf\xe9", **ASCII),
    "ascii, folder in UTF-8": Surrounding(has(**ASCII).change, CYRILLIC),
    "umask 077": masked(0o077),
    "umask 000": masked(0o000),
    "no file may grow": limited(resource.RLIMIT_FSIZE, 0),
    "files of 64 KiB": limited(resource.RLIMIT_FSIZE, 1 << 16),
    "one core": becomes(lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})),
    "60 MiB": limited(resource.RLIMIT_AS, 60 << 20),
    "70 MiB": limited(resource.RLIMIT_AS, 70 << 20),
    "2 GiB": limited(resource.RLIMIT_AS, 2 << 30),
    "5 files": limited(resource.RLIMIT_NOFILE, 5),
    "8 files": limited(resource.RLIMIT_NOFILE, 8),
    "nobody": someone_else(),
    "blanks and line breaks": Surrounding(folder=b" a\n b\t"),
    "not UTF-8": Surrounding(folder=NOT_UTF8),
    "stray modules": littered(),
    "SIGPIPE kills": ignoring(signal.SIGPIPE, handler=signal.SIG_DFL),
    "SIGCHLD ignored, files of 64 KiB": both(ignoring(signal.SIGCHLD), limited(resource.RLIMIT_FSIZE, 1 << 16)),
    "1970": dated(60),
    "1970, not UTF-8": Surrounding(dated(60).change, NOT_UTF8),
    "2099": dated(4_070_908_800),
}


OURS = ("mine/", "state/", "home/.cache/edge-far/")
DEFERRED, NOBODY_READS = 75, 141
LEARNABLE = "".join(
    json.dumps({"text": f"w{number % 5} w{number % 5 + 5} w{number}", "label": f"label-{number % 5}"}) + "\n"
    for number in range(350)
)


def says(*words: str) -> Check:
    """The messages hold these words."""

    def check(done: Done, place: Place) -> None:
        assert all(word in done.stderr.decode() for word in words), done.stderr.decode()

    return check


def answers(**values: object) -> Check:
    """The document has these values; of predictions the first is meant."""

    def check(done: Done, place: Place) -> None:
        document = json.loads(done.stdout)
        found = document.get("predictions", [document])[0]
        assert {name: found[name] for name in values} == values

    return check


def trained(done: Done, place: Place) -> None:
    """The run is whole."""
    run = place.mine / "run"
    assert json.loads((run / "result.json").read_bytes())["steps"] == 2 and (run / "learners.safetensors").is_file()


def unfinished(done: Done, place: Place) -> None:
    """The run says that it has no result."""
    assert not (place.mine / "run" / "result.json").exists()


def absent(done: Done, place: Place) -> None:
    """There is no output."""
    assert list(place.mine.iterdir()) == []


def released(done: Done, place: Place) -> None:
    """The model is whole: that which was made in peace."""
    for made in place.model.iterdir():
        assert (place.mine / "model" / made.name).read_bytes() == made.read_bytes(), made.name


def handed_over(text: str = "w1 w2") -> Check:
    """The example is in the spool, once and whole."""

    def check(done: Done, place: Place) -> None:
        (path,) = (place.state / "spool").glob("*.jsonl")
        assert json.loads(path.read_bytes()) == {"text": text, "label": "label-0"}

    return check


def nothing_handed_over(done: Done, place: Place) -> None:
    """The spool is as it was."""
    assert [path.name for path in (place.state / "spool").iterdir() if path.name[0] != "."] in ([], ["ballast"])


def profile_known(done: Done, place: Place) -> None:
    """Status reads what the daemon wrote, wherever the profile lies; nothing is broken."""
    document = succeed("status", "--state", place.state)
    assert document["daemon"]["profile"] == "profile" and document["state"] != "broken"


def timed(done: Done, place: Place) -> None:
    """The machine was measured."""
    assert json.loads(done.stdout)["times_from"]


def private(done: Done, place: Place) -> None:
    """Nobody else reads the device's texts or writes into its state."""
    state = place.mine / "state"
    for path in state.rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert path.is_symlink() or path.name == "spool" or not mode & 0o022, (path, oct(mode))
    assert not stat.S_IMODE((state / "store.sqlite3").stat().st_mode) & 0o077


@dataclass(frozen=True)
class Row:
    """A surrounding, a command, the exit code that is right, and what must be true besides."""

    around: str
    command: str
    code: int
    checks: tuple[Check, ...] = ()


ROWS = (
    Row("no home", "train", 0, (trained,)),
    Row("no home", "daemon", DEFERRED),
    Row("read-only temporary files", "plan", 0),
    Row("full temporary files", "merge", 0, (released,)),
    Row("small temporary files", "plan with times", 0, (says("no times are predicted: the probe failed: "),)),
    Row("full home", "predict", 0),
    Row("full state", "add", 74, (nothing_handed_over, says("No space left on device", "free space"))),
    Row("stdin closed", "predict -", 64, (says("standard input is empty"),)),
    Row("stdin for writing", "predict -", 74, (says("standard input: cannot read: "),)),
    Row("stdout closed", "add", 0, (handed_over(),)),
    Row("stdout full", "add", 74, (handed_over(), says("standard output: cannot write: No space left on device"))),
    Row("stdout full", "status", 74),
    Row("stdout unread", "predict", NOBODY_READS),
    Row("stdout unread", "daemon", NOBODY_READS, (profile_known,)),
    Row("SIGPIPE kills", "predict", 0),
    Row("stderr closed", "merge again", 73),
    Row("stderr full", "daemon", DEFERRED),
    Row("ascii, text in UTF-8", "predict", 0, (answers(text="свет"),)),
    Row("ascii, text in UTF-8", "add", 0, (handed_over("свет"),)),
    Row("ascii, text in Latin-1", "predict MODEL", 65, (says("a text is not UTF-8"),)),
    Row("ascii, text in Latin-1", "add", 65, (nothing_handed_over,)),
    Row("ascii, folder in UTF-8", "eval", 0),
    Row("umask 077", "merge", 0, (released,)),
    Row("umask 000", "first daemon", DEFERRED, (private,)),
    Row("no file may grow", "train", 74, (unfinished, says("File too large", "ulimit -f"))),
    Row("no file may grow", "predict", 0),
    Row("no file may grow", "export", 74, (absent, says("ulimit -f"))),
    Row("no file may grow", "plan with times", 0, (says("no times are predicted: "),)),
    Row("no file may grow", "add", 74, (nothing_handed_over, says("ulimit -f"))),
    Row("no file may grow", "daemon", 74, (says("lock: "),)),
    Row("files of 64 KiB", "merge", 74, (absent, says("File too large"))),
    Row("one core", "train", 0, (trained,)),
    Row("60 MiB", "predict", 69, (says("this process may have 60 MiB only", "ulimit -v"),)),
    Row("70 MiB", "train", 69, (absent, says("this process may have 70 MiB only"))),
    Row("60 MiB", "add", 0, (handed_over(),)),
    Row("60 MiB", "first daemon", 69, (says("this process may have 60 MiB only"),)),
    Row("2 GiB", "predict with 300 threads", 69, (says("threads only, and 300 are needed", "ulimit -v"),)),
    Row("5 files", "merge", 74, (absent, says("Too many open files", "ulimit -n"))),
    Row("5 files", "train", 74, (says("Too many open files", "ulimit -n"),)),
    Row("8 files", "daemon", 74, (says("ulimit -n"),)),
    Row("nobody", "train", 0, (trained,)),
    Row("nobody", "predict MODEL", 0),
    Row("nobody", "add", 74, (nothing_handed_over, says("not allowed to write to the spool"))),
    Row("nobody", "daemon", 74, (says("not permitted"),)),
    Row("nobody", "status", 66, (says("not allowed to look into the state directory"),)),
    Row("nobody", "first daemon", DEFERRED),
    Row("blanks and line breaks", "merge", 0, (released,)),
    Row("blanks and line breaks", "merge again", 73),
    Row("blanks and line breaks", "daemon", DEFERRED),
    Row("not UTF-8", "predict MODEL", 0),
    Row("not UTF-8", "eval", 0),
    Row("not UTF-8", "plan with times", 0, (timed,)),
    Row("not UTF-8", "merge again", 73),
    Row("not UTF-8", "export", 69, (absent, says("names in UTF-8 only (rename it"))),
    Row("stray modules", "first daemon", DEFERRED),
    Row("stray modules", "predict", 0),
    Row("SIGCHLD ignored, files of 64 KiB", "first daemon", 74, (says("'merge' ended with status 74"),)),
    Row("1970, not UTF-8", "cycle", 0, (profile_known,)),
    Row("1970", "add", 0, (handed_over(),)),
    Row("2099", "daemon", DEFERRED),
    Row("2099", "resume", 0),
    Row("2099", "status", 0),
)


def words_of(command: str, place: Place) -> list[bytes]:
    """Return the words of a command of the table."""
    daemon = ["--state", place.state, "--bundle", place.bundle, "--profile", place.root / "profile.yaml"]
    quick = ["--no-probe", "--max-steps", "2"]
    words: dict[str, list[Any]] = {
        "train": ["train", place.bundle, "--train", place.data, "--out", place.mine / "run", *quick],
        "resume": ["train", place.bundle, "--train", place.data, "--out", place.run, "--resume", *quick],
        "predict": ["predict", place.bundle, "--run", place.run, place.text],
        "predict with 300 threads": ["predict", place.bundle, place.text, "--threads", "300"],
        "predict -": ["predict", place.bundle, "-"],
        "predict MODEL": ["predict", place.model, place.text],
        "plan": ["plan", place.bundle, "--no-probe"],
        "plan with times": ["plan", place.bundle],
        "eval": ["eval", place.bundle, "--run", place.run, "--data", place.data],
        "merge": ["merge", place.bundle, "--run", place.run, "--out", place.mine / "model"],
        "merge again": ["merge", place.bundle, "--run", place.run, "--out", place.model],
        "export": [
            "export",
            "--method",
            "far",
            "--model",
            place.model,
            "--train",
            place.data,
            "--out",
            place.mine / "bundle",
        ],
        "add": ["add", "--spool", place.state / "spool", "--text", place.text, "--label", "label-0"],
        "status": ["status", "--state", place.state],
        "daemon": ["daemon", "--once", *daemon, "--sensors-root", place.root / "sensors"],
    }
    words["first daemon"] = [place.mine / "state" if word == place.state else word for word in words["daemon"]]
    words["cycle"] = words["daemon"]
    return [*map(os.fsencode, words[command]), b"--json", b"-q"]


@pytest.fixture(scope="module")
def made(tiny_bundle: Callable[[str], Bundle], tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what a place holds: a run, a model, and a device that has released its factory model."""
    made = tmp_path_factory.mktemp("made")
    shutil.copytree(tiny_bundle("tiny-fp32").root, made / "bundle")
    shutil.copy(tiny_data, made / "data.jsonl")
    there = Field(made, made / "bundle")
    assert there.once(status=75)["deferred"]
    succeed(
        "train", there.bundle, "--train", made / "data.jsonl", "--out", made / "run", "--max-steps", "2", "--no-probe"
    )
    succeed("merge", there.bundle, "--run", made / "run", "--out", made / "model")
    known = Path(os.environ["XDG_CACHE_HOME"], "edge-far").glob(
        "starts-*"
    )  # that packages start here is not tried again
    cache = made / "home" / ".cache" / "edge-far"
    cache.mkdir(parents=True)
    for path in known:
        shutil.copy(path, cache)
    return made


@pytest.fixture
def place_of(made: Path, tmp_path: Path) -> Iterator[Callable[[str], Place]]:
    """Return a function that furnishes a place of a surrounding."""
    top = Path(tempfile.mkdtemp(prefix="edge-far-"))  # a folder of pytest's is closed to others
    top.chmod(0o755)
    undo: list[Callable[[], None]] = []

    def place(name: str) -> Place:
        surrounding = SURROUNDINGS[name]
        found = Place(Path(os.fsdecode(os.fsencode(top) + b"/" + surrounding.folder)), before=[orphaned], after=undo)
        furnish(found, made, surrounding.change)
        return found

    yield place
    for step in reversed(undo):
        step()
    shutil.rmtree(top)


def judge(done: Done, place: Place, code: int) -> None:
    """Hold a command to what is true of all."""
    messages = (done.stderr or b"").decode()
    assert done.returncode == code, (done.returncode, done.stdout, messages)
    lines = [line for line in messages.splitlines() if not line.startswith("warning: ")]
    failed = code not in (0, DEFERRED, NOBODY_READS)
    expected = 1 if failed and 2 not in place.streams else 0
    assert len(lines) == expected and all(line.startswith("edge-far: error: ") for line in lines), messages
    if 1 not in place.streams:
        error = json.loads(done.stdout).get("error")
        assert (error["exit_code"] if error else DEFERRED if code == DEFERRED else 0) == code
    assert not list(place.root.rglob(".*.tmp")), "nothing half done is left"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.around}-{row.command}".replace(" ", "_"))
def test_row(row: Row, place_of: Callable[[str], Place]) -> None:
    place = place_of(row.around)
    if row.command == "cycle":
        (place.state / "spool" / "1.jsonl").write_text(LEARNABLE)
    before = changes(place.root, OURS)
    done = start(place, words_of(row.command, place))
    judge(done, place, row.code)
    assert changes(place.root, OURS) == before, "nothing is written elsewhere"
    for check in row.checks:
        check(done, place)
