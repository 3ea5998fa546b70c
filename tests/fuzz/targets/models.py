"""The model to export, as saved by transformers: config.json, weights, tokenizer files. Needs torch."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from random import Random
from unittest import mock

from edge_far.compile import pipeline
from tests.fuzz.judge import Reached, problem_of, run
from tests.fuzz.mutate import mutate_bytes, mutate_json, mutate_safetensors
from tests.fuzz.targets.base import Case, Target
from tests.fuzz.targets.bundles import EXAMPLES
from tests.tiny_models import make_tiny, make_tokenizer

__all__ = ["HOST_TARGETS", "ModelConfig", "ModelTokenizer", "ModelWeights"]

ARCHITECTURES = ("bert", "distilbert", "roberta")
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123456\n"
CONFIG_VALUES: dict[str, tuple[object, ...]] = {
    "id2label": (["a", "b"], {}, {"0": 1}, {"x": "y"}, None, "a", {"0": "label-1", "1": "label-0"}),
    "layer_norm_eps": ("1e-12", None, -1, "x", 0),
    "hidden_dropout_prob": (None, "0.1", 1.5, -0.1, 1),
    "quantization_config": ({"load_in_8bit": True, "quant_method": "bitsandbytes"}, {}, "x", {"quant_method": "x"}, 4),
    "hidden_act": ("gelu_new", "silu", "mish", "relu", "", None, 3, "gelu\n"),
    "architectures": ([], ["X"], None, "BertModel", [None], ["BertForSequenceClassification"]),
    "model_type": ("bert", "roberta", "t5", "", None, 7, "../x", "gpt2", "clip"),
    "pad_token_id": (None, 3, -1, 10**6, "0", 99),
    "max_position_embeddings": (0, -1, 1, 8, 10**9, "64", None, 63),
    "vocab_size": (0, -1, 50, 101, 10**9, "100", None),
    "num_attention_heads": (0, -1, 3, 5, 10**6, "4", None),
    "hidden_size": (0, -1, 20, 33, 10**6, "32", None),
    "num_hidden_layers": (0, -1, 1, 3, 10**5, "2", None),
    "problem_type": ("multi_label_classification", "regression", "x", None, 3),
    "torch_dtype": ("float16", "bfloat16", "x", None, 3, "auto"),
    "auto_map": ({"AutoConfig": "evil.Config"}, "x", None, []),
    "position_embedding_type": ("relative_key", "absolute", "x", None),
    "return_dict": (False, None, "x"),
    "chunk_size_feed_forward": (8, -1, "x", None),
    "is_decoder": (True, "x"),
    "num_labels": (0, -1, 3, 10**6, "x", None),
    "_attn_implementation": ("flash_attention_2", "x", None),
    "transformers_version": ("99.0", None, 3),
}


class _Model(Target):
    """A model directory; `export` runs up to the choice of learners."""

    codes = frozenset({0, 65, 66, 69, 78})
    links = True
    mib = 512.0

    def prepare(self, good: Path) -> None:
        """Save a tiny model of each architecture."""
        (good / "data.jsonl").write_text(EXAMPLES)
        logging.getLogger("transformers").setLevel(logging.ERROR)
        for name in ARCHITECTURES:
            make_tiny(name).save_pretrained(good / name)
            make_tokenizer(name).save(str(good / name / "tokenizer.json"))
            special = json.loads((good / name / "tokenizer.json").read_bytes())["added_tokens"]
            kinds = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64}
            kinds |= {"unk_token": special[3 if name == "roberta" else 1]["content"]}
            (good / name / "tokenizer_config.json").write_text(json.dumps(kinds))

    def export(self, name: str) -> tuple[str, ...]:
        """Return the command line for one architecture."""
        model = ("--model", f"{{work}}/{name}", "--method", "far")
        return ("export", *model, "--train", "{work}/data.jsonl", "--out", "{work}/out")

    def problem(self, case: Case) -> str | None:
        """Export until the learners would be chosen."""

        def reached(*_: object) -> None:
            raise Reached

        with self.laid(case), mock.patch.object(pipeline, "choose_learners", reached):
            return problem_of(run(self.filled(case), self.bounds), self.bounds)


class ModelConfig(_Model):
    """config.json."""

    name = "model config"

    def make(self, chance: Random) -> Case:
        """Return a model with a changed config.json."""
        name = chance.choice(ARCHITECTURES)
        good = self.read(f"{name}/config.json")
        if chance.random() < 0.5:
            return Case({f"{name}/config.json": mutate_json(good, chance)}, self.export(name))
        document = json.loads(good)
        for _ in range(chance.choice((1, 1, 2))):
            key = chance.choice(list(CONFIG_VALUES))
            document[key] = chance.choice(CONFIG_VALUES[key])
        return Case({f"{name}/config.json": json.dumps(document).encode()}, self.export(name))


class ModelTokenizer(_Model):
    """tokenizer.json and tokenizer_config.json."""

    name = "model tokenizer"

    def make(self, chance: Random) -> Case:
        """Return a model with one of its tokenizer's files changed."""
        name = chance.choice(ARCHITECTURES)
        file = chance.choice(("tokenizer.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"))
        if file == "vocab.txt":
            return Case({f"{name}/{file}": chance.choice((b"", LFS_POINTER, b"[PAD]\n\xff\n"))}, self.export(name))
        return Case({f"{name}/{file}": mutate_json(self.read(f"{name}/{file}"), chance)}, self.export(name))


class ModelWeights(_Model):
    """model.safetensors, and pytorch_model.bin in its place."""

    name = "model weights"

    def make(self, chance: Random) -> Case:
        """Return a model with other weights."""
        name = chance.choice(ARCHITECTURES)
        good = self.read(f"{name}/model.safetensors")
        if chance.random() < 0.1:
            return Case({f"{name}/model.safetensors": LFS_POINTER}, self.export(name))
        if chance.random() < 0.1:
            return Case({f"{name}/pytorch_model.bin": mutate_bytes(good[:500], chance)}, self.export(name))
        return Case({f"{name}/model.safetensors": mutate_safetensors(good, chance)}, self.export(name))


HOST_TARGETS: tuple[type[Target], ...] = (ModelConfig, ModelTokenizer, ModelWeights)
