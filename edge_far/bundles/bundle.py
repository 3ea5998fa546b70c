"""The bundle: one directory that carries a model from the workstation to the device.

    manifest.json             everything below as data, with the SHA-256 of every other file
    manifest.json.sig         OpenSSH's signature of it (signature.py; optional)
    tokenizer.json            for the Rust `tokenizers` package
    learners.safetensors      initial trained parameters
    selection.json            which FFN nodes learn, and why
    portable/step.onnx        one micro-batch: loss and gradients    (stock onnxruntime)
    portable/step-lean.onnx   the same step, cheap values computed again, queries, keys and values kept in 16 bits
    portable/step-remat.onnx  the same step, blocks computed again in the backward pass: less memory, more time
    portable/infer.onnx       logits, with the same parameters as inputs
    portable/probe.onnx       one operator of each kind in them, for the device to time
    portable/release.onnx     the original architecture, parameters as external data
    portable/release-*.onnx   the same with its matrices in half precision or 8 bits, for `merge --precision`
    portable/release.json     where each original parameter lies, in every precision, and how it is composed
    portable/constants.json   where each constant of the steps and infer lies in weights.bin
    portable/weights.bin      original parameters first, then folded and quantised constants; memory-mapped
    source/                   config.json and tokenizer_config.json, with which transformers loads the trained model
    ort/                      onnxruntime-training artifacts (optional)

`open_bundle` checks the signature where one is asked for, the format version, every path and every hash before a byte
is used.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edge_far.bundles.manifest import FORMAT, FileInfo, Manifest
from edge_far.bundles.signature import SIGNATURE, Signers, verify_signature
from edge_far.errors import BundleError, InputMissing
from edge_far.json_file import Damaged, decode, parse_json, read_document

__all__ = ["Bundle", "describe_files", "open_bundle"]

MANIFEST = "manifest.json"
MANIFEST_BYTES = 16 << 20
_READ_BYTES = 1 << 20
_FILE_NAME = re.compile(r"[\w.-][\w./-]{0,200}", re.ASCII)


@dataclass(frozen=True)
class Bundle:
    """An opened, verified bundle."""

    root: Path
    manifest: Manifest
    fingerprint: str  # SHA-256 of manifest.json, which holds the hashes of everything else
    signer: str | None = None  # whose signature was checked

    def path(self, name: str) -> Path:
        """Return the path of one of the bundle's files, by its name in the manifest."""
        if name not in self.manifest.files:
            raise BundleError(f"the bundle has no {name}", where=str(self.root))
        return self.root / name

    def document(self, name: str, kind: Any) -> Any:
        """Return the content of one of the bundle's JSON files as `kind`; raises BundleError."""
        path = self.path(name)
        try:
            return read_document(path, kind)
        except Damaged as error:
            raise BundleError(f"the document is damaged: {error}", where=str(path), hint="export it again") from error


def describe_files(root: Path) -> dict[str, FileInfo]:
    """Return hash and size of every file under `root` but manifest and signature, by POSIX relative path."""
    return {
        path.relative_to(root).as_posix(): FileInfo(_sha256(path), path.stat().st_size)
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST, SIGNATURE)
    }


def open_bundle(root: Path, signers: Signers | None = None) -> Bundle:
    """Open and verify a bundle; with `signers` that allow somebody, one that is signed by them.

    Raises InputMissing when there is none, BundleError when it is damaged, unsafe, or of a newer format, and what
    `verify_signature` raises.
    """
    root = Path(root)
    path = root / MANIFEST
    if not path.is_file():
        raise InputMissing(
            "no bundle here: manifest.json is missing",
            where=str(root),
            hint="name a directory made by 'edge-far export'",
        )
    with path.open("rb") as file:
        raw = file.read(MANIFEST_BYTES)  # a longer one is cut, and so no JSON
    signer = None if signers is None else verify_signature(root, raw, signers)
    try:
        document = parse_json(raw)
    except Damaged as error:
        raise _damaged(str(error), path) from error
    version = document.get("format") if isinstance(document, dict) else None
    if type(version) is not int or version < 1:
        raise _damaged(f"format is {version!r}", path)
    if version > FORMAT:
        raise BundleError(
            f"bundle format {version!r} is newer than this edge-far reads ({FORMAT})",
            where=str(path),
            hint="upgrade edge-far on this device",
        )
    if version < FORMAT:
        raise BundleError(
            f"bundle format {version!r} is older than this edge-far reads ({FORMAT})",
            where=str(path),
            hint="export the bundle again",
        )
    try:
        manifest: Manifest = decode(Manifest, document, "manifest")
        _refuse_contradictions(manifest)
    except Damaged as error:
        raise _damaged(str(error), path) from error
    for name, info in manifest.files.items():
        _verify(root, name, info)
    return Bundle(root, manifest, hashlib.sha256(raw).hexdigest(), signer)


def _damaged(reason: str, path: Path) -> BundleError:
    return BundleError(f"manifest.json is damaged: {reason}", where=str(path), hint="copy the bundle again")


def _refuse_contradictions(manifest: Manifest) -> None:
    """Raise Damaged for what no single field can say."""
    portable = manifest.portable
    names = [parameter.name for parameter in portable.parameters]
    for what, values in (("manifest.labels", manifest.labels), ("manifest.portable.parameters", names)):
        optional = values is manifest.labels and manifest.task.form in ("number", "answers")
        if not (values or optional) or len(set(values)) != len(values):
            raise Damaged(f"'{what}' is empty or names one twice")
    if manifest.labels and len(manifest.labels) != manifest.task.outputs:
        raise Damaged(
            f"'manifest.task.outputs' is {manifest.task.outputs}, and there are {len(manifest.labels)} labels"
        )
    if not portable.steps or portable.steps[0].name != "step":
        raise Damaged("'manifest.portable.steps' does not begin with 'step'")
    graphs = (*portable.steps, portable.infer, *([portable.prefix.graph] if portable.prefix else ()))
    probed = {operator.kernel for operator in portable.probe}
    if unknown := {cost.kernel for graph in graphs for cost in graph.costs if cost.work} - probed:
        raise Damaged(f"'manifest.portable.probe' has not the kernel {ascii(min(unknown))[:60]} of a graph")


def _verify(root: Path, name: str, info: FileInfo) -> None:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or not _FILE_NAME.fullmatch(name):
        shown = ascii(name[:60])
        raise BundleError(f"the path {shown} leaves the bundle", where=str(root), hint="do not use this bundle")
    path = root / name
    if not path.is_file() or path.is_symlink() or not path.resolve().is_relative_to(root.resolve()):
        raise BundleError(f"{name} is missing or not a plain file", where=str(root), hint="copy the bundle again")
    if path.stat().st_size != info.bytes or _sha256(path) != info.sha256:
        raise BundleError("the content does not match manifest.json", where=str(path), hint="copy the bundle again")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
