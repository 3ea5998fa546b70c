"""What `edge-far export` would say of a geometry's bundles, without its weights: the manifests, method by method.

Memory, disk and work depend on shapes alone, so a bundle is compiled from random weights (work/bundles.py), by a
process of its own, into a folder for temporary files; its manifest is kept in our cache and the rest thrown away. That
needs the workstation's packages. A manifest belongs to the geometry, the method and the code that made it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_far.bench.cases import Method, method_named
from edge_far.bench.environments import missing_for_compiling
from edge_far.bench.work.geometries import GEOMETRIES
from edge_far.bundles.manifest import Manifest
from edge_far.console import Console
from edge_far.errors import DataError, InputMissing, StorageError, Unavailable
from edge_far.json_file import Damaged, read_document
from edge_far.process.children import child_environment, module_command
from edge_far.process.privacy import cache_directory
from edge_far.storage import unreadable, write_json

__all__ = ["LADDER", "Found", "manifests_of", "method_of_ladder"]

# The code that decides what a manifest says.
COMPILER = ("architectures", "bundles", "compile", "far", "models", "bench/work")

LADDER = ("head", "top-1", "top-2", "top-half", "far", "far-heads", "full")
HALF = "top-half"
RETENTION = 0.1
PRECISION = "int8"  # of every board's profile


@dataclass(frozen=True)
class Found:
    """The manifests by method, in the order asked for; why others have none (`left_out`)."""

    manifests: dict[str, Manifest]
    left_out: dict[str, str]


def method_of_ladder(name: str) -> Method:
    """Return the method of a name: those of `edge-far bench`, and top-half; raises UsageError."""
    return Method(HALF, RETENTION, HALF) if name == HALF else method_named(name, RETENTION)


def manifests_of(model: str, methods: Sequence[str], pooling: str, console: Console) -> Found:
    """Return what bundles of a geometry (a name, or a directory with a config.json) would say, by method's name.

    Those that are not in the cache take minutes each. Raises InputMissing without a config.json, Unavailable where one
    is missing from the cache and nothing can be compiled here.
    """
    described = _described(model)
    manifests: dict[str, Manifest] = {}
    left_out: dict[str, str] = {}
    for name, method in {name: method_of_ladder(name) for name in methods}.items():
        path = _cache_path(described, method, pooling)
        found: Manifest | str | None = _read(path)
        if found is None:
            if (missing := missing_for_compiling()) is not None:
                raise Unavailable(
                    f"without a bundle one is compiled from random weights, and {missing}",
                    where="--model",
                    hint="run this on the workstation, or name a bundle",
                )
            console.info(f"compiling {Path(model).name}, {name}, from random weights")
            found = _compile(model, method, pooling, path)
        if isinstance(found, Manifest):
            manifests[name] = found
        else:
            left_out[name] = found
    return Found(manifests, left_out)


def _described(model: str) -> str:
    """Return what says all of a geometry."""
    if model in GEOMETRIES:
        return repr(GEOMETRIES[model])
    path = Path(model, "config.json")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        hint = f"name a directory of a transformers model, or one of {', '.join(GEOMETRIES)}"
        raise InputMissing("no config.json here", where=model, hint=hint) from error
    except OSError as error:
        raise unreadable(error, path, "name a directory of a transformers model") from error
    except ValueError as error:
        raise DataError("is not UTF-8 text", where=str(path), hint="copy the model again") from error


def _cache_path(described: str, method: Method, pooling: str) -> Path | None:
    directory = cache_directory()
    if directory is None:
        return None
    told = json.dumps([described, repr(method), pooling, PRECISION, _code()])
    return directory / f"geometry-{hashlib.sha256(told.encode()).hexdigest()[:16]}.json"


def _code() -> str:
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for folder in COMPILER for path in (root / folder).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(path: Path | None) -> Manifest | None:
    if path is None:
        return None
    try:
        manifest: Manifest = read_document(path, Manifest)
        return manifest
    except (OSError, Damaged):
        return None


def _compile(model: str, method: Method, pooling: str, path: Path | None) -> Manifest | str:
    """Return the manifest, which is kept at `path`; or why there is none."""
    with tempfile.TemporaryDirectory(prefix="edge-far-geometry-") as folder:
        out = Path(folder, "bundle")
        order = {
            "model": model,
            "out": str(out),
            "retention": method.retention,
            "precision": PRECISION,
            "embeddings": "train" if method.is_full else "frozen",
            "dropout": True,
            "with_ort": False,
            "rung": "full" if method.is_full else method.rung,
            "heads": method.heads,
            "pooling": pooling,
        }
        command = [*module_command("edge_far.bench.work.bundles"), json.dumps(order)]
        done = subprocess.run(command, capture_output=True, check=False, env=child_environment())
        manifest = _read(out / "manifest.json")
        if done.returncode or manifest is None:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else f"its process ended with {done.returncode}"
    if path is not None:
        with suppress(OSError, StorageError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, manifest.to_json())
    return manifest
