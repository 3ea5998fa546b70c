"""What a board says of itself: files below /proc and /sys that are missing, empty, cut, absurd or directories."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

from edge_far.daemon.training.conditions import pause_conditions, start_conditions
from edge_far.device.board.sensors import Sensors
from edge_far.profile.document import load_profile
from tests.fuzz.judge import call, problem_of
from tests.fuzz.mutate import mutate_bytes
from tests.fuzz.targets.base import Case, Target

__all__ = ["SensorTree"]

GOOD: dict[str, bytes] = {
    "proc/meminfo": b"MemTotal:        3884160 kB\nMemFree:          100000 kB\nMemAvailable:    2884160 kB\n",
    "proc/self/cgroup": b"12:memory:/user.slice\n3:cpu,cpuacct:/\n0::/system.slice/edge-far.service\n",
    "proc/pressure/memory": b"some avg10=1.50 avg60=0.10 total=12\nfull avg10=0.00 avg60=0.00 total=3\n",
    "proc/device-tree/model": b"Raspberry Pi 4 Model B Rev 1.4\0",
    "sys/fs/cgroup/system.slice/edge-far.service/memory.max": b"314572800\n",
    "sys/fs/cgroup/system.slice/edge-far.service/cpu.max": b"50000 100000\n",
    "sys/fs/cgroup/system.slice/memory.max": b"max\n",
    "sys/fs/cgroup/memory/user.slice/memory.limit_in_bytes": b"9223372036854771712\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": b"50000\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": b"100000\n",
    "sys/class/thermal/thermal_zone0/type": b"cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": b"48312\n",
    "sys/class/thermal/thermal_zone1/temp": b"100000\n",
    "sys/class/thermal/cooling_device0/type": b"cpufreq-cpu0\n",
    "sys/class/thermal/cooling_device0/cur_state": b"0\n",
    "sys/class/power_supply/BAT0/type": b"Battery\n",
    "sys/class/power_supply/BAT0/status": b"Charging\n",
    "sys/class/power_supply/BAT0/capacity": b"76\n",
    "sys/class/power_supply/AC/type": b"Mains\n",
    "sys/class/power_supply/AC/online": b"1\n",
    "sys/class/hwmon/hwmon1/name": b"rpi_volt\n",
    "sys/class/hwmon/hwmon1/in0_lcrit_alarm": b"0\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": b"0\n",
}
ABSURD = (
    *(
        b"",
        b"\n",
        b"-1",
        b"0",
        b"9" * 5000,
        b"1e3",
        b"nan",
        b"inf",
        b"0x50005",
        b"\xd9\xa3",
        b"\xff\xfe",
        b"\0",
        b"max",
        b"max 100000",
    ),
    *(
        b"-1 0",
        b"0 0",
        b"1 -1",
        b"a:b\n",
        b":::\n",
        b"0::relative\n",
        b"0::/../../..\n",
        b"MemAvailable:\n",
        b"MemAvailable: x kB\n",
    ),
    *(
        b"MemAvailable: -5 kB\n",
        b"some avg10=..\n",
        b"some avg10=1\nfull avg10=9.9.9\n",
        b"some avg10=" + b"9" * 400 + b"\nfull avg10=0\n",
    ),
    *(
        b"\xc2\xb2",
        b"1_000",
        b" 7 ",
        b"+5",
        b"1" * (1 << 16),
        b"0::/" + b"a/" * 3000 + b"\n",
        b"0::/a\0b\n",
        b"1:memory:/\n0::/\n",
    ),
)


class SensorTree(Target):
    """A tree of sensors; a name that ends in / is a directory where a file should be."""

    name = "sensors"
    codes = frozenset({0})

    def make(self, chance: Random) -> Case:
        """Return a tree in which some files are missing, changed, or directories."""
        files: dict[str, bytes] = {}
        for name, content in GOOD.items():
            kind = chance.randrange(8)
            if kind == 0:
                continue
            if kind == 1:
                files[name] = chance.choice(ABSURD)
            elif kind == 2:
                files[name] = mutate_bytes(content, chance)
            elif kind == 3:
                files[f"{name}/inside"] = content
            else:
                files[name] = content
        return Case(files)

    def problem(self, case: Case) -> str | None:
        """Read the tree and ask whether to train."""
        with self.laid(case):
            ending = call("sensors", lambda: _look(self.work), self.bounds)
            return problem_of(ending, self.bounds)


def _look(root: Path) -> None:
    profile = load_profile("rpi4-2gb")
    sensors = Sensors(root, disk=root)
    readings = sensors.read()
    sensors.model()
    found = start_conditions(profile, readings, new_examples=50, held_out=100, local_time=time.localtime())
    for paused in (False, True):
        found += pause_conditions(profile, readings, paused=paused)
    for condition in found:
        if "\n" in condition.text or not condition.text.isprintable():
            raise AssertionError(f"a condition's sentence is not one line: {condition.text!r}")
