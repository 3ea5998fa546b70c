"""Conditions: each limit on both sides, unknown sensors, and a pause that does not flutter."""

from __future__ import annotations

import dataclasses
import itertools
import time

import pytest

from edge_far.daemon.training.conditions import PauseControl, start_conditions
from edge_far.device.board.sensors import Power, Pressure, Readings, Temperature, Throttling
from edge_far.profile.adaptation_sections import Adaptation, Schedule, Storage, Thermal
from edge_far.profile.adaptation_sections import Power as PowerSettings
from edge_far.profile.document import Profile
from edge_far.profile.run_sections import Memory
from edge_far.profile.run_sections import Pressure as PressureSettings

PROFILE = Profile(
    name="test",
    memory=Memory(budget_mib=300),
    thermal=Thermal(pause_above_celsius=75.0, resume_below_celsius=65.0),
    pressure=PressureSettings(min_available_mib=100, max_memory_psi_some_avg10_percent=20.0),
    storage=Storage(min_free_mib=200),
    adaptation=Adaptation(min_new_examples=32),
)
FINE = Readings(
    temperature=Temperature(45.0, "cpu"),
    throttling=Throttling(False, False),
    power=Power(True, None),
    available_mib=400.0,
    cgroup_limit_mib=512.0,
    pressure=Pressure(0.0, 0.0),
    disk_free_mib=1000.0,
)
UNKNOWN = Readings(None, None, Power(None, None), None, None, None, None)
NOON = time.struct_time((2026, 1, 1, 12, 0, 0, 3, 1, 0))


def at(hour: int, minute: int) -> time.struct_time:
    return time.struct_time((2026, 1, 1, hour, minute, 0, 3, 1, 0))


def failing(profile: Profile = PROFILE, new: int = 50, when: time.struct_time = NOON, **changes: object) -> list[str]:
    readings = dataclasses.replace(FINE, **changes)  # type: ignore[arg-type]
    return [
        c.text for c in start_conditions(profile, readings, new_examples=new, held_out=100, local_time=when) if not c.ok
    ]


@pytest.mark.parametrize(("share", "more"), [(None, 255), (0.5, 102)])
def test_how_many_examples_are_missing_until_a_model_can_be_judged(share: float | None, more: int) -> None:
    found = start_conditions(PROFILE, FINE, new_examples=50, held_out=8, held_out_share=share, local_time=NOON)
    (condition,) = (condition for condition in found if not condition.ok)
    percent = 20 if share is None else 50
    assert condition.text == (
        f"8 held-out examples, 59 needed to judge a new model (about {more} more examples: {percent}% are held out)"
    )


def test_all_fine_and_all_unknown_may_start() -> None:
    assert failing() == []
    unknown = start_conditions(PROFILE, UNKNOWN, new_examples=50, held_out=100, local_time=NOON)
    assert all(condition.ok for condition in unknown)
    assert sum(condition.measured is None for condition in unknown) == 7


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"temperature": Temperature(66.0, "cpu")}, "66 C (cpu), 65 C allowed"),
        ({"throttling": Throttling(True, False)}, "under-voltage: the power supply or its cable is too weak"),
        (
            {"throttling": Throttling(False, True)},
            "45 C (cpu), 65 C allowed, the processor is slowed by heat",
        ),
        ({"power": Power(False, 80)}, "on battery, 80 % charged; mains is required"),
        ({"available_mib": 99.0}, "99 MiB of memory available, 100 MiB needed"),
        ({"pressure": Pressure(21.0, 0.0)}, "memory pressure 21 %, 20 % allowed"),
        ({"cgroup_limit_mib": 299.0}, "the control group allows 299 MiB, the budget is 300 MiB"),
        ({"disk_free_mib": 199.0}, "199 MiB of disk free, 200 MiB needed"),
    ],
)
def test_each_limit_defers_with_its_measured_value(changes: dict[str, object], text: str) -> None:
    assert failing(**changes) == [text]


def test_limits_themselves_are_allowed() -> None:
    assert failing(temperature=Temperature(65.0, "cpu"), available_mib=100.0, disk_free_mib=200.0) == []
    assert failing(new=32) == [] and failing(new=31) == ["31 new examples, 32 needed"]


def test_memory_for_the_plan_must_be_there_at_the_start() -> None:
    def ok(peak: float) -> bool:
        found = start_conditions(PROFILE, FINE, new_examples=50, held_out=100, local_time=NOON, plan_peak_mib=peak)
        return all(condition.ok for condition in found)

    assert ok(300.0) and not ok(301.0)


