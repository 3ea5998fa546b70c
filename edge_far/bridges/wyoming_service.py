"""The model as an intent service of the Wyoming protocol, which Home Assistant takes as a conversation agent.

It answers `transcript` (Home Assistant's) and `recognize` with `intent` or `not-recognized`, `describe` with `info`,
and `edge-far-feedback` with `edge-far-feedback-taken`. The context of an answer has `edge_far_id` for that feedback,
`edge_far_probability` and `edge_far_release`. Needs the package wyoming when it is imported: see extras.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wyoming.asr import Transcript
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Attribution, Describe, Info, IntentModel, IntentProgram
from wyoming.intent import Intent, NotRecognized, Recognize
from wyoming.ping import Ping, Pong
from wyoming.server import AsyncEventHandler, AsyncServer

from edge_far import __version__
from edge_far.application.model import Model
from edge_far.bridges.threshold import must_give_one_label
from edge_far.daemon.intake import spool as spool_files
from edge_far.errors import EdgeFarError, Unavailable, UsageError
from edge_far.quoting import one_line

__all__ = ["FEEDBACK", "FEEDBACK_TAKEN", "Counts", "IntentService", "listening"]

LOG = logging.getLogger("edge_far.bridges")
FEEDBACK, FEEDBACK_TAKEN = "edge-far-feedback", "edge-far-feedback-taken"
ATTRIBUTION = Attribution(name="edge-far", url="https://arxiv.org/abs/2205.01541")
DESCRIPTION = "intents, learnt on this device"


@dataclass
class Counts:
    """What was answered since the start."""

    recognised: int = 0
    not_recognised: int = 0
    corrected: int = 0
    failed: int = 0


@dataclass
class IntentService:
    """Answers events, whoever sends them; an answer below `threshold` is not recognised, and `sorry` is said.

    `keep_in` is the spool to which texts that were not recognised go without a label, None for nowhere.
    """

    model: Model
    threshold: float
    languages: Sequence[str] = ()
    sorry: str | None = None
    keep_in: Path | None = None
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        """Ask once, which also makes the first user wait less; raises ConfigError for a model of another task."""
        must_give_one_label(self.model.predict("a"))

    def reply(self, event: Event) -> Event | None:
        """Return what is said to an event, None for one that is none of ours. May take as long as the model."""
        try:
            if Transcript.is_type(event.type) or Recognize.is_type(event.type):
                return self._recognised(_text(event, "text"), event.data.get("context"))
            if Describe.is_type(event.type):
                return self.info().event()
            if Ping.is_type(event.type):
                return Pong(text=Ping.from_event(event).text).event()
            if event.type == FEEDBACK:
                return self._corrected(_text(event, "id"), event.data)
        except EdgeFarError as error:
            self.counts.failed += 1
            return Error(text=str(error), code=type(error).__name__).event()
        return None

    def info(self) -> Info:
        """Return what this service is; without languages it is offered for every one."""
        artifact: dict[str, Any] = {
            "attribution": ATTRIBUTION,
            "installed": True,
            "description": DESCRIPTION,
            "version": __version__,
        }
        model = IntentModel(name=self.model.release, languages=list(self.languages), **artifact)
        return Info(intent=[IntentProgram(name="edge-far", models=[model], **artifact)])

    def _recognised(self, text: str, context: Any) -> Event:
        answer = self.model.predict(text)
        told = {
            **(context if isinstance(context, dict) else {}),
            "edge_far_id": answer.id,
            "edge_far_probability": answer.probability,
            "edge_far_release": answer.release,
        }
        if answer.label is not None and (answer.probability or 0.0) >= self.threshold:  # type: ignore[operator]
            self.counts.recognised += 1
            return Intent(name=answer.label, context=told).event()
        self.counts.not_recognised += 1
        if self.keep_in is not None and answer.label is not None:
            try:
                spool_files.add(text, id=answer.id, prediction=answer.label, spool=self.keep_in)
            except EdgeFarError as error:  # whoever asked gets the answer
                LOG.warning("a text that was not recognised could not be kept: %s", error)
        return NotRecognized(text=self.sorry, context=told).event()

    def _corrected(self, id: str, data: dict[str, Any]) -> Event:
        self.model.feedback(id, True if data.get("feedback") == "correct" else data.get("label"))
        self.counts.corrected += 1
        return Event(FEEDBACK_TAKEN, {"id": id})


class _Handler(AsyncEventHandler):
    """One connection; the model works in a thread, so that others are heard meanwhile."""

    def __init__(self, service: IntentService, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._service = service

    async def handle_event(self, event: Event) -> bool:
        """Answer an event; the connection stays."""
        reply = await asyncio.to_thread(self._service.reply, event)
        if reply is not None:
            await self.write_event(reply)
        return True

    async def run(self) -> None:
        """Listen until the other side leaves; what is no Wyoming ends its connection and nothing else."""
        try:
            await super().run()
        except Exception as error:
            LOG.warning("a connection has ended: %s", one_line(str(error) or type(error).__name__)[:200])


@asynccontextmanager
async def listening(service: IntentService, uri: str) -> AsyncIterator[None]:
    """Listen at tcp://HOST:PORT or unix://PATH while the block runs; raises UsageError (64), Unavailable (69)."""
    try:
        server = AsyncServer.from_uri(uri)
    except ValueError as error:
        raise UsageError(f"is no address: {error}", where=uri, hint="tcp://127.0.0.1:10400 or unix:///run/x") from error
    try:
        await server.start(lambda reader, writer: _Handler(service, reader, writer))
    except OSError as error:
        raise Unavailable(
            f"cannot listen: {error.strerror or error}", where=uri, hint="name another address"
        ) from error
    try:
        yield
    finally:
        await server.stop()


def _text(event: Event, name: str) -> str:
    """Return a text of an event; raises UsageError where it has none."""
    found = (event.data or {}).get(name)
    if not isinstance(found, str):
        raise UsageError(f"the event has no text '{name}'", where=event.type)
    return found
