"""Full fine-tuning in torch, all parameters and the embeddings trained: the baseline that edge-far is compared with.

    python benchmarks/torch_finetune.py --model DIR --train FILE --eval FILE --test FILE --learning-rate 3e-4 --seed 0

The recipe is edge-far's own (batches, schedule, clipping, AdamW groups, dropout, best epoch by --eval), so that
only what is trained, and on which engine, differs. Prints one JSON document; --threads 1 by default.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from edge_far.console import Console
from edge_far.device.board.memory import resident_set
from edge_far.learning_rate import WarmupLinear
from edge_far.models.source import SourceModel, load_source
from edge_far.tasks.classify import Classify
from edge_far.texts.batches import collate, plan_epoch
from edge_far.texts.data import label_names, read_examples
from edge_far.texts.encode import Encoded, Encoder

EVALUATION_BATCH = 64
WARMUP, WEIGHT_DECAY, CLIP_NORM = 0.1, 0.01, 1.0


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--eval", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-seq-len", type=int, default=64)
    parser.add_argument("--max-steps", type=int, help="stop early: for a trial only")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--attention", choices=("eager", "sdpa"), default="eager")
    parser.add_argument("--fused", action="store_true", help="PyTorch's quickest AdamW on the CPU")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    examples = read_examples(options.train, labels=None)
    labels = label_names(str(example.label) for example in examples)
    source = load_source(options.model, labels, options.seed)
    source.model.set_attn_implementation(options.attention)
    encoder = Encoder(source.tokenizer, options.max_seq_len)
    train = encoder.encode(examples, labels)
    held_out = encoder.encode(read_examples(options.eval, labels=labels), labels)
    test = encoder.encode(read_examples(options.test, labels=labels), labels)
    print(json.dumps(fine_tune(source, train, held_out, test, options)))


def fine_tune(
    source: SourceModel, train: Encoded, held_out: Encoded, test: Encoded, options: argparse.Namespace
) -> dict[str, Any]:
    """Train every parameter; return what one row of the table needs."""
    model = source.model
    steps_per_epoch = -(-len(train) // options.batch_size)
    planned = steps_per_epoch * options.epochs
    schedule = WarmupLinear(options.learning_rate, round(WARMUP * planned), planned)
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=0.0, fused=options.fused or None)
    torch.manual_seed(options.seed)  # dropout, independent of how many numbers the head took
    accuracies: list[float] = []
    best: tuple[float, int, dict[str, torch.Tensor]] | None = None
    seconds, training_peak, examples, step, loss = 0.0, 0.0, 0, 0, torch.zeros(())
    last = min(planned, options.max_steps or planned)
    with Console().progress(last, "torch", done=0) as progress:
        for epoch in range(options.epochs):
            model.train()
            for indices in plan_epoch(train.lengths, options.batch_size, options.seed, epoch)[: last - step]:
                began = time.monotonic()
                for group in optimizer.param_groups:
                    group["lr"] = schedule(step)
                inputs, targets = tensors(train, indices)
                loss = cross_entropy(model(**inputs).logits, targets)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                seconds += time.monotonic() - began
                step += 1
                examples += len(indices)
                progress.update(step, f"loss {loss.item():.4f}")
            if epoch == 0:
                training_peak = resident_set().peak_mib
            accuracies.append(accuracy(model, held_out))
            if best is None or accuracies[-1] > best[0]:
                best = (accuracies[-1], step, copy.deepcopy(model.state_dict()))
    assert best is not None
    peak = resident_set().peak_mib
    last_test = accuracy(model, test)
    model.load_state_dict(best[2])
    return {
        "validation": best[0],
        "validation_by_epoch": accuracies,
        "best_step": best[1],
        "steps": step,
        "test": accuracy(model, test),
        "test_matthews": Classify([str(n) for n in range(model.config.num_labels)]).score(
            test.labels, predicted(model, test)
        ),
        "test_last_epoch": last_test,
        "final_loss": round(loss.item(), 6),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "seconds": round(seconds, 1),
        "examples": examples,
        "training_peak_rss_mib": round(training_peak, 1),  # before the first evaluation
        "peak_rss_mib": round(peak, 1),
        "engine": f"torch {torch.__version__}",
    }


def parameter_groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Return the usual two groups: no weight decay on biases and LayerNorms."""
    named = list(model.named_parameters())
    plain = [p for name, p in named if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in named if not (name.endswith("bias") or "LayerNorm" in name)]
    return [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]


def tensors(encoded: Encoded, indices: np.ndarray) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return one batch as the model's inputs, and its labels."""
    batch = collate(encoded, indices)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if batch.token_type_ids is not None:
        inputs["token_type_ids"] = batch.token_type_ids
    return {name: torch.from_numpy(array) for name, array in inputs.items()}, torch.from_numpy(batch.labels)


def accuracy(model: torch.nn.Module, encoded: Encoded) -> float:
    """Return the share of examples whose largest logit is their label's."""
    return float((encoded.labels == predicted(model, encoded)).mean())


@torch.no_grad()
def predicted(model: torch.nn.Module, encoded: Encoded) -> np.ndarray:
    """Return the label of each example's largest logit, int64 [N]."""
    training = model.training
    model.eval()
    order = np.argsort(encoded.lengths, kind="stable")
    found = np.zeros(len(encoded), np.int64)
    for start in range(0, len(order), EVALUATION_BATCH):
        rows = order[start : start + EVALUATION_BATCH]
        found[rows] = model(**tensors(encoded, rows)[0]).logits.argmax(dim=-1).numpy()
    model.train(training)
    return found


if __name__ == "__main__":
    main()
