"""The clock, and the service: is it installed, does its timer run, what did it say last."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from edge_far.device.board.kernel_files import names_in, read_text
from edge_far.doctor.finding import UNKNOWN, Finding, Subject
from edge_far.json_file import Damaged, decode_keys, read_document

__all__ = ["examine_service"]

FIRST_DAY_S = 1_767_225_600.0  # 2026-01-01: edge-far was not there before
TIMESYNC = "run/systemd/timesync"
UNITS = ("etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
WANTED = "etc/systemd/system/timers.target.wants"
SETTINGS = "etc/edge-far/edge-far.env"
SHOWN = "run/edgefar/status.json"  # the service shows it there to everybody
STATUS_KEYS = {"state": str, "checked_s": float, "summary": str, "advice": tuple[str, ...]}
VERDICTS = {"broken": "bad", "attention": "warn"}
QUIET_DAYS = 3  # the timer looks at least once a day
DAY_S = 86_400


def examine_service(subject: Subject) -> list[Finding]:
    """Return the findings on clock and service."""
    return [_clock(subject), _service(subject)]


def _clock(subject: Subject) -> Finding:
    if subject.now_s is None:
        return Finding("clock", "note", UNKNOWN, "files do not tell the time of the system that they belong to")
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(subject.now_s))
    sync = "sudo timedatectl set-ntp true   # and wait for the network"
    if subject.now_s < FIRST_DAY_S:
        why = "a board without a battery for its clock begins in the past: examples would get wrong dates"
        return Finding("clock", "bad", shown, why, sync)
    told = names_in(subject.root / TIMESYNC)
    if "synchronized" in told:
        return Finding("clock", "ok", f"{shown}, synchronized")
    if os.access(subject.root / TIMESYNC, os.R_OK | os.X_OK):
        why = "systemd-timesyncd runs, and has not reached a server since the start"
        return Finding("clock", "warn", f"{shown}, not synchronized", why, sync)
    return Finding("clock", "note", f"{shown}; synchronized or not is {UNKNOWN}", "systemd-timesyncd does not run here")


def _service(subject: Subject) -> Finding:
    name, root = "service", subject.root
    if not any("edge-far.service" in names_in(root / units) for units in UNITS):
        why = "training and predicting work without; it is for adapting to this device's own data"
        return Finding(name, "note", "not installed", why, "sudo deploy/install.sh --profile NAME --bundle BUNDLE")
    said = _settings(root)
    chosen = f", profile {said}" if said else ""
    if "edge-far.timer" not in names_in(root / WANTED):
        why = "the unit is there, but its timer is not enabled: no cycle begins by itself"
        return Finding(name, "warn", f"installed{chosen}", why, "sudo systemctl enable --now edge-far.timer")
    status = _status(subject)
    if status is None:
        why = "no status can be read: it has not run yet, or only root may look"
        return Finding(name, "note", f"installed{chosen}", why, "sudo edge-far status; systemctl status edge-far")
    read = f"installed{chosen}; {status['state']}"
    verdict = VERDICTS.get(status["state"])
    if verdict is not None:
        todo = status["advice"][0] if status["advice"] else "sudo edge-far status"
        return Finding(name, "bad" if verdict == "bad" else "warn", read, status["summary"], todo)
    age_days = 0.0 if subject.now_s is None else (subject.now_s - status["checked_s"]) / DAY_S
    if age_days > QUIET_DAYS:
        why = f"it said so {age_days:.0f} days ago, and nothing since"
        return Finding(name, "warn", read, why, "systemctl list-timers edge-far.timer; journalctl -u edge-far")
    return Finding(name, "ok", read, status["summary"])


def _settings(root: Path) -> str | None:
    """Return the profile that the service was installed with."""
    found = re.search(r"^EDGE_FAR_PROFILE=(\S{1,200})$", read_text(root / SETTINGS) or "", re.MULTILINE)
    return found[1] if found else None


def _status(subject: Subject) -> dict[str, Any] | None:
    """Return what the service said last, None where that cannot be read."""
    for path in (subject.root / SHOWN, subject.state / "status.json"):
        try:
            document: dict[str, Any] = read_document(path, dict[str, Any], half_pairs=True)
            decode_keys(STATUS_KEYS, document)
            return document
        except (OSError, Damaged):
            continue
    return None
