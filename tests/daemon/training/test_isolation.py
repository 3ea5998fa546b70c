"""What other users and other machines can do to a daemon: nothing. And what its signals do at any moment."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.field import Field, environment, has_stepped, trainer_of, wait_for

pytestmark = pytest.mark.device
LISTENING = "0A"
ACCEPTS = 0x10000


def test_no_other_user_may_write_anything(field: Field) -> None:
    """Even where the daemon is started with an empty umask."""

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            field.command("daemon", "--once"),
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment(), "umask": 0},
        )

    assert start().communicate() and field.current()  # the directories are the daemon's own work
    field.feed(600)
    assert start().communicate() and field.current().startswith("000001-")
    field.feed(1500, seed=1)
    process = start()
    wait_for(lambda: has_stepped(field))
    modes = {
        str(path.relative_to(field.state)): stat.S_IMODE(path.lstat().st_mode)
        for path in field.state.rglob("*")
        if not path.is_symlink()
    }
    process.terminate()
    process.communicate()
    assert modes.pop("spool") == 0o770  # the applications' group
    assert len(modes) > 30 and [name for name, mode in modes.items() if mode & 0o022] == []
    assert {modes[f"spool/{name}"] for name in (".ingest", ".kept", ".refused")} == {0o700}
    others = {
        name.split("/")[0] for name, mode in modes.items() if mode & 0o004 and not name.startswith("spool/.kept/")
    }
    assert others == {"model", "metrics", "status.json"}


def sockets_of(pid: int) -> set[str]:
    """Return the inodes of a process's sockets."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            match = re.fullmatch(r"socket:\[(\d+)\]", str(entry.readlink()))
        except OSError:
            continue
        found |= {match[1]} if match else set()
    return found


def open_to_others(pid: int) -> list[str]:
    """Return the lines of /proc/net for sockets of a process that listen, or take datagrams from the network."""
    own, found = sockets_of(pid), []
    for name in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "unix"):
        table = Path(f"/proc/{pid}/net/{name}")
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            columns = line.split()
            inode = columns[6] if name == "unix" else columns[9]
            if name == "unix":
                harmful = int(columns[3], 16) & ACCEPTS
            else:
                harmful = columns[3] == LISTENING or not name.startswith("tcp")
            if inode in own and harmful:
                found.append(f"{name}: {line}")
    return found


def test_nothing_listens(field: Field) -> None:
    field.feed(1500)
    process = field.start()
    wait_for(lambda: has_stepped(field))
    trainer = trainer_of(process)
    assert trainer is not None
    found = open_to_others(process.pid) + open_to_others(trainer)
    process.terminate()
    process.communicate()
    assert found == []


def test_what_listens_would_be_found() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        assert [line.split(":")[0] for line in open_to_others(os.getpid())] == ["tcp", "udp"]


MOMENTS: dict[str, Callable[[Field], bool]] = {
    "ingest": lambda field: any((field.state / "spool" / ".ingest").glob("*")),
    "merge": lambda field: (field.state / "cycle" / "merge.json").exists(),
    "gate": lambda field: (field.state / "cycle" / "decide.json").exists(),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_sigterm_ends_it_quickly_at_any_moment_and_the_next_start_goes_on(
    begun: Field, tmp_path: Path, moment: str
) -> None:
    field = begun.copied_to(tmp_path)
    if moment == "ingest":
        field.feed(60_000, prefix="many ")
    field.feed(600)
    process = field.start()
    wait_for(lambda: MOMENTS[moment](field))
    began = time.monotonic()
    process.terminate()
    output, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    if moment == "gate" and process.returncode == 0:
        # The models are tiny: the cycle may be over before the signal is there, and then nothing is left to put off.
        assert json.loads(output)["cycle"]["outcome"] == "released"
        return
    assert process.returncode == 75, errors
    if moment != "ingest":  # training so many takes minutes
        assert field.once()["cycle"]["outcome"] == "released"


def test_sighup_while_it_trains_loads_the_profile_and_disturbs_nothing(field: Field) -> None:
    field.feed(1500)
    process = field.start()
    wait_for(lambda: has_stepped(field))
    process.send_signal(signal.SIGHUP)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "loaded anew" in errors
    assert json.loads(output)["cycle"]["outcome"] == "released"
