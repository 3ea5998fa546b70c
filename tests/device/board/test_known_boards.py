"""Which profile fits a board, by its name and RAM; what is no board is not recognised."""

from __future__ import annotations

import pytest

from edge_far.device.board.identity import Identity
from edge_far.device.board.known_boards import nearest_profile, recognise


def board(model: str | None, ram_mib: float | None) -> Identity:
    features = {"asimd", "asimddp"} if "Orin" in (model or "") else {"asimd"}
    return Identity(model, "processor", None, 4, frozenset(features), ram_mib)


@pytest.mark.parametrize(
    ("model", "ram_mib", "profile", "exact"),
    [
        ("Raspberry Pi Zero 2 W Rev 1.0", 416, "rpi-zero2w-512", True),
        ("Raspberry Pi 3 Model A Plus Rev 1.0", 420, "rpi-zero2w-512", True),
        ("Raspberry Pi 3 Model B Rev 1.2", 905, "rpi3b-1gb", True),
        ("Raspberry Pi 4 Model B Rev 1.4", 1848, "rpi4-2gb", True),
        ("Raspberry Pi 400 Rev 1.0", 3794, "rpi4-4gb", True),
        ("Raspberry Pi 4 Model B Rev 1.1", 906, "rpi3b-1gb", False),  # sold with 1 GB, too
        ("Raspberry Pi 5 Model B Rev 1.1", 2000, "rpi4-2gb", False),
        ("Raspberry Pi 500 Rev 1.0", 8063, "rpi5-8gb", True),
        ("Raspberry Pi Compute Module 5 Rev 1.0", 16219, "rpi5-16gb", True),
        ("jetson-nano", 3956, "jetson-nano-4gb", True),
        ("NVIDIA Jetson Nano 2GB Developer Kit", 1979, None, False),  # no profile of the maker's asks for so little
        ("NVIDIA Jetson Orin Nano Developer Kit", 3546, "jetson-nano-4gb", False),
        ("NVIDIA Orin Nano Developer Kit", 7620, "jetson-orin-nano-8gb", True),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", 15655, "jetson-orin-nx-16gb", True),
        ("NVIDIA Orin NX Developer Kit", 7500, "jetson-orin-nano-8gb", False),
        ("NVIDIA Jetson Xavier NX Developer Kit (SD-card)", 15000, "jetson-xavier-nx-8gb", True),
        ("NVIDIA Jetson AGX Orin", 30000, None, False),
        ("Raspberry Pi 2 Model B Rev 1.2", 921, None, False),
        ("Raspberry Pi 4 Model B Rev 1.4", None, None, False),
        ("ProLiant DL380 Gen10", 31250, None, False),
        ("*", 4000, None, False),
        (None, 31250, None, False),
    ],
)
def test_recognise(model: str | None, ram_mib: float | None, profile: str | None, exact: bool) -> None:
    found = recognise(board(model, ram_mib))
    assert (found and found.profile.name) == profile
    assert (found is not None and found.exact) == exact
    if found is not None and found.profile.board.ram_mib is not None and ram_mib is not None:
        assert found.profile.memory.budget_mib < ram_mib


def test_the_nearest_to_start_from_asks_for_no_more_ram() -> None:
    assert [nearest_profile(board(None, ram)) for ram in (None, 100)] == [None, None]
    near = nearest_profile(board("Radxa ROCK 5B", 7700))
    assert near is not None and near.board.ram_mib == 8192
