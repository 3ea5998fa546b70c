"""Sensors, on trees of files like those of the boards; what is missing is unknown and never an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_far.device.board.sensors import Power, Pressure, Sensors, Temperature, Throttling


def write(root: Path, files: dict[str, str]) -> Sensors:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Sensors(root)


def supply(name: str, **fields: object) -> dict[str, str]:
    return {f"sys/class/power_supply/{name}/{key}": f"{value}\n" for key, value in fields.items()}


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


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (supply("AC", type="Mains", online=1), Power(True, None)),
        (supply("AC", type="Mains", online=0), Power(False, None)),
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
    ],
)
def test_power(tmp_path: Path, files: dict[str, str], expected: Power) -> None:
    assert write(tmp_path, files).power() == expected


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
