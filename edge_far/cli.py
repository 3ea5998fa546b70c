"""The command line: one sub-command a module of `edge_far.commands`, imported only when it is called.

stdout carries the result alone (text, or one JSON document with --json); everything else goes to stderr. A
failure ends with one line, or with `{"error": ...}` under --json, and the exit code of edge_far.errors.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from types import ModuleType
from typing import Any, NoReturn

from edge_far import __version__
from edge_far.console import Console, say
from edge_far.errors import Deferred, EdgeFarError, Interrupted, StorageError, UsageError
from edge_far.process.children import hear_of_children
from edge_far.process.streams import make_streams_safe
from edge_far.process.termination import Terminated, unwinding
from edge_far.quoting import harmless

__all__ = ["main"]

# Sub-command -> (module of edge_far.commands, one line of help). The order is that of a user's day.
COMMANDS = {
    "export": ("workstation.export", "workstation: apply FAR to a model and compile a bundle"),
    "choose": ("workstation.choose", "workstation: try the ladder's rungs on training data and say which to export"),
    "sign": ("workstation.sign", "sign a bundle with an OpenSSH key"),
    "verify": ("device.verify", "check a bundle's files, and who signed it"),
    "plan": ("device.plan", "will this bundle train inside a memory budget, and how"),
    "train": ("device.train", "train a bundle on this machine, inside the budget of a profile"),
    "eval": ("device.evaluate", "measure a bundle, or a bundle plus a run, on labelled data"),
    "predict": ("device.predict", "classify texts with a bundle, or a bundle plus a run"),
    "merge": ("device.merge", "write the trained model as a plain inference ONNX model"),
    "doctor": ("board.doctor", "will it run on this machine, and what should be put right first"),
    "profiles": ("board.profiles", "list, show or check device profiles; which one fits this board"),
    "daemon": ("adaptation.daemon", "adapt the model to this device's own data, when conditions allow"),
    "adapt": ("adaptation.adapt", "ask the service for a cycle at once; its conditions are told, not skipped"),
    "status": ("adaptation.status", "how periodic adaptation is, why, and what to do"),
    "add": ("adaptation.add", "hand an example, a prediction or feedback over to the daemon"),
    "releases": ("adaptation.releases", "list the releases and check them"),
    "rollback": ("adaptation.rollback", "go back to an earlier release"),
    "labels": ("adaptation.labels", "what labels this device has learnt, and which wait; rename, merge, forget"),
    "store": ("adaptation.store", "look at quarantined lines and unlabelled predictions; bring examples back"),
    "serve": ("bridges.serve", "serve the model as an intent service that Home Assistant takes (Wyoming)"),
    "bridge": ("bridges.bridge", "connect the service with MQTT and Home Assistant"),
    "fleet": ("fleet.command", "rounds of learners over many devices (Flower): work, status, doctor"),
    "bench": ("workstation.bench", "time and memory of training, against PyTorch and onnxruntime-training"),
    "report": ("workstation.report", "a run as a picture; runs, a bundle and a device's nights as one page"),
    "demo": ("workstation.demo", "generate the demo's smart-home intent data"),
}

# What the daemon asks of a child of its own; no help speaks of them.
INTERNAL = {"decide": "adaptation.decide"}

# What makes a directory of output, and hears no signal itself.
UNWINDING = frozenset({"export", "choose", "merge", "bench", "demo"})

CHILD_OF = "--child-of"
NOBODY_READS = 141  # as of a program that the shell lets die of SIGPIPE


class _Answered(SystemExit):
    """The parser has said what --help or --version asked for. Any other exit is not the command line's."""


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError instead of exiting with 2."""

    _intermixing = False

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(message, where=self.prog, hint=f"see '{self.prog} --help'")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise _Answered(status)

    def _print_message(self, message: str, file: Any = None) -> None:
        try:
            (file or sys.stderr).write(message)
        except BrokenPipeError:
            raise _Answered(NOBODY_READS) from None
        except OSError as error:
            raise StorageError(f"cannot write: {error.strerror}", where="standard output") from error

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """Refuse an empty word, also a default from the environment: as a path it would be '.', as a name none.

        Texts may be blank, and a command's own words are its parser's to read.
        """
        if not arg_string and action.nargs != argparse.PARSER and not _takes_blank(action):
            named = action.option_strings[0] if action.option_strings else str(action.metavar or action.dest)
            if arg_string is action.default:  # it was not given: the variable of the same name is empty
                named = f"EDGE_FAR_{action.dest.upper()}"
            raise UsageError("is empty", where=named, hint="give it a value, or leave it out")
        return super()._get_value(action, arg_string)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Let a command's options stand between its positionals: `predict BUNDLE --run RUN TEXT`."""
        takes_many = any(action.nargs == "*" and not action.option_strings for action in self._actions)
        if self._intermixing or not takes_many:
            return super().parse_known_args(args, namespace)
        self._intermixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)  # calls this method for each of its passes
        finally:
            self._intermixing = False


def _takes_blank(action: argparse.Action) -> bool:
    from edge_far.commands.arguments import text_argument

    return action.type is text_argument


