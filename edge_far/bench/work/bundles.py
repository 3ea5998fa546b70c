"""Compiles the bundles that a table needs, from models of random weights (workstation).

    python -m edge_far.bench.work.bundles ORDER

compiles one in a process of its own; ORDER is a JSON object of compile_random's arguments.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models

from edge_far.bench.work.models import LABELS, make_config, make_model, max_positions
from edge_far.bench.work.task import random_batch
from edge_far.bundles.bundle import Bundle
from edge_far.compile.export_settings import ExportSettings
from edge_far.compile.pipeline import compile_bundle
from edge_far.console import Console, say
from edge_far.errors import ConfigError, EdgeFarError
from edge_far.far.heads import attention_share
from edge_far.far.method import cut_of, refuse_unfit, select_above_cut
from edge_far.far.nodes import architecture_of, block_paths
from edge_far.models.exchanged.exchange import exchange_modules
from edge_far.models.source import SourceModel
from edge_far.profile.document import load_profile
from edge_far.tasks.classify import Classify

__all__ = ["compile_random"]

SAMPLE_ROWS, SAMPLE_LENGTH = 16, 128


def compile_random(
    model: str,
    out: Path,
    *,
    retention: float,
    precision: str,
    embeddings: str,
    dropout: bool,
    with_ort: bool,
    rung: str = "far",
    heads: bool = False,
    pooling: str = "cls",
    seed: int = 0,
) -> Bundle:
    """Compile a geometry (a name or a directory with config.json) with random learners into the new bundle `out`.

    `rung` is export's --method, or top-half, the upper half of the blocks; with `heads` attention is split by heads, of
    which the share of FFN nodes learns, at least one. Everything but weights, learners, tokenizer and the texts read
    for int8 is what `edge-far export` makes.
    """
    torch_model = make_model(make_config(model, dropout=dropout), attention="eager", seed=seed, pooling=pooling)
    blocks = len(block_paths(torch_model))
    rung = _upper_half(blocks) if rung == "top-half" else rung
    refuse_unfit(torch_model, rung, "heads" if heads else "full")
    exchange_modules(torch_model)
    tokenizer = out.with_name(f"{out.name}.tokenizer.json")
    Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")).save(str(tokenizer))
    positions = max_positions(torch_model.config)
    source = SourceModel(torch_model, architecture_of(torch_model).name, Path(model).name, tokenizer, positions)
    settings = ExportSettings(
        model=model,
        train=Path(),
        out=out,
        profile=load_profile("workstation"),
        selection="random",
        retention=retention,
        priming=0.0,
        start="reset",
        embeddings=embeddings,
        frozen_precision=precision,
        max_seq_len=positions,
        learning_rate=None,
        epochs=1,
        batch_size=16,
        dropout=dropout,
        seed=seed,
        with_ort=with_ort,
        method=rung,
        pooling=pooling,
        attention="heads" if heads else "full",
    )
    share = attention_share(None, retention, int(torch_model.config.num_attention_heads)) if heads else None
    cut = cut_of(rung, blocks)
    selection = select_above_cut(torch_model, "random", retention, share, cut, seed=seed)
    try:
        names = [f"label-{number}" for number in range(LABELS)]
        shape = (SAMPLE_ROWS, min(positions, SAMPLE_LENGTH))
        sample = [random_batch(np.random.default_rng(seed), shape, int(torch_model.config.vocab_size), LABELS)]
        return compile_bundle(source, Classify(names), selection, None, settings, Console(quiet=True), sample)
    finally:
        tokenizer.unlink()


def _upper_half(blocks: int) -> str:
    if blocks < 2:
        raise ConfigError(f"the model has {blocks} block: no half of them", where="--method")
    return f"top-{blocks // 2}"


def main(order: str) -> int:
    """Compile; an error is the last line on stderr."""
    arguments: dict[str, Any] = json.loads(order)
    try:
        compile_random(arguments.pop("model"), Path(arguments.pop("out")), **arguments)
    except EdgeFarError as error:
        say(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
