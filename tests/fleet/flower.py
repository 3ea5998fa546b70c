"""Flower's real processes on this machine: a SuperLink with TLS and authentication, SuperNodes, `flwr run`.

    FLOWER=/path/to/flower-environment    with flwr, safetensors and PyYAML; edge-far comes by PYTHONPATH

The certificates are made by the commands of docs/howto/fleet.md, read out of that page. Every process is ended by its
number, with what it has started: Flower detaches some of its own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from tests.tiny_cases import REPOSITORY

HOWTO = REPOSITORY / "docs" / "howto" / "fleet.md"
APP = REPOSITORY / "deploy" / "fleet-app"
STARTS_S = 60.0
TAKEN_S = 150.0
AGAIN_S = 5.0


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def make_keys(directory: Path, nodes: int) -> None:
    """Run the page's own commands: ca.crt, server.crt, server.key, and node-N with its public key."""
    directory.mkdir(parents=True)
    text = HOWTO.read_text()
    (certificates,) = re.findall(r"<!-- certificates -->\n+```sh\n(.*?)```", text, re.DOTALL)
    (key,) = re.findall(r"<!-- key -->\n+```sh\n(.*?)```", text, re.DOTALL)
    certificates = certificates.replace("fleet.example", "localhost")
    for script in [certificates, *(key.replace("kitchen", f"node-{number}") for number in range(nodes))]:
        subprocess.run(["sh", "-euc", script], cwd=directory, check=True, capture_output=True)


