"""`edge-far bridge mqtt` beside a real mosquitto: what comes in, what goes out, and what happens when one is away."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_far import cli
from edge_far.bridges.mqtt_settings import MqttSettings
from edge_far.console import Console
from edge_far.daemon.intake.requests import REQUEST, Requests
from edge_far.errors import EdgeFarError
from tests.bridges.broker import PASSWORD, USER, Broker, Listener, missing, wait_for

STATUS = {
    "state": "deferred",
    "summary": "Deferred: 81 C.",
    "model": {"release": "000001-aaaaaaaa", "held_out_score": 0.9},
    "examples": {"examples": 40, "new_examples": 7},
    "conditions": [{"text": "81 C, 65 C allowed", "ok": False}, {"text": "on mains", "ok": True}],
    "advice": ["nothing"],
}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    pytest.importorskip("paho.mqtt.client", reason="the package paho-mqtt is not installed (extra mqtt)")
    if reason := missing():
        pytest.skip(reason)
    started = Broker(tmp_path_factory.mktemp("broker"))
    yield started
    started.stop()


@pytest.fixture
def home(broker: Broker) -> Iterator[Listener]:
    listener = Listener(broker.port)
    yield listener
    listener.close()


@pytest.fixture
def topic() -> str:
    """A device's topic of this test's own: what other tests left at the broker does not count."""
    return f"edge-far/{secrets.token_hex(4)}"


class Device:
    """What a device shows and takes, and its bridge in a thread."""

    def __init__(self, root: Path, port: int, topic: str) -> None:
        self.shown, self.spool = root / "shown", root / "spool"
        (self.shown / "model" / "releases" / "000001-aaaaaaaa").mkdir(parents=True)
        self.spool.mkdir()
        self.settings = MqttSettings(host="127.0.0.1", port=port, topic=topic, name="hall")
        self.show("000001-aaaaaaaa")
        (self.shown / "status.json").write_text(json.dumps(STATUS))
        self.failure: EdgeFarError | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def show(self, release: str) -> None:
        (self.shown / "new").symlink_to(Path("releases") / release)
        (self.shown / "new").rename(self.shown / "model" / "current")

    def start(self) -> None:
        from edge_far.bridges.mqtt_bridge import Bridge

        self._stop.clear()
        bridge = Bridge(self.settings, self.shown, self.spool, Console(quiet=True))

        def run() -> None:
            try:
                bridge.run(self._stop)
            except EdgeFarError as error:
                self.failure = error

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(20)
            assert not self._thread.is_alive()

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(path.read_bytes()) for path in sorted(self.spool.glob("*.jsonl"))]


@pytest.fixture
def device(broker: Broker, home: Listener, topic: str, tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path, broker.port, topic)
    made.start()
    wait_for(lambda: home.last(f"{topic}/availability") == "online")
    yield made
    made.stop()


def test_home_assistant_finds_sensors_and_a_button(device: Device, home: Listener, topic: str) -> None:
    wait_for(lambda: home.last(f"{topic}/release") and home.last(f"{topic}/status"))
    own = topic.replace("-", "_").replace("/", "_")
    found = {name: json.loads(text) for name, text in home.heard if name.startswith("homeassistant/") and own in name}
    assert sorted(name.split("/")[1] for name in found) == ["binary_sensor", "button", *["sensor"] * 4]
    assert len({entity["unique_id"] for entity in found.values()}) == 6
    for name, entity in found.items():
        assert name.endswith("/config") and entity["availability_topic"] == f"{topic}/availability"
        assert entity["device"]["identifiers"] == [own] and entity["origin"]["name"] == "edge-far"
        heard_there = entity.get("state_topic") or entity["command_topic"]
        assert heard_there in {f"{topic}/{end}" for end in ("status", "release", "adapt")}
    status = json.loads(home.last(f"{topic}/status") or "")
    assert (status["state"], status["problem"], status["waits"]) == ("deferred", False, ["81 C, 65 C allowed"])
    assert (status["held_out_score"], status["new_examples"], status["quarantined"]) == (0.9, 7, None)
    assert home.last(f"{topic}/release") == "000001-aaaaaaaa"
    (device.shown / "status.json").write_text(json.dumps(STATUS | {"state": "broken"}))
    device.show("000002-bbbbbbbb")
    wait_for(lambda: home.last(f"{topic}/release") == "000002-bbbbbbbb")
    wait_for(lambda: json.loads(home.last(f"{topic}/status") or "")["problem"])


def test_examples_and_feedback_go_into_the_spool_and_the_rest_is_refused(
    device: Device, home: Listener, topic: str
) -> None:
    lines = [
        {"text": "lights on", "label": "light_on"},
        {"id": "42", "text": "dim it", "prediction": "light_off"},
        {"id": "42", "label": "light_dim"},
        {"id": "43", "feedback": "correct"},
    ]
    for line in lines:
        home.say(f"{topic}/add", json.dumps(line))
    wait_for(lambda: device.lines == lines)
    wrong = {b"{": "JSON", b'{"text": "x"}': "neither an example", b'{"id": 1, "lable": "x"}': "unknown field 'lable'"}
    wrong |= {b'{"text": {}, "label": "x"}': "'text' is not a text", b"\xff": "UTF-8"}
    for payload, reason in wrong.items():
        before = len(home.heard)
        home.say(f"{topic}/add", payload)
        told = wait_for(lambda start=before: [t for name, t in home.heard[start:] if name == f"{topic}/refused"])
        assert reason in json.loads(told[0])["message"]
    assert device.lines == lines


def test_the_button_asks_for_a_cycle_and_the_answer_is_told(device: Device, home: Listener, topic: str) -> None:
    service = Requests(device.spool, device.shown / "answer.json")
    home.say(f"{topic}/adapt", "PRESS")
    wait_for(lambda: service.waiting)
    service.take()
    service.answer(deferred="81 C, 65 C allowed")
    told = json.loads(wait_for(lambda: home.last(f"{topic}/answer")))
    assert (told["cycle"], told["deferred"]) == (None, "81 C, 65 C allowed")


def test_what_the_broker_keeps_is_not_taken_again_at_every_start(device: Device, home: Listener, topic: str) -> None:
    device.stop()
    home.say(f"{topic}/adapt", "PRESS", keep=True)
    wait_for(lambda: home.last(f"{topic}/availability") == "offline")
    device.start()
    wait_for(lambda: home.last(f"{topic}/availability") == "online")
    home.say(f"{topic}/add", json.dumps({"text": "a", "label": "b"}))
    wait_for(lambda: device.lines)
    # Said while the bridge was away, the press waited for it as well, once.
    assert (device.spool / REQUEST).exists()
    (device.spool / REQUEST).unlink()
    device.stop()
    device.start()
    home.say(f"{topic}/add", json.dumps({"text": "c", "label": "d"}))
    wait_for(lambda: len(device.lines) == 2)
    assert not (device.spool / REQUEST).exists()


def test_nothing_is_lost_while_broker_or_bridge_is_away(
    device: Device, home: Listener, broker: Broker, topic: str
) -> None:
    broker.stop()
    broker.start()
    wait_for(lambda: home.last(f"{topic}/availability") == "online")
    home.say(f"{topic}/add", json.dumps({"text": "one", "label": "a"}))
    wait_for(lambda: len(device.lines) == 1)
    device.stop()
    assert wait_for(lambda: home.last(f"{topic}/availability") == "offline")
    home.say(f"{topic}/add", json.dumps({"text": "two", "label": "b"}))
    device.start()
    wait_for(lambda: [line["text"] for line in device.lines] == ["one", "two"])


def test_a_spool_that_cannot_be_written_ends_it_and_the_message_comes_again(
    device: Device, home: Listener, topic: str
) -> None:
    device.spool.rename(device.spool.with_name("elsewhere"))
    home.say(f"{topic}/add", json.dumps({"text": "one", "label": "a"}))
    wait_for(lambda: device.failure)
    assert device.failure is not None and device.failure.exit_code == 66
    device.spool.with_name("elsewhere").rename(device.spool)
    device.stop()
    device.start()
    wait_for(lambda: [line["text"] for line in device.lines] == ["one"])


def test_tls_and_a_password_from_file_and_environment(
    broker: Broker, home: Listener, topic: str, tmp_path: Path
) -> None:
    config = tmp_path / "mqtt.yaml"
    config.write_text(f"port: {broker.tls_port}\nuser: {USER}\ntopic: {topic}\ntls: {{ca: {broker.certificate}}}\n")
    command = [sys.executable, "-m", "edge_far.cli", "bridge", "mqtt", "--json", "--config", str(config)]
    command += ["--shown", str(tmp_path), "--spool", str(tmp_path)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "EDGE_FAR_MQTT_PASSWORD": PASSWORD},
    )
    wait_for(lambda: process.poll() is not None or home.last(f"{topic}/availability") == "online")
    home.say(f"{topic}/add", json.dumps({"text": "one", "label": "a"}))
    wait_for(lambda: process.poll() is not None or list(tmp_path.glob("*.jsonl")))
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert json.loads(out) == {"handed_over": 1, "refused": 0, "asked": 0}
    assert err == f"connected to localhost:{broker.tls_port} as {topic}\n"
    wait_for(lambda: home.last(f"{topic}/availability") == "offline")


@pytest.mark.parametrize(
    ("password", "ca", "reason"),
    [("wrong", True, "the broker refuses: "), (PASSWORD, False, "certificate verify failed")],
)
def test_a_broker_that_refuses_is_told(broker: Broker, password: str, ca: bool, reason: str, tmp_path: Path) -> None:
    config = tmp_path / "mqtt.yaml"
    tls = f"{{ca: {broker.certificate}}}" if ca else "{}"
    config.write_text(f"port: {broker.tls_port}\nuser: {USER}\npassword: {password}\ntls: {tls}\n")
    config.chmod(0o600)
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_far.cli", "bridge", "mqtt", "--config", str(config), "--spool", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    process.terminate()
    assert process.wait(20) == 0
    process.stderr.close()
    assert reason in first


def test_without_the_package_it_names_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("paho.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "paho", None)
    assert cli.main(["bridge", "mqtt"]) == 69
    told = capsys.readouterr().err
    line = "pip install './edge-far[device,mqtt]'  # beside the checkout"
    assert told == f"edge-far: error: the package paho is not installed here ({line})\n"
