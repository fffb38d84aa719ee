"""Random variations of minibatches of images, in plain torch: uint8 in, uint8 out.

Every function takes and gives uint8, shape (B, C, H, W), in any memory format. Those with a
generator draw for each image on its own; the others do exactly what they are told, so that they
can be checked. Pixels that come from beyond the border repeat it.

Source: Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search
Space", NeurIPS 2020, Section 3. From its text: N operations, each drawn uniformly, one magnitude
for all, on a scale of 0 to 10. The paper gives no ranges: what the full magnitude means is a
reconstruction, see `_MOST`. Departures: nine operations and doing nothing, of the paper's fourteen,
with cutout (DeVries and Taylor, 2017) among them; every magnitude has a random sign.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

OPERATIONS = (
    "nothing", "brightness", "contrast", "posterize", "cutout",
    "translate_x", "translate_y", "shear_x", "shear_y", "rotate",
)  # fmt: skip
"""What `rand_augment` draws from."""
_MOST = {
    # Ranges of the code that its authors published, where 1 is 10 on the paper's scale.
    "brightness": 0.9,  # factors 1 - 0.9 to 1 + 0.9
    "contrast": 0.9,
    "posterize": 4,  # bits that are dropped; the code keeps 4 at magnitude 1 and none at 0
    "translate_x": 0.45,  # share of the side: 100 of 224 pixels
    "translate_y": 0.45,
    "shear_x": 0.3,
    "shear_y": 0.3,
    "rotate": math.pi / 6,
    # Ours: the code's square is 80 of 224 pixels wide, which hides little of a small image.
    "cutout": 0.6,  # share of the side
}
"""What magnitude 1 means: a reconstruction, no number of it is in the paper's text."""
_FIRST_GEOMETRIC = OPERATIONS.index("translate_x")


