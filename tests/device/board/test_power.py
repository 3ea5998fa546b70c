"""What feeds the board, on trees of files like those of boards, laptops and hats; and why that is believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_far.device.board.power import Power, read_power

Files = dict[str, str]


def supply(name: str, **fields: object) -> Files:
    return {f"sys/class/power_supply/{name}/{key}": f"{value}\n" for key, value in fields.items()}


def battery(status: str, capacity: object, **fields: object) -> Files:
    return supply("BAT0", **{"type": "Battery", "status": status, "capacity": capacity, **fields})


def read(root: Path, files: Files) -> Power:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_power(root)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (supply("AC", type="Mains", online=1), Power(True, None)),
        # Offline and no battery: something else feeds the board, or it would not run.
        (supply("AC", type="Mains", online=0), Power(None, None)),
        (supply("poe", type="Mains", online=0) | supply("usb", type="USB", online=0), Power(None, None)),
        (supply("usb", type="USB", online=1) | supply("AC", type="Mains", online=0), Power(True, None)),
        (supply("BAT0", type="Battery", status="Discharging", capacity=41), Power(False, 41)),
        (supply("BAT0", type="Battery", status="Charging", capacity=41), Power(True, 41)),
        (
            supply("BAT0", type="Battery", status="Discharging", capacity=41)
            | supply("BAT1", type="Battery", status="Full", capacity=100)
            | supply("AC", type="Mains", online=0),
            Power(False, 41),
        ),
        (
            supply("mouse", type="Battery", scope="Device", status="Discharging", capacity=3),
            Power(None, None),
        ),
        (supply("BAT0", type="Battery", status="Unknown", capacity="-1"), Power(None, None)),
        (supply("AC", type="Mains"), Power(None, None)),
        (supply("AC", type="Mains", online=4294967295), Power(None, None)),  # no state of a supply
        (battery("Full", 100) | supply("AC", type="Mains", online=0), Power(False, 100)),
        (battery("Unknown", 50) | supply("usb", type="USB", online=0), Power(False, 50)),
        (battery("Charging", 50) | supply("usb", type="USB", online=0), Power(True, 50)),  # by what does not report
        (battery("Not charging", 80) | supply("AC", type="Mains", online=1), Power(True, 80)),
        (battery("Discharging", 80) | supply("usb", type="USB", online=1), Power(False, 80)),  # a charger too weak
        (battery("Full", 100), Power(True, 100)),
        (battery("Unknown", 50), Power(None, 50)),
        (battery("Discharging", 50, present=0) | supply("AC", type="Mains", online=0), Power(None, None)),  # empty bay
        (battery("Discharging", 50, type="UPS"), Power(False, 50)),
        (battery("Discharging", 101), Power(False, None)),
        (battery("Discharging", "1_0"), Power(False, None)),
    ],
)
def test_power(tmp_path: Path, files: Files, expected: Power) -> None:
    assert read(tmp_path, files) == expected


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, ""),
        (supply("poe-hat", type="Mains", online=0), "poe-hat is offline, but there is no battery"),
        (supply("AC", type="Mains", online=1) | supply("usb", type="USB", online=0), "AC is online"),
        (battery("Discharging", 9), "BAT0 is discharging"),
        (battery("Discharging", 9) | supply("usb", type="USB", online=1), "BAT0 is discharging although usb is online"),
        (battery("Full", 9) | supply("AC", type="Mains", online=0), "AC is offline, and BAT0 is not charging"),
        (battery("Charging", 9), "BAT0 is charging"),
        (battery("?", 9), "no supply reports, and BAT0 does not say whether it is discharging"),
    ],
)
def test_power_says_why(tmp_path: Path, files: Files, why: str) -> None:
    assert read(tmp_path, files).why == why