def test_battery_is_enough_where_the_profile_says_so() -> None:
    profile = dataclasses.replace(PROFILE, power=PowerSettings(require_mains=False, min_battery_percent=50))
    assert failing(profile, power=Power(False, 50)) == []
    assert failing(profile, power=Power(False, 49)) == ["on battery, 49 % charged, 50 % needed"]
    assert failing(profile, power=Power(False, None)) == []


@pytest.mark.parametrize(
    ("power", "measured", "text"),
    [
        (Power(None, None), None, "no power supply reports, taken as mains"),
        (
            Power(None, None, "poe is offline, but there is no battery"),
            "taken as mains",
            "taken as mains: poe is offline,",
        ),
        (Power(True, 80, "AC is online"), "mains", "on mains (AC is online)"),
        (Power(False, 80, "BAT0 is discharging"), "battery", "on battery (BAT0 is discharging), 80 % charged; mains"),
    ],
)
def test_power_says_what_is_believed_and_why(power: Power, measured: str | None, text: str) -> None:
    readings = dataclasses.replace(FINE, power=power)
    found = start_conditions(PROFILE, readings, new_examples=50, held_out=100, local_time=NOON)
    (condition,) = [condition for condition in found if condition.name == "power"]
    assert condition.measured == measured and condition.text.startswith(text)
    assert condition.ok == (power.mains is not False)


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        ("01:00-05:30", [at(1, 0), at(5, 29)], [at(0, 59), at(5, 30), at(12, 0)]),
        ("22:00-06:00", [at(22, 0), at(0, 0), at(5, 59)], [at(6, 0), at(21, 59)]),
    ],
)
def test_allowed_hours(hours: str, inside: list[time.struct_time], outside: list[time.struct_time]) -> None:
    profile = dataclasses.replace(PROFILE, schedule=Schedule(allowed_hours=hours))
    assert all(failing(profile, when=when) == [] for when in inside)
    assert all("outside the allowed hours" in failing(profile, when=when)[0] for when in outside)


def test_limits_that_are_switched_off() -> None:
    profile = dataclasses.replace(
        PROFILE,
        thermal=Thermal(pause_above_celsius=None, resume_below_celsius=None),
        pressure=PressureSettings(min_available_mib=0, max_memory_psi_some_avg10_percent=None),
    )
    hot = {"temperature": Temperature(99.0, "cpu"), "pressure": Pressure(90.0, 90.0), "available_mib": 1.0}
    assert failing(profile, **hot) == []


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def hot(celsius: float) -> Readings:
    return dataclasses.replace(FINE, temperature=Temperature(celsius, "cpu"))


def test_pause_has_hysteresis_and_a_holding_time() -> None:
    clock = Clock()
    control = PauseControl(PROFILE, hold_s=30.0, clock=clock)
    assert not control.update(hot(75.0))
    assert control.update(hot(75.5)) and "76 C" in control.reasons[0].text
    assert control.update(hot(70.0)) and control.reasons  # cooler, but not cool
    assert control.update(hot(64.0))  # cool: the holding time starts
    clock.now = 29.0
    assert control.update(hot(64.0))
    assert control.update(hot(65.5))  # warm again: it starts anew
    clock.now = 40.0
    assert control.update(hot(60.0))
    clock.now = 69.0
    assert control.update(hot(60.0))
    clock.now = 70.0
    assert not control.update(hot(60.0)) and control.reasons == []
    assert not control.update(hot(74.0))


def test_readings_that_flutter_do_not_make_training_flutter() -> None:
    clock = Clock()
    control = PauseControl(PROFILE, hold_s=30.0, clock=clock)
    states = []
    for step in range(600):
        clock.now = float(step)
        states.append(control.update(hot(75.0 + (3.0 if step % 10 < 5 else -3.0))))
    changes = sum(a != b for a, b in itertools.pairwise(states))
    assert changes == 0 and all(states)


def test_memory_pressure_pauses_and_resumes_lower() -> None:
    clock = Clock()
    control = PauseControl(PROFILE, hold_s=0.0, clock=clock)
    assert control.update(dataclasses.replace(FINE, available_mib=90.0))
    assert control.update(dataclasses.replace(FINE, available_mib=110.0))
    assert not control.update(dataclasses.replace(FINE, available_mib=130.0))
    assert control.update(dataclasses.replace(FINE, pressure=Pressure(25.0, 0.0)))
    assert control.update(dataclasses.replace(FINE, pressure=Pressure(15.0, 0.0)))
    assert not control.update(dataclasses.replace(FINE, pressure=Pressure(9.0, 0.0)))


def test_unplugging_pauses() -> None:
    control = PauseControl(PROFILE, hold_s=0.0)
    assert control.update(dataclasses.replace(FINE, power=Power(False, 90)))
    assert not control.update(FINE)
