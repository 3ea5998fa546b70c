"""Makes the directory that becomes a release: the merged model, and the learners the next cycle starts from."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from edge_far.daemon.children.child_end import ChildEnd
from edge_far.daemon.children.supervisor import Supervisor, Wish
from edge_far.daemon.context import Context
from edge_far.daemon.release_files import Release, ReleaseDamaged
from edge_far.disk.directory_moves import fsync_directory
from edge_far.errors import BundleUntrusted, Deferred, EdgeFarError, InputMissing, StorageError
from edge_far.storage import remove_leftovers, storage_error, write_atomically

__all__ = ["LEARNERS", "ChildFailed", "build_candidate", "ensure_factory", "run_to_end"]

LEARNERS = "learners.safetensors"
TRIES = 2


class ChildFailed(EdgeFarError):
    """A child whose work is simple failed again and again."""


def build_candidate(
    context: Context, supervisor: Supervisor, run: Path | None, out: Path, *, offered: Path | None = None
) -> None:
    """Merge a finished run (None: the bundle as it is) into the directory `out`; does nothing where that is done.

    `offered` is a file of learners that takes the place of a run.

    Raises Deferred (75) when asked to stop, StorageError (74), BundleUntrusted (65), and ChildFailed for a child that
    fails twice.
    """
    if not (out / "model.onnx").is_file():
        remove_leftovers(out)
        source: list[str | Path] = ["--run", run] if run is not None else []
        if offered is not None:
            source = ["--learners", offered]
        run_to_end(
            context,
            supervisor,
            ["merge", context.bundle.root, *source, "--out", out, "--profile", context.profile_source, "--json", "-q"],
            out.with_name("merge"),
        )
    learners = out / LEARNERS
    remove_leftovers(learners)
    if not learners.is_file():
        origin = offered or (run / LEARNERS if run is not None else context.bundle.path(LEARNERS))
        try:
            write_atomically(learners, origin.read_bytes())
        except OSError as error:
            raise storage_error(error, learners) from error


def run_to_end(context: Context, supervisor: Supervisor, arguments: list[str | Path], output: Path) -> ChildEnd:
    """Run a child whose work can simply be done again; a second try where it dies.

    Raises Unavailable (69) where it does not start here, and else as `build_candidate` does.
    """
    for attempt in range(TRIES):
        end = supervisor.run(
            arguments,
            output,
            wish=lambda progress: Wish("kill", "asked to stop") if context.stop() else Wish(),
        )
        if end.status == 0:
            return end
        if end.stopped:
            raise Deferred("asked to stop; the next cycle goes on from here", where=str(arguments[0]))
        if end.broken_environment:
            raise end.unavailable(f"'{arguments[0]}'")
        if end.status == StorageError.exit_code:
            raise _as_error(StorageError, end, str(arguments[0]))
        if end.error.get("kind") == BundleUntrusted.__name__:
            raise _as_error(BundleUntrusted, end, str(arguments[0]))
        if not end.died and attempt:
            break
    raise _as_error(ChildFailed, end, str(arguments[0]))


def ensure_factory(context: Context, supervisor: Supervisor) -> Release:
    """Return the factory release of the bundle; when a bundle is seen first, its release is made and made current.

    The directory `factory` exists from the first step to the last, so that a power cut in between is noticed.
    """
    pending = context.state.factory.exists()
    release = _find_factory(context)
    if release is not None and not pending:
        return release
    context.notifier.status("making the factory release")
    try:
        context.state.factory.mkdir(exist_ok=True)
        fsync_directory(context.state.root)
        if release is None:
            release = _make_factory(context, supervisor)
        current = _current(context)
        if current is None or current.facts.get("bundle") != context.bundle.fingerprint:
            context.releases.switch(release.id, expected=context.releases.current_id())
        shutil.rmtree(context.state.factory)
        fsync_directory(context.state.root)
    except OSError as error:
        raise storage_error(error, context.state.factory) from error
    return release


def _make_factory(context: Context, supervisor: Supervisor) -> Release:
    candidate = context.state.factory / "candidate"
    build_candidate(context, supervisor, None, candidate)
    facts = {
        "kind": "factory",
        "bundle": context.bundle.fingerprint,
        "model": context.bundle.manifest.model.name,
    }
    id = context.releases.next_id(candidate)
    return context.releases.publish(id, candidate, replaces=context.releases.current_id(), facts=facts)


def _find_factory(context: Context) -> Release | None:
    for id in context.releases.ids():
        with suppress(ReleaseDamaged, InputMissing):
            release = context.releases.verify(id)
            if release.facts.get("kind") == "factory" and release.facts.get("bundle") == context.bundle.fingerprint:
                return release
    return None


def _current(context: Context) -> Release | None:
    id = context.releases.current_id()
    if id is not None:
        with suppress(ReleaseDamaged, InputMissing):
            return context.releases.verify(id)
    return None


def _as_error(kind: type[EdgeFarError], end: ChildEnd, name: str) -> EdgeFarError:
    return kind(f"'{name}' {end.describe()}", hint="see 'edge-far status'; the next cycle tries again")
