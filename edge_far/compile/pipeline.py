"""The whole of `edge-far export`, top to bottom: model and data in, bundle out."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

from edge_far import __version__
from edge_far.bundles.bundle import Bundle, describe_files, open_bundle
from edge_far.bundles.manifest import FORMAT, Manifest, ModelInfo, SelectionInfo
from edge_far.bundles.rungs import is_rung
from edge_far.choice.outcome import Choice, as_table
from edge_far.compile.emit.ort_artifacts import write_ort_artifacts
from edge_far.compile.emit.portable import emit_portable
from edge_far.compile.emit.source_files import write_source_files
from edge_far.compile.export_settings import ExportSettings, learning_rate_of
from edge_far.compile.forward.trace import takes_token_types
from edge_far.compile.graph_passes import CompileOptions, build_portable_graphs, build_release_graph
from edge_far.compile.ladder import FEWEST_EXAMPLES, choose_rung, fit_head, pool, with_choice
from edge_far.compile.learners import choose_learners, sample_batches
from edge_far.console import Console
from edge_far.errors import DataError, Unavailable
from edge_far.far.method import cut_of, learning_modules, refuse_unfit
from edge_far.far.nodes import find_ffn_blocks
from edge_far.far.pooling import reads_mean
from edge_far.far.prime import PrimingResult
from edge_far.far.reconfigure import merge, original_layout, reconfigure, trained_parameters
from edge_far.far.report import write_selection_report
from edge_far.far.select import Selection
from edge_far.models.exchanged.exchange import restore_modules
from edge_far.models.source import SourceModel, load_source
from edge_far.models.tokenizers import unknown_share
from edge_far.quoting import quoted
from edge_far.storage import staged_directory, write_atomically, write_json
from edge_far.tasks.interface import Task
from edge_far.tasks.training_data import read_training_data
from edge_far.texts.batches import Batch
from edge_far.texts.data import Example, look_alikes
from edge_far.texts.encode import Encoded, Encoder
from edge_far.texts.places import places

__all__ = ["AUTO", "choose_only", "compile_bundle", "export_bundle"]

AUTO = "auto"

MOSTLY_UNKNOWN = 0.2


@dataclass
class _Prepared:
    """What comes before any rung: the model as loaded, the data, and settings that fit the model."""

    source: SourceModel
    task: Task
    encoded: Encoded
    settings: ExportSettings


def export_bundle(settings: ExportSettings, console: Console) -> dict[str, Any]:
    """Choose, prime, select, reconfigure, compile and write a bundle; return a summary for the command line."""
    started = time.monotonic()
    prepared = _prepare(settings, console)
    source, task, encoded = prepared.source, prepared.task, prepared.encoded
    choice = _choice(prepared, console) if settings.method == AUTO else None
    settings = prepared.settings if choice is None else with_choice(prepared.settings, choice)
    pool(source, settings, prepared.source.pooling if choice is None else choice.chosen.trial.pooling)
    fitted = fit_head(source, encoded, task, settings, console)
    selection, priming = choose_learners(source, encoded, settings, task.info.loss, console)
    sample = sample_batches(encoded, settings)
    bundle = compile_bundle(source, task, selection, priming, settings, console, sample, choice)
    manifest = bundle.manifest
    return {
        "bundle": str(settings.out),
        "model": manifest.model.name,
        "architecture": manifest.model.architecture,
        "pooling": manifest.model.pooling,
        "method": manifest.selection.rung,
        "task": manifest.task.name,
        "labels": len(manifest.labels),
        "scale": None if manifest.task.scale is None else asdict(manifest.task.scale),
        "head": "fitted" if fitted else source.head.kind,
        "choice": choice.to_json() if choice is not None else None,
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


def choose_only(settings: ExportSettings, console: Console) -> dict[str, Any]:
    """Choose a rung without compiling anything; return the choice as a document, and what it is of."""
    prepared = _prepare(settings, console)
    if len(prepared.encoded) < FEWEST_EXAMPLES:
        raise DataError(
            f"{len(prepared.encoded)} examples are too few to choose by",
            where=str(settings.train),
            hint=f"give at least {FEWEST_EXAMPLES}, or export with --method far",
        )
    choice = _choose(prepared, console)
    task, width = prepared.task, int(prepared.source.model.config.hidden_size)
    told = {"model": prepared.source.name, "width": width, "task": task.info.name, "labels": len(task.labels)}
    return {**told, **choice.to_json()}


def _choose(prepared: _Prepared, console: Console) -> Choice:
    source = prepared.source
    return choose_rung(source, prepared.encoded, prepared.task, prepared.settings, source.pooling, console)


def _choice(prepared: _Prepared, console: Console) -> Choice | None:
    """Choose a rung; with too few examples to choose by, take far and say so."""
    settings = prepared.settings
    if len(prepared.encoded) >= FEWEST_EXAMPLES:
        choice = _choose(prepared, console)
        document = choice.to_json()
        for line in as_table(document["rows"], document["chosen"]).splitlines():
            console.info(line)
        return choice
    console.warn(f"{settings.train}: {len(prepared.encoded)} examples are too few to choose a method by: far is taken")
    prepared.settings = replace(settings, method="far")
    return None


def _prepare(settings: ExportSettings, console: Console) -> _Prepared:
    """Read data and model; say what does not fit together before minutes of work."""
    data = read_training_data(settings.train, settings.task, places(settings.reserve_labels), settings.columns)
    examples, task = data.examples, data.task
    if data.why is not None:
        console.info(f"task: {task.info.name}, for {data.why} (--task names another)")
    for names in look_alikes(task.labels):
        console.warn(
            f"{settings.train}: the labels {' and '.join(map(quoted, names))} differ in blanks, case or the form of "
            "characters alone: if they mean the same, write them alike"
        )
    if settings.method != AUTO and not is_rung(settings.method):
        cut_of(settings.method, 1)  # says what is wrong with it, before minutes of work
    source = load_source(
        settings.model,
        task.labels,
        settings.seed,
        examples=examples,
        dropout=settings.dropout,
        pooling=settings.pooling,
        outputs=task.outputs,
        problem_type=task.problem_type,
        head_class=task.head_class,
    )
    refuse_unfit(source.model, settings.method, settings.attention)
    for warning in source.warnings:
        console.warn(warning)
    if not source.head.lost:
        console.info(f"head: {source.head.kind}, {source.head.why}")
    settings = _within_positions(settings, source, console)
    return _Prepared(source, task, _encode(source, examples, task, settings, console), settings)


def compile_bundle(
    source: SourceModel,
    task: Task,
    selection: Selection,
    priming: PrimingResult | None,
    settings: ExportSettings,
    console: Console,
    sample: Iterable[Batch] = (),
    choice: Choice | None = None,
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
                loss=task.info.loss,
            )
            graphs = build_portable_graphs(model, source.architecture, list(learners), options, sample)
            merged = copy.deepcopy(model)
            merge(merged)
            restore_modules(merged)
            release = build_release_graph(merged, source.architecture)
        for note in graphs.notes:
            console.detail(str(note))
        with_ort = settings.with_ort and write_ort_artifacts(
            staging / "ort", graphs.folded, learners, console, dropout=settings.dropout, loss=task.info.loss
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
        write_source_files(staging / "source", source, task, settings.max_seq_len)
        write_selection_report(staging / "selection.json", selection, priming)
        if choice is not None:
            write_json(staging / "choice.json", choice.to_json())
        manifest = Manifest(
            format=FORMAT,
            created_by=f"edge-far {__version__}",
            profile=settings.profile.name,
            model=ModelInfo(
                architecture=source.architecture,
                name=source.name,
                pooling="none" if task.info.of_tokens else "mean" if reads_mean(model) else "cls",
                blocks=len(selection.learners),
                hidden=int(model.config.hidden_size),
                ffn=block.units,
                heads=int(source.model.config.num_attention_heads),
                vocabulary=int(source.model.config.vocab_size),
                parameters=total,
            ),
            task=task.info,
            labels=task.labels,
            selection=_describe(selection, priming, settings, choice.reason if choice is not None else ""),
            defaults=settings.defaults(learning_rate_of(settings, source)),
            portable=portable,
            released_weights="trained learners and original fp32 non-learners",
            ort_training=with_ort,
            files=describe_files(staging),
        )
        write_json(staging / "manifest.json", manifest.to_json())
    return open_bundle(settings.out)


def _encode(
    source: SourceModel, examples: list[Example], task: Task, settings: ExportSettings, console: Console
) -> Encoded:
    """Encode the training data; warn where the tokenizer hardly knows its language."""
    config = source.model.config
    token_types = takes_token_types(source.architecture)
    encoder = Encoder(
        source.tokenizer, settings.max_seq_len, token_types=token_types, vocabulary=int(config.vocab_size)
    )
    encoded = encoder.encode(examples, task.targets)
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


def _within_positions(settings: ExportSettings, source: SourceModel, console: Console) -> ExportSettings:
    """Lower the maximum length to what the position table allows, a multiple of 8."""
    limit = source.max_positions // 8 * 8
    if settings.max_seq_len <= limit:
        return settings
    console.warn(f"the model reads at most {limit} tokens: --max-seq-len lowered from {settings.max_seq_len}")
    values = {**settings.__dict__, "max_seq_len": limit}
    return ExportSettings(**values)


def _describe(
    selection: Selection, priming: PrimingResult | None, settings: ExportSettings, reason: str
) -> SelectionInfo:
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
        reason=reason,
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