def random_crop(images: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Move each image by at most `pad` pixels along each axis, all moves equally likely."""
    moves = torch.randint(-pad, pad + 1, (2, len(images)), generator=generator)
    return shift(images, moves[0], moves[1], pad)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2."""
    return flip(images, torch.rand(len(images), generator=generator) < 0.5)


def rand_augment(
    images: Tensor, generator: torch.Generator, *, operations: int = 2, magnitude: float = 0.3
) -> Tensor:
    """Apply some of `OPERATIONS`, drawn for each image with repeats, one after the other.

    Args:
        images: uint8, shape (B, C, H, W).
        generator: Draws operations and signs.
        operations: How many, >= 0, the paper's N, which it tunes. Default: ours.
        magnitude: How strongly, in [0, 1]: the paper's M, which it tunes too, over 10. Default:
            ours, mild, because small images lose their class sooner.
    """
    for _ in range(operations):
        chosen = torch.randint(len(OPERATIONS), (len(images),), generator=generator)
        # Drawn for all images, needed or not: what one image draws never hangs on another's.
        sign = torch.randint(2, (len(images),), generator=generator) * 2.0 - 1.0
        place = torch.rand(2, len(images), generator=generator)
        images = apply(images, chosen, sign * magnitude, place)
    return images


def apply(images: Tensor, chosen: Tensor, strength: Tensor, place: Tensor) -> Tensor:
    """Apply one operation to each image.

    Args:
        images: uint8, shape (B, C, H, W).
        chosen: Position in `OPERATIONS`, int64, shape (B,).
        strength: float32, shape (B,), in [-1, 1].
        place: Centre of a cutout as shares of height and width, float32, shape (2, B), in [0, 1).
    """
    images = images.clone()
    for number, name in enumerate(OPERATIONS[1:_FIRST_GEOMETRIC], start=1):
        rows = (chosen == number).nonzero().squeeze(1)
        if len(rows):
            images[rows] = _plain(name, images[rows], strength[rows] * _MOST[name], place[:, rows])
    rows = (chosen >= _FIRST_GEOMETRIC).nonzero().squeeze(1)
    if len(rows):
        images[rows] = affine(images[rows], _matrices(chosen[rows], strength[rows]))
    return images


def _plain(name: str, images: Tensor, amount: Tensor, place: Tensor) -> Tensor:
    if name == "brightness":
        return brightness(images, 1 + amount)
    if name == "contrast":
        return contrast(images, 1 + amount)
    if name == "posterize":
        return posterize(images, 8 - amount.abs().round().to(torch.int64))
    return cutout(images, place, amount.abs())


def _matrices(chosen: Tensor, strength: Tensor) -> Tensor:
    """Where pixels come from: (x, y, 1) of the result to (x, y) of the image, both in [-1, 1]."""
    matrices = torch.eye(2, 3).repeat(len(chosen), 1, 1)
    amount = {
        name: torch.where(chosen == OPERATIONS.index(name), strength * _MOST[name], 0.0)
        for name in OPERATIONS[_FIRST_GEOMETRIC:]
    }
    turn = amount["rotate"]
    matrices[:, 0, 0] = matrices[:, 1, 1] = turn.cos()
    matrices[:, 0, 1] = amount["shear_x"] - turn.sin()
    matrices[:, 1, 0] = amount["shear_y"] + turn.sin()
    matrices[:, 0, 2] = 2 * amount["translate_x"]  # an image is 2 wide and 2 high
    matrices[:, 1, 2] = 2 * amount["translate_y"]
    return matrices


def shift(images: Tensor, down: Tensor, right: Tensor, most: int) -> Tensor:
    """Move each image: pixel (y, x) of the result is pixel (y - down, x - right) of the image.

    Args:
        images: uint8, shape (B, C, H, W).
        down, right: Pixels, int64, shape (B,), in [-most, most].
        most: >= 0.

    Cost: one copy of the padded images, and one of every row of pixels.
    """
    n, channels, height, width = images.shape
    if not n:
        return images
    padded = _repeat_border(images.permute(0, 2, 3, 1), most)
    tall, wide = height + 2 * most, width + 2 * most
    # A row of the result is one run of bytes: a gather of runs costs a tenth of one of pixels.
    starts = torch.arange(n).mul(tall).sub(down).add(most)[:, None] + torch.arange(height)
    starts = starts * wide + (most - right)[:, None]
    runs = padded.reshape(-1).unfold(0, width * channels, channels)
    moved = runs.index_select(0, starts.reshape(-1))
    return moved.view(n, height, width, channels).permute(0, 3, 1, 2)


def _repeat_border(pixels: Tensor, by: int) -> Tensor:
    """Pad (B, H, W, C) on all four sides."""
    n, height, width, channels = pixels.shape
    out = pixels.new_empty((n, height + 2 * by, width + 2 * by, channels))
    inner = out[:, by : by + height]
    inner[:, :, by : by + width] = pixels
    inner[:, :, :by] = pixels[:, :, :1]
    inner[:, :, by + width :] = pixels[:, :, -1:]
    out[:, :by] = inner[:, :1]
    out[:, by + height :] = inner[:, -1:]
    return out


def flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the images where `chosen` (bool, shape (B,)) is true, left to right."""
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply the pixels of each image by its factor, float32, shape (B,), >= 0."""
    return _to_pixels(images.float() * factor[:, None, None, None])


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Stretch the pixels of each image about its mean by its factor, float32, shape (B,), >= 0."""
    mean = images.float().mean(dim=(1, 2, 3), keepdim=True)
    return _to_pixels(mean + (images.float() - mean) * factor[:, None, None, None])


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the upper bits of each pixel, as many as `bits` says (int64, shape (B,), in [1, 8])."""
    mask = (256 - 2 ** (8 - bits)).to(torch.uint8)
    return images & mask[:, None, None, None]


def cutout(images: Tensor, centre: Tensor, side: Tensor) -> Tensor:
    """Paint a grey square over each image.

    Args:
        images: uint8, shape (B, C, H, W).
        centre: Shares of height and width, float32, shape (2, B), in [0, 1).
        side: Share of the shorter side, float32, shape (B,), >= 0; what sticks out is cut off.
    """
    height, width = images.shape[-2:]
    half = side * min(height, width) / 2
    inside = [
        (torch.arange(n)[None] + 0.5 - share[:, None] * n).abs() < half[:, None]
        for n, share in zip((height, width), centre, strict=True)
    ]
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(square, 128)


def affine(images: Tensor, matrices: Tensor) -> Tensor:
    """Sample each image bilinearly at places that a matrix gives.

    Args:
        images: uint8, shape (B, C, H, W).
        matrices: float32, shape (B, 2, 3): (x, y, 1) of a pixel of the result to (x, y) of the
            image, where the image's edges are at -1 and 1.
    """
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    sampled = F.grid_sample(
        images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return _to_pixels(sampled)


def _to_pixels(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
