"""A bundle as export no longer makes it: its tokenizer has one token more than its model has rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tokenizers import Tokenizer

from edge_far.bundles.bundle import describe_files

__all__ = ["FOREIGN", "with_foreign_token"]

FOREIGN = "<ent>"


def with_foreign_token(bundle: Path, out: Path) -> Path:
    """Copy a bundle to `out`, add the token FOREIGN to its tokenizer, and make its manifest right again."""
    shutil.copytree(bundle, out)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    tokenizer.add_special_tokens([FOREIGN])
    tokenizer.save(str(out / "tokenizer.json"))
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert tokenizer.token_to_id(FOREIGN) == manifest["model"]["vocabulary"]
    files = describe_files(out)
    manifest["files"] = {name: {"sha256": info.sha256, "bytes": info.bytes} for name, info in files.items()}
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out
