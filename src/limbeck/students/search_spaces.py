"""Search spaces over the students: what can be chosen, what it costs, and the modules themselves.

A layer is a setting of the kind, an option one of its values; everything else stays as the base
settings have it. Costs are exact and known without building anything (`limbeck.students.counts`).
Each never falls when one setting rises, so its bounds are proven.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from limbeck.errors import ConfigError
from limbeck.search.costs import Cost, MonotoneCost
from limbeck.search.space import Architecture, Layer, LayerwiseSpace, Option
from limbeck.students.activations import activation_bytes
from limbeck.students.base import Encoder, StudentModule
from limbeck.students.counts import image_cnn_counts, text_bag_counts, text_transformer_counts
from limbeck.students.image_cnn import EXPANSIONS, KERNELS, ImageCnnConfig, halvings, stages
from limbeck.students.image_rows import ImageCnnEncoder
from limbeck.students.kinds import find_kind, settings_of
from limbeck.students.text_bag import TextBagConfig, TextBagEncoder
from limbeck.students.text_transformer import TextTransformerConfig, TextTransformerEncoder

Searchable = ImageCnnConfig | TextTransformerConfig | TextBagConfig
"""Settings of the kinds that can be searched."""

_IMAGE_CNN: dict[str, tuple[Option, ...]] = {
    "width": (16, 24, 32, 48, 64),
    "expansion": EXPANSIONS,
    "kernel": KERNELS,
    "blocks": (1, 2, 3),
    "last_width": (48, 64, 96, 128, 192),
    "last_kernel": KERNELS,
    "last_blocks": (1, 2, 3),
}
_TEXT_TRANSFORMER: dict[str, tuple[Option, ...]] = {
    "dim": (32, 48, 64, 96, 128),
    "heads": (2, 4, 8),
    "layers": (1, 2, 3),
    "hidden_multiple": (1, 2, 4),
}
_TEXT_BAG: dict[str, tuple[Option, ...]] = {
    "buckets": tuple(2**power for power in range(12, 18)),
    "dim": (8, 16, 32, 64),
    "hidden": (32, 64, 128, 256),
}


@dataclass(frozen=True, slots=True, eq=False)
class StudentSpace:
    """A space over the settings of one kind of student; `student_space` makes it.

    Args:
        kind: The kind of student.
        space: A layer for each setting that is searched; its default is `base`.
        costs: By name, each with proven bounds: "parameters", "bytes" (four for each parameter) and
            "macs" (multiply-adds of one row), as `search.counting.count` says of the module; where
            the length is known "activation_bytes" (the most that PyTorch's forward pass of a row
            holds at once: see `limbeck.students.activations`), and for `text_bag` "sums" (additions
            of numbers of the table).
        base: Settings that give everything else.
        encoder: What the base reads.
        classes: Outputs of the head.
        length: Entries of the row that is costed, for texts; None where it is not known.
    """

    kind: str
    space: LayerwiseSpace
    costs: dict[str, Cost]
    base: Searchable
    encoder: Encoder
    classes: int
    length: int | None = None

    def settings(self, architecture: Sequence[int]) -> Searchable:
        """The base with the options of an architecture.

        Raises:
            ConfigError: there is no such architecture.
        """
        return _replaced(self.base, self.space.values(architecture))

    def encoder_of(self, architecture: Sequence[int]) -> Encoder:
        """The encoder that goes with an architecture; nothing is learnt from rows again.

        Raises:
            ConfigError: there is no such architecture.
        """
        return SEARCHED[self.kind].encoder_of(self.encoder, self.settings(architecture))

    def encoding(self, architecture: Sequence[int]) -> str:
        """Names how rows are encoded for an architecture; empty where it is as `encoder` does.

        Only the buckets of `text_bag` change what is encoded.

        Raises:
            ConfigError: there is no such architecture.
        """
        settings = self.settings(architecture)
        if not (isinstance(settings, TextBagConfig) and isinstance(self.base, TextBagConfig)):
            return ""
        return "" if settings.buckets == self.base.buckets else f"buckets-{settings.buckets}"

    def build(self, architecture: Sequence[int], generator: torch.Generator) -> StudentModule:
        """A module with fresh weights, all drawn from `generator`, for rows of `encoder_of`.

        Raises:
            ConfigError: there is no such architecture.
        """
        settings, encoder = self.settings(architecture), self.encoder_of(architecture)
        return find_kind(self.kind).module(encoder, settings, self.classes, generator)


def student_space(
    kind: str,
    encoder: Encoder,
    base_settings: Searchable,
    classes: int,
    *,
    length: int | None = None,
    options: Mapping[str, Sequence[Option]] | None = None,
) -> StudentSpace:
    """The space over the settings of a kind of student, with its costs.

    Args:
        kind: `image_cnn`, `text_transformer` or `text_bag`.
        encoder: Fitted; gives the size of images, or the vocabulary.
        base_settings: The default of the space, and all that is not searched.
        classes: Outputs of the head, >= 1.
        length: Of the row that is costed. `text_transformer`: token ids, by default as many as are
            read at most; `text_bag`: n-grams, for the costs "sums" and
            "activation_bytes".
        options: Values of a setting instead of the usual ones; a single one leaves it unsearched.

    Raises:
        ConfigError: the kind cannot be searched, encoder or settings are of another kind, an option
            is not possible, or the base settings are not among the options.
    """
    if kind not in SEARCHED:
        raise ConfigError(
            f"the student {kind!r} has no search space; {', '.join(SEARCHED)} can be searched. "
            f"Write a LayerwiseSpace and its costs for a network of your own."
        )
    found = SEARCHED[kind]
    if not (isinstance(encoder, found.encoder) and isinstance(base_settings, found.settings)):
        raise ConfigError(
            f"{kind} got a {type(encoder).__name__} and a {type(base_settings).__name__}; give a "
            f"{found.encoder.__name__} and a {found.settings.__name__}."
        )
    if classes < 1:
        raise ConfigError(f"classes={classes}: a student's head needs at least one output.")
    _check_length(base_settings, length)
    usual = dict(found.options)
    base = base_settings
    if isinstance(base, ImageCnnConfig) and isinstance(encoder, ImageCnnEncoder):
        # What 0 stands for would change with the other settings.
        last = stages(base, encoder.config.size)[-1]
        base = replace(base, last_width=last.width, last_blocks=last.blocks)
        if halvings(encoder.config.size) == 1:
            del usual["kernel"], usual["blocks"]  # such small images have the last stage alone
    space = _space(base, usual | _checked(kind, usual, options or {}))
    if isinstance(base, TextTransformerConfig):
        length = length or base.max_tokens
    costs = _costs(kind, space, base, encoder, classes, length)
    return StudentSpace(kind, space, costs, base, encoder, classes, length)


@dataclass(frozen=True, slots=True)
class _Searched:
    """What belongs to a kind: `counts` of (settings, encoder, outputs, length); and `neutral`,
    settings that cost nothing, with values that go with all others.
    """

    settings: type[Searchable]
    encoder: type[Encoder]
    options: dict[str, tuple[Option, ...]]
    counts: Callable[[Any, Any, int, int | None], tuple[int, int]]
    encoder_of: Callable[[Any, Any], Encoder]
    neutral: dict[str, int]


def _image_cnn_encoder(known: ImageCnnEncoder, settings: ImageCnnConfig) -> Encoder:
    learnt = replace(settings, size=known.config.size, channels=known.config.channels)
    return ImageCnnEncoder(known.column, learnt, known.mean, known.std)


def _transformer_encoder(known: TextTransformerEncoder, settings: TextTransformerConfig) -> Encoder:
    learnt = replace(settings, vocab=known.config.vocab)
    return TextTransformerEncoder(known.columns, learnt, known.tokenizer)


SEARCHED: dict[str, _Searched] = {
    "image_cnn": _Searched(
        ImageCnnConfig,
        ImageCnnEncoder,
        _IMAGE_CNN,
        lambda settings, encoder, outputs, _: image_cnn_counts(
            settings, size=encoder.config.size, channels=encoder.config.channels, outputs=outputs
        ),
        _image_cnn_encoder,
        {},
    ),
    "text_transformer": _Searched(
        TextTransformerConfig,
        TextTransformerEncoder,
        _TEXT_TRANSFORMER,
        lambda settings, encoder, outputs, length: text_transformer_counts(
            settings,
            vocabulary=encoder.vocabulary,
            length=length or settings.max_tokens,
            outputs=outputs,
        ),
        _transformer_encoder,
        {"heads": 1},
    ),
    "text_bag": _Searched(
        TextBagConfig,
        TextBagEncoder,
        _TEXT_BAG,
        lambda settings, _, outputs, __: text_bag_counts(settings, outputs=outputs),
        lambda known, settings: TextBagEncoder(known.columns, settings),
        {},
    ),
}


def _check_length(base: Searchable, length: int | None) -> None:
    if length is None:
        return
    if isinstance(base, ImageCnnConfig):
        raise ConfigError(
            f"length={length}: images have the size that the encoder gives them; leave length out."
        )
    if length < 1:
        raise ConfigError(f"length={length}: a row that is costed needs at least one entry.")
    if isinstance(base, TextTransformerConfig) and length > base.max_tokens:
        raise ConfigError(
            f"length={length}: at most max_tokens={base.max_tokens} ids of a row are read; lower "
            f"length, or raise max_tokens."
        )


def _checked(
    kind: str, usual: Mapping[str, object], options: Mapping[str, Sequence[Option]]
) -> dict[str, tuple[Option, ...]]:
    """Options of the user's, each of which the settings must accept."""
    for name, values in options.items():
        if name not in usual:
            near = difflib.get_close_matches(name, usual, n=1, cutoff=0)
            raise ConfigError(f"{name!r} of {kind} is not searched; did you mean {near[0]!r}?")
        for value in values:
            # A width that suits any number of heads, a number of heads that suits any width.
            suited: dict[str, Option] = {}
            if "heads" in usual and name in ("dim", "heads"):
                suited = {"heads": 1} if name == "dim" else {"dim": value}
            settings_of(kind, {name: value, **suited})
    return {name: tuple(values) for name, values in options.items()}


