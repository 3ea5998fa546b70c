"""`edge-far profiles` as a user calls it: stdout, stderr and exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from edge_far.cli import main
from edge_far.profile.document import load_profile, reference_yaml
from tests.doctor.boards import BOARDS, plant


def test_list_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["PROFILE", "BUDGET", "MiB", "RAM", "MiB", "THREADS", "FROZEN", "BOARD"]
    assert lines[1] == "rpi-zero2w-512               300      512        4  int8    Raspberry Pi Zero 2 W, 512 MB"
    assert len(lines) == 14


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["profiles"][0]["memory"] == {"budget_mib": 300}
    assert len(document["profiles"]) == 13


def test_show_prints_a_profile_that_loads_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["profiles", "show", "rpi5-8gb"]) == 0
    path = tmp_path / "rpi5-8gb.yaml"
    path.write_text(capsys.readouterr().out)
    assert load_profile(path) == load_profile("rpi5-8gb")
    assert main(["profiles", "show", "rpi5-8gb", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)["profile"]
    assert document.pop("name") == "rpi5-8gb"
    assert document == yaml.safe_load(path.read_text())


def test_sample_is_what_the_docs_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "sample"]) == 0
    assert capsys.readouterr().out == reference_yaml()


def test_check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(reference_yaml())
    assert main(["profiles", "check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: OK\n"
    path.write_text("memory: {budget_mb: 300}\n")
    assert main(["profiles", "check", str(path)]) == 78
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        f"edge-far: error: {path}: 2 errors",
        "  At 'memory.budget_mb': unknown key; did you mean 'budget_mib', in MiB?",
        "  At 'memory.budget_mib': is missing; it must be a whole number of MiB between 64 and 1048576",
    ]
    assert main(["profiles", "check", str(path), "--json"]) == 78
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["where"] == str(path)
    assert error["exit_code"] == 78


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show"], 64, "'show' needs a profile"),
        (["list", "rpi4-2gb"], 64, "'list' takes no profile"),
        (["draw"], 64, "invalid choice: 'draw'"),
        (["show", "rpi9"], 78, "rpi9: is not a built-in profile"),
        (["check", "none.yaml"], 66, "none.yaml: no such profile file"),
    ],
)
def test_wrong_use(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str) -> None:
    assert main(["profiles", *arguments]) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in BOARDS if name != "workstation"])
def test_detect(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(plant(BOARDS[name], tmp_path))
    assert main(["profiles", "detect", "--root", root]) == 0
    assert capsys.readouterr().out.split()[0] == name
    assert main(["profiles", "detect", "--root", root, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["profile"], document["exact"]) == (name, True)
    assert document["sold_mib"] == load_profile(name).board.ram_mib


def test_detect_on_no_board(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "detect", "--root", str(plant(BOARDS["workstation"], tmp_path / "one"))]) == 69
    assert capsys.readouterr().out == (
        "none  no built-in profile is for this machine: it calls itself 'ProLiant DL380 Gen10'\n"
    )
    tree = {**BOARDS["rpi5-4gb"], "proc/device-tree/model": "Radxa ROCK 5B\0"}
    assert main(["profiles", "detect", "--root", str(plant(tree, tmp_path / "two"))]) == 69
    assert capsys.readouterr().out.endswith("from: edge-far profiles show rpi5-4gb\n")
    assert main(["profiles", "detect", "--root", str(tmp_path / "none")]) == 66
