"""Heat, throttling, the clock of the cores, and the power supply as it is believed to be, and why."""

from __future__ import annotations

import re

from edge_far.device.board.kernel_files import names_in, read_bytes, read_name, read_number, read_text
from edge_far.doctor.finding import UNKNOWN, Finding, Subject

__all__ = ["examine_heat_and_power"]

SUPPLY = "use the board's own power supply, and a short cable"
COOL = "put a heat sink or a fan on it, or more air around it"
PI5_FULL_MA = 5000
POWER_MODE = "var/lib/nvpmodel/status"
POWER_MODES = "etc/nvpmodel.conf"
CPUS = "sys/devices/system/cpu"


def examine_heat_and_power(subject: Subject) -> list[Finding]:
    """Return the findings on heat, throttling, clock and power."""
    return [_heat(subject), _throttling(subject), _clock_speed(subject), _power(subject)]


def _heat(subject: Subject) -> Finding:
    found = subject.sensors.temperature()
    if found is None:
        return Finding("heat", "note", UNKNOWN, "no thermal zone can be read; training is never paused for heat")
    read = f"{found.celsius:.0f} degrees C ({found.zone})"
    limit = None if subject.match is None else subject.match.profile.thermal.pause_above_celsius
    resume = None if subject.match is None else subject.match.profile.thermal.resume_below_celsius
    if limit is None or resume is None or found.celsius <= resume:
        return Finding("heat", "ok", read)
    if found.celsius <= limit:
        return Finding("heat", "note", read, f"a night's training starts below {resume:g} degrees", COOL)
    return Finding("heat", "warn", read, f"the service pauses training above {limit:g} degrees", COOL)


def _throttling(subject: Subject) -> Finding:
    name = "throttling"
    now, before = subject.sensors.throttling(), subject.sensors.throttling_before()
    if now is None:
        return Finding(name, "note", UNKNOWN, "nothing here tells whether the processor is slowed down")
    if now.heat:
        return Finding(name, "warn", "now, by heat", "training is slower than it could be", COOL)
    if now.under_voltage:
        return Finding(name, "warn", "now, by low voltage", "see power", SUPPLY)
    if before is not None and before.heat:
        return Finding(name, "warn", "not now, but since the start, by heat", "it will be again while it trains", COOL)
    if before is not None and before.under_voltage:
        return Finding(name, "note", "not now, but since the start, by low voltage", "see power")
    return Finding(name, "ok", "none now" if before is None else "none since the start")


def _clock_speed(subject: Subject) -> Finding:
    """Whether the cores may run at their highest clock (cpufreq, in kHz)."""
    name, base = "clock speed", subject.root / CPUS
    cores = [base / each / "cpufreq" for each in names_in(base) if re.fullmatch(r"cpu[0-9]{1,4}", each)]
    read = [(read_number(core / "scaling_max_freq"), read_number(core / "cpuinfo_max_freq")) for core in cores]
    known = [(cap, most) for cap, most in read if cap and most]
    if not known:
        return Finding(name, "note", UNKNOWN, "cpufreq tells nothing here")
    cap, most = min(known, key=lambda pair: pair[0] / pair[1])
    governor = next((told for core in cores if (told := read_name(core / "scaling_governor"))), None)
    said = f"up to {cap / 1e6:.2f} GHz" + (f" ({governor})" if governor else "")
    if governor == "powersave" and subject.board.is_arm:  # on x86 it is what the driver calls its usual way
        todo = f"echo schedutil | sudo tee /{CPUS}/cpu*/cpufreq/scaling_governor"
        return Finding(name, "warn", said, "the governor powersave keeps the cores at their lowest clock", todo)
    if cap >= most:
        return Finding(name, "ok", said)
    why = f"the cores could run at {most / 1e6:.2f} GHz: their clock is capped"
    if subject.is_jetson:
        return Finding(name, "note", said, f"{why} by the power mode", "sudo nvpmodel -m 0   # all the power there is")
    todo = f"echo {most} | sudo tee /{CPUS}/cpu*/cpufreq/scaling_max_freq"
    return Finding(name, "warn", said, why, todo)


def _power(subject: Subject) -> Finding:
    """What feeds the board, as far as anything tells: nothing measures a supply itself."""
    name = "power"
    now, before = subject.sensors.throttling(), subject.sensors.throttling_before()
    supply = subject.sensors.power()
    rails = _rails(subject)
    told = [text for text in (supply.why, _negotiated(subject), _power_mode(subject), rails) if text]
    if now is not None and now.under_voltage:
        why = "the firmware sees a low voltage now: the supply or its cable is too weak, and a card may be damaged"
        return Finding(name, "bad", "; ".join(["low voltage now", *told]), why, SUPPLY)
    if before is not None and before.under_voltage:
        why = "the firmware has seen a low voltage since the start, most likely under load: as in training"
        return Finding(name, "warn", "; ".join(["low voltage since the start", *told]), why, SUPPLY)
    if supply.mains is False:
        charge = "" if supply.battery_percent is None else f", {supply.battery_percent} % left"
        why = "a profile with power.require_mains defers training"
        return Finding(name, "note", f"battery{charge}: {'; '.join(told)}", why)
    weak = _negotiated_ma(subject)
    if subject.is_raspberry_pi and weak is not None and weak < PI5_FULL_MA:
        why = "a Raspberry Pi 5 wants 5 A; with less it gives USB devices, an SSD say, 600 mA in all"
        return Finding(name, "note", "; ".join(told), why, SUPPLY)
    if before is not None:
        return Finding(name, "ok", "; ".join(["no low voltage since the start", *told]), "the firmware says so")
    if told:
        return Finding(name, "ok", "; ".join(told))
    return Finding(name, "note", UNKNOWN, "no power supply reports; the service takes it as mains")


def _negotiated_ma(subject: Subject) -> int | None:
    """Return the current that a Raspberry Pi 5 agreed on with its supply, in mA (a big-endian word)."""
    word = read_bytes(subject.root / "proc/device-tree/chosen/power/max_current")
    return int.from_bytes(word) if word and len(word) <= 4 else None


def _negotiated(subject: Subject) -> str:
    current = _negotiated_ma(subject)
    return "" if current is None else f"the supply offers {current / 1000:g} A"


def _power_mode(subject: Subject) -> str:
    """Return a Jetson's power mode, with its name where the list of modes tells it."""
    mode = re.search(r"pmode:([0-9]{1,4})", read_text(subject.root / POWER_MODE) or "")
    if mode is None:
        return ""
    number = int(mode[1])
    modes = read_text(subject.root / POWER_MODES) or ""
    named = re.search(rf"POWER_MODEL +ID={number} +NAME=(\w{{1,40}})", modes)
    return f"power mode {number}" + (f" ({named[1]})" if named else "")


def _rails(subject: Subject) -> str:
    """Return what the board's input takes where an INA3221 measures it (hwmon: mV and mA)."""
    for monitor in names_in(subject.root / "sys/class/hwmon"):
        base = subject.root / "sys/class/hwmon" / monitor
        if read_text(base / "name") != "ina3221":
            continue
        for channel in (1, 2, 3):
            label = read_name(base / f"in{channel}_label")
            volts = read_number(base / f"in{channel}_input", least=0)
            amperes = read_number(base / f"curr{channel}_input", least=0)
            if label and label.endswith("_IN") and volts is not None and amperes is not None:
                return f"{label} {volts / 1000:.2f} V, {volts * amperes / 1e6:.1f} W"
    return ""
