"""Which machine this is: its name, its cores and what they can do, its RAM. Refuses to know profiles.

Everything is read below one root directory; what is not told is None, and never an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edge_far.device.board.cpu import cpu_name
from edge_far.device.board.kernel_files import read_text
from edge_far.device.board.sensors import Sensors

__all__ = ["Identity", "identify"]

# (implementer, part) of /proc/cpuinfo -> the core's name as compilers spell it. Arm: Main ID Register, its manuals.
CORES = {
    (0x41, 0xD03): "cortex-a53",
    (0x41, 0xD04): "cortex-a35",
    (0x41, 0xD05): "cortex-a55",
    (0x41, 0xD07): "cortex-a57",
    (0x41, 0xD08): "cortex-a72",
    (0x41, 0xD09): "cortex-a73",
    (0x41, 0xD0B): "cortex-a76",
    (0x41, 0xD41): "cortex-a78",
    (0x41, 0xD42): "cortex-a78ae",
    (0x4E, 0x004): "carmel",
}
# Sizes in which RAM is sold, in MiB. The system sees less: the firmware and the GPU keep a part.
SOLD_MIB = (256, 512, 1024, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152, 65536)
_TOTAL = re.compile(r"^MemTotal:\s*([0-9]{1,15}) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Identity:
    """A machine: what it calls itself, its processor, and its memory in MiB.

    `model` is the device tree's or the firmware's name; `core` is None where it is no Arm core that we know; `features`
    are the words of /proc/cpuinfo. `ram_mib` is what the system sees, `sold_mib` the size it was sold as.
    """

    model: str | None
    processor: str
    core: str | None
    cores: int | None
    features: frozenset[str]
    ram_mib: float | None

    @property
    def sold_mib(self) -> int | None:
        """The smallest size in which RAM is sold that holds what the system sees; None where it is unknown."""
        if self.ram_mib is None:
            return None
        return next((size for size in SOLD_MIB if size >= self.ram_mib), int(self.ram_mib))

    @property
    def is_arm(self) -> bool:
        """Whether /proc/cpuinfo is an Arm's; a 32-bit program is told the words of 32 bits: neon."""
        return not self.features.isdisjoint(("asimd", "neon"))


def identify(root: Path = Path("/")) -> Identity:
    """Return which machine this is."""
    text = read_text(root / "proc/cpuinfo") or ""
    lines = [line.partition(":") for line in text.splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in reversed(lines)}  # of several cores, the first
    count = sum(key.strip() == "processor" for key, _, _ in lines)
    total = _TOTAL.search(read_text(root / "proc/meminfo") or "")
    words = f"{fields.get('Features', '')} {fields.get('flags', '')}".split()
    return Identity(
        # A container may hide the device tree; a Raspberry Pi's kernel says its model here as well.
        model=Sensors(root).model() or fields.get("Model") or None,
        processor=cpu_name(root) if text else "unknown",
        core=CORES.get((_hex(fields.get("CPU implementer")), _hex(fields.get("CPU part")))),
        cores=count or None,
        features=frozenset(words),
        ram_mib=int(total[1]) / 1024 if total else None,
    )


def _hex(text: str | None) -> int:
    return int(text, 16) if text and re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}", text) else -1
