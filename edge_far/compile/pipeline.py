"""The whole of `edge-far export`, top to bottom: model and data in, bundle out."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

from edge_far import __version__
from edge_far.bundles.bundle import Bundle, describe_files, open_bundle
from edge_far.bundles.manifest import FORMAT, Defaults, Manifest, ModelInfo, SelectionInfo
from edge_far.compile.emit.ort_artifacts import write_ort_artifacts
from edge_far.compile.emit.portable import emit_portable
from edge_far.compile.forward.trace import takes_token_types
from edge_far.compile.graph_passes import CompileOptions, build_portable_graphs, build_release_graph
from edge_far.console import Console
from edge_far.errors import ConfigError, Unavailable
from edge_far.far.heads import attention_share
from edge_far.far.method import cut_of, is_method, learning_modules, select_above_cut
from edge_far.far.nodes import block_paths, find_ffn_blocks
from edge_far.far.pooling import MeanPooledClassifier, pooling_of
from edge_far.far.prime import PrimingResult, PrimingSettings, prime, priming_steps
from edge_far.far.reconfigure import merge, original_layout, reconfigure, trained_parameters
from edge_far.far.report import write_selection_report
from edge_far.far.select import Selection
from edge_far.models.source import SourceModel, load_source
from edge_far.models.tokenizers import unknown_share
from edge_far.profile.document import Profile
from edge_far.quoting import quoted
from edge_far.storage import staged_directory, write_atomically, write_json
from edge_far.texts.batches import Batch, collate, plan_epoch
from edge_far.texts.data import Example, label_names, look_alikes, read_examples
from edge_far.texts.encode import Encoded, Encoder

__all__ = ["ExportSettings", "compile_bundle", "export_bundle", "sample_batches"]

NARROW_HIDDEN = 512
NARROW_LEARNING_RATE = 3e-4
WIDE_LEARNING_RATE = 1e-4
SAMPLE_BATCHES = 8
MOSTLY_UNKNOWN = 0.2


@dataclass(frozen=True)
class ExportSettings:
    """What `edge-far export` was asked for."""

    model: str
    train: Path
    out: Path
    profile: Profile
    selection: str
    retention: float
    priming: float
    start: str
    embeddings: str
    frozen_precision: str
    max_seq_len: int
    learning_rate: float | None  # None: chosen by the width of the model
    epochs: int
    batch_size: int
    dropout: bool
    seed: int
    reserve_labels: int = 0
    with_ort: bool = True
    first_token_only: bool = True
    method: str = "far"
    pooling: str = "cls"
    attention: str = "full"  # or heads
    attention_retention: float | None = None  # None: the FFN's share, at least one head

    def defaults(self, learning_rate: float) -> Defaults:
        """Return the training settings that travel with the bundle."""
        return Defaults(
            learning_rate=learning_rate,
            epochs=self.epochs,
            batch_size=self.batch_size,
            warmup_fraction=0.1,
            weight_decay=0.01,
            clip_norm=1.0,
            seed=self.seed,
            max_seq_len=self.max_seq_len,
            dropout=self.dropout,
        )


def export_bundle(settings: ExportSettings, console: Console) -> dict[str, Any]:
    """Prime, select, reconfigure, compile and write a bundle; return a summary for the command line."""
    started = time.monotonic()
    examples = read_examples(settings.train, labels=None)
    labels = label_names(examples) + [f"reserved-{number}" for number in range(settings.reserve_labels)]
    for names in look_alikes(labels):
        console.warn(
            f"{settings.train}: the labels {' and '.join(map(quoted, names))} differ in blanks, case or the form of "
            "characters alone: if they mean the same, write them alike"
        )
    if len(labels) < 2:
        raise ConfigError("the training data has fewer than two labels", where=str(settings.train))
    pooling = pooling_of(settings.model, settings.pooling)
    if not is_method(settings.method):
        cut_of(settings.method, 1)  # says what is wrong with it, before minutes of work
    source = load_source(settings.model, labels, settings.seed, examples=examples, dropout=settings.dropout)
    for warning in source.warnings:
        console.warn(warning)
    if not source.head.lost:
        console.info(f"head: {source.head.kind}, {source.head.why}")
    if pooling == "mean" and (source.head.kind == "new" or settings.pooling == "mean"):
        source.model = MeanPooledClassifier(source.model, settings.seed)
    settings = _within_positions(settings, source, console)
    encoded = _encode(source, examples, labels, settings, console)
    selection, priming = _choose_learners(source, encoded, settings, console)
    bundle = compile_bundle(source, labels, selection, priming, settings, console, sample_batches(encoded, settings))
    manifest = bundle.manifest
    return {
        "bundle": str(settings.out),
        "model": manifest.model.name,
        "architecture": manifest.model.architecture,
        "pooling": manifest.model.pooling,
        "method": manifest.selection.rung,
        "labels": len(labels),
        "head": source.head.kind,
        "retention": selection.retention,
        "selection": selection.method,
        "attention": manifest.selection.attention,
        "heads_per_block": list(manifest.selection.heads_per_block),
        "priming_steps": manifest.selection.priming_steps,
        "split_half_overlap": manifest.selection.split_half_overlap,
        "trained_parameters": manifest.trained_parameters,
        "model_parameters": manifest.model.parameters,
        "frozen_precision": manifest.portable.frozen_precision,
        "ort_training": manifest.ort_training,
        "bundle_mib": round(sum(info.bytes for info in manifest.files.values()) / 2**20, 1),
        "seconds": round(time.monotonic() - started, 1),
    }


def compile_bundle(
    source: SourceModel,
    labels: list[str],
    selection: Selection,
    priming: PrimingResult | None,
    settings: ExportSettings,
    console: Console,
    sample: Iterable[Batch] = (),
) -> Bundle:
    """Reconfigure `source.model` (in place) by `selection`, compile it, and publish the bundle at settings.out.

    `sample` is what build_portable_graphs takes: a few batches of what the model will read.
    """
    model = source.model
    total = sum(parameter.numel() for parameter in model.parameters())
    block = find_ffn_blocks(model)[0]
    reconfigure(model, selection)
    cut = cut_of(settings.method, len(selection.learners))
    trained = trained_parameters(model, settings.embeddings, cut)
    learners = {name: parameter.detach().cpu().numpy() for name, parameter in trained.items()}
    with staged_directory(settings.out) as staging:
        console.info(
            f"compiling: {len(learners)} trained tensors of {sum(a.size for a in learners.values()):,} numbers"
        )
        with _without_gradients(model):
            options = CompileOptions(
                settings.frozen_precision,
                settings.dropout,
                source.max_positions,
                settings.first_token_only,
                cut_before=tuple(learning_modules(model, cut, list(trained))) if cut else (),
            )
            graphs = build_portable_graphs(model, source.architecture, list(learners), options, sample)
            merged = copy.deepcopy(model)
            merge(merged)
            release = build_release_graph(merged, source.architecture)
        for note in graphs.notes:
            console.detail(str(note))
        with_ort = settings.with_ort and write_ort_artifacts(
            staging / "ort", graphs.folded, learners, console, dropout=settings.dropout
        )
        portable = emit_portable(
            staging / "portable",
            graphs,
            release,
            original_layout(model),
            learners,
            token_types=takes_token_types(source.architecture),
            frozen_precision=settings.frozen_precision,
        )
        # Not by the package's save_file, which lets nobody but the owner read the file.
        stored = save({name: np.ascontiguousarray(array) for name, array in learners.items()})
        write_atomically(staging / "learners.safetensors", stored)
        (staging / "tokenizer.json").write_bytes(source.tokenizer.read_bytes())
        write_selection_report(staging / "selection.json", selection, priming)
        manifest = Manifest(
            format=FORMAT,
            created_by=f"edge-far {__version__}",
            profile=settings.profile.name,
            model=ModelInfo(
                architecture=source.architecture,
                name=source.name,
                pooling="mean" if isinstance(model, MeanPooledClassifier) else "cls",
                blocks=len(selection.learners),
                hidden=block.hidden_size,
                ffn=block.ffn_size,
                heads=int(source.model.config.num_attention_heads),
                vocabulary=int(source.model.config.vocab_size),
                parameters=total,
            ),
            labels=tuple(labels),
            selection=_describe(selection, priming, settings),
            defaults=settings.defaults(_learning_rate(settings, source)),
            portable=portable,
            released_weights="trained learners and original fp32 non-learners",
            ort_training=with_ort,
            files=describe_files(staging),
        )
        write_json(staging / "manifest.json", manifest.to_json())
    return open_bundle(settings.out)


def sample_batches(encoded: Encoded, settings: ExportSettings) -> Iterator[Batch]:
    """Yield the few batches by which int8 chooses scales: the first of training."""
    return _batches(encoded, SAMPLE_BATCHES, settings)


def _encode(
    source: SourceModel, examples: list[Example], labels: list[str], settings: ExportSettings, console: Console
) -> Encoded:
    """Encode the training data; warn where the tokenizer hardly knows its language."""
    config = source.model.config
    token_types = takes_token_types(source.architecture)
    encoder = Encoder(
        source.tokenizer, settings.max_seq_len, token_types=token_types, vocabulary=int(config.vocab_size)
    )
    encoded = encoder.encode(examples, labels)
    segments = 1 + int(encoded.type_ids.max(initial=0)) if encoded.type_ids is not None else 1
    if token_types and segments > config.type_vocab_size:
        raise Unavailable(
            f"the texts have {segments} segments, and the model knows {config.type_vocab_size} (type_vocab_size)",
            where=str(settings.train),
            hint="leave out 'text_pair', or choose another model",
        )
    unknown = unknown_share(encoder.tokenizer, encoded)
    if unknown > MOSTLY_UNKNOWN:
        console.warn(
            f"{settings.train}: {unknown:.0%} of the tokens are unknown to this tokenizer: are its language, case and "
            "alphabet those of the data?"
        )
    return encoded


def _choose_learners(
    source: SourceModel, encoded: Encoded, settings: ExportSettings, console: Console
) -> tuple[Selection, PrimingResult | None]:
    """Prime where the selection needs it, and leave the model primed or reset as asked."""
    blocks = len(block_paths(source.model))
    cut = cut_of(settings.method, blocks)
    share = _attention_share(settings, source)
    to_choose = any(0 < retention < 1 for retention in (settings.retention, share) if retention is not None)
    result = None
    if settings.selection == "far" and to_choose and cut < blocks:
        result = _prime(source, encoded, settings, console, cut, share)
    selection = select_above_cut(
        source.model,
        settings.selection,
        settings.retention,
        share,
        cut,
        metrics=result.metrics if result is not None else None,
        head_metrics=result.heads.metrics if result is not None and result.heads is not None else None,
        seed=settings.seed,
    )
    return selection, result


def _prime(
    source: SourceModel, encoded: Encoded, settings: ExportSettings, console: Console, cut: int, share: float | None
) -> PrimingResult:
    per_epoch = -(-len(encoded) // settings.batch_size)
    planned = per_epoch * settings.epochs
    steps = priming_steps(planned, settings.priming)
    return prime(
        source.model,
        map(_as_mapping, _batches(encoded, steps, settings)),
        PrimingSettings(
            steps=steps,
            planned_steps=max(planned, steps),
            learning_rate=_learning_rate(settings, source),
            retention=settings.retention,
            embeddings=settings.embeddings,
            start=settings.start,
            seed=settings.seed,
            cut=cut,
            attention_retention=share,
        ),
        console,
    )


def _attention_share(settings: ExportSettings, source: SourceModel) -> float | None:
    """Return the share of heads that learn, or None where attention learns whole."""
    if settings.attention == "full":
        return None
    heads = int(source.model.config.num_attention_heads)
    return attention_share(settings.attention_retention, settings.retention, heads)


def _batches(encoded: Encoded, count: int, settings: ExportSettings) -> Iterator[Batch]:
    """Yield the batches that the first steps of training would see."""
    epoch = 0
    while count > 0:
        for indices in plan_epoch(encoded.lengths, settings.batch_size, settings.seed, epoch)[:count]:
            yield collate(encoded, indices)
            count -= 1
        epoch += 1


def _as_mapping(batch: Batch) -> Mapping[str, Any]:
    """Return a batch as priming reads it."""
    return {**batch.model_inputs(token_types=batch.token_type_ids is not None), "labels": batch.labels}


def _within_positions(settings: ExportSettings, source: SourceModel, console: Console) -> ExportSettings:
    """Lower the maximum length to what the position table allows, a multiple of 8."""
    limit = source.max_positions // 8 * 8
    if settings.max_seq_len <= limit:
        return settings
    console.warn(f"the model reads at most {limit} tokens: --max-seq-len lowered from {settings.max_seq_len}")
    values = {**settings.__dict__, "max_seq_len": limit}
    return ExportSettings(**values)


def _learning_rate(settings: ExportSettings, source: SourceModel) -> float:
    """Return the rate asked for, or the default for this width.

    3e-4 is near the best for MiniLM on CLINC150 (docs/lab/results.md); wider models take the customary smaller rate.
    """
    if settings.learning_rate is not None:
        return settings.learning_rate
    wide = int(source.model.config.hidden_size) > NARROW_HIDDEN
    return WIDE_LEARNING_RATE if wide else NARROW_LEARNING_RATE


def _describe(selection: Selection, priming: PrimingResult | None, settings: ExportSettings) -> SelectionInfo:
    return SelectionInfo(
        rung=settings.method,
        cut=cut_of(settings.method, len(selection.learners)),
        method=selection.method,
        retention=selection.retention,
        learners_per_block=tuple(len(indices) for indices in selection.learners),
        embeddings=settings.embeddings,
        start=settings.start if priming is not None else "reset",
        priming_steps=priming.steps if priming is not None else 0,
        split_half_overlap=priming.overlap if priming is not None else None,
        seed=settings.seed,
        attention="full" if selection.heads is None else "heads",
        attention_retention=None if selection.heads is None else selection.heads.retention,
        heads_per_block=() if selection.heads is None else tuple(len(heads) for heads in selection.heads.learners),
        head_overlap=priming.heads.overlap if priming is not None and priming.heads is not None else None,
    )


@contextmanager
def _without_gradients(model: torch.nn.Module) -> Iterator[None]:
    """Trace plain tensors; put requires_grad back afterwards."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
