"""May training start now, and must it pause: a profile's limits against what the sensors say.

Each condition is a sentence with the measured value, for `status`. A sensor that is missing counts as fine
and says so. Pause and resume have different limits and a holding time, so that training does not flutter.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_far.daemon.gate.paired import smallest_sample
from edge_far.device.board.sensors import Readings
from edge_far.profile.document import Profile

__all__ = ["Condition", "PauseControl", "allowed_now", "pause_conditions", "start_conditions"]

RESUME_AVAILABLE_FACTOR = 1.25
RESUME_PRESSURE_FACTOR = 0.5
HOLD_S = 30.0


@dataclass(frozen=True)
class Condition:
    """One condition: whether it holds, what was measured (None: unknown), its limit, and a sentence."""

    name: str
    ok: bool
    measured: float | str | bool | None
    limit: float | str | bool | None
    text: str


def start_conditions(
    profile: Profile,
    readings: Readings,
    *,
    new_examples: int,
    held_out: int,
    held_out_share: float | None = None,
    local_time: time.struct_time,
    plan_peak_mib: float = 0.0,
) -> list[Condition]:
    """Return every condition that must hold before a cycle starts, in the order a person would look.

    `new_examples` and `held_out` are counts, `held_out_share` is the store's (None: the profile's), `plan_peak_mib`
    what the plan predicts the trainer to take of the memory that is available now.
    """
    share = profile.adaptation.held_out_percent / 100 if held_out_share is None else held_out_share
    return [
        _new_examples(profile, new_examples),
        _held_out(profile, held_out, share),
        _hours(profile, local_time),
        _power(profile, readings),
        _voltage(readings),
        _heat(readings, profile.thermal.resume_below_celsius),  # start cool: the limit to resume at
        _available(readings, profile.pressure.min_available_mib + plan_peak_mib),
        _pressure(profile, readings, 1.0),
        _memory_limit(profile, readings),
        _disk(profile, readings),
    ]


def pause_conditions(profile: Profile, readings: Readings, *, paused: bool) -> list[Condition]:
    """Return the conditions that must hold to go on; the limits are stricter while `paused`."""
    thermal = profile.thermal
    return [
        _heat(readings, thermal.resume_below_celsius if paused else thermal.pause_above_celsius),
        _voltage(readings),
        _power(profile, readings),
        _available(readings, profile.pressure.min_available_mib * (RESUME_AVAILABLE_FACTOR if paused else 1.0)),
        _pressure(profile, readings, RESUME_PRESSURE_FACTOR if paused else 1.0),
    ]


def allowed_now(profile: Profile, local_time: time.struct_time) -> bool:
    """Return whether the profile's hours allow to start, or to wait for better conditions."""
    return _hours(profile, local_time).ok


@dataclass
class PauseControl:
    """Says whether to pause, with hysteresis: to resume, everything must be fine for `hold_s` seconds."""

    profile: Profile
    hold_s: float = HOLD_S
    clock: Callable[[], float] = time.monotonic
    paused: bool = False
    reasons: list[Condition] = field(default_factory=list)
    _fine_since_s: float | None = None

    def update(self, readings: Readings) -> bool:
        """Take new readings; return whether training must be paused now. `reasons` says why."""
        failing = [c for c in pause_conditions(self.profile, readings, paused=self.paused) if not c.ok]
        if failing:
            self.paused, self.reasons, self._fine_since_s = True, failing, None
        elif self.paused:
            now = self.clock()
            self._fine_since_s = now if self._fine_since_s is None else self._fine_since_s
            if now - self._fine_since_s >= self.hold_s:
                self.paused, self.reasons, self._fine_since_s = False, [], None
        return self.paused


def _new_examples(profile: Profile, count: int) -> Condition:
    limit = profile.adaptation.min_new_examples
    text = f"{count} new examples, {limit} needed"
    return Condition("new examples", count >= limit, count, limit, text)


def _held_out(profile: Profile, count: int, share: float) -> Condition:
    """Fewer than the gate can decide on would be trained in vain; `share` of the examples to come is held out."""
    asked = profile.adaptation
    limit = max(
        asked.min_held_out_examples, smallest_sample(asked.tolerance_percent / 100, asked.confidence_percent / 100)
    )
    text = f"{count} held-out examples, {limit} needed"
    if count < limit:
        more = math.ceil((limit - count) / share)
        text += f" to judge a new model (about {more} more examples: {share:.0%} are held out)"
    return Condition("held-out examples", count >= limit, count, limit, text)


