"""Exit codes, one line of error or one JSON document, and never a traceback for what a user can do wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_far import __version__, cli, errors
from edge_far.bundles.bundle import Bundle
from edge_far.console import Console
from edge_far.errors import EdgeFarError, StorageError
from edge_far.process.termination import Terminated
from tests.faults.processes import edge_far, edge_far_here


def assert_one_line(stderr: str) -> None:
    lines = stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("edge-far: error: "), stderr


def test_exit_codes_are_those_of_the_design() -> None:
    expected = {
        "EdgeFarError": 70,
        "UsageError": 64,
        "DataError": 65,
        "BundleError": 65,
        "BundleUntrusted": 65,
        "InputMissing": 66,
        "Unavailable": 69,
        "OutputExists": 73,
        "StorageError": 74,
        "Deferred": 75,
        "ConfigError": 78,
        "BudgetError": 78,
        "Interrupted": 130,
    }
    assert {name: getattr(errors, name).exit_code for name in errors.__all__} == expected


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, shown in ((["--version"], f"edge-far {__version__}"), (["--help"], "profiles")):
        with pytest.raises(SystemExit) as raised:
            cli.main(arguments)
        assert raised.value.code == 0 and shown in capsys.readouterr().out


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_has_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main([command, "--help"])
    shown = capsys.readouterr().out
    assert raised.value.code == 0
    assert "examples:" in shown and f"edge-far {command}" in shown and "--json" in shown


def test_no_command_prints_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 64
    assert "COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["--frobnicate"],
        ["profiles", "--frobnicate"],
        ["train"],
        ["train", "bundle", "--epochs", "three"],
        ["plan", "bundle", "--budget-mib", "much"],
        ["profiles", "list", "extra", "words"],
        ["export", "--model", "m", "--train", "t", "--out", "o", "--selection", "best"],
    ],
)
def test_wrong_usage_is_64_with_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 64
    output = capsys.readouterr()
    assert output.out == ""
    assert_one_line(output.err)
    assert "--help" in output.err


@pytest.mark.parametrize(
    ("arguments", "where", "meant"),
    [
        (["train", "b", "--train", "t", "--out", "o", "--eopchs", "2"], "edge-far train", "--epochs"),
        (["train", "b", "--train", "t", "--out", "o", "--eopchs=2"], "edge-far train", "--epochs"),
        (["profiles", "list", "--jsn"], "edge-far profiles", "--json"),
        (["profiles", "--qqqq"], "edge-far profiles", None),
    ],
)
def test_an_unknown_option_names_the_command_and_what_was_meant(
    arguments: list[str], where: str, meant: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 64
    said = capsys.readouterr().err
    assert f"'{where} --help'" in said
    assert (f"{meant} was meant?" in said) if meant else ("meant" not in said)


def test_columns_without_a_file_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "bundle", "--columns", "text=sentence"]) == 64
    assert "--columns" in capsys.readouterr().err


def test_json_errors_are_one_document_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "no-bundle"
    assert cli.main(["plan", str(missing), "--json"]) == 66
    output = capsys.readouterr()
    document = json.loads(output.out)
    assert set(document) == {"error"}
    error = document["error"]
    assert set(error) == {"kind", "message", "where", "hint", "exit_code"}
    assert (error["kind"], error["where"], error["exit_code"]) == ("InputMissing", str(missing), 66)
    assert_one_line(output.err)


def test_json_usage_errors_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--json", "frobnicate"]) == 64
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "UsageError"


class Failing:
    """A command module that raises what it is given."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def run(self, *_: object) -> dict[str, object]:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (EdgeFarError("broke", where="here", hint="do that"), 70, "here: broke (do that)"),
        (StorageError("full", where="disk"), 74, "disk: full"),
        (
            OSError(28, "No space left on device", "/mnt/x"),
            74,
            "/mnt/x: No space left on device (free space on this file system or choose another directory, then run the "
            "command again)",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_failures_of_a_command_become_codes(
    error: BaseException, code: int, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = cli._module("profiles")
    monkeypatch.setattr(module, "run", Failing(error).run)
    assert cli.main(["profiles", "list"]) == code
    assert capsys.readouterr().err == f"edge-far: error: {shown}\n"


@pytest.mark.parametrize(
    ("second", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 75), (MemoryError(), 75), (ValueError(), 70)]
)
def test_what_comes_while_a_failure_is_told(
    second: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C twice is no defect."""

    def interrupted(*_: object) -> int:
        raise second

    monkeypatch.setattr(cli, "_fail", interrupted)
    assert cli.main(["profiles", "--no-such-option"]) == code
    said = capsys.readouterr().err
    assert_one_line(said)
    assert ("defect" in said) == isinstance(second, ValueError)


def test_what_a_user_named_never_steers_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(tmp_path / "a\x1b[2J\nb\u202e")]) == 66
    assert_one_line(shown := capsys.readouterr().err)
    assert rf"{tmp_path}/a\x1b[2J\nb\u202e: no bundle here" in shown
    console = Console(verbose=True)
    for tell in (console.info, console.detail, console.warn):
        tell("a\x1b[2J\u202e")
    assert capsys.readouterr().err == "a\\x1b[2J\\u202e\n" * 2 + "warning: a\\x1b[2J\\u202e\n"


def test_a_closed_pipe_is_no_error_message() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_far.cli", "profiles", "list", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141 and errors == ""


BAD_INPUT: list[tuple[str, list[str], int]] = [
    ("no data file", ["train", "{bundle}", "--train", "{tmp}/none.jsonl", "--out", "{tmp}/run"], 66),
    ("empty data", ["train", "{bundle}", "--train", "{tmp}/empty.jsonl", "--out", "{tmp}/run"], 65),
    ("broken JSON", ["train", "{bundle}", "--train", "{tmp}/broken.jsonl", "--out", "{tmp}/run"], 65),
    ("unknown label", ["train", "{bundle}", "--train", "{tmp}/label.jsonl", "--out", "{tmp}/run"], 65),
    ("no label", ["train", "{bundle}", "--train", "{tmp}/unlabelled.jsonl", "--out", "{tmp}/run"], 65),
    ("not UTF-8", ["train", "{bundle}", "--train", "{tmp}/latin1.jsonl", "--out", "{tmp}/run"], 65),
    ("CSV without header", ["train", "{bundle}", "--train", "{tmp}/headless.csv", "--out", "{tmp}/run"], 65),
    ("output exists", ["train", "{bundle}", "--train", "{data}", "--out", "{tmp}/full"], 73),
    ("no such profile", ["train", "{bundle}", "--train", "{data}", "--out", "{tmp}/run", "--profile", "pi9"], 78),
    ("no budget", ["train", "{bundle}", "--train", "{data}", "--out", "{tmp}/run", "--budget-mib", "1"], 78),
    ("a file as bundle", ["plan", "{tmp}/label.jsonl"], 66),
    ("resume of nothing", ["train", "{bundle}", "--train", "{data}", "--out", "{tmp}/run", "--resume"], 66),
]


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    good = '{"text": "w1 w2", "label": "label-0"}\n'
    (folder / "empty.jsonl").write_text("")
    (folder / "broken.jsonl").write_text(good + '{"text": "w1", "lab\n')
    (folder / "label.jsonl").write_text(good + '{"text": "w1", "label": "label-9"}\n')
    (folder / "unlabelled.jsonl").write_text(good + '{"text": "w1"}\n')
    (folder / "latin1.jsonl").write_bytes(good.encode() + '{"text": "é", "label": "label-1"}\n'.encode("latin-1"))
    (folder / "headless.csv").write_text("w1 w2,label-0\nw3,label-1\n")
    (folder / "full").mkdir()
    (folder / "full" / "something.txt").write_text("x")
    return folder


# The budget is asked for when the engine is known, and the workstation's ONNX Runtime is too old for the portable one.
BAD_INPUT_CASES = [
    pytest.param(*case, id=case[0], marks=[pytest.mark.device] if case[0] == "no budget" else []) for case in BAD_INPUT
]


@pytest.mark.parametrize(("name", "arguments", "code"), BAD_INPUT_CASES)
def test_bad_input_ends_with_one_line_and_its_code(
    name: str,
    arguments: list[str],
    code: int,
    bad_files: Path,
    tiny_bundle: Callable[[str], Bundle],
    tiny_data: Path,
) -> None:
    places = {"bundle": tiny_bundle("tiny-fp32").root, "tmp": bad_files, "data": tiny_data}
    filled = [argument.format(**places) for argument in arguments]
    done = edge_far_here(*filled, "--quiet", "--json")
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1].startswith("edge-far: error: ")
    assert json.loads(done.stdout)["error"]["exit_code"] == code
    if name in ("broken JSON", "unknown label", "no label", "not UTF-8"):
        assert ":2" in done.stderr, "names the line"


def test_a_directory_as_data_is_bad_data(bad_files: Path, tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> None:
    root = tiny_bundle("tiny-fp32").root
    done = edge_far_here("train", str(root), "--train", str(bad_files), "--out", str(tmp_path / "run"), "--quiet")
    assert_one_line(done.stderr)
    assert done.returncode == 65 and "is a directory, not a file" in done.stderr


def test_a_changed_byte_ends_training_before_it_begins(
    tiny_bundle: Callable[[str], Bundle], tiny_data: Path, tmp_path: Path
) -> None:
    import shutil

    root = tmp_path / "bundle"
    shutil.copytree(tiny_bundle("tiny-fp32").root, root)
    content = bytearray((root / "portable/weights.bin").read_bytes())
    content[100] ^= 1
    (root / "portable/weights.bin").write_bytes(content)
    done = edge_far("train", str(root), "--train", str(tiny_data), "--out", str(tmp_path / "run"))
    assert done.returncode == 65 and "portable/weights.bin" in done.stderr
    assert_one_line(done.stderr)
    assert not (tmp_path / "run").exists()


def test_a_message_is_one_line_whatever_it_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(verbose=True)
    for tell in (console.info, console.detail, console.warn):
        tell("weights that are not used: a\r\nb\x1b[31m")
    ours = r"weights that are not used: a\r\nb\x1b[31m"
    assert capsys.readouterr().err.splitlines() == [ours, ours, f"warning: {ours}"]