def _build_parser(command: str | None) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="edge-far",
        description="Fine-tune BERT-like models on edge devices, inside a memory budget.",
        epilog="Each command has its own help with examples: edge-far train --help",
    )
    parser.add_argument("--version", action="version", version=f"edge-far {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, (_, summary) in _commands(command).items():
        if name != command:
            subparsers.add_parser(name, help=summary, add_help=False)
            continue
        module = _module(name)
        sub = subparsers.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.add_argument("--json", action="store_true", help="print one JSON document on stdout")
        sub.add_argument("-q", "--quiet", action="store_true", help="no messages but warnings")
        sub.add_argument("-v", "--verbose", action="store_true", help="say more on stderr")
    return parser


def _parser_of(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.ArgumentParser:
    """Return the parser of the command that is named, or of its own command."""
    for word in arguments:
        commands = next((a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)), {})
        parser = commands.get(word, parser)
    return parser


def _refuse(unknown: list[str], parser: argparse.ArgumentParser) -> NoReturn:
    """Raise UsageError for words that nothing takes, with the option that was probably meant."""
    import difflib

    options = [name for action in parser._actions for name in action.option_strings]
    near = difflib.get_close_matches(unknown[0].partition("=")[0], options, n=1)
    hint = f"see '{parser.prog} --help'" + (f"; {near[0]} was meant?" if near else "")
    raise UsageError(f"unrecognized arguments: {' '.join(unknown)}", where=parser.prog, hint=hint)


def _commands(command: str | None) -> dict[str, tuple[str, str]]:
    """Return module and summary of every command that may be named, an internal one only where it is asked for."""
    return COMMANDS | {name: (module, "") for name, module in INTERNAL.items() if name == command}


def _module_name(command: str) -> str:
    return INTERNAL.get(command) or COMMANDS[command][0]


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"edge_far.commands.{_module_name(command)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    make_streams_safe()
    hear_of_children()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == [CHILD_OF]:
            from edge_far.daemon.children.child import bind_to

            if not bind_to(int(arguments[1])):
                return EdgeFarError.exit_code
            arguments = arguments[2:]
        return _run(arguments)
    except _Answered:
        raise
    except BaseException as error:
        try:
            return _fail(error, arguments)
        except BaseException as second:
            return _fail_in_need(error, second)


def _run(arguments: list[str]) -> int:
    command = _command_of(arguments)
    if command is not None and (command in INTERNAL or _module_name(command).startswith(("device.", "bridges.serve"))):
        from edge_far.process.packages import refuse_deadly_packages

        refuse_deadly_packages()
    parser = _build_parser(command)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        _refuse(unknown, _parser_of(parser, arguments))
    if options.command is None:
        parser.print_help()
        return UsageError.exit_code
    module = _module(options.command)
    console = Console(quiet=options.quiet, verbose=options.verbose)
    with unwinding() if options.command in UNWINDING else nullcontext():
        document = module.run(options, console)
    try:
        print(json.dumps(document, indent=2) if options.json else harmless(module.render(document)), flush=True)
    except BrokenPipeError:
        return NOBODY_READS
    except OSError as error:
        hint = "what the command wrote is complete; only this summary is lost"
        raise StorageError(f"cannot write: {error.strerror}", where="standard output", hint=hint) from error
    exit_code: int = module.exit_code(document) if hasattr(module, "exit_code") else 0
    return exit_code


def _command_of(arguments: list[str]) -> str | None:
    word = next((word for word in arguments if not word.startswith("-")), None)
    return word if word in COMMANDS or word in INTERNAL else None


def _fail(error: BaseException, arguments: list[str]) -> int:
    """Tell of a failure in one line, and under --json as a document; return its exit code."""
    from edge_far.process.failures import as_error

    command = _command_of(arguments)
    on_workstation = command is not None and _module_name(command).startswith("workstation.")
    told = as_error(error, arguments, "host" if on_workstation else "device")
    if "--json" in arguments:
        with suppress(OSError):
            print(json.dumps({"error": told.as_document()}, indent=2), flush=True)
    foreseen = told is error and type(error) is not EdgeFarError
    if not foreseen and {"-v", "--verbose"}.intersection(arguments):
        say("".join(traceback.format_exception(error)).rstrip())
    say(f"edge-far: error: {told}")
    return told.exit_code


def _fail_in_need(error: BaseException, second: BaseException) -> int:
    """Tell of a failure where telling of it failed too, mostly for lack of memory; nothing may be imported here."""
    told = EdgeFarError(f"unforeseen {type(error).__name__}", hint="a defect of edge-far: please report it")
    for one in (error, second):  # a SystemError is Python's own, where memory ends in its midst
        if isinstance(one, MemoryError | SystemError) or "failed to map segment" in str(one):
            told = Deferred("the system has no memory left", hint="free memory, or raise the limit (ulimit -v)")
        if isinstance(one, KeyboardInterrupt):  # a second signal, while the first is told of
            told = Deferred("stopped by SIGTERM") if isinstance(one, Terminated) else Interrupted("interrupted")
    say(f"edge-far: error: {told}")
    return told.exit_code


if __name__ == "__main__":
    sys.exit(main())