def _hours(profile: Profile, local_time: time.struct_time) -> Condition:
    allowed = profile.schedule.allowed_hours
    now = f"{local_time.tm_hour:02d}:{local_time.tm_min:02d}"
    if allowed is None:
        return Condition("hours", True, now, None, f"{now}, any time is allowed")
    start, end = re.findall(r"\d\d:\d\d", allowed)
    inside = start <= now < end if start < end else now >= start or now < end
    text = f"{now}, {'within' if inside else 'outside'} the allowed hours {allowed}"
    return Condition("hours", inside, now, allowed, text)


def _power(profile: Profile, readings: Readings) -> Condition:
    mains, charge, why = readings.power.mains, readings.power.battery_percent, readings.power.why
    if mains is None:
        if not why:
            return Condition("power", True, None, None, "no power supply reports, taken as mains")
        return Condition("power", True, "taken as mains", None, f"taken as mains: {why}")
    reason = f" ({why})" if why else ""
    if mains:
        return Condition("power", True, "mains", None, f"on mains{reason}")
    if profile.power.require_mains:
        shown = "" if charge is None else f", {charge} % charged"
        return Condition("power", False, "battery", "mains", f"on battery{reason}{shown}; mains is required")
    limit = profile.power.min_battery_percent
    if charge is None:
        return Condition("power", True, None, limit, f"on battery{reason}, its charge is unknown")
    text = f"on battery{reason}, {charge} % charged, {limit} % needed"
    return Condition("power", charge >= limit, charge, limit, text)


def _voltage(readings: Readings) -> Condition:
    if readings.throttling is None:
        return Condition("voltage", True, None, None, "voltage is not measured")
    low = readings.throttling.under_voltage
    text = "under-voltage: the power supply or its cable is too weak" if low else "voltage is fine"
    return Condition("voltage", not low, low, False, text)


def _heat(readings: Readings, limit: float | None) -> Condition:
    found = readings.temperature
    slowed = readings.throttling is not None and readings.throttling.heat
    if limit is None:
        celsius = None if found is None else found.celsius
        return Condition("temperature", True, celsius, None, "heat is not watched")
    if found is None:
        text = "no thermal zone reports" + (", but the processor is slowed by heat" if slowed else "")
        return Condition("temperature", not slowed, None, limit, text)
    text = f"{found.celsius:.0f} C ({found.zone}), {limit:.0f} C allowed"
    if slowed:
        text += ", the processor is slowed by heat"
    return Condition("temperature", found.celsius <= limit and not slowed, found.celsius, limit, text)


def _available(readings: Readings, limit: float) -> Condition:
    found = readings.available_mib
    if found is None:
        return Condition("memory", True, None, limit, "free memory is not measured")
    text = f"{found:.0f} MiB of memory available, {limit:.0f} MiB needed"
    return Condition("memory", found >= limit, found, limit, text)


def _pressure(profile: Profile, readings: Readings, factor: float) -> Condition:
    limit = profile.pressure.max_memory_psi_some_avg10_percent
    if limit is None or readings.pressure is None:
        why = "is not watched" if limit is None else "is not measured by this kernel"
        return Condition("memory pressure", True, None, limit, f"memory pressure {why}")
    found = readings.pressure.some_avg10_percent
    text = f"memory pressure {found:.0f} %, {limit * factor:.0f} % allowed"
    return Condition("memory pressure", found <= limit * factor, found, limit * factor, text)


def _memory_limit(profile: Profile, readings: Readings) -> Condition:
    budget = profile.memory.budget_mib
    found = readings.cgroup_limit_mib
    if found is None:
        return Condition("memory limit", True, None, budget, "no control group limits memory")
    text = f"the control group allows {found:.0f} MiB, the budget is {budget} MiB"
    return Condition("memory limit", found >= budget, found, budget, text)


def _disk(profile: Profile, readings: Readings) -> Condition:
    limit = profile.storage.min_free_mib
    found = readings.disk_free_mib
    if found is None:
        return Condition("disk", True, None, limit, "free disk space is not measured")
    text = f"{found:.0f} MiB of disk free, {limit} MiB needed"
    return Condition("disk", found >= limit, found, limit, text)