def _space(base: Searchable, options: Mapping[str, tuple[Option, ...]]) -> LayerwiseSpace:
    layers = []
    for name, values in options.items():
        value = getattr(base, name)
        if value not in values:
            raise ConfigError(
                f"{name}={value!r} of the base settings is not among the options "
                f"{', '.join(map(repr, values))}; change it, or give options with it."
            )
        layers.append(Layer(name, values, values.index(value)))
    if "heads" not in options:
        return LayerwiseSpace(tuple(layers))
    dim, heads = list(options).index("dim"), list(options).index("heads")

    def heads_divide(prefix: Architecture, option: int) -> bool:
        if len(prefix) != heads:
            return True
        return int(options["dim"][prefix[dim]]) % int(options["heads"][option]) == 0

    return LayerwiseSpace(tuple(layers), is_valid=heads_divide)


def _costs(
    kind: str,
    space: LayerwiseSpace,
    base: Searchable,
    encoder: Encoder,
    classes: int,
    length: int | None,
) -> dict[str, Cost]:
    found = SEARCHED[kind]
    # Positions from the smallest option to the greatest.
    orders = [np.argsort([float(one) for one in layer.options]).tolist() for layer in space.layers]

    def cost(of: Callable[[Any], int]) -> Cost:
        def total(architecture: Architecture) -> float:
            # Bounds are also asked for what the rule forbids, which the settings would refuse.
            return float(of(_replaced(base, {**space.values(architecture), **found.neutral})))

        return MonotoneCost(space, total, orders=orders)

    def counted(settings: Searchable) -> tuple[int, int]:
        return found.counts(settings, encoder, classes, length)

    costs = {
        "macs": cost(lambda settings: counted(settings)[1]),
        "parameters": cost(lambda settings: counted(settings)[0]),
        "bytes": cost(lambda settings: 4 * counted(settings)[0]),
    }
    if length is not None or isinstance(base, ImageCnnConfig):
        costs["activation_bytes"] = cost(
            lambda settings: activation_bytes(settings, encoder, classes, length)
        )
    if kind == "text_bag" and length is not None:
        costs["sums"] = cost(lambda settings: length * int(settings.dim))
    return costs


def _replaced(base: Searchable, values: Mapping[str, Option]) -> Searchable:
    return replace(base, **values)  # type: ignore[arg-type] # options are of the settings' types
