"""`edge-far doctor` as a user calls it: table, JSON, exit codes; also where the packages it looks for are missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge_far.cli import main
from tests.doctor.boards import BOARDS, RPI, plant

ROOT = Path(__file__).parents[3]
THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"


@pytest.fixture(autouse=True)
def _at_night(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.doctor.boards import NIGHT_S

    monkeypatch.setattr("edge_far.doctor.examination.time.time", lambda: NIGHT_S)


def test_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--root", str(plant(RPI, tmp_path))]) == 0
    out = capsys.readouterr().out
    assert "ok    board            Raspberry Pi 4 Model B Rev 1.5, cortex-a72, 4 cores\n" in out
    assert "ok    profile          rpi4-4gb (Raspberry Pi 4B, 4 GB)\n" in out
    assert out.endswith("It runs here; see the notes.\n")
    assert max(map(len, out.splitlines())) <= 110


def test_what_to_do_stands_at_the_end_the_worst_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = {**RPI, THROTTLED: "50005\n"}
    del tree["proc/pressure/memory"]
    assert main(["doctor", "--root", str(plant(tree, tmp_path))]) == 69
    out = capsys.readouterr().out
    _, told = out.split("Put this right first:\n")
    assert told.splitlines() == [
        "  power, throttling:",
        "    use the board's own power supply, and a short cable",
        "  memory pressure:",
        "    sudo reboot   # /boot/firmware/cmdline.txt has psi=1 already, but the kernel was started without",
    ]


def test_json_and_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = {**BOARDS["rpi-zero2w-512"], THROTTLED: "80000\n"}
    assert main(["doctor", "--json", "--root", str(plant(tree, tmp_path))]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["profile"], document["root"]) == ("warn", "rpi-zero2w-512", str(tmp_path))
    (found,) = [finding for finding in document["findings"] if finding["name"] == "throttling"]
    assert found == {
        "name": "throttling",
        "read": "not now, but since the start, by heat",
        "verdict": "warn",
        "why": "it will be again while it trains",
        "todo": "put a heat sink or a fan on it, or more air around it",
    }


def test_a_root_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--root", str(tmp_path / "none")]) == 66
    assert "none: no such directory (name the root of a system's files)" in capsys.readouterr().err
    (tmp_path / "file").touch()
    for command in (["doctor"], ["profiles", "detect"]):
        assert main([*command, "--root", str(tmp_path / "file")]) == 66
        assert "file: is a file, not a directory (name the root" in capsys.readouterr().err


def test_this_machine_without_packages_of_the_device() -> None:
    """A Python with PyYAML alone: what is missing is a finding, and no crash."""
    import yaml

    code = (
        "import sys; sys.path[:] = [place for place in sys.path if 'site-packages' not in place]\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"import importlib.util as u; spec = u.spec_from_file_location('yaml', {yaml.__file__!r})\n"
        "module = u.module_from_spec(spec); sys.modules['yaml'] = module; spec.loader.exec_module(module)\n"
        "from edge_far.cli import main; sys.exit(main(['doctor', '--json']))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 69, done.stderr
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["onnxruntime"]["read"] == "not installed"
    assert findings["packages"]["verdict"] == "bad" and findings["python"]["verdict"] == "ok"
