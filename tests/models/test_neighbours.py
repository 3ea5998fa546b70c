"""MobileBERT's embeddings in our form: a text's logits and gradients are those of transformers for the text alone."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
import torch

from edge_far.models.exchanged.exchange import exchange_modules, restore_modules
from tests.tiny_models import make_batch, make_original, make_tiny, torch_logits

pytestmark = pytest.mark.host


def test_a_text_is_answered_as_if_it_were_alone() -> None:
    original, ours = make_original("mobilebert"), make_tiny("mobilebert")
    batch = make_batch(rows=3, length=24, token_types=True)
    found = torch_logits(ours, batch)
    beside_others = torch_logits(original, batch)
    for row, length in enumerate(batch.attention_mask.sum(axis=1)):
        one = slice(row, row + 1)
        assert batch.token_type_ids is not None
        fields = (batch.input_ids, batch.attention_mask, batch.token_type_ids)
        ids, mask, types = (torch.tensor(field[one, :length]) for field in fields)
        alone = original(input_ids=ids, attention_mask=mask, token_type_ids=types).logits
        torch.testing.assert_close(found[one], alone, rtol=0, atol=1e-5)
        # The longest has no padding; behind the others' last token transformers reads it.
        assert bool(((beside_others[one] - alone).abs() > 1e-4).any()) == (row > 0)


def test_gradients_and_parameters_are_the_originals() -> None:
    original, ours = make_original("mobilebert"), make_tiny("mobilebert")
    restore_modules(ours)
    batch = make_batch(rows=1, length=16, token_types=True)
    expected, found = ({}, {})
    for model, gradients in ((original, expected), (ours, found)):
        torch_logits(model, batch).square().sum().backward()
        gradients |= {name: parameter.grad for name, parameter in model.named_parameters()}
    assert list(found) == list(expected) and list(ours.state_dict()) == list(original.state_dict())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_without_a_mask_all_tokens_are_some() -> None:
    """Nothing of an earlier batch's mask is left."""
    original, ours = make_original("mobilebert"), make_tiny("mobilebert")
    torch_logits(ours, make_batch(rows=2, length=8))
    ids = torch.tensor(make_batch(rows=1, length=8).input_ids).repeat(2, 1)
    torch.testing.assert_close(ours(input_ids=ids).logits, original(input_ids=ids).logits, rtol=0, atol=1e-5)
    bare = make_original("mobilebert").mobilebert
    exchange_modules(bare)
    torch.testing.assert_close(bare(ids).last_hidden_state, original.mobilebert(ids).last_hidden_state)
