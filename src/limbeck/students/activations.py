"""Bytes of the tensors that a student holds at once while it reads one row.

They are those of PyTorch's forward pass in inference, operator by operator: the row, everything
that a later operator still reads (the input of a residual block among it), what goes in and what
comes out. Weights are not among them, nor what an operator's kernel borrows inside; a runtime that
merges operators, as onnxruntime does, holds less. Each is a maximum of sums of products of settings
that are not negative, so it never falls when one setting rises.
"""

from limbeck.students.base import Encoder
from limbeck.students.image_cnn import ImageCnnConfig, halved, halvings, stages
from limbeck.students.image_rows import ImageCnnEncoder
from limbeck.students.text_bag import TextBagConfig
from limbeck.students.text_transformer import TextTransformerConfig

_FLOAT, _INT = 4, 8


def activation_bytes(
    settings: ImageCnnConfig | TextTransformerConfig | TextBagConfig,
    encoder: Encoder,
    outputs: int,
    length: int | None,
) -> int:
    """The most that is held at once for one row.

    Args:
        settings: Of the student.
        encoder: Gives the size of images.
        outputs: Of the head.
        length: Entries of the row, for texts.
    """
    if isinstance(settings, ImageCnnConfig):
        assert isinstance(encoder, ImageCnnEncoder)
        return _image_cnn(settings, encoder.config.size, encoder.config.channels, outputs)
    assert length is not None
    if isinstance(settings, TextTransformerConfig):
        return _text_transformer(settings, length, outputs)
    return _text_bag(settings, length, outputs)


def _image_cnn(config: ImageCnnConfig, size: int, channels: int, outputs: int) -> int:
    found = stages(config, size)
    before, side = halvings(size) - len(found), size
    held = [2 * _FLOAT * channels * size**2]  # pixels less their mean, over their deviation
    x = _FLOAT * channels * size**2
    for _ in range(max(1, before)):
        side = halved(side) if before else side
        out = _FLOAT * config.width * side**2
        held.append(x + 2 * out)  # a convolution and its norm
        x = out
    for width, inner, blocks, _ in found:
        side = halved(side)
        middle, out = _FLOAT * inner * side**2, _FLOAT * width * side**2
        held += [x + 2 * middle, x + middle + 2 * out, x + 3 * out]  # last: the input's convolution
        x = out
        if blocks > 1:
            held += [x + 2 * middle, x + middle + 2 * out, x + 2 * out]
    embedding = _FLOAT * found[-1].width
    held += [x + embedding, embedding + _FLOAT * outputs]
    return channels * size**2 + max(held)


def _text_transformer(config: TextTransformerConfig, length: int, outputs: int) -> int:
    row = _FLOAT * config.dim * length
    hidden = config.hidden_multiple * row
    # Queries, keys and values three times: as they come, laid out, and an empty place for them.
    block = max(10 * row, 3 * row + 2 * hidden)
    first = row if config.layers > 1 else 0  # what the first block has read
    ids, marks = _INT * length, (1 + 2 * _INT) * length
    pooled = row + 4 * _INT + _INT * length + _FLOAT * config.dim
    return ids + max(marks + first + block, marks + pooled, _FLOAT * (config.dim + outputs))


def _text_bag(config: TextBagConfig, length: int, outputs: int) -> int:
    ids, embedding = _INT * (length + 1), _FLOAT * config.hidden
    return ids + max(2 * _FLOAT * config.dim + _INT + 2 * embedding, embedding + _FLOAT * outputs)
