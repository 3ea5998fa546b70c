"""Choose how much trains, apply FAR to it and compile a bundle for a device (workstation: needs torch and onnx).

The rungs of the ladder are tried on the training data (`edge-far choose`), and the cheapest good one is exported;
--method names one instead. A short priming run finds the FFN nodes (and, with --attention heads, the attention heads)
that learn; those stay trainable, the rest is frozen, split off and compiled away. The bundle is a directory to copy to
the device.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_far.bundles.manifest import TASK_NAMES
from edge_far.bundles.rungs import RUNGS, is_rung
from edge_far.commands.arguments import Number, add_columns_argument, add_setting
from edge_far.commands.profile_choice import profile_word
from edge_far.console import Console
from edge_far.errors import ConfigError, Unavailable
from edge_far.json_file import Within
from edge_far.process.packages import install_line
from edge_far.process.privacy import keep_caches_together
from edge_far.profile.run_sections import Compute
from edge_far.profile.schema import settings_of
from edge_far.quoting import shell_word

FOR_NO_BOARD = "workstation"  # the built-in profile that has no board's limits

if TYPE_CHECKING:
    from edge_far.compile.export_settings import ExportSettings
    from edge_far.profile.document import Profile

EXAMPLES = """examples:
  edge-far export --model ./all-MiniLM-L6-v2 --train train.jsonl --profile rpi-zero2w-512 --out bundle
  edge-far export --model ./all-MiniLM-L6-v2 --train train.jsonl --choose-minutes 5 --out bundle
  edge-far export --model ./all-MiniLM-L6-v2 --train train.jsonl --method top-2 --attention heads --out bundle
  edge-far export --model distilbert-base-uncased --train train.csv --method far --retention 0.4 --out bundle
