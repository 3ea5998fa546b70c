"""The intent service, asked by the package's own client: as Home Assistant asks, as others do, and as nobody should."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edge_far import Model, cli
from edge_far.errors import ConfigError, EdgeFarError, Unavailable, UsageError
from tests.application.releases import Service
from tests.bridges.broker import free_port, wait_for

TEXT = "w1 w2 w3"
NONSENSE = (
    b"{\n",
    b"[]\n",
    b"\xff\xff\n",
    b'{"type": "transcript", "data_length": -1}\n',
    b'{"type": "transcript", "data": {"text": "\\ud800"}}\n',
    b'{"type": "transcript", "data": {"text": "w1", "context": {"half": "\\ud800"}}}\n',
    b"x" * 200_000,
)


@pytest.fixture(autouse=True)
def package(request: pytest.FixtureRequest) -> None:
    if "without_the_package" not in request.node.name:
        pytest.importorskip("wyoming", reason="the package wyoming is not installed (extra wyoming)")


def talk(service: Any, conversation: Callable[[Any, str], Awaitable[None]]) -> None:
    """Hold a conversation with a service on the loopback."""
    from wyoming.client import AsyncClient

    from edge_far.bridges.wyoming_service import listening

    async def held() -> None:
        uri = f"tcp://127.0.0.1:{free_port()}"
        async with listening(service, uri), AsyncClient.from_uri(uri) as client:
            await asyncio.wait_for(conversation(client, uri), 60)

    asyncio.run(held())


async def asked(client: Any, event: Any) -> Any:
    await client.write_event(event)
    return await client.read_event()


def intent_service(service: Service, threshold: float, **settings: Any) -> Any:
    from edge_far.bridges.wyoming_service import IntentService

    return IntentService(Model(service.link, spool=service.spool, threads=1), threshold, **settings)


def test_home_assistant_is_answered(service: Service) -> None:
    from wyoming.asr import Transcript
    from wyoming.info import Describe, Info
    from wyoming.intent import Intent, NotRecognized, Recognize
    from wyoming.ping import Ping, Pong

    expected = Model(service.link, threads=1).predict(TEXT)
    under_test = intent_service(service, 0.0, sorry="What?")

    async def conversation(client: Any, uri: str) -> None:
        (program,) = Info.from_event(await asked(client, Describe().event())).intent
        assert program.installed and program.models[0].installed and program.models[0].languages == []
        for question in (Transcript(TEXT, context={"conversation_id": "7"}), Recognize(TEXT, {"conversation_id": "7"})):
            intent = Intent.from_event(await asked(client, question.event()))
            assert intent.name == expected.label and intent.context is not None
            assert intent.context["conversation_id"] == "7"
            assert intent.context["edge_far_probability"] == expected.probability
            assert intent.context["edge_far_release"] == expected.release
        under_test.threshold = 1.0
        reply = await asked(client, Transcript(TEXT).event())
        assert NotRecognized.is_type(reply.type) and NotRecognized.from_event(reply).text == "What?"
        blank = await asked(client, Transcript(" ").event())
        assert NotRecognized.is_type(blank.type)
        assert Pong.from_event(await asked(client, Ping(text="x").event())).text == "x"
        under_test.threshold = 0.0
        new = service.release(1)
        assert Intent.from_event(await asked(client, Transcript(TEXT).event())).context["edge_far_release"] == new

    talk(under_test, conversation)
    assert vars(under_test.counts) == {"recognised": 3, "not_recognised": 2, "corrected": 0, "failed": 0}


def test_corrections_and_what_was_not_recognised_go_into_the_spool(service: Service) -> None:
    from wyoming.asr import Transcript
    from wyoming.event import Event
    from wyoming.intent import Intent, NotRecognized

    from edge_far.bridges.wyoming_service import FEEDBACK, FEEDBACK_TAKEN

    under_test = intent_service(service, 0.0)

    async def conversation(client: Any, uri: str) -> None:
        intent = Intent.from_event(await asked(client, Transcript(TEXT).event()))
        assert intent.context is not None
        id = intent.context["edge_far_id"]
        for feedback in ({"label": "label-4"}, {"feedback": "correct"}):
            reply = await asked(client, Event(FEEDBACK, {"id": id, **feedback}))
            assert (reply.type, reply.data) == (FEEDBACK_TAKEN, {"id": id})
        for wrong in ({"id": "never", "label": "label-4"}, {"label": "label-4"}, {"id": id}, {"id": id, "label": 1.5}):
            assert (await asked(client, Event(FEEDBACK, wrong))).type == "error"
        under_test.threshold, under_test.keep_in = 1.0, service.spool
        kept = NotRecognized.from_event(await asked(client, Transcript("w4").event()))
        assert kept.context is not None
        lines = [json.loads(line) for line in service.spooled]
        assert lines == [
            {"id": id, "text": TEXT, "label": "label-4"},
            {"id": id, "text": TEXT, "label": intent.name},
            {"id": kept.context["edge_far_id"], "text": "w4", "prediction": lines[2]["prediction"]},
        ]
        under_test.keep_in = service.spool / "nowhere"
        assert NotRecognized.is_type((await asked(client, Transcript("w5").event())).type)

    talk(under_test, conversation)


def test_one_who_talks_nonsense_does_not_disturb_the_others(service: Service) -> None:
    from wyoming.asr import Transcript
    from wyoming.client import AsyncClient
    from wyoming.event import Event
    from wyoming.intent import Intent

    under_test = intent_service(service, 0.0)

    async def conversation(client: Any, uri: str) -> None:
        port = int(uri.rpartition(":")[2])
        for nonsense in NONSENSE:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(nonsense)
            writer.write_eof()
            with suppress(ConnectionError):
                assert b'"intent"' not in await reader.read()
            writer.close()
        for data in ({}, {"text": 7}):
            assert (await asked(client, Event("transcript", data))).type == "error"
        await client.write_event(Event("audio-chunk", {}))  # none of ours: no answer
        async with AsyncClient.from_uri(uri) as second, AsyncClient.from_uri(uri) as third:
            replies = await asyncio.gather(*(asked(each, Transcript(TEXT).event()) for each in (client, second, third)))
        assert all(Intent.is_type(reply.type) for reply in replies)

    talk(under_test, conversation)
    assert under_test.counts.recognised == 4  # the half of a pair in a context cannot be sent back


def test_a_model_of_another_task_and_addresses_that_cannot_be(
    service: Service, tiny_bundle: Callable[[str], Any], tmp_path: Path
) -> None:
    from edge_far.bridges.wyoming_service import IntentService, listening

    assert (
        cli.main(["merge", str(tiny_bundle("bert-r40-regress-dropout").root), "--out", str(tmp_path / "number")]) == 0
    )
    with pytest.raises(ConfigError, match="does not give a text one label"):
        IntentService(Model(tmp_path / "number", threads=1), 0.5)
    under_test = intent_service(service, 0.5)

    async def heard(uri: str, error: type[EdgeFarError]) -> None:
        with pytest.raises(error):
            async with listening(under_test, uri):
                pass

    async def tried() -> None:
        taken = f"tcp://127.0.0.1:{free_port()}"
        async with listening(under_test, taken):
            await heard(taken, Unavailable)
        await heard("tcp://127.0.0.1", UsageError)
        await heard("http://127.0.0.1:80", UsageError)

    asyncio.run(tried())


def test_the_command_serves_from_a_threshold_that_it_chose_and_ends_in_good_order(
    service: Service, tmp_path: Path
) -> None:
    from wyoming.asr import Transcript
    from wyoming.client import AsyncClient
    from wyoming.intent import Intent

    label = Model(service.link, threads=1).predict(TEXT).label
    data, uri = tmp_path / "eval.jsonl", f"tcp://127.0.0.1:{free_port()}"
    data.write_text(json.dumps({"text": TEXT, "label": label}) + "\n")
    command = [sys.executable, "-m", "edge_far.cli", "serve", "--wyoming", uri, "--held-out", str(data), "--json"]
    command += ["--model", str(service.link), "--spool", str(service.spool), "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    told = [process.stderr.readline(), process.stderr.readline()]

    async def conversation() -> str:
        async with AsyncClient.from_uri(uri) as client:
            return str(Intent.from_event(await asked(client, Transcript(TEXT).event())).name)

    try:
        assert told[1].endswith(f"answers at {uri}, from a probability of 0\n"), told
        assert asyncio.run(asyncio.wait_for(conversation(), 30)) == label
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert "100.0% of 1 examples are taken" in told[0] and json.loads(out)["recognised"] == 1
    wait_for(lambda: process.poll() is not None)


def test_a_spool_that_is_missing_is_told_at_the_start(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing"
    words = ["serve", "--wyoming", "http://127.0.0.1:80", "--model", str(service.link), "--spool", str(missing)]
    assert cli.main([*words, "-q"]) == 64  # that address is none
    assert f"--spool: {missing} is no directory yet" in capsys.readouterr().err
    missing.mkdir()
    assert cli.main([*words, "-q"]) == 64
    assert "--spool" not in capsys.readouterr().err


def test_without_the_package_it_names_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "wyoming"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "wyoming", None)
    assert cli.main(["serve", "--wyoming"]) == 69
    told = capsys.readouterr().err
    line = "pip install './edge-far[device,wyoming]'  # beside the checkout"
    assert told == f"edge-far: error: the package wyoming is not installed here ({line})\n"
