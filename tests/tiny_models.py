"""Tiny classifiers of all architectures, bundles made of them, and padded batches; needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from edge_far.architectures.registry import architecture_named
from edge_far.bundles.bundle import Bundle
from edge_far.bundles.manifest import Scale
from edge_far.compile.export_settings import ExportSettings
from edge_far.compile.pipeline import compile_bundle
from edge_far.console import Console
from edge_far.far.method import cut_of, select_above_cut
from edge_far.far.nodes import find_ffn_blocks
from edge_far.far.pooling import MeanPooledClassifier, SpanClassifier
from edge_far.far.reconfigure import trained_parameters
from edge_far.models.exchanged.exchange import exchange_modules
from edge_far.models.source import SourceModel
from edge_far.profile.document import load_profile
from edge_far.tasks.interface import Task
from edge_far.tasks.registry import task_of
from edge_far.texts.batches import Batch
from tests.tiny_cases import gradient_errors

ARCHITECTURES = ("bert", "distilbert", "roberta", "electra", "mpnet")  # all that differ in more than names
WITH_LATER_ONES = (*ARCHITECTURES, "modernbert", "deberta-v2", "mobilebert")  # those too that have one tiny bundle
VOCABULARY = 100
TAGS = ("O", "B-a", "I-a", "B-b", "I-b")
MAX_POSITIONS = 64
TABLE_WIDTH = 16  # of embeddings that are projected
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
OTHER_SPECIAL_TOKENS = (
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    "<mask>",
)  # of models whose positions begin behind the padding's
WORDS = tuple(f"w{number}" for number in range(VOCABULARY - 5))


def make_tokenizer(architecture: str) -> Tokenizer:
    """Return a word-level tokenizer of VOCABULARY tokens: the special ones, then w0, w1, ..."""
    others = skips_positions(architecture)
    special = OTHER_SPECIAL_TOKENS if others else SPECIAL_TOKENS
    vocabulary = {token: number for number, token in enumerate((*special, *WORDS))}
    first, last = (special[0], special[2]) if others else (special[2], special[3])
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special[3 if others else 1]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    between = f"{last} {last}" if others else last
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {between} $B:1 {last}:1",
        special_tokens=[(token, vocabulary[token]) for token in (first, last)],
    )
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def skips_positions(architecture: str) -> bool:
    """Say whether a model's positions do not begin with row 0 of the table."""
    return architecture_named(architecture).skipped_positions(1) > 0


def make_examples(count: int, *, labels: int = 5, seed: int = 0) -> list[dict[str, str]]:
    """Return examples of 2 to 20 words; each label has words of its own, so that a model can learn them."""
    random = np.random.default_rng(seed)
    examples = []
    for number in range(count):
        label = number % labels
        own = [word for index, word in enumerate(WORDS) if index % labels == label]
        text = " ".join(random.choice(own if random.random() < 0.5 else WORDS) for _ in range(random.integers(2, 21)))
        examples.append({"text": text, "label": f"label-{label}"})
    return examples


def make_tiny(architecture: str, **options: Any) -> torch.nn.Module:
    """Return make_original's model as an export loads it."""
    model = make_original(architecture, **options)
    exchange_modules(model)
    return model


def make_original(
    architecture: str,
    *,
    labels: int = 5,
    hidden: int = 32,
    seed: int = 0,
    dropout: float = 0.1,
    head_class: str = "SequenceClassification",
) -> torch.nn.Module:
    """Return a classifier of 2 blocks, 4 heads and 64 FFN nodes, in evaluation mode, as transformers makes it."""
    config = tiny_config(architecture, hidden, dropout, vocab_size=VOCABULARY, num_labels=labels)
    torch.manual_seed(seed)
    model = getattr(transformers, f"AutoModelFor{head_class}").from_config(config, attn_implementation="eager")
    # The initial deviation of 0.02 makes every output nearly the same, and biases zero: spread the values.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def tiny_config(architecture: str, hidden: int, dropout: float, **common: Any) -> Any:
    """Return the configuration of make_tiny's model; `common` are keys that all have."""
    known = architecture_named(architecture)
    config_class = getattr(transformers, known.config_class)
    if architecture == "distilbert":
        return config_class(
            dim=hidden,
            n_layers=2,
            n_heads=4,
            hidden_dim=64,
            max_position_embeddings=MAX_POSITIONS,
            dropout=dropout,
            attention_dropout=dropout,
            seq_classif_dropout=dropout,
            **common,
        )
    if architecture == "modernbert":
        return config_class(
            hidden_size=hidden,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=MAX_POSITIONS,
            local_attention=12,
            classifier_activation="silu",
            embedding_dropout=dropout,
            attention_dropout=dropout,
            classifier_dropout=dropout,
            pad_token_id=0,
            **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
            **common,
        )
    if architecture == "deberta-v2":
        common |= {"relative_attention": True, "position_biased_input": False, "share_att_key": True}
        common |= {"pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm", "position_buckets": 8}
        common |= {"max_relative_positions": -1, "pooler_dropout": dropout}
    keys = {
        "hidden_size": hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "max_position_embeddings": MAX_POSITIONS + known.skipped_positions(1),
    }
    if known.table_width_key == "embedding_size":
        keys["embedding_size"] = TABLE_WIDTH
    if known.inner_width_key is not None:  # of each block 64 nodes, in two FFNs
        keys |= {known.inner_width_key: hidden, "hidden_size": 2 * hidden}
        keys |= {"num_feedforward_networks": 2, "intermediate_size": 32}
    return config_class(**keys, **common)


