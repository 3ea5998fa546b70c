"""Sensors, on trees of files like those of the boards; what is missing is unknown and never an error."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge_far.device.board import sensors as sensors_module
from edge_far.device.board.sensors import THROTTLED_FILE, Power, Pressure, Sensors, Temperature, Throttling


def write(root: Path, files: dict[str, str]) -> Sensors:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Sensors(root)


def supply(name: str, **fields: object) -> dict[str, str]:
    return {f"sys/class/power_supply/{name}/{key}": f"{value}\n" for key, value in fields.items()}


def battery(status: str, capacity: object, **fields: object) -> dict[str, str]:
    return supply("BAT0", **{"type": "Battery", "status": status, "capacity": capacity, **fields})


def zone(number: int, kind: str, temp: object) -> dict[str, str]:
    base = f"sys/class/thermal/thermal_zone{number}"
    return {f"{base}/type": f"{kind}\n", f"{base}/temp": f"{temp}\n"}


def test_bare_tree_is_all_unknown(tmp_path: Path) -> None:
    readings = Sensors(tmp_path).read()
    assert readings.power == Power(None, None)
    assert {getattr(readings, name) for name in readings.__dataclass_fields__ if name != "power"} == {None}
    assert Sensors(tmp_path).model() is None


def test_this_machine_reads_without_error() -> None:
    readings = Sensors(disk=Path("/")).read()
    assert readings.available_mib and readings.available_mib > 1
    assert readings.disk_free_mib and readings.disk_free_mib > 1


def test_raspberry_pi(tmp_path: Path) -> None:
    sensors = write(
        tmp_path,
        {
            **zone(0, "cpu-thermal", 61234),
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
            "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "proc/meminfo": "MemTotal: 4000000 kB\nMemAvailable: 1048576 kB\n",
        },
    )
    readings = sensors.read()
    assert readings.temperature == Temperature(61.234, "cpu-thermal")
    assert readings.throttling == Throttling(under_voltage=True, heat=False)
    assert readings.available_mib == 1024 and readings.pressure is None
    assert sensors.model() == "Raspberry Pi 4 Model B Rev 1.4"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("0", Throttling(False, False)),
        ("f0000", Throttling(False, False)),  # has occurred since the start, is not so now
        ("1", Throttling(True, False)),
        ("5", Throttling(True, False)),  # throttled because of the voltage
        ("4", Throttling(False, True)),
        ("8", Throttling(False, True)),
        ("0xd", Throttling(True, True)),
        ("garbage", None),
        ("-1", None),
        ("1_5", None),
        ("fffffffff", None),  # more than the firmware's 32 bits
        ("", None),
    ],
)
def test_firmware_flags(tmp_path: Path, flags: str, expected: Throttling | None) -> None:
    sensors = write(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": flags})
    assert sensors.throttling() == expected


def test_voltage_alarm_of_the_kernel(tmp_path: Path) -> None:
    files = {"sys/class/hwmon/hwmon1/name": "rpi_volt\n", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n"}
    assert write(tmp_path, files).throttling() == Throttling(True, False)


def test_jetson_zones_that_lie_or_are_off(tmp_path: Path) -> None:
    files = {**zone(0, "PMIC-Die", 100000), **zone(1, "CPU-therm", 41500), **zone(2, "gpu", -256000)}
    sensors = write(tmp_path, {**files, **zone(3, "tj", 43000), **zone(4, "odd", "x")})
    (tmp_path / "sys/class/thermal/thermal_zone5/temp").mkdir(parents=True)  # reading it is an OSError
    assert sensors.temperature() == Temperature(43.0, "tj")


EVERY_SENSOR = {
    **zone(0, "bad", 70000),
    **zone(1, "good", 50000),
    **{f"sys/class/thermal/cooling_device{n}/type": "Processor" for n in (0, 1)},
    **{f"sys/class/thermal/cooling_device{n}/cur_state": "1" for n in (0, 1)},
    **{f"sys/class/hwmon/hwmon{n}/name": "rpi_volt" for n in (0, 1)},
    **{f"sys/class/hwmon/hwmon{n}/in0_lcrit_alarm": "1" for n in (0, 1)},
    **battery("Discharging", 60),
    **supply("BAT1", type="Battery", status="Discharging", capacity=70),
    THROTTLED_FILE: "0",
    "proc/pressure/memory": "some avg10=1.00 avg60=0.00\nfull avg10=0.50 avg60=0.00\n",
    "proc/meminfo": "MemAvailable: 1024 kB\n",
    "proc/device-tree/model": "board",
}
BROKEN = {  # one sensor of each kind that has a neighbour, and each that has none
    **{"temperature": "sys/class/thermal/thermal_zone0/temp", "cooling": "sys/class/thermal/cooling_device0/cur_state"},
    **{"voltage": "sys/class/hwmon/hwmon0/in0_lcrit_alarm", "power": "sys/class/power_supply/BAT0/capacity"},
    **{"type": "sys/class/thermal/thermal_zone0/type", "flags": THROTTLED_FILE, "pressure": "proc/pressure/memory"},
    **{"memory": "proc/meminfo", "model": "proc/device-tree/model"},
}
HUGE = "9" * 5000


@pytest.mark.parametrize(
    "how", ["missing", "directory", "EAGAIN", "EIO", "ENODATA", "EINVAL", "EACCES", HUGE, "\xff", ""]
)
@pytest.mark.parametrize("sensor", BROKEN)
def test_a_sensor_that_cannot_be_read_is_unknown_and_the_others_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sensor: str, how: str
) -> None:
    sensors = write(tmp_path, EVERY_SENSOR)
    path, waiting = tmp_path / BROKEN[sensor], None
    if how in ("missing", "directory", "EAGAIN"):
        path.unlink()
    if how == "directory":
        path.mkdir()
    elif how == "EAGAIN":  # a pipe that is open and empty answers as a driver that is not ready
        os.mkfifo(path)
        waiting = os.open(path, os.O_RDWR)
    elif how in errno.__dict__:
        failing(monkeypatch, path, getattr(errno, how))
    elif how != "missing":
        path.write_text(how, "latin-1")
    found, model = sensors.read(), sensors.model()
    if waiting is not None:
        os.close(waiting)
    hottest = found.temperature
    assert hottest is not None and hottest.celsius == (50.0 if sensor == "temperature" else 70.0)
    assert found.throttling == Throttling(True, True)
    assert found.power == Power(False, 70 if sensor == "power" else 60)
    assert found.pressure == (None if sensor == "pressure" else Pressure(1.0, 0.5))
    assert found.available_mib == (None if sensor == "memory" else 1.0)
    if sensor != "model":
        assert model == "board"
    elif how in (HUGE, "\xff"):  # any text is a name, cut where it is long
        assert model in (HUGE[:80], "\ufffd")
    else:
        assert model is None


def failing(monkeypatch: pytest.MonkeyPatch, path: Path, code: int) -> None:
    """Let reading a file fail; os.open itself never fails so for a file of the kernel's."""
    genuine = os.read

    def read(descriptor: int, count: int) -> bytes:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == path:
            raise OSError(code, os.strerror(code))
        return genuine(descriptor, count)

    monkeypatch.setattr(os, "read", read)


