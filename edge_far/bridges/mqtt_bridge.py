"""The service on MQTT: examples and feedback in, status and releases out, `adapt now` both ways.

A message is acknowledged when it lies in the spool, durable; the broker keeps it until then, also while this bridge is
away. Where the spool cannot be written the bridge ends, and the next start gets the message again. It reads what the
service shows to everybody (/run/edgefar), and never its store.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_far.bridges.extras import module_of
from edge_far.bridges.mqtt_messages import OFFLINE, ONLINE, discovery_messages, hand_over, status_message
from edge_far.bridges.mqtt_settings import MqttSettings
from edge_far.console import Console
from edge_far.daemon.intake.requests import ask, read_answer, take_back
from edge_far.daemon.notify import Notifier
from edge_far.errors import DataError, EdgeFarError
from edge_far.json_file import Damaged, read_document
from edge_far.process.failures import as_error

__all__ = ["Bridge", "Counts"]

LOOK_S = 1.0
ANSWER_S = 120.0  # a request that nobody has taken by then is taken back
GOODBYE_S = 5.0
RECONNECT_S = (1, 60)
AT_LEAST_ONCE = 1


@dataclass
class Counts:
    """What came in since the start."""

    handed_over: int = 0
    refused: int = 0
    asked: int = 0


class Bridge:
    """One device at one broker; `shown` is where the service shows status.json, answer.json and model/."""

    def __init__(
        self, settings: MqttSettings, shown: Path, spool: Path, console: Console, notifier: Notifier | None = None
    ) -> None:
        """Raises Unavailable (69) without the package, ConfigError (78) for unusable TLS files."""
        self.counts = Counts()
        self._settings, self._shown, self._spool = settings, shown, spool
        self._console, self._notifier = console, notifier or Notifier()
        self._said: dict[str, str] = {}
        self._told: str | None = None
        self._failure: EdgeFarError | None = None
        self._asked: tuple[str, float] | None = None
        self._lock = threading.Lock()  # the client's thread and ours publish, and remember what
        self._client = self._made_client()

    def run(self, stop: threading.Event) -> None:
        """Work until asked to stop; raises StorageError (74), InputMissing (66) where the spool cannot be written."""
        host, port = self._settings.address
        self._notifier.ready(f"connecting to {host}:{port}")
        self._client.connect_async(host, port, keepalive=60)
        self._client.loop_start()
        try:
            while not stop.wait(LOOK_S):
                if self._failure is not None:
                    raise self._failure
                if self._client.is_connected():
                    self._say_what_changed()
                    self._say_answer()
        finally:
            if self._client.is_connected():
                with suppress(ValueError, RuntimeError):  # the connection has gone meanwhile
                    self._publish("availability", OFFLINE, keep=True).wait_for_publish(GOODBYE_S)
            self._client.disconnect()
            self._client.loop_stop()

    def _made_client(self) -> Any:
        mqtt = module_of("mqtt", "paho.mqtt.client")
        settings = self._settings
        client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=f"edge-far-{settings.id}",
            clean_session=False,  # what comes while the bridge is away waits at the broker
            manual_ack=True,
        )
        if settings.user is not None:
            client.username_pw_set(settings.user, settings.password)
        if settings.tls is not None:
            client.tls_set_context(settings.tls.context())
        client.will_set(f"{settings.topic}/availability", OFFLINE, AT_LEAST_ONCE, retain=True)
        client.reconnect_delay_set(*RECONNECT_S)
        client.on_connect, client.on_connect_fail = self._connected, self._failed
        client.on_disconnect, client.on_message = self._disconnected, self._message
        return client

    # --- the connection; called in the client's thread --------------------------------------------------------------

    def _connected(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._tell(f"the broker refuses: {reason}")
            return
        self._tell(f"connected to {':'.join(map(str, self._settings.address))} as {self._settings.topic}")
        client.subscribe([(f"{self._settings.topic}/{name}", AT_LEAST_ONCE) for name in ("add", "adapt")])
        for topic, document in discovery_messages(self._settings).items():
            client.publish(topic, json.dumps(document), AT_LEAST_ONCE, retain=True)
        with self._lock:
            self._said.clear()
        self._publish("availability", ONLINE, keep=True)

    def _failed(self, client: Any, userdata: Any) -> None:
        reason = sys.exc_info()[1]  # paho calls this while it handles the exception
        self._tell(f"no connection to {':'.join(map(str, self._settings.address))}: {reason}; trying again")

    def _disconnected(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._tell(f"the connection has ended: {reason}; trying again")

    def _message(self, client: Any, userdata: Any, message: Any) -> None:
        """Take one message, but none that is kept at the broker (retained), which would come again at every start.

        An empty one is how a kept message is taken away, and says nothing.
        """
        try:
            if message.payload and not message.retain:
                self._take(message.topic.rpartition("/")[2], message.payload)
        except DataError as error:
            self.counts.refused += 1
            self._console.warn(f"refused: {error}")
            self._publish("refused", json.dumps({"message": str(error)}))
        except Exception as error:
            self._failure = as_error(error, ["bridge"])  # not acknowledged: it comes again after the next start
            return
        client.ack(message.mid, message.qos)

    def _take(self, name: str, payload: bytes) -> None:
        if name == "add":
            hand_over(payload, self._spool)
            self.counts.handed_over += 1
        else:
            self._asked = (ask(self._spool), time.monotonic())
            self.counts.asked += 1

    # --- what is said -----------------------------------------------------------------------------------------------

    def _say_what_changed(self) -> None:
        with suppress(OSError, Damaged):
            document = read_document(self._shown / "status.json", dict[str, Any], half_pairs=True)
            self._say("status", json.dumps(status_message(document)))
        with suppress(OSError):
            self._say("release", (self._shown / "model" / "current").readlink().name)

    def _say(self, name: str, text: str) -> None:
        with self._lock:
            if self._said.get(name) == text:
                return
            self._said[name] = text
        self._publish(name, text, keep=True)

    def _say_answer(self) -> None:
        """Tell what came of the last request, or that nobody takes it."""
        asked = self._asked
        if asked is None:
            return
        id, since_s = asked
        answer = read_answer(self._shown / "answer.json", id)
        if answer is not None:
            told = asdict(answer)
        elif time.monotonic() - since_s < ANSWER_S:
            return
        else:
            reason = "no service runs" if take_back(self._spool, id) else "the service has not answered yet"
            told = {"id": id, "looked_s": None, "cycle": None, "deferred": reason}
        if self._asked == asked:  # no other request came meanwhile
            self._asked = None
        self._publish("answer", json.dumps(told))

    def _publish(self, name: str, text: str, *, keep: bool = False) -> Any:
        return self._client.publish(f"{self._settings.topic}/{name}", text, AT_LEAST_ONCE, retain=keep)

    def _tell(self, text: str) -> None:
        """Say how the connection is, once."""
        if text != self._told:
            self._told = text
            self._console.info(text)
            self._notifier.status(text)
