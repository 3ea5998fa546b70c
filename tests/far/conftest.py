"""Tiny models of the three supported architectures, and batches for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

VOCABULARY = 60
LABELS = 5


@pytest.fixture
def tiny_model() -> Callable[..., Any]:
    """Return a function that builds a classifier: 2 blocks, hidden 16, 40 FFN nodes, in evaluation mode."""
    torch = pytest.importorskip("torch")
    import transformers as t

    def build(architecture: str, seed: int = 0, labels: int = LABELS, **changes: Any) -> Any:
        common = {"vocab_size": VOCABULARY, "num_labels": labels, "pad_token_id": 0, **changes}
        bert = {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 40,
            "max_position_embeddings": 32,
        }
        torch.manual_seed(seed)
        if architecture == "distilbert":
            config = t.DistilBertConfig(
                dim=16, n_layers=2, n_heads=2, hidden_dim=40, max_position_embeddings=32, **common
            )
            model = t.DistilBertForSequenceClassification(config)
        elif architecture == "bert":
            model = t.BertForSequenceClassification(t.BertConfig(**bert, **common))
        else:
            model = t.RobertaForSequenceClassification(t.RobertaConfig(**bert, **common))
        # The initial standard deviation of 0.02 makes every output nearly the same: spread the values.
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
        return model.eval()

    return build


@pytest.fixture
def make_batch() -> Callable[..., dict[str, np.ndarray]]:
    """Return a function that draws a padded batch of 4 rows with 9, 7, 3 and 1 tokens."""

    def build(seed: int = 0, labels: int = LABELS) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(seed)
        mask = (np.arange(9) < np.array([9, 7, 3, 1])[:, None]).astype(np.int64)
        return {
            "input_ids": generator.integers(2, VOCABULARY, mask.shape) * mask,
            "attention_mask": mask,
            "labels": generator.integers(0, labels, 4),
        }

    return build
