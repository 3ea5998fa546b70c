"""The command line: one sub-command a module of `edge_far.commands`, imported only when it is called.

stdout carries the result alone (text, or one JSON document with --json); everything else goes to stderr. A
failure ends with one line, or with `{"error": ...}` under --json, and the exit code of edge_far.errors.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from edge_far import __version__
from edge_far.console import Console
from edge_far.errors import Deferred, EdgeFarError, Interrupted, StorageError, UsageError
from edge_far.quoting import harmless

__all__ = ["main"]

# Sub-command -> (module of edge_far.commands, one line of help). The order is that of a user's day.
COMMANDS = {
    "export": ("workstation.export", "workstation: apply FAR to a model and compile a bundle"),
    "plan": ("device.plan", "will this bundle train inside a memory budget, and how"),
    "train": ("device.train", "train a bundle on this machine, inside the budget of a profile"),
    "eval": ("device.evaluate", "measure a bundle, or a bundle plus a run, on labelled data"),
    "predict": ("device.predict", "classify texts with a bundle, or a bundle plus a run"),
    "merge": ("device.merge", "write the trained model as a plain inference ONNX model"),
    "profiles": ("workstation.profiles", "list, show or check device profiles"),
    "daemon": ("adaptation.daemon", "adapt the model to this device's own data, when conditions allow"),
    "status": ("adaptation.status", "how periodic adaptation is, why, and what to do"),
    "add": ("adaptation.add", "hand an example, a prediction or feedback over to the daemon"),
    "releases": ("adaptation.releases", "list the releases and check them"),
    "rollback": ("adaptation.rollback", "go back to an earlier release"),
    "store": ("adaptation.store", "look at quarantined lines and unlabelled predictions; bring examples back"),
    "bench": ("workstation.bench", "time and memory of training, against PyTorch and onnxruntime-training"),
    "report": ("workstation.report", "draw loss and memory of a run as a picture"),
    "demo": ("workstation.demo", "generate the demo's smart-home intent data"),
}

# What the daemon asks of a child of its own; no help speaks of them.
INTERNAL = {"decide": "adaptation.decide"}


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError instead of exiting with 2."""

    _intermixing = False

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(message, where=self.prog, hint=f"see '{self.prog} --help'")

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


def _commands(command: str | None) -> dict[str, tuple[str, str]]:
    """Return module and summary of every command that may be named, an internal one only where it is asked for."""
    return COMMANDS | {name: (module, "") for name, module in INTERNAL.items() if name == command}


def _module(command: str) -> ModuleType:
    module = INTERNAL.get(command) or COMMANDS[command][0]
    return importlib.import_module(f"edge_far.commands.{module}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["--child-of"]:
        from edge_far.daemon.training.child import bind_to

        if not bind_to(int(arguments[1])):
            return EdgeFarError.exit_code
        arguments = arguments[2:]
    as_json = "--json" in arguments
    try:
        return _run(arguments)
    except EdgeFarError as error:
        return _fail(error, as_json)
    except KeyboardInterrupt:
        return _fail(Interrupted("interrupted"), as_json)
    except MemoryError:
        hint = "free memory or give a smaller --budget-mib; a training run continues with --resume"
        return _fail(Deferred("the system has no memory left", hint=hint), as_json)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        where = str(error.filename) if error.filename else None
        return _fail(StorageError(error.strerror or str(error), where=where), as_json)


def _run(arguments: list[str]) -> int:
    command = next((word for word in arguments if not word.startswith("-")), None)
    parser = _build_parser(command if command in COMMANDS or command in INTERNAL else None)
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return UsageError.exit_code
    module = _module(options.command)
    console = Console(quiet=options.quiet, verbose=options.verbose)
    document = module.run(options, console)
    print(json.dumps(document, indent=2) if options.json else harmless(module.render(document)), flush=True)
    exit_code: int = module.exit_code(document) if hasattr(module, "exit_code") else 0
    return exit_code


def _fail(error: EdgeFarError, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": error.as_document()}, indent=2), flush=True)
    print(harmless(f"edge-far: error: {error}"), file=sys.stderr, flush=True)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
