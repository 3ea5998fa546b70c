"""What the board says about itself: heat, throttling, power, memory, disk, model.

Standard library only. Everything is read below one root directory, so that a test, or a container that
mounts the host's /sys elsewhere, can give another. A sensor that is missing or unreadable is None,
"unknown", and never an error: boards differ, and what is not measured must not stop training.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_far.device.board.memory import available_mib, cgroup_limit_mib

__all__ = ["Power", "Pressure", "Readings", "Sensors", "Temperature", "Throttling"]

MIB = float(1 << 20)
PLAUSIBLE_CELSIUS = (-40.0, 150.0)
# On the Jetson Nano this zone always reads 100 degrees.
CONSTANT_ZONES = frozenset({"PMIC-Die"})
THROTTLED_FILE = "sys/devices/platform/soc/soc:firmware/get_throttled"
PROCESSOR_COOLING = re.compile(r"(thermal-)?(cpufreq|devfreq|idle)-.*|processor", re.IGNORECASE)


@dataclass(frozen=True)
class Temperature:
    """The hottest thermal zone."""

    celsius: float
    zone: str


@dataclass(frozen=True)
class Throttling:
    """What slows the processor right now; `heat` includes the firmware's soft limit."""

    under_voltage: bool
    heat: bool


@dataclass(frozen=True)
class Power:
    """`mains` is None where nothing tells; `battery_percent` is None without a battery."""

    mains: bool | None
    battery_percent: int | None


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
            name = _text(zone / "type") or zone.name
            milli = _number(zone / "temp")
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

    def power(self) -> Power:
        """Return mains and battery from /sys/class/power_supply; a mouse's battery does not count."""
        mains: list[bool] = []
        discharging, charges = False, []
        for supply in self._entries("sys/class/power_supply", "*"):
            if _text(supply / "scope") == "Device":
                continue
            if _text(supply / "type") == "Battery":
                discharging |= _text(supply / "status") == "Discharging"
                charge = _number(supply / "capacity")
                charges += [charge] if charge is not None and 0 <= charge <= 100 else []
            elif (online := _number(supply / "online")) is not None:
                mains.append(online > 0)
        known: bool | None = None
        if mains or discharging:
            known = any(mains)
        elif charges:
            known = True  # a battery that is not discharging, and no sign of what feeds it
        return Power(known, min(charges, default=None))

    def pressure(self) -> Pressure | None:
        """Return the memory's PSI; None where the kernel runs without, as on a default Raspberry Pi OS."""
        text = _text(self.root / "proc/pressure/memory") or ""
        found = dict(re.findall(r"^(some|full) avg10=([0-9.]+)", text, re.MULTILINE))
        try:
            return Pressure(float(found["some"]), float(found["full"]))
        except (KeyError, ValueError):
            return None

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
            if name := _text(self.root / place):
                return name
        return None

    def _firmware_flags(self) -> int | None:
        text = _text(self.root / THROTTLED_FILE)
        if text is None and self.root == Path("/"):
            text = _ask_vcgencmd()
        try:
            return int(text, 16) if text else None
        except ValueError:
            return None

    def _voltage_alarm(self) -> bool | None:
        for monitor in self._entries("sys/class/hwmon", "hwmon*"):
            if _text(monitor / "name") == "rpi_volt":
                alarm = _number(monitor / "in0_lcrit_alarm")
                return None if alarm is None else alarm > 0
        return None

    def _clock_cooling(self) -> bool | None:
        """Return whether the kernel cools a processor by slowing it; fans are no throttling."""
        states = [
            state
            for device in self._entries("sys/class/thermal", "cooling_device*")
            if PROCESSOR_COOLING.fullmatch(_text(device / "type") or "")
            and (state := _number(device / "cur_state")) is not None
        ]
        return any(state > 0 for state in states) if states else None

    def _entries(self, directory: str, pattern: str) -> Iterable[Path]:
        try:
            return sorted((self.root / directory).glob(pattern))
        except OSError:
            return []


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().rstrip(b"\0\n").decode("utf-8", "replace").strip()
    except OSError:  # not there, not allowed, or a sensor that is switched off
        return None


def _number(path: Path) -> int | None:
    try:
        return int(_text(path) or "")
    except ValueError:
        return None


def _ask_vcgencmd() -> str | None:
    """Ask the Raspberry Pi's own tool, for kernels that lack the file."""
    command = shutil.which("vcgencmd")
    if command is None:
        return None
    try:
        done = subprocess.run([command, "get_throttled"], capture_output=True, timeout=2, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().removeprefix("throttled=")
