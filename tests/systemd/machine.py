"""What tests ask of a system with a booted systemd: a container (container.py), or a board (emulated_board.py)."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod


class Machine(ABC):
    """A booted system; commands run inside it as root."""

    @abstractmethod
    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside, whatever becomes of it."""

    @abstractmethod
    def read(self, path: str) -> str | None:
        """Return the text of a file inside, None where there is none."""

    @abstractmethod
    def close(self) -> None:
        """End it."""

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command inside and return what it prints."""
        done = self.call(*command)
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def show(self, name: str, unit: str = "edge-far.service") -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", unit, f"--property={name}", "--value")