"""

SHARE = Within(0, 1)
CHOOSE_MINUTES: dict[str, Any] = {
    "action": Number,
    "type": float,
    "within": Within(0.1, 10_000.0),
    "metavar": "N",
    "help": "about how long --method auto may take (default: the work of three full fine-tunings of the same data)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far export`."""
    add_source_arguments(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="BUNDLE", help="directory to create")
    parser.add_argument(
        "--method",
        default="auto",
        metavar="METHOD",
        help="what trains: head; top-K, the last K blocks (top-2); far, all blocks; full, everything; auto, the "
        "cheapest of these that is not measurably worse than the best on the training data. What lies below is "
        "computed once a text on the device (default: %(default)s)",
    )
    parser.add_argument("--choose-minutes", **CHOOSE_MINUTES)
    parser.add_argument(
        "--head-start",
        choices=("auto", "fitted", "random"),
        default="auto",
        help="how a new head begins: fitted, as a regularised linear fit on the frozen model's outputs; random; auto, "
        "fitted where the head alone learns (default: %(default)s)",
    )
    far = parser.add_argument_group("FAR")
    add_far_arguments(far)
    far.add_argument(
        "--attention",
        choices=("full", "heads"),
        help="attention learns whole, or by heads (default: full; --method auto tries both)",
    )
    far.add_argument(
        "--attention-retention",
        action=Number,
        type=float,
        within=SHARE,
        metavar="SHARE",
        help="share of attention heads that learn (default: as of FFN nodes, at least one head)",
    )
    far.add_argument(
        "--start",
        choices=("continue", "reset"),
        default="continue",
        help="after priming: keep the primed weights or go back (default: %(default)s)",
    )
    far.add_argument("--embeddings", choices=("frozen", "train"), help="default: frozen, with --method full train")
    compiler = parser.add_argument_group("compiler")
    compiler.add_argument(
        "--frozen-precision",
        choices=settings_of(Compute)["frozen_precision"][1].choices,
        help="storage and products of the non-learners, as in `edge-far profiles sample` (default: the profile's)",
    )
    compiler.add_argument("--no-ort", action="store_true", help="leave out the onnxruntime-training artifacts")
    compiler.add_argument(
        "--reserve-labels",
        action=Number,
        type=int,
        within=Within(0, 10_000),
        default=0,
        metavar="N",
        help="output slots for labels unseen today (default: %(default)s)",
    )
    add_training_arguments(parser.add_argument_group("training settings that travel with the bundle"))


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare model, data and profile, which `edge-far choose` has too."""
    parser.add_argument("--model", required=True, help="directory of a transformers model, or its name on the hub")
    parser.add_argument("--train", required=True, type=Path, metavar="FILE", help="training data: .jsonl, .csv or .tsv")
    add_columns_argument(parser)
    parser.add_argument(
        "--task",
        choices=TASK_NAMES,
        help="what is learned: classify, one label a text; multilabel, a list of labels; regress, a number; tag, a BIO "
        "tag a word; answer, a span of the pair (default: what the labels are, else classify)",
    )
    parser.add_argument(
        "--profile",
        type=lambda word: profile_word(word) or FOR_NO_BOARD,
        default=FOR_NO_BOARD,
        help="device profile: a name, a YAML file, or auto, the board's on which this runs (default: %(default)s)",
    )
    parser.add_argument(
        "--pooling",
        choices=("auto", "cls", "mean"),
        default="auto",
        help="what the head reads: cls, the first token, with the architecture's own head; mean, the mean over all "
        "tokens, with a new linear head; auto, as a sentence-transformers directory says, else cls; with --method auto "
        "both are tried (default: %(default)s)",
    )


def add_far_arguments(far: Any) -> None:
    """Declare how learners are chosen."""
    far.add_argument(
        "--retention",
        action=Number,
        type=float,
        within=SHARE,
        help="share of FFN nodes that learn (default: 0.1, with --method full 1)",
    )
    far.add_argument(
        "--selection",
        choices=("far", "random", "magnitude", "first"),
        default="far",
        help="how learners are chosen (default: %(default)s)",
    )
    far.add_argument(
        "--priming",
        action=Number,
        type=float,
        within=SHARE,
        default=0.01,
        metavar="SHARE",
        help="share of the planned steps to prime for, at least 50 steps (default: %(default)s)",
    )


def add_training_arguments(training: Any) -> None:
    """Declare how a bundle is trained where a device is not told otherwise."""
    training.add_argument("--no-dropout", action="store_true", help="train without dropout")
    add_setting(training, "--max-seq-len", metavar="N", help="longest text in tokens (default: the profile's)")
    add_setting(training, "--learning-rate", help="default: 3e-4, or 1e-4 for models wider than 512")
    add_setting(training, "--epochs", default=4, help="default: %(default)s")
    add_setting(training, "--batch-size", help="examples a step (default: the profile's)")
    add_setting(training, "--seed", default=0, help="default: %(default)s")


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Export a bundle; the document summarises it."""
    from edge_far.profile.document import load_profile
    from edge_far.storage import check_output

    profile = load_profile(options.profile)
    _check(options)
    keep_caches_together()
    check_output(options.out)
    try:
        from edge_far.compile.pipeline import export_bundle
    except ImportError as error:
        raise _packages_missing(error) from error
    return export_bundle(settings_from(options, profile), console)


