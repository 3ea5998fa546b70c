"""What the board says about itself: heat, throttling, power, memory, disk, model.

Standard library only. Everything is read below one root directory, so that a test, or a container that
mounts the host's /sys elsewhere, can give another. A sensor that is missing, unreadable or says what cannot be is
None, "unknown", and never an error: boards differ, and what is not measured must not stop training.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from edge_far.device.board.kernel_files import names_in, read_name, read_number, read_text
from edge_far.device.board.memory import available_mib, cgroup_limit_mib
from edge_far.device.board.power import Power, read_power

__all__ = ["Power", "Pressure", "Readings", "Sensors", "Temperature", "Throttling"]

MIB = float(1 << 20)
PLAUSIBLE_CELSIUS = (-40.0, 150.0)
# On the Jetson Nano this zone always reads 100 degrees.
CONSTANT_ZONES = frozenset({"PMIC-Die"})
THROTTLED_FILE = "sys/devices/platform/soc/soc:firmware/get_throttled"
# On a Raspberry Pi 5 the firmware's directory may bear an address: soc@107c000000.
PLATFORM = "sys/devices/platform"
HIGHEST_COOLING = 1000  # steps; where a device does not name its own highest
PROCESSOR_COOLING = re.compile(r"(thermal-)?(cpufreq|devfreq|idle)-.*|processor", re.IGNORECASE)


@dataclass(frozen=True)
class Temperature:
    """The hottest thermal zone."""

    celsius: float
    zone: str


@dataclass(frozen=True)
class Throttling:
    """What slows the processor, or slowed it; `heat` includes the firmware's soft limit."""

    under_voltage: bool
    heat: bool


@dataclass(frozen=True)
class Pressure:
    """Shares of the last 10 s, in percent, in which some or all processes waited for memory (PSI)."""

    some_avg10_percent: float
    full_avg10_percent: float


@dataclass(frozen=True)
class Readings:
    """All sensors at one moment; None is unknown. Memory and disk in MiB."""

    temperature: Temperature | None
    throttling: Throttling | None
    power: Power
    available_mib: float | None
    cgroup_limit_mib: float | None
    pressure: Pressure | None
    disk_free_mib: float | None


class Sensors:
    """The sensors below `root`; `disk` is any path on the file system whose free space counts."""

    def __init__(self, root: Path = Path("/"), *, disk: Path | None = None) -> None:
        self.root = Path(root)
        self.disk = disk

    def read(self) -> Readings:
        """Return all readings."""
        return Readings(
            temperature=self.temperature(),
            throttling=self.throttling(),
            power=self.power(),
            available_mib=available_mib(self.root),
            cgroup_limit_mib=cgroup_limit_mib(self.root),
            pressure=self.pressure(),
            disk_free_mib=self.disk_free_mib(self.disk) if self.disk else None,
        )

    def temperature(self) -> Temperature | None:
        """Return the hottest thermal zone; those that are off, or always say the same, do not count."""
        found = []
        for zone in self._entries("sys/class/thermal", "thermal_zone*"):
            name = read_name(zone / "type") or zone.name
            milli = read_number(zone / "temp")
            if milli is None or name in CONSTANT_ZONES:
                continue
            celsius = milli / 1000
            if PLAUSIBLE_CELSIUS[0] < celsius < PLAUSIBLE_CELSIUS[1]:
                found.append(Temperature(celsius, name))
        return max(found, key=lambda reading: reading.celsius, default=None)

    def throttling(self) -> Throttling | None:
        """Return what slows the processor: the Pi's firmware, its voltage alarm, or cooling by clock."""
        flags = self._firmware_flags()
        alarm = self._voltage_alarm()
        cooling = self._clock_cooling()
        if flags is None and alarm is None and cooling is None:
            return None
        bits = flags or 0
        # Bits 0 under-voltage, 1 clock capped, 2 throttled, 3 soft temperature limit; 16 to 19 have occurred.
        under_voltage = bool(bits & 0b0001) or bool(alarm)
        capped_by_heat = bool(bits & 0b0110) and not under_voltage
        return Throttling(under_voltage, bool(bits & 0b1000) or capped_by_heat or bool(cooling))

    def throttling_before(self) -> Throttling | None:
        """Return what slowed the processor at any moment since the start; only a Pi's firmware remembers."""
        flags = self._firmware_flags()
        if flags is None:
            return None
        under_voltage = bool(flags & 0x10000)
        return Throttling(under_voltage, bool(flags & 0x80000) or (bool(flags & 0x60000) and not under_voltage))

    def power(self) -> Power:
        """Return mains and battery, and why that is believed."""
        return read_power(self.root)

    def pressure(self) -> Pressure | None:
        """Return the memory's PSI; None where the kernel runs without, as on a default Raspberry Pi OS."""
        text = read_text(self.root / "proc/pressure/memory") or ""
        found = dict(re.findall(r"^(some|full) avg10=([0-9]{1,3}(?:\.[0-9]+)?) ", text, re.MULTILINE))
        if found.keys() != {"some", "full"}:
            return None
        shares = Pressure(float(found["some"]), float(found["full"]))
        return shares if max(shares.some_avg10_percent, shares.full_avg10_percent) <= 100 else None

    def disk_free_mib(self, path: Path) -> float | None:
        """Return what an ordinary user may still write to the file system of `path`."""
        try:
            found = os.statvfs(path)
        except OSError:
            return None
        return found.f_bavail * found.f_frsize / MIB

    def model(self) -> str | None:
        """Return the board's name as the device tree or the firmware gives it."""
        for place in ("proc/device-tree/model", "sys/class/dmi/id/product_name"):
            if name := read_name(self.root / place):
                return name
        return None

    def _firmware_flags(self) -> int | None:
        text = read_text(self.root / THROTTLED_FILE)
        for soc in self._entries(PLATFORM, "soc@*") if text is None else []:
            for firmware in self._entries(f"{PLATFORM}/{soc.name}", "*firmware*"):
                text = text or read_text(firmware / "get_throttled")
        if text is None and self.root == Path("/"):
            text = _ask_vcgencmd()
        return int(text, 16) if text and re.fullmatch(r"(0[xX])?[0-9a-fA-F]{1,8}", text) else None

    def _voltage_alarm(self) -> bool | None:
        alarms = [
            alarm
            for monitor in self._entries("sys/class/hwmon", "hwmon*")
            if read_text(monitor / "name") == "rpi_volt"
            and (alarm := read_number(monitor / "in0_lcrit_alarm", least=0, most=1)) is not None
        ]
        return any(alarms) if alarms else None

    def _clock_cooling(self) -> bool | None:
        """Return whether the kernel cools a processor by slowing it; fans are no throttling."""
        states = []
        for device in self._entries("sys/class/thermal", "cooling_device*"):
            if PROCESSOR_COOLING.fullmatch(read_text(device / "type") or ""):
                most = read_number(device / "max_state", least=0)
                state = read_number(device / "cur_state", least=0, most=HIGHEST_COOLING if most is None else most)
                states += [] if state is None else [state > 0]
        return any(states) if states else None

    def _entries(self, directory: str, pattern: str) -> list[Path]:
        base = self.root / directory
        return [base / name for name in names_in(base) if fnmatchcase(name, pattern)]


def _ask_vcgencmd() -> str | None:
    """Ask the Raspberry Pi's own tool, for kernels that lack the file."""
    command = shutil.which("vcgencmd")
    if command is None:
        return None
    try:
        done = subprocess.run([command, "get_throttled"], capture_output=True, timeout=2, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("ascii", "replace").strip().removeprefix("throttled=")
