"""What feeds the board: mains or a battery, as far as /sys/class/power_supply tells, and why that is believed.

A supply that is offline says little: a PoE HAT or a USB-C port that is not in use is offline while another cable feeds
the board. So the board runs on battery only if it has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_far.device.board.kernel_files import names_in, read_name, read_number, read_text

__all__ = ["Power", "read_power"]

SUPPLIES = "sys/class/power_supply"
BATTERIES = frozenset({"Battery", "UPS"})
HOLDING = frozenset({"Full", "Not charging"})
HIGHEST_ONLINE = 2  # 0 offline, 1 fixed, 2 programmable voltage


@dataclass(frozen=True)
class Power:
    """What feeds the board; `mains` is None where nothing tells, `battery_percent` is None without a battery.

    `why` names what was seen, in words; it is empty where no power supply reports at all.
    """

    mains: bool | None
    battery_percent: int | None
    why: str = field(default="", compare=False)


@dataclass(frozen=True)
class _Battery:
    name: str
    status: str
    percent: int | None


def read_power(root: Path) -> Power:
    """Return what feeds the board.

    On battery: one discharges, or there is one that is not charging while supplies report and none is online. A
    mouse's battery and an empty bay do not count.
    """
    batteries: list[_Battery] = []
    online: list[str] = []
    offline: list[str] = []
    for name in names_in(root / SUPPLIES):
        supply = root / SUPPLIES / name
        if read_text(supply / "scope") == "Device":
            continue
        if read_text(supply / "type") in BATTERIES:
            if read_number(supply / "present") != 0:
                percent = read_number(supply / "capacity", least=0, most=100)
                batteries.append(_Battery(_shown(name), read_name(supply / "status") or "Unknown", percent))
        elif (state := read_number(supply / "online", least=0, most=HIGHEST_ONLINE)) is not None:
            (online if state else offline).append(_shown(name))
    percent = min((b.percent for b in batteries if b.percent is not None), default=None)
    mains, why = _from_batteries(batteries, online, offline) if batteries else _without_battery(online, offline)
    return Power(mains, percent, why)


def _from_batteries(
    batteries: Sequence[_Battery], online: Sequence[str], offline: Sequence[str]
) -> tuple[bool | None, str]:
    def those(*states: str) -> list[str]:
        return [battery.name for battery in batteries if battery.status in states]

    if draining := those("Discharging"):
        weak = f" although {_are(online, 'online')}" if online else ""
        return False, f"{_are(draining, 'discharging')}{weak}"
    if online:
        return True, _are(online, "online")
    if charging := those("Charging"):
        return True, _are(charging, "charging")
    if offline:
        return False, f"{_are(offline, 'offline')}, and {_are([b.name for b in batteries], 'not charging')}"
    if holding := those(*HOLDING):
        return True, _are(holding, "not discharging")
    return None, f"no supply reports, and {batteries[0].name} does not say whether it is discharging"


def _without_battery(online: Sequence[str], offline: Sequence[str]) -> tuple[bool | None, str]:
    if online:
        return True, _are(online, "online")
    return None, f"{_are(offline, 'offline')}, but there is no battery" if offline else ""


def _are(names: Sequence[str], state: str) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} {state}"


def _shown(name: str) -> str:
    """Return a supply's name as a message may show it."""
    return name[:40] if name.isprintable() else ascii(name[:40])
