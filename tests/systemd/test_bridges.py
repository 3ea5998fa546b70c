"""The bridges under a real systemd: behind their walls they reach a broker, answer, and write to the spool.

Beside what container.py names, the Debian root needs the packages mosquitto and mosquitto-clients, and the device's
environment the extras mqtt and wyoming.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.container import DEBIAN, INSTALL, PROFILE, VENV, Container, missing, wait_for

SPOOL = "var/spool/edge-far"
TOPIC = "edge-far/hall"
ASK = """import asyncio, json
from wyoming.asr import Transcript
from wyoming.client import AsyncClient
from wyoming.event import Event

async def main():
    async with AsyncClient.from_uri("tcp://127.0.0.1:10400") as client:
        await client.write_event(Transcript("w1 w2").event())
        answer = await client.read_event()
        feedback = {"id": answer.data["context"]["edge_far_id"], "label": "label-2"}
        await client.write_event(Event("edge-far-feedback", feedback))
        print(json.dumps([answer.type, (await client.read_event()).type]))

asyncio.run(main())
"""


def without() -> str | None:
    """Return why these tests cannot run here, or None."""
    if reason := missing():
        return reason
    if absent := [name for name in ("paho", "wyoming") if importlib.util.find_spec(name) is None]:
        return f"the package {absent[0]} is not installed (extras mqtt and wyoming)"
    programs = [DEBIAN / "usr" / name for name in ("sbin/mosquitto", "bin/mosquitto_pub")]
    return None if all(path.exists() for path in programs) else f"{DEBIAN} lacks mosquitto and mosquitto-clients"


pytestmark = [pytest.mark.device, pytest.mark.slow, pytest.mark.skipif(without() is not None, reason=str(without()))]


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory, installed_bundle: Path) -> Iterator[Container]:
    booted = Container(tmp_path_factory.mktemp("container"), installed_bundle)
    try:
        booted.write("/profile.yaml", PROFILE)
        booted.write("/etc/hosts", "127.0.0.1 localhost\n")
        booted.write("/etc/mosquitto/conf.d/open.conf", "listener 1883 127.0.0.1\nallow_anonymous true\n")
        booted.write("/etc/edge-far/mqtt.yaml", f"topic: {TOPIC}\n")
        booted.run("systemctl", "restart", "mosquitto.service")
        booted.run(*INSTALL, "--mqtt", "--wyoming")
        booted.run("systemctl", "start", "edge-far.service")
        wait_for(lambda: booted.show("ActiveState") == "inactive", 60)
        yield booted
    finally:
        booted.close()


def lines(container: Container) -> list[dict[str, str]]:
    """Return what waits in the spool."""
    return [json.loads(path.read_bytes()) for path in sorted((container.root / SPOOL).glob("*.jsonl"))]


def test_mqtt_takes_an_example_and_asks_for_a_cycle(container: Container) -> None:
    wait_for(lambda: "connected" in container.show("StatusText", "edge-far-mqtt.service"), 60)
    example = {"text": "w1 w2", "label": "label-1"}
    container.run("mosquitto_pub", "-q", "1", "-t", f"{TOPIC}/add", "-m", json.dumps(example))
    wait_for(lambda: lines(container) == [example], 30)
    container.run("sh", "-c", f"mosquitto_sub -W 60 -C 1 -t {TOPIC}/answer >/answer 2>&1 & sleep 1")
    container.run("mosquitto_pub", "-q", "1", "-t", f"{TOPIC}/adapt", "-m", "PRESS")
    wait_for(lambda: (container.root / "answer").read_text(), 60)
    assert "1 new examples, 10 needed" in json.loads((container.root / "answer").read_text())["deferred"]
    release = container.run("mosquitto_sub", "-W", "10", "-C", "1", "-t", f"{TOPIC}/release")
    assert release == container.run("readlink", "/run/edgefar/model/current").rpartition("/")[2]


def test_wyoming_answers_and_takes_a_correction(container: Container) -> None:
    container.run("systemctl", "restart", "edge-far-wyoming.service")  # returns when it works
    container.write("/ask.py", ASK)
    replies = json.loads(container.run(f"{VENV}/bin/python", "/ask.py"))
    assert replies == ["not-recognized", "edge-far-feedback-taken"]
    assert [(line["text"], line["label"]) for line in lines(container)] == [("w1 w2", "label-2")]
