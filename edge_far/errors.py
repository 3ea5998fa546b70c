"""Every failure a user can cause, as one small tree; each class carries its exit code.

EdgeFarError                       70  a defect of ours, or a cause we did not foresee
├── UsageError                     64  the command line contradicts itself
├── DataError                      65  a data file's content is wrong (file, line)
│   └── BundleError                65  a bundle is damaged, unsafe, or of a newer format
│       └── BundleUntrusted        65  its signature is missing, wrong, or of nobody whom the profile allows
├── InputMissing                   66  a file or directory that was named does not exist
├── Unavailable                    69  this environment lacks a package, or a model is not supported
├── OutputExists                   73  the output is there already and would be overwritten
├── StorageError                   74  reading or writing failed (disk full, permission)
├── Deferred                       75  stopped in good order; the same command continues
├── ConfigError                    78  a profile or setting is wrong
│   └── BudgetError                78  no plan fits the memory budget
└── Interrupted                   130  Ctrl-C, after a clean checkpoint

A message says what was wrong; `where` says the file, line or key; `hint` says what to do.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_far.quoting import one_line

__all__ = [
    "BudgetError",
    "BundleError",
    "BundleUntrusted",
    "ConfigError",
    "DataError",
    "Deferred",
    "EdgeFarError",
    "InputMissing",
    "Interrupted",
    "OutputExists",
    "StorageError",
    "Unavailable",
    "UsageError",
]


class EdgeFarError(Exception):
    """A failure to report in one line: `where: message (hint)`.

    What could steer a terminal is escaped, for a message may quote a file or the command line. Only `details`, of a
    file whose errors are told all at once, become further lines of the message.
    """

    exit_code = 70

    def __init__(
        self, message: str, *, where: str | None = None, hint: str | None = None, details: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.message = "\n".join([one_line(message), *(f"  {one_line(detail)}" for detail in details)])
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{one_line(self.where)}: {self.message}" if self.where else self.message
        return f"{text} ({one_line(self.hint)})" if self.hint else text

    def as_document(self) -> dict[str, object]:
        """Return the error as the value of the `error` key of a `--json` document."""
        return {
            "kind": type(self).__name__,
            "message": self.message,
            "where": self.where,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


class UsageError(EdgeFarError):
    """The command line contradicts itself."""

    exit_code = 64


class DataError(EdgeFarError):
    """The content of a data file is wrong."""

    exit_code = 65


class BundleError(DataError):
    """A bundle is damaged, unsafe, or of a newer format."""


class BundleUntrusted(BundleError):
    """A bundle's signature is missing, wrong, or of nobody whom the profile allows."""


class InputMissing(EdgeFarError):
    """A file or directory that was named does not exist."""

    exit_code = 66


class Unavailable(EdgeFarError):
    """This environment lacks a package, or a model is not supported."""

    exit_code = 69


class OutputExists(EdgeFarError):
    """The output is there already and would be overwritten."""

    exit_code = 73


class StorageError(EdgeFarError):
    """Reading or writing failed: disk full, permission, I/O error."""

    exit_code = 74


class Deferred(EdgeFarError):
    """Stopped in good order before the end; the same command continues."""

    exit_code = 75


class ConfigError(EdgeFarError):
    """A profile or a setting is wrong."""

    exit_code = 78


class BudgetError(ConfigError):
    """No plan fits the memory budget; `needed_mib` is the smallest that would do, None where nobody worked it out."""

    def __init__(
        self, message: str, *, needed_mib: int | None = None, where: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.needed_mib = needed_mib


class Interrupted(EdgeFarError):
    """Stopped by Ctrl-C after a clean checkpoint."""

    exit_code = 130
