"""What is said over MQTT: the topics, what goes into them, and how Home Assistant finds them. No connection here.

Below the device's own topic:

    availability    out, kept   online or offline
    status          out, kept   JSON: state, summary, figures, what a cycle waits for
    release         out, kept   the ID of the current release
    answer          out         JSON: what came of `adapt`
    refused         out         JSON: why a message of `add` was not taken
    add             in          JSON: a line of the spool: an example, a prediction, feedback
    adapt           in          anything: ask for a cycle now
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_far import __version__
from edge_far.bridges.mqtt_settings import MqttSettings
from edge_far.daemon.intake import spool as spool_files
from edge_far.errors import DataError
from edge_far.texts.reading.json_object import read_object
from edge_far.texts.reading.lines import decoded
from edge_far.texts.reading.problems import RecordProblem

__all__ = ["OFFLINE", "ONLINE", "discovery_messages", "hand_over", "status_message"]

ONLINE, OFFLINE = "online", "offline"
FIELDS = frozenset({"id", "text", "text_pair", "label", "prediction", "feedback"})
FIGURES = ("release", "kind", "made_s", "score", "held_out_score", "held_out_score_before", "held_out_examples")
COUNTS = ("examples", "new_examples", "quarantined", "predictions", "set_aside")
WORRYING = ("broken", "attention")


def hand_over(payload: bytes, spool: Path) -> Path:
    """Put one line of the spool there; return the file once it is durable.

    Raises DataError (65) for what the daemon could not read, InputMissing (66) and StorageError (74) of the spool.
    """
    try:
        record = read_object(decoded(payload))
    except RecordProblem as wrong:
        raise DataError(wrong.message, hint=wrong.hint) from wrong
    if unknown := sorted(set(record) - FIELDS):
        raise DataError(f"unknown field {unknown[0]!a:.60}", hint=f"known are {', '.join(sorted(FIELDS))}")
    id = record.get("id")
    if isinstance(id, int) and not isinstance(id, bool):
        record["id"] = str(id)
    return spool_files.add(**record, spool=spool)  # type: ignore[arg-type]  # `add` refuses every other type


def status_message(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of a status document of the service."""
    model, examples = document.get("model") or {}, document.get("examples") or {}
    conditions = document.get("conditions") or []
    return {
        "state": document.get("state"),
        "problem": document.get("state") in WORRYING,
        "summary": document.get("summary"),
        **{name: model.get(name) for name in FIGURES},
        **{name: examples.get(name) for name in COUNTS},
        "waits": [condition["text"] for condition in conditions if not condition["ok"]],
        "advice": document.get("advice") or [],
        "checked_s": document.get("checked_s"),
    }


def discovery_messages(settings: MqttSettings) -> dict[str, dict[str, Any]]:
    """Return what makes Home Assistant show this device, by topic: sensors and a button."""
    if settings.discovery is None:
        return {}
    of_status = {"state_topic": f"{settings.topic}/status"}
    entities: dict[tuple[str, str], dict[str, Any]] = {
        ("sensor", "State"): {
            **of_status,
            "value_template": "{{ value_json.state }}",
            "json_attributes_topic": f"{settings.topic}/status",
            "icon": "mdi:brain",
        },
        ("binary_sensor", "Problem"): {
            **of_status,
            "value_template": "{{ 'ON' if value_json.problem else 'OFF' }}",
            "device_class": "problem",
            "entity_category": "diagnostic",
        },
        ("sensor", "Release"): {"state_topic": f"{settings.topic}/release", "icon": "mdi:package-variant-closed"},
        ("sensor", "Score"): {
            **of_status,
            "value_template": "{{ value_json.held_out_score }}",
            "state_class": "measurement",
            "icon": "mdi:bullseye-arrow",
        },
        ("sensor", "New examples"): {
            **of_status,
            "value_template": "{{ value_json.new_examples }}",
            "state_class": "measurement",
            "icon": "mdi:text-box-plus-outline",
        },
        ("button", "Adapt now"): {"command_topic": f"{settings.topic}/adapt", "icon": "mdi:school-outline"},
    }
    return {
        f"{settings.discovery}/{kind}/{settings.id}/{_slug(name)}/config": _entity(settings, name, own)
        for (kind, name), own in entities.items()
    }


def _entity(settings: MqttSettings, name: str, own: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "unique_id": f"{settings.id}_{_slug(name)}",
        "availability_topic": f"{settings.topic}/availability",
        "device": {"identifiers": [settings.id], "name": settings.name, "sw_version": __version__},
        "origin": {"name": "edge-far", "sw_version": __version__},
        **own,
    }


def _slug(name: str) -> str:
    return re.sub(r"\W+", "_", name.lower())