class Flower:
    """The processes of one trial below `root`; `flower` is the environment that has flwr."""

    def __init__(self, root: Path, flower: Path) -> None:
        self.root, self.bin = root, flower / "bin"
        self.keys = root / "keys"
        self.port = free_port()
        self.peaks: dict[str, float] = {}
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        (root / "home").mkdir(parents=True, exist_ok=True)
        (root / "home" / "config.toml").write_text(
            f'[superlink]\ndefault = "fleet"\n[superlink.fleet]\naddress = "localhost:{self.port}"\n'
            f'root-certificates = "{self.keys / "ca.crt"}"\n'
        )

    # --- processes ------------------------------------------------------------------------------------------------

    def start_link(self) -> None:
        """Start the SuperLink and wait until it answers."""
        (self.root / "link").mkdir(exist_ok=True)
        certificate, key = self.keys / "server.crt", self.keys / "server.key"
        self._start(
            "link",
            "flower-superlink",
            f"--ssl-ca-certfile={self.keys / 'ca.crt'}",
            f"--ssl-certfile={certificate}",
            f"--ssl-keyfile={key}",
            "--enable-supernode-auth",
            f"--database={self.root / 'link' / 'link.db'}",
            f"--port={self.port}",
            "--disable-runtime-dependency-installation",
        )
        self._wait_for_port(self.port)

    def start_node(self, name: str, key: Path, settings: Mapping[str, Path], package: Path = REPOSITORY) -> None:
        """Start a SuperNode as its unit would: again and again, until the SuperLink takes it.

        After a power cut it does not for a minute, until it has noticed that the last one is gone. `package` is the
        checkout of edge-far that the ClientApp imports.
        """
        (self.root / name).mkdir(exist_ok=True)
        log, ends = self.root / f"{name}.log", time.monotonic() + TAKEN_S
        while time.monotonic() < ends:
            known = log.stat().st_size if log.exists() else 0
            self._start_node(name, key, settings, package)
            while self._started[name].poll() is None:
                if b"SuperNode ID" in log.read_bytes()[known:]:
                    return
                time.sleep(0.2)
            self.kill(name)
            time.sleep(AGAIN_S)
        raise AssertionError(f"{name} was not taken: {log.read_text()[-1000:]}")

    def start_stranger(self, name: str, key: Path, settings: Mapping[str, Path]) -> str:
        """Start a SuperNode that must not be taken; return what it said when it ended."""
        (self.root / name).mkdir(exist_ok=True)
        self._start_node(name, key, settings, REPOSITORY)
        self._started[name].wait(STARTS_S)
        self.kill(name)
        return (self.root / f"{name}.log").read_text()

    def _start_node(self, name: str, key: Path, settings: Mapping[str, Path], package: Path) -> None:
        self._start(
            name,
            "flower-supernode",
            f"--superlink=localhost:{self.port}",
            f"--root-certificates={self.keys / 'ca.crt'}",
            f"--auth-supernode-private-key={key}",
            f"--port={free_port()}",
            "--node-config",
            " ".join(f'{name}="{value}"' for name, value in settings.items()),
            package=package,
        )

    def _start(self, name: str, program: str, *arguments: str, package: Path = REPOSITORY) -> None:
        environment = self.environment(self.root / name) | {"PYTHONPATH": str(package)}
        with (self.root / f"{name}.log").open("ab") as log:
            self._started[name] = subprocess.Popen(
                [str(self.bin / program), *arguments],
                env=environment,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def environment(self, home: Path) -> dict[str, str]:
        """Return the variables of Flower's processes."""
        return {
            **os.environ,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "PYTHONPATH": str(REPOSITORY),
        }

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """End a process and all that it has started."""
        self.sample()
        process = self._started.pop(name)
        for pid in [process.pid, *descendants(process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with suppress(ProcessLookupError):  # what it has left behind, as a unit's control group would
            os.killpg(process.pid, signal.SIGKILL)

    def stop(self) -> None:
        """End everything."""
        for name in list(self._started):
            self.kill(name)

    def _wait_for_port(self, port: int) -> None:
        ends = time.monotonic() + STARTS_S
        while True:
            with suppress(OSError), socket.create_connection(("localhost", port), 1):
                return
            assert time.monotonic() < ends, (self.root / "link.log").read_text()[-2000:]
            time.sleep(0.2)

    # --- commands -------------------------------------------------------------------------------------------------

    def command(self, *words: str) -> str:
        """Run `flwr WORDS` and return what it said."""
        done = subprocess.run(
            [str(self.bin / "flwr"), *words],
            env=self.environment(self.root / "home"),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def register(self, key: Path) -> None:
        """Let the SuperLink know a node's public key."""
        self.command("supernode", "register", f"{key}.pub", "fleet")

    def begin(self, settings: Mapping[str, object]) -> str:
        """Start a run of the app; return its number."""
        words = " ".join(f"{name}={json.dumps(value)}" for name, value in settings.items())
        told = self.command("run", str(APP), "fleet", "--run-config", words, "--format", "json")
        return str(json.loads(told[told.index("{") :])["run-id"])

    def state_of(self, run: str) -> str:
        """Return a run's state, as `flwr ls` tells it."""
        told = self.command("ls", "fleet", "--run-id", run, "--format", "json")
        return str(json.loads(told[told.index("{") :])["runs"][0]["status"])

    def log_of(self, run: str) -> str:
        """Return what a run's server has said."""
        return self.command("log", run, "fleet", "--show")

    def finish(self, run: str, timeout_s: float = 300.0) -> str:
        """Wait for a run's end, and return what its server has said."""
        ends = time.monotonic() + timeout_s
        log, last = self.root / "link.log", f"of run {run}"
        while not re.search(rf"Finished task \d+ {last}", log.read_text(errors="replace")):
            assert time.monotonic() < ends, self.log_of(run)
            self.sample()
            time.sleep(0.5)
        state, told = self.state_of(run), self.log_of(run)
        assert state == "finished:completed", f"{state}\n{told}"
        return told

    # --- memory ---------------------------------------------------------------------------------------------------

    def sample(self) -> None:
        """Note the peak resident set of every process so far, in MiB, by its kind."""
        for name, process in self._started.items():
            for pid in [process.pid, *descendants(process.pid)]:
                with suppress(OSError, IndexError):
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                    status = Path(f"/proc/{pid}/status").read_text()
                    program = Path(words[1].decode()).name
                    if not program.startswith("fl"):
                        continue
                    kind = f"{'server' if name == 'link' else 'node'} {program}"
                    peak = float(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024
                    self.peaks[kind] = max(self.peaks.get(kind, 0.0), peak)


def descendants(pid: int) -> list[int]:
    """Return all that a process has started, and they."""
    children: dict[int, list[int]] = {}
    for child, parent in _processes():
        children.setdefault(parent, []).append(child)
    found: list[int] = []
    waiting = [pid]
    while waiting:
        new = children.get(waiting.pop(), [])
        found += new
        waiting += new
    return found


def _processes() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            yield int(entry.name), int((entry / "stat").read_text().rpartition(")")[2].split()[1])