def settings_from(options: argparse.Namespace, profile: Profile) -> ExportSettings:
    """Return what the command line asks for; what it leaves out is the profile's, or by the method."""
    try:
        from edge_far.compile.export_settings import ExportSettings
    except ImportError as error:
        raise _packages_missing(error) from error
    full = options.method == "full"
    length = options.max_seq_len or profile.training.max_seq_len
    return ExportSettings(
        model=options.model,
        train=options.train,
        columns=options.columns,
        out=options.out,
        profile=profile,
        selection=options.selection,
        retention=options.retention if options.retention is not None else 1.0 if full else 0.1,
        priming=options.priming,
        start=options.start,
        embeddings=options.embeddings or ("train" if full else "frozen"),
        method=options.method,
        pooling=options.pooling,
        frozen_precision=options.frozen_precision or profile.compute.frozen_precision,
        max_seq_len=-(-length // 8) * 8,
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        batch_size=options.batch_size or profile.training.batch_size,
        dropout=not options.no_dropout,
        seed=options.seed,
        reserve_labels=options.reserve_labels,
        with_ort=not options.no_ort,
        attention=options.attention or "full",
        attention_retention=options.attention_retention,
        head_start=options.head_start,
        choose_minutes=options.choose_minutes,
        task=options.task,
    )


def _packages_missing(error: ImportError) -> Unavailable:
    return Unavailable(
        f"export needs the workstation's packages, and {error.name} is missing", hint=install_line("host")
    )


def check_model(model: str) -> None:
    """Refuse a name that no package can read."""
    try:
        model.encode()
    except UnicodeEncodeError as error:
        hint = "rename it, or set a locale in UTF-8"
        raise Unavailable("the workstation's packages read names in UTF-8 only", where=model, hint=hint) from error


def _check(options: argparse.Namespace) -> None:
    """Refuse options that contradict each other, and a name that no package can read."""
    check_model(options.model)
    if options.method != "auto" and not is_rung(options.method):
        raise ConfigError(f"'{options.method}' is not a method", where="--method", hint=f"one of auto, {RUNGS}")
    if options.method == "auto" and options.embeddings == "train":
        raise ConfigError("embeddings train with far alone", where="--embeddings", hint="add --method far")
    if options.method == "auto" and options.attention is not None:
        raise ConfigError("auto tries both", where="--attention", hint="leave it out, or name a method")
    if options.method != "auto" and options.choose_minutes is not None:
        raise ConfigError("there is nothing to choose", where="--choose-minutes", hint="add --method auto")
    if options.method == "full" and (options.retention not in (None, 1) or options.embeddings == "frozen"):
        raise ConfigError("full trains everything", where="--method", hint="use --method far with these options")
    if options.method == "auto" and options.attention_retention is not None:
        raise ConfigError("auto tries its own share", where="--attention-retention", hint="name a method")
    if options.attention_retention is not None and options.attention != "heads":
        raise ConfigError("attention learns whole", where="--attention-retention", hint="add --attention heads")


def render(document: dict[str, Any]) -> str:
    """Return the summary for people."""
    overlap = document["split_half_overlap"]
    primed = f"{document['priming_steps']} steps" + (
        f", split-half overlap {overlap:.2f}" if overlap is not None else ""
    )
    heads = document["heads_per_block"]
    attention = "attention whole" if document["attention"] == "full" else f"{max(heads)} heads a block"
    artifacts = "yes" if document["ort_training"] else "no"
    return "\n".join(
        [
            f"bundle      {document['bundle']} ({document['bundle_mib']} MiB, {document['seconds']} s)",
            f"model       {document['model']} ({document['architecture']}, {_read_by_head(document)}), "
            f"{_learned(document)}, head {document['head']}",
            f"method      {document['method']}"
            + (f": {document['choice']['reason']}" if document["choice"] is not None else ""),
            f"selection   {document['selection']}, retention {document['retention']:g}, {attention}; priming {primed}",
            f"trained     {document['trained_parameters']:,} of {document['model_parameters']:,} parameters",
            f"frozen      {document['frozen_precision']}; onnxruntime-training artifacts: {artifacts}",
            f"next        edge-far train {shell_word(document['bundle'])} --train FILE --out RUN",
        ]
    )


def _read_by_head(document: dict[str, Any]) -> str:
    return "every token" if document["pooling"] == "none" else f"{document['pooling']} pooling"


def _learned(document: dict[str, Any]) -> str:
    scale = document["scale"]
    if document["task"] == "answer":
        return "answers"
    if scale is None:
        return f"{document['labels']} labels"
    return f"numbers (mean {scale['mean']:.4g}, deviation {scale['deviation']:.4g})"