def make_pooled(
    architecture: str,
    pooling: str,
    *,
    labels: int = 5,
    hidden: int = 32,
    seed: int = 0,
    head_class: str = "SequenceClassification",
) -> torch.nn.Module:
    """Return make_tiny's model, its head on the first token, on the mean of all, or on each."""
    model = make_tiny(architecture, labels=labels, hidden=hidden, seed=seed, head_class=head_class)
    if head_class == "QuestionAnswering":
        return SpanClassifier(model)
    return MeanPooledClassifier(model, seed) if pooling == "mean" else model


@dataclass
class TinyBundle:
    """A bundle, the reconfigured torch model it was compiled from, and its trained parameters."""

    bundle: Bundle
    model: torch.nn.Module
    trained: dict[str, torch.nn.Parameter]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return fresh copies of the trained parameters' values."""
        return {name: parameter.detach().numpy().copy() for name, parameter in self.trained.items()}


def make_tiny_bundle(
    directory: Path,
    architecture: str,
    *,
    labels: int = 5,
    retention: float = 0.1,
    embeddings: str = "frozen",
    dropout: bool = False,
    precision: str = "fp32",
    with_ort: bool = True,
    first_token_only: bool = True,
    method: str = "far",
    pooling: str = "cls",
    attention_retention: float | None = None,
    hidden: int = 32,
    task: str = "classify",
    seed: int = 0,
    name: str = "bundle",
) -> TinyBundle:
    """Compile a tiny model with random learners into `directory`/`name`; attention learns whole without a retention."""
    learned = tiny_task(task, labels)
    model = make_pooled(architecture, pooling, labels=labels, hidden=hidden, seed=seed, head_class=learned.head_class)
    tokenizer = directory / f"{name}.tokenizer.json"
    make_tokenizer(architecture).save(str(tokenizer))
    settings = ExportSettings(
        model="tiny",
        train=directory / "train.jsonl",
        out=directory / name,
        profile=load_profile("workstation"),
        selection="random",
        retention=retention,
        priming=0.01,
        start="continue",
        embeddings=embeddings,
        frozen_precision=precision,
        max_seq_len=MAX_POSITIONS,
        learning_rate=1e-3,
        epochs=1,
        batch_size=4,
        dropout=dropout,
        seed=seed,
        with_ort=with_ort,
        first_token_only=first_token_only,
        method=method,
    )
    cut = cut_of(method, len(find_ffn_blocks(model)))
    selection = select_above_cut(model, "random", retention, attention_retention, cut, seed=seed)
    source = SourceModel(model, architecture, "tiny", tokenizer, MAX_POSITIONS)
    sample = [make_batch(length=MAX_POSITIONS, seed=seed)]
    bundle = compile_bundle(source, learned, selection, None, settings, Console(quiet=True), sample)
    tokenizer.unlink()
    return TinyBundle(bundle, model, trained_parameters(model, embeddings, cut))


def tiny_task(name: str, labels: int) -> Task:
    """Return a task of so many outputs."""
    scale = Scale(2.5, 1.5)
    if name in ("regress", "answer"):
        return task_of(name, (), scale)
    return task_of(name, TAGS if name == "tag" else [f"label-{number}" for number in range(labels)], scale)


def make_batch(
    *,
    rows: int = 3,
    length: int = 16,
    labels: int = 5,
    token_types: bool = False,
    task: str = "classify",
    seed: int = 0,
) -> Batch:
    """Return `rows` examples padded on the right: the first of full length, each next a third shorter."""
    random = np.random.default_rng(seed)
    lengths = [max(1, round(length * (2 / 3) ** row)) for row in range(rows)]
    mask = (np.arange(length) < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.where(mask == 1, random.integers(5, VOCABULARY, mask.shape), 1)
    types = random.integers(0, 2, mask.shape) * mask if token_types else None
    if task == "classify":
        return Batch(ids, mask, types, random.integers(0, labels, rows))
    if task == "tag":  # about every third token begins no word
        drawn = random.integers(0, labels, mask.shape)
        return Batch(ids, mask, types, np.where((mask == 1) & (random.random(mask.shape) < 0.7), drawn, -1))
    if task == "answer":  # the second token cannot be said
        targets = np.where((mask == 1)[:, :, None], 0.0, -1.0).repeat(2, axis=2)
        targets[:, 1:2] = -1.0
        for row, length in enumerate(lengths):
            places = [0, 0] if length < 4 or row == 1 else np.sort(random.integers(2, length, 2))
            targets[row, places, [0, 1]] = 1.0
        return Batch(ids, mask, types, targets.astype(np.float32))
    shape = (rows, labels)
    numbers = random.integers(0, 2, shape) if task == "multilabel" else random.normal(size=shape)
    return Batch(ids, mask, types, numbers.astype(np.float32))


def torch_logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Return the model's logits [B, labels]."""
    inputs = {"input_ids": torch.tensor(batch.input_ids), "attention_mask": torch.tensor(batch.attention_mask)}
    if batch.token_type_ids is not None:
        inputs["token_type_ids"] = torch.tensor(batch.token_type_ids)
    logits: torch.Tensor = model(**inputs).logits
    return logits


def torch_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Return the sum of the examples' cross-entropies."""
    logits = torch_logits(model, batch)
    return torch.nn.functional.cross_entropy(logits, torch.tensor(batch.labels), reduction="sum")


def gradient_error(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """Return the largest of tiny_cases.gradient_errors."""
    return max(gradient_errors(found, expected).values())