def test_a_number_that_cannot_be_is_unknown(tmp_path: Path) -> None:
    base = "sys/class/thermal/cooling_device0"
    files = {f"{base}/type": "Processor", f"{base}/max_state": "3", f"{base}/cur_state": "4294967295"}
    sensors = write(tmp_path, {**files, **zone(0, "broken", 2**63), **zone(1, "hot as lead", 327000)})
    assert sensors.throttling() is None and sensors.temperature() is None
    write(tmp_path, {"proc/pressure/memory": "some avg10=1e9 x\nfull avg10=0.00 x\n", "proc/meminfo": "MemAvailable:"})
    assert sensors.pressure() is None and sensors.read().available_mib is None


def test_the_firmware_is_asked_through_its_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "vcgencmd"
    tool.write_text("#!/bin/sh\nprintf 'throttled=0x8\\377'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert sensors_module._ask_vcgencmd() == "0x8\ufffd"


@pytest.mark.parametrize(
    ("kind", "state", "expected"),
    [
        ("thermal-cpufreq-0", 2, Throttling(False, True)),
        ("thermal-cpufreq-0", 0, Throttling(False, False)),
        ("Processor", 1, Throttling(False, True)),
        ("pwm-fan", 3, None),
    ],
)
def test_cooling_by_clock(tmp_path: Path, kind: str, state: int, expected: Throttling | None) -> None:
    base = "sys/class/thermal/cooling_device0"
    assert write(tmp_path, {f"{base}/type": kind, f"{base}/cur_state": str(state)}).throttling() == expected


def test_pressure(tmp_path: Path) -> None:
    text = "some avg10=12.34 avg60=1.00 avg300=0.00 total=9\nfull avg10=5.60 avg60=0.00 avg300=0.00 total=1\n"
    assert write(tmp_path, {"proc/pressure/memory": text}).pressure() == Pressure(12.34, 5.6)
    (tmp_path / "proc/pressure/memory").write_text("nonsense")
    assert Sensors(tmp_path).pressure() is None


def test_control_groups(tmp_path: Path) -> None:
    tree = {
        "proc/self/cgroup": "0::/system.slice/edge-far.service\n",
        "sys/fs/cgroup/system.slice/memory.max": "max\n",
        "sys/fs/cgroup/system.slice/edge-far.service/memory.max": f"{300 << 20}\n",
    }
    assert write(tmp_path, tree).read().cgroup_limit_mib == 300


def test_disk_free(tmp_path: Path) -> None:
    sensors = Sensors(tmp_path)
    free = sensors.disk_free_mib(tmp_path)
    assert free is not None and free > 0 and sensors.disk_free_mib(tmp_path / "none") is None
