"""Every adapter says what transformers' classifier has, and what has none is refused by name and reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_far.architectures.registry import ARCHITECTURES, architecture_named, architecture_of_class, why_refused
from edge_far.errors import Unavailable


def test_an_architecture_is_found_by_its_classes() -> None:
    for name, architecture in ARCHITECTURES.items():
        assert architecture_named(name) is architecture
        assert all(architecture_of_class(each) is architecture for each in architecture.model_classes)
        assert why_refused(name) is None
    assert architecture_of_class("T5Model") is None and why_refused("my-own") is None


# Read, though transformers' own configuration does not name them.
UNNAMED_KEYS = {"global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"} | {
    "share_att_key",
    "norm_rel_ebd",
    "position_buckets",
    "conv_kernel_size",
    "cls_dropout",
}
OF_OTHER_TASKS = {"qa_dropout", "summary_last_dropout"}


@pytest.mark.host
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_places_and_keys_are_those_of_transformers(name: str) -> None:
    import torch
    import transformers

    from edge_far.far.nodes import embeddings_of
    from tests.tiny_models import make_tiny

    architecture = ARCHITECTURES[name]
    model = make_tiny(name)
    assert (
        type(model).__name__ in architecture.model_classes and type(model.config).__name__ == architecture.config_class
    )
    assert type(model.get_submodule(architecture.encoder)).__name__ in architecture.model_classes
    last = model.get_submodule(architecture.last_layer)
    assert isinstance(last, torch.nn.Linear) and last.out_features == 5
    config = getattr(transformers, architecture.config_class)().to_dict()
    assert set(architecture.keys) - UNNAMED_KEYS <= set(config), "config.json has these keys"
    assert {key for key in config if "dropout" in key} <= set(architecture.keys) | OF_OTHER_TASKS
    assert set(architecture.head_dropouts) <= set(architecture.keys)
    hidden: list[torch.Tensor] = []
    *_, final = embeddings_of(model).values()
    final.register_forward_hook(lambda *arguments: hidden.append(arguments[-1]))
    model(input_ids=torch.ones((1, 3), dtype=torch.int64))
    assert hidden[0].shape == (1, 3, model.config.hidden_size), "what the first block reads"


REFUSED = ("nomic_bert", "deberta", "squeezebert", "xlnet", "gpt2", "llama", "t5", "bart", "longformer", "clip")


@pytest.mark.host
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_from_config_json_alone(name: str, tmp_path: Path) -> None:
    """The whole front door, with weights that would not read."""
    from edge_far.models.source import load_source

    (tmp_path / "config.json").write_text(json.dumps({"model_type": name}))
    (tmp_path / "model.safetensors").write_bytes(b"never read")
    with pytest.raises(Unavailable) as refusal:
        load_source(str(tmp_path), ["a", "b"], 0)
    assert refusal.value.where == str(tmp_path / "config.json")
    message = str(refusal.value)
    assert f"model_type is {json.dumps(name) if '-' in name else name}, which is not supported: " in message
    assert str(why_refused(name)) in message and "supported are bert, " in message


@pytest.mark.host
def test_the_names_of_refused_ones_are_transformers() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    from edge_far.architectures import registry

    assert set(registry._REFUSED) <= set(CONFIG_MAPPING_NAMES)
