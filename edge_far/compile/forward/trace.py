"""Exports a reconfigured torch model as a forward ONNX graph.

The graph's inputs are input_ids, attention_mask, (token_type_ids) of shape [batch, sequence], int64, padded on the
right, and then every trained parameter under its torch name. Its output is `logits` [batch, labels]. Frozen
parameters are initializers. Dropout stands in the graph as in the model's configuration.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import onnx_ir as ir
import torch

from edge_far.architectures.adapter import Architecture
from edge_far.architectures.registry import TITLES, architecture_named
from edge_far.errors import Unavailable
from edge_far.far.pooling import MeanPooledClassifier
from edge_far.models.guard import reason_of, transformers_package

__all__ = ["export_forward", "takes_token_types"]

OPSET = 20
# Added to the attention scores of padding: exp() of it is exactly zero in fp32, and it is far from overflow.
MASKED_SCORE = -1e9


class _Classifier(torch.nn.Module):
    """The model with explicit mask arithmetic and positions, so that the graph computes no shapes."""

    def __init__(self, model: torch.nn.Module, architecture: Architecture) -> None:
        super().__init__()
        self.model = model
        self.architecture = architecture
        self.skipped_positions = architecture.skipped_positions(model.config.pad_token_id)
        self.position_bias = None
        if architecture.position_bias is not None:
            encoder = model.get_submodule(f"{architecture.encoder}.{architecture.position_bias}")
            longest = int(model.config.max_position_embeddings) - self.skipped_positions
            self.position_bias = _PositionBias(encoder, longest)
        self.windows = None
        if architecture.windows:
            self.windows = _Windows(model.get_submodule(architecture.encoder), int(model.config.sliding_window))

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        scores = ((1.0 - attention_mask.to(torch.float32)) * MASKED_SCORE)[:, None, None, :]
        if self.position_bias is not None:
            scores = scores + self.position_bias(input_ids.shape[1])
        if self.windows is not None:
            scores = self.windows.hand_over(scores, attention_mask)
        arguments = {"input_ids": input_ids, "attention_mask": scores}
        if isinstance(self.model, MeanPooledClassifier):
            arguments["token_mask"] = attention_mask
        if token_type_ids is not None:
            arguments["token_type_ids"] = token_type_ids
        if self.architecture.first_position is not None:
            # Some count from behind the padding's position; padding on the right never needs other positions.
            arguments["position_ids"] = torch.arange(input_ids.shape[1])[None] + self.skipped_positions
        if self.architecture.token_types == "zeros":
            arguments["token_type_ids"] = torch.zeros_like(input_ids)
        logits: torch.Tensor = self.model(**arguments).logits
        return logits


class _PositionBias(torch.nn.Module):
    """A bias of relative positions, for texts of at most `longest` tokens: added to the mask once, not in each block.

    The encoder computes it from buckets of distances, with logarithms, in each pass. The bucket of a distance is
    a constant; what is left is a look-up in the table, and one addition that all blocks share.
    """

    def __init__(self, encoder: torch.nn.Module, longest: int) -> None:
        super().__init__()
        self.encoder = (encoder,)  # a tuple: its parameters keep the names that they have in the model
        self.longest = longest
        distances = torch.arange(1 - longest, longest)  # of what is read, from who reads
        self.register_buffer("buckets", encoder.relative_position_bucket(distances))

    def forward(self, length: int) -> torch.Tensor:
        """Return the bias [1, heads, length, length] of each query (third axis) and key (last axis)."""
        places = torch.arange(length)
        distances = places[None, None, :] - places[None, :, None] + (self.longest - 1)
        bias: torch.Tensor = self.encoder[0].relative_attention_bias(self.buckets[distances])
        return bias.permute(0, 3, 1, 2)

    @contextmanager
    def in_the_mask(self) -> Iterator[None]:
        """Let the encoder add none of its own meanwhile."""
        with mock.patch.object(self.encoder[0], "compute_position_bias", lambda *_, **__: None):
            yield


class _Windows:
    """Masks of an encoder some of whose blocks read the tokens near each token alone: `reach` to either side.

    The encoder makes them out of the mask that its classifier hands it, which also weighs a mean by it. So the
    classifier gets the mask as it is, and the encoder finds the scores of both kinds of blocks in its place.
    """

    def __init__(self, encoder: torch.nn.Module, reach: int) -> None:
        self.encoder, self.reach = encoder, reach
        self.scores: dict[str, torch.Tensor] = {}

    def hand_over(self, scores: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Keep the scores for the encoder; return what its classifier gets."""
        places = torch.arange(attention_mask.shape[1])
        far = ((places[None, :] - places[:, None]).abs() > self.reach).to(torch.float32) * MASKED_SCORE
        self.scores = {"full_attention": scores, "sliding_attention": scores + far[None, None]}
        return attention_mask

    @contextmanager
    def in_the_encoder(self) -> Iterator[None]:
        """Let the encoder read the scores meanwhile."""

        def exchange(_: torch.nn.Module, arguments: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return arguments, {**named, "attention_mask": self.scores}

        handle = self.encoder.register_forward_pre_hook(exchange, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


@contextmanager
def _embeddings_without_mask(model: torch.nn.Module, architecture: Architecture) -> Iterator[None]:
    """Let the embeddings leave a padding's as it is meanwhile."""

    def forget(_: torch.nn.Module, arguments: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return arguments, {**named, "mask": None}

    embeddings = model.get_submodule(f"{architecture.encoder}.{architecture.embeddings[0]}")
    handle = embeddings.register_forward_pre_hook(forget, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _one_operator_for_tanh_gelu() -> Iterator[None]:
    """Let transformers' formula for the GELU by a hyperbolic tangent be torch's function meanwhile."""
    formula = transformers_package().activations.NewGELUActivation

    def forward(_: torch.nn.Module, values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(values, approximate="tanh")

    with mock.patch.object(formula, "forward", forward):
        yield


def takes_token_types(architecture: str) -> bool:
    """Say whether bundles of this architecture have the input token_type_ids (text pairs)."""
    return architecture_named(architecture).token_types == "pairs"


def export_forward(model: torch.nn.Module, architecture: str, trained: Collection[str]) -> ir.Model:
    """Return the forward graph of a sequence classifier in training mode.

    `trained` names the parameters that become graph inputs. Raises Unavailable when torch cannot export the model.
    """
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if takes_token_types(architecture) else [])
    example = [torch.ones((2, 16), dtype=torch.int64) for _ in names]
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    was_training = model.training
    traced = _Classifier(model, architecture_named(architecture)).train()
    # Tracing wants plain tensors: the caller's requires_grad marks stay with the caller's model.
    with warnings.catch_warnings(), _quiet_exporter(), ExitStack() as meanwhile:
        warnings.simplefilter("ignore")
        meanwhile.enter_context(_one_operator_for_tanh_gelu())
        if traced.position_bias is not None:
            meanwhile.enter_context(traced.position_bias.in_the_mask())
        if traced.architecture.masks_embeddings:
            meanwhile.enter_context(_embeddings_without_mask(model, traced.architecture))
        if traced.windows is not None:
            meanwhile.enter_context(traced.windows.in_the_encoder())
        try:
            program = torch.onnx.export(
                traced,
                tuple(example),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=tuple(dims for _ in names),
                input_names=names,
                output_names=["logits"],
                optimize=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise Unavailable(
                f"torch.onnx cannot export this model: {reason_of(error.__cause__ or error)}",
                where=type(model).__name__,
                hint=f"supported are classifiers of {TITLES}",
            ) from error
        finally:
            model.train(was_training)
    assert program is not None
    graph_model = program.model
    _name_parameters(graph_model.graph, trained)
    return graph_model


def _name_parameters(graph: ir.Graph, trained: Collection[str]) -> None:
    """Give parameters their torch names and turn the trained ones into inputs."""
    for name in list(graph.initializers):
        value = graph.initializers.pop(name)
        value.name = name.removeprefix("model.")
        if value.name not in trained:
            graph.initializers[value.name] = value
    missing = set(trained)
    for node in graph:
        for value in node.inputs:
            if value is not None and value.name in missing and value.producer() is None:
                missing.discard(value.name)
                value.const_value = None
                graph.inputs.append(value)
    if missing:
        raise Unavailable(f"trained parameters that the forward pass never reads: {', '.join(sorted(missing))}")


class _quiet_exporter:
    """Keeps the exporter's remarks on optional packages out of the user's terminal."""

    def __enter__(self) -> None:
        self.logger = logging.getLogger("torch.onnx")
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self.logger.setLevel(self.level)
