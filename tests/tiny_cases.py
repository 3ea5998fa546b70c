"""The tiny bundles that tests share: what they are, where they lie, and torch's results for them. No torch here.

scripts/make_tiny_bundles.py writes BUNDLES/NAME (a bundle) and BUNDLES/NAME.oracle.npz for each case, on the
workstation; tests in both environments read them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_far.device.engine.backend import DropoutKey
from edge_far.texts.batches import Batch

REPOSITORY = Path(__file__).resolve().parents[1]
BUNDLES = REPOSITORY / "build" / "test-bundles"
TRAIN_FILE = "tiny.jsonl"  # three batches
STAMP_FILE = "sources.sha256"
SOURCES = (
    "constraints.txt",
    "edge_far/architectures/**/*.py",
    "edge_far/bundles/bundle.py",
    "edge_far/bundles/manifest.py",
    "edge_far/json_file.py",
    "edge_far/compile/**/*.py",
    "edge_far/far/*.py",
    "edge_far/models/**/*.py",
    "edge_far/texts/batches.py",
    "edge_far/device/engine/dropout.py",
    "edge_far/texts/encode.py",
    "edge_far/texts/targets.py",
    "scripts/make_tiny_bundles.py",
    "tests/tiny_*.py",
)
DROPOUT_KEY = DropoutKey(seed=7, step=3, micro_batch=1)
DROPOUT_BATCH = 1  # the number of the oracle's batch that is also run with dropout
# A training run that torch does too, without dropout, for the cases that `trains` says.
TRAINING_STEPS = 20
TRAINING_RATE = 3e-3
TRAINING_BATCH = 4
BATCH_SHAPES = ((3, 8), (4, 16), (2, 24), (1, 8))


@dataclass(frozen=True)
class Case:
    """One bundle: a seeded tiny model and how it was compiled."""

    name: str
    architecture: str
    retention: float
    labels: int
    embeddings: str = "frozen"
    precision: str = "fp32"
    dropout: bool = False
    first_token_only: bool = True
    method: str = "far"
    pooling: str = "cls"
    attention_retention: float | None = None  # of four heads
    hidden: int = 32
    task: str = "classify"

    @property
    def has_prefix(self) -> bool:
        """Say whether the bundle begins with a prefix."""
        return self.method != "far"

    @property
    def trains(self) -> bool:
        """Say whether torch trains it as well: TRAIN_FILE has five labels, and the weights must be exact."""
        return self.labels == 5 and self.precision == "fp32" and self.task == "classify"


CASES = (
    Case("bert-r10-2", "bert", 0.1, 2),
    Case("bert-r0-77", "bert", 0.0, 77),
    Case("bert-r40-77-embeddings", "bert", 0.4, 77, embeddings="train"),
    Case("distilbert-r10-77", "distilbert", 0.1, 77),
    Case("distilbert-r100-2-embeddings", "distilbert", 1.0, 2, embeddings="train"),
    Case("distilbert-r40-2-all-tokens", "distilbert", 0.4, 2, first_token_only=False),
    Case("roberta-r10-2", "roberta", 0.1, 2),
    Case("roberta-r40-77-embeddings", "roberta", 0.4, 77, embeddings="train"),
    Case("roberta-r100-77", "roberta", 1.0, 77),
    Case("bert-r10-5-dropout", "bert", 0.1, 5, dropout=True),
    Case("distilbert-r40-5-dropout", "distilbert", 0.4, 5, dropout=True),
    Case("roberta-r10-5-dropout", "roberta", 0.1, 5, dropout=True, first_token_only=False),
    Case("bert-r40-5-int8", "bert", 0.4, 5, precision="int8"),
    Case("roberta-r10-5-int8", "roberta", 0.1, 5, precision="int8"),
    Case("bert-r10-5-weights", "bert", 0.1, 5, precision="int8-weights"),
    Case("distilbert-r10-5-compact", "distilbert", 0.1, 5, precision="fp32-compact"),
    Case("distilbert-r10-5-mean", "distilbert", 0.1, 5, pooling="mean"),
    Case("roberta-head-5-mean", "roberta", 0.1, 5, method="head", pooling="mean"),
    Case("bert-top1-5-mean-dropout", "bert", 0.1, 5, dropout=True, method="top-1", pooling="mean"),
    Case("bert-head-5", "bert", 0.1, 5, method="head"),
    Case("bert-top1-5", "bert", 0.4, 5, method="top-1"),
    Case("roberta-top1-5-dropout", "roberta", 0.1, 5, dropout=True, method="top-1"),
    Case("distilbert-head-5-dropout", "distilbert", 0.1, 5, dropout=True, method="head"),
    Case("distilbert-top1-5-int8", "distilbert", 0.4, 5, precision="int8", method="top-1"),
    Case("bert-head-5-int8", "bert", 0.1, 5, precision="int8", method="head"),
    Case("bert-r10-5-heads", "bert", 0.1, 5, attention_retention=0.25),
    Case("roberta-r0-5-heads", "roberta", 0.0, 5, attention_retention=0.75),
    Case("distilbert-top1-5-heads", "distilbert", 1.0, 5, method="top-1", attention_retention=0.25),
    Case("bert-top1-5-heads", "bert", 0.1, 5, method="top-1", attention_retention=0.25),
    Case("roberta-top1-5-heads", "roberta", 0.0, 5, method="top-1", attention_retention=0.75),
    Case("bert-r40-5-heads-dropout", "bert", 0.4, 5, dropout=True, attention_retention=0.5),
    # Wide enough that a single head's matrices are worth 8 bits.
    Case("distilbert-r10-5-heads-int8", "distilbert", 0.1, 5, precision="int8", attention_retention=0.25, hidden=64),
    Case("xlm-roberta-r10-5-heads", "xlm-roberta", 0.1, 5, attention_retention=0.25),
    Case("camembert-top1-5-mean", "camembert", 0.4, 5, method="top-1", pooling="mean"),
    Case("electra-r10-5-embeddings-dropout", "electra", 0.1, 5, embeddings="train", dropout=True),
    Case("electra-top1-5-mean-int8", "electra", 0.4, 5, precision="int8", method="top-1", pooling="mean"),
    Case("bert-r40-regress-dropout", "bert", 0.4, 1, dropout=True, task="regress"),
    Case(
        "roberta-top1-regress-int8", "roberta", 0.4, 1, precision="int8", method="top-1", pooling="mean", task="regress"
    ),
    Case("distilbert-r10-multilabel-dropout", "distilbert", 0.1, 5, dropout=True, task="multilabel"),
    Case("bert-head-multilabel-mean", "bert", 0.1, 3, method="head", pooling="mean", task="multilabel"),
    Case("bert-r40-tag-dropout", "bert", 0.4, 5, dropout=True, task="tag"),
    Case("distilbert-top1-tag-int8", "distilbert", 0.4, 5, precision="int8", method="top-1", task="tag"),
    Case("roberta-r10-answer-dropout", "roberta", 0.1, 2, dropout=True, task="answer"),
    Case("bert-head-answer", "bert", 0.1, 2, method="head", task="answer"),
    # The bias of positions learns here, though its heads are parted.
    Case("mpnet-r10-5-embeddings-dropout", "mpnet", 0.1, 5, "train", dropout=True, attention_retention=0.25),
    Case("mpnet-top1-5-int8", "mpnet", 0.4, 5, precision="int8", method="top-1"),
    Case("albert-r10-5-embeddings-dropout", "albert", 0.1, 5, embeddings="train", dropout=True),
    Case("albert-head-5-mean-int8", "albert", 0.1, 5, precision="int8", method="head", pooling="mean"),
    Case("modernbert-r10-5-embeddings-dropout", "modernbert", 0.1, 5, "train", dropout=True, attention_retention=0.25),
    Case("modernbert-r10-answer-dropout", "modernbert", 0.1, 2, dropout=True, task="answer"),
    Case("deberta-v2-r10-5-embeddings-dropout", "deberta-v2", 0.1, 5, "train", dropout=True, attention_retention=0.25),
    Case("mobilebert-r10-5-embeddings-dropout", "mobilebert", 0.1, 5, "train", dropout=True, attention_retention=0.25),
    Case(
        "mobilebert-top1-5-mean-int8", "mobilebert", 0.4, 5, precision="int8", method="top-1", pooling="mean", hidden=64
    ),
    # scripts/test_aarch64.sh trains these two; int8 and dropout meet in the second.
    Case("tiny-fp32", "distilbert", 0.1, 5, dropout=True),
    Case("tiny-int8", "distilbert", 0.1, 5, precision="int8", dropout=True),
)


def cases(*, precision: str | None = None, dropout: bool | None = None, cut: bool | None = None) -> list[Case]:
    """Return the cases of a precision, with or without dropout, with or without a prefix."""
    chosen = [case for case in CASES if precision in (None, case.precision) and dropout in (None, case.dropout)]
    return [case for case in chosen if cut in (None, case.has_prefix)]


def sources_hash() -> str:
    """Return the SHA-256 of everything that the bundles and oracles depend on, as hexadecimal digits."""
    digest = hashlib.sha256()
    for pattern in SOURCES:
        for path in sorted(REPOSITORY.glob(pattern)):
            digest.update(f"{path.relative_to(REPOSITORY)}\n".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def built_from() -> str | None:
    """Return the hash of the sources that the bundles on disk were built from, or None when there are none."""
    stamp = BUNDLES / STAMP_FILE
    return stamp.read_text().strip() if stamp.is_file() else None


class Oracle:
    """What torch computed: losses are means over a batch, gradients are theirs."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as arrays:
            self.arrays: dict[str, np.ndarray] = dict(arrays)

    def batch(self, number: int) -> Batch:
        """Return batch `number`, as torch saw it."""
        fields = ("input_ids", "attention_mask", "token_type_ids", "labels")
        ids, mask, types, labels = (self.arrays.get(f"{number}.{field}") for field in fields)
        assert ids is not None and mask is not None and labels is not None
        return Batch(ids, mask, types, labels)

    def loss(self, run: int | str) -> float:
        """Return the mean loss of a batch, or of the run 'dropout'."""
        return float(self.arrays[f"{run}.loss"])

    def training_losses(self) -> np.ndarray:
        """Return the mean loss of each of TRAINING_STEPS batches of TRAIN_FILE, as torch trained."""
        return self.arrays["training.losses"]

    def logits(self, run: int | str) -> np.ndarray:
        """Return the logits of a batch, without dropout."""
        return self.arrays[f"{run}.logits"]

    def gradients(self, run: int | str) -> dict[str, np.ndarray]:
        """Return the gradients of a batch's mean loss, or of the run 'dropout', by parameter."""
        return self._named(f"{run}.gradient.")

    def parameters(self) -> dict[str, np.ndarray]:
        """Return the original model's parameters at the time of reconfiguration."""
        return self._named("parameter.")

    def _named(self, prefix: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}


def gradient_errors(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """Return ||g - g*|| / max(||g*||, 1e-3 global norm) of every parameter.

    The floor is for gradients that are zero but for rounding, as that of a key projection's bias is.
    """
    norms = {name: float(np.linalg.norm(array)) for name, array in expected.items()}
    floor = 1e-3 * float(np.linalg.norm(list(norms.values())))
    return {
        name: float(np.linalg.norm(found[name] - array)) / max(norms[name], floor) for name, array in expected.items()
    }
