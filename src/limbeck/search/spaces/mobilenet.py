"""MobileNetV2, MobileNetV3-Small and -Large as published, each with the space around it.

Source: Sandler et al., "MobileNetV2", CVPR 2018, Table 2; Howard et al., "Searching for
MobileNetV3", ICCV 2019, Tables 1 and 2, with the sizes that the authors' code and torchvision give
what the tables leave open (squeeze-and-excitation inside a quarter of the expanded channels,
rounded to multiples of 8; a bias in the layers of the head).
"""

from limbeck.errors import ConfigError
from limbeck.search.spaces.mobile_blocks import Activation, Ends, divisible
from limbeck.search.spaces.mobile_space import Choice, MobileNet, Row


def mobilenet_v2(*, width: float = 1.0) -> MobileNet:
    """MobileNetV2.

    Args:
        width: Multiplier of all channels but those of the last convolution, which only grow; > 0.

    Raises:
        ConfigError: width is not > 0.
    """
    if not width > 0:
        raise ConfigError(f"width={width:g}: the multiplier of channels must be > 0.")
    table = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    rows = tuple(
        Row(Choice(3, float(t), divisible(c * width), n), s, "relu6") for t, c, n, s in table
    )
    last = divisible(1280 * max(1.0, width))
    ends = Ends(divisible(32 * width), last, 0, "relu6", (1e-5, 0.1))
    return MobileNet(ends, rows, repeated=True)


def mobilenet_v3_large() -> MobileNet:
    """MobileNetV3-Large."""
    rows = _v3_rows(
        (3, 16, 16, False, "relu", 1),
        (3, 64, 24, False, "relu", 2),
        (3, 72, 24, False, "relu", 1),
        (5, 72, 40, True, "relu", 2),
        (5, 120, 40, True, "relu", 1),
        (5, 120, 40, True, "relu", 1),
        (3, 240, 80, False, "hardswish", 2),
        (3, 200, 80, False, "hardswish", 1),
        (3, 184, 80, False, "hardswish", 1),
        (3, 184, 80, False, "hardswish", 1),
        (3, 480, 112, True, "hardswish", 1),
        (3, 672, 112, True, "hardswish", 1),
        (5, 672, 160, True, "hardswish", 2),
        (5, 960, 160, True, "hardswish", 1),
        (5, 960, 160, True, "hardswish", 1),
    )
    return MobileNet(_v3_ends(960, 1280), rows, repeated=False)


def mobilenet_v3_small() -> MobileNet:
    """MobileNetV3-Small."""
    rows = _v3_rows(
        (3, 16, 16, True, "relu", 2),
        (3, 72, 24, False, "relu", 2),
        (3, 88, 24, False, "relu", 1),
        (5, 96, 40, True, "hardswish", 2),
        (5, 240, 40, True, "hardswish", 1),
        (5, 240, 40, True, "hardswish", 1),
        (5, 120, 48, True, "hardswish", 1),
        (5, 144, 48, True, "hardswish", 1),
        (5, 288, 96, True, "hardswish", 2),
        (5, 576, 96, True, "hardswish", 1),
        (5, 576, 96, True, "hardswish", 1),
    )
    return MobileNet(_v3_ends(576, 1024), rows, repeated=False)


def _v3_rows(*table: tuple[int, int, int, bool, Activation, int]) -> tuple[Row, ...]:
    """Rows of kernel, expanded channels, channels, squeezed, activation, stride."""
    found, width = [], 16
    for kernel, inside, channels, squeezed, activation, stride in table:
        choice = Choice(kernel, inside / width, channels)
        found.append(Row(choice, stride, activation, squeezed))
        width = channels
    return tuple(found)


def _v3_ends(last: int, hidden: int) -> Ends:
    return Ends(16, last, hidden, "hardswish", (1e-3, 0.01))
