"""Parameters and multiply-adds of students from their settings alone: nothing is built.

They are what `limbeck.search.counting.count` says of the built module, and so exact. Each is a sum
of products of settings, none negative, so it never falls when one setting rises.
"""

from typing import NamedTuple

from limbeck.students.image_cnn import ImageCnnConfig, halved, halvings, stages
from limbeck.students.text_bag import TextBagConfig
from limbeck.students.text_transformer import TextTransformerConfig


class ModuleCounts(NamedTuple):
    """What one row costs.

    Args:
        parameters: Trainable ones; running means and deviations of norms are none.
        macs: Multiply-adds of convolutions, linear layers and matrix products.
    """

    parameters: int
    macs: int


def image_cnn_counts(
    config: ImageCnnConfig, *, size: int, channels: int, outputs: int
) -> ModuleCounts:
    """Counts of an `image_cnn` for one image.

    Args:
        config: Its settings; their own size and channels are not read.
        size, channels: What its encoder gives.
        outputs: Of the head.
    """
    found = stages(config, size)
    inputs, before = config.width, halvings(size) - len(found)
    side = halved(size) if before else size
    convolutions = [(channels, inputs, 3, side, 1)]
    for _ in range(before - 1):
        side = halved(side)
        convolutions.append((inputs, inputs, 3, side, 1))
    for width, inner, blocks, kernel in found:
        side = halved(side)
        convolutions += [
            (inputs, inner, kernel, side, 1),
            (inner, width, kernel, side, blocks),
            (inputs, width, 1, side, 1),
            (width, inner, kernel, side, blocks - 1),
        ]
        inputs = width
    parameters, macs = inputs * outputs + outputs, inputs * outputs
    for before, after, kernel, out, times in convolutions:
        weights = before * after * kernel**2
        parameters += times * (weights + 2 * after)
        macs += times * weights * out**2
    return ModuleCounts(parameters, macs)


def text_transformer_counts(
    config: TextTransformerConfig, *, vocabulary: int, length: int, outputs: int
) -> ModuleCounts:
    """Counts of a `text_transformer` for one text.

    Args:
        config: Its settings.
        vocabulary: Token ids that its encoder gives, padding and marks included.
        length: Token ids of the text.
        outputs: Of the head.
    """
    dim, hidden = config.dim, config.hidden_multiple * config.dim
    weights = 4 * dim**2 + 2 * dim * hidden
    # Biases of the four linear layers, two norms.
    block = weights + 5 * dim + hidden + 4 * dim
    tables = (vocabulary + config.max_tokens) * dim
    parameters = tables + config.layers * block + 2 * dim + dim * outputs + outputs
    # Heads share the width, so their number changes neither product of attention.
    macs = config.layers * (length * weights + 2 * length**2 * dim) + dim * outputs
    return ModuleCounts(parameters, macs)


def text_bag_counts(config: TextBagConfig, *, outputs: int) -> ModuleCounts:
    """Counts of a `text_bag` for one text of any length: its sum over n-grams multiplies nothing.

    Args:
        config: Its settings.
        outputs: Of the head.
    """
    macs = config.dim * config.hidden + config.hidden * outputs
    parameters = config.buckets * config.dim + macs + config.hidden + outputs
    return ModuleCounts(parameters, macs)
