"""config.json: every wrong key is named before a weight is read, and what does not matter is not looked at."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_far.errors import InputMissing, Unavailable
from tests.models.conftest import SaveModel, refused

pytestmark = pytest.mark.host


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("layer_norm_eps", "1e-12", 'layer_norm_eps is "1e-12", not a number'),
        ("hidden_dropout_prob", None, "hidden_dropout_prob is null, not a number"),
        ("hidden_dropout_prob", 1.0, "below 1"),
        ("attention_probs_dropout_prob", [0.1], "attention_probs_dropout_prob is [0.1]"),
        ("classifier_dropout", "no", "classifier_dropout is no"),
        ("initializer_range", float("nan"), "initializer_range is NaN"),
        ("hidden_size", 32.0, "hidden_size is 32.0, not a whole number"),
        ("vocab_size", True, "vocab_size is true, not a whole number"),
        ("num_hidden_layers", 0, "num_hidden_layers is 0"),
        ("intermediate_size", 10**12, "intermediate_size is 1000000000000"),
        ("type_vocab_size", "2", 'type_vocab_size is "2"'),
        ("pad_token_id", -1, "pad_token_id is -1"),
        ("pad_token_id", 100, "pad_token_id is 100, and vocab_size 100"),
        ("num_attention_heads", 3, "hidden_size is 32, which 3 attention heads do not divide"),
        ("max_position_embeddings", 4, "texts of 4 tokens"),
        ("hidden_act", "quick_gelu", "hidden_act is quick_gelu"),
        ("hidden_act", "mish", "training knows gelu, gelu_new, silu, relu, tanh, linear alone"),
        ("hidden_act", {"name": "gelu"}, "hidden_act is"),
        ("quantization_config", {"load_in_8bit": True, "quant_method": "bitsandbytes"}, "quantised by bitsandbytes"),
        ("quantization_config", [1], "save it in float32 or float16 first"),
        ("is_decoder", True, "configured as a decoder"),
        ("position_embedding_type", "relative_key", "position_embedding_type is relative_key"),
        ("pruned_heads", {"0": [1]}, "pruned_heads"),
        ("problem_type", "ranking", "problem_type is ranking, not one of single_label_classification"),
        ("problem_type", 7, "problem_type is 7"),
        ("model_type", "my-model", "supported are bert, distilbert, roberta"),
        ("model_type", 5, "model_type is 5"),
        ("model_type", None, 'add "model_type": "bert"'),
        ("id2label", ["a", "b"], "id2label is an array"),
        ("id2label", {"x": "a"}, "id2label has the key 'x'"),
        ("id2label", {"0": None}, "id2label.0 is null"),
    ],
)
def test_a_wrong_key_is_named(key: str, value: object, says: str, model: SaveModel) -> None:
    directory = model(**{key: value})
    (directory / "model.safetensors").write_bytes(b"never read")
    error = refused(Unavailable, says, model=directory)
    assert error.where == str(directory / "config.json")


@pytest.mark.parametrize(
    "config",
    [
        {"return_dict": False},
        {"chunk_size_feed_forward": 8},
        {"output_hidden_states": True, "output_attentions": True, "torchscript": True, "use_cache": "x"},
        {"dtype": "nonsense", "torch_dtype": 7, "architectures": "BertModel", "label2id": [1]},
        {"auto_map": {"AutoConfig": "mine.Config"}, "transformers_weights": "../other.safetensors"},
        {"id2label": None, "pad_token_id": None, "classifier_dropout": None},
        {"hidden_act": "gelu_python"},
        {"attention_probs_dropout_prob": 0},
    ],
    ids=lambda config: next(iter(config)),
)
def test_what_does_not_change_the_weights_meaning_just_loads(config: dict[str, Any], model: SaveModel) -> None:
    import torch

    from edge_far.models.source import load_source

    plain = load_source(str(model()), ["a", "b", "c", "d", "e"], 0).model
    loaded = load_source(str(model(**config)), ["a", "b", "c", "d", "e"], 0).model
    ids = torch.tensor([[2, 7, 9, 11, 3]])
    assert torch.equal(loaded(input_ids=ids).logits, plain(input_ids=ids).logits)


def test_sizes_that_dropout_masks_do_not_fit(model: SaveModel) -> None:
    from edge_far.models.config import read_config

    directory = model(hidden_size=20)
    refused(Unavailable, "hidden_size is 20", "--no-dropout", model=directory, dropout=True)
    assert read_config(directory, dropout=False).config.hidden_size == 20
    off = {"hidden_dropout_prob": 0.0, "classifier_dropout": None}
    assert read_config(model(hidden_size=20, **off), dropout=True).config.hidden_size == 20
    refused(Unavailable, "classifier_dropout 0.5", model=model(classifier_dropout=0.5), dropout=True)


def test_whole_numbers_for_numbers(model: SaveModel) -> None:
    from edge_far.models.config import read_config

    config = read_config(model(initializer_range=0, layer_norm_eps=0), dropout=True).config
    assert (config.initializer_range, config.layer_norm_eps) == (0.0, 0.0)


def test_distilbert_has_keys_of_its_own(model: SaveModel) -> None:
    from edge_far.models.config import read_config

    refused(Unavailable, "activation is mish", model=model("distilbert", activation="mish"))
    directory = model("distilbert", activation="relu")
    document = json.loads((directory / "config.json").read_bytes())
    document["hidden_size"] = document.pop("dim")  # transformers reads this name too
    (directory / "config.json").write_text(json.dumps(document))
    config = read_config(directory, dropout=True).config
    assert (config.dim, config.activation) == (32, "relu")


@pytest.mark.parametrize(("padding", "positions", "longest"), [(1, 34, 32), (3, 34, 30), (0, 34, 33)])
def test_roberta_counts_positions_from_its_padding(
    padding: int, positions: int, longest: int, model: SaveModel
) -> None:
    from edge_far.models.config import read_config

    directory = model("roberta", pad_token_id=padding, max_position_embeddings=positions)
    assert read_config(directory, dropout=True).max_positions == longest


def test_roberta_without_padding(model: SaveModel) -> None:
    refused(Unavailable, "pad_token_id is null", model=model("roberta", pad_token_id=None))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"", "the file is empty"),
        (b"[1, 2]", "holds no JSON object"),
        (b'{"model_type": "bert",\n}', "broken JSON at line 2"),
        (b'{"model_type": "caf\xe9"}', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
    ids=["pointer", "empty", "array", "broken", "latin1", "deep"],
)
def test_a_file_that_is_no_config(content: bytes, says: str, model: SaveModel) -> None:
    path = model() / "config.json"
    path.write_bytes(content)
    assert refused(Unavailable, says, model=path.parent).where == str(path)


def test_a_directory_or_a_link_to_nothing_instead_of_the_file(model: SaveModel) -> None:
    path = model() / "config.json"
    path.unlink()
    path.mkdir()
    refused(Unavailable, "is a directory, not a file", model=path.parent)
    path.rmdir()
    path.symlink_to("../blobs/none")
    refused(InputMissing, "is a link to a file that is not here", "cp -rL", model=path.parent)


def test_embeddings_of_another_width(model: SaveModel) -> None:
    """Their masks must fit too, and the table is compared with their width."""
    from edge_far.models.config import read_config

    directory = model("electra", embedding_size=20)
    refused(Unavailable, "embedding_size is 20 with hidden_dropout_prob 0.1", model=directory, dropout=True)
    assert read_config(directory, dropout=False).config.embedding_size == 20
    refused(Unavailable, "config.json says [100, 20] (vocab_size, embedding_size)", model=directory)


def test_mpnet_has_a_table_of_distances_and_skips_two_positions(model: SaveModel) -> None:
    """Whatever pads: transformers begins at 2, and always asks for 32 buckets."""
    from edge_far.models.config import read_config

    directory = model("mpnet", pad_token_id=5, max_position_embeddings=34)
    assert read_config(directory, dropout=True).max_positions == 32
    says = "relative_attention_num_buckets is 16, not a whole number from 32"
    refused(Unavailable, says, model=model("mpnet", relative_attention_num_buckets=16))


@pytest.mark.parametrize("key", ["num_hidden_groups", "inner_group_num"])
def test_albert_of_several_blocks(key: str, model: SaveModel) -> None:
    refused(Unavailable, f"{key} is 2, not a whole number from 1 to 1", model=model("albert", **{key: 2}))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("rope_parameters", {"full_attention": {"rope_type": "yarn"}}, "what is known is rope_type default"),
        ("layer_types", ["full_attention", "linear_attention"], "not a list of full_attention or sliding_attention"),
        ("classifier_pooling", "max", "classifier_pooling is max, not cls or mean"),
        ("hidden_activation", "mish", "hidden_activation is mish"),
    ],
)
def test_modernbert(key: str, value: object, says: str, model: SaveModel) -> None:
    refused(Unavailable, says, model=model("modernbert", **{key: value}))


def test_modernberts_older_names_and_the_dropout_of_its_nodes(model: SaveModel) -> None:
    from edge_far.models.config import read_config

    directory = model("modernbert", global_rope_theta=5e4, local_rope_theta=2e4, global_attn_every_n_layers=1)
    document = json.loads((directory / "config.json").read_bytes())
    del document["rope_parameters"], document["layer_types"]
    (directory / "config.json").write_text(json.dumps(document | {"mlp_dropout": 0.1}))
    refused(Unavailable, "mlp_dropout is 0.1", "--no-dropout", model=directory, dropout=True)
    config = read_config(directory, dropout=False).config
    assert config.layer_types == ["full_attention", "full_attention"]
    assert config.rope_parameters["full_attention"]["rope_theta"] == 5e4
    assert config.rope_parameters["sliding_attention"]["rope_theta"] == 2e4


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("conv_kernel_size", 3, "conv_kernel_size is 3, and a convolution beside the first block is not known"),
        ("share_att_key", False, "share_att_key is false, and distances have the content's matrices"),
        ("pos_att_type", ["c2p"], "both products with distances are computed"),
        ("type_vocab_size", 2, "its pairs have no token types"),
        ("position_biased_input", None, "position_biased_input is missing"),
    ],
)
def test_deberta_of_another_form(key: str, value: object, says: str, model: SaveModel) -> None:
    directory = model("deberta-v2", **{key: value})
    if value is None:
        document = json.loads((directory / "config.json").read_bytes())
        del document[key]
        (directory / "config.json").write_text(json.dumps(document))
    refused(Unavailable, says, model=directory)


def test_deberta_as_published_names_both_products_in_one_word(model: SaveModel) -> None:
    from edge_far.models.config import read_config

    directory = model("deberta-v2", pos_att_type="p2c|c2p", model_type="deberta-v2", legacy=False)
    assert read_config(directory, dropout=True).config.pos_att_type == ["p2c", "c2p"]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("trigram_input", False, "trigram_input is false, and embeddings are known that read a token's neighbours too"),
        ("use_bottleneck", False, "use_bottleneck is false, and blocks are known that are narrower within"),
        ("use_bottleneck_attention", True, "and values are known to read a block's input, not its bottleneck"),
        ("key_query_shared_bottleneck", False, "and queries and keys are known to read one bottleneck"),
        ("normalization_type", "rms_norm", "normalization_type is rms_norm, not no_norm or layer_norm"),
        ("intra_bottleneck_size", 30, "intra_bottleneck_size is 30, which 4 attention heads do not divide"),
    ],
)
def test_mobilebert_of_another_form(key: str, value: object, says: str, model: SaveModel) -> None:
    refused(Unavailable, says, model=model("mobilebert", **{key: value}))


def test_mobileberts_inner_width_is_the_heads(model: SaveModel) -> None:
    """Nothing else is divided by them."""
    from edge_far.models.config import read_config

    config = read_config(model("mobilebert", hidden_size=42, num_feedforward_networks=1), dropout=False).config
    assert (config.hidden_size, config.true_hidden_size) == (42, 32)
