"""Oracles: one image and one pixel at a time, in plain Python, straight from the definitions."""

import math

import numpy as np
import pytest
import torch

from limbeck.students import augment

SHAPES = [(3, 9, 12), (1, 8, 8)]


def images_of(shape, n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, *shape), dtype=torch.uint8, generator=generator)
    return images.contiguous(memory_format=torch.channels_last)


def clamp(value, most):
    return min(max(value, 0), most - 1)


def sampled(image, x, y):
    """Bilinear, the border repeated; x and y count pixels, the first centre is at 0."""
    channels, height, width = image.shape
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    left, top = math.floor(x), math.floor(y)
    total = np.zeros(channels)
    for row, tall in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, wide in ((left, 1 - (x - left)), (left + 1, x - left)):
            total += tall * wide * image[:, clamp(row, height), clamp(column, width)]
    return total


def moved(image, matrix):
    channels, height, width = image.shape
    out = np.zeros((channels, height, width))
    for row in range(height):
        for column in range(width):
            at = np.array([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1, 1.0])
            x, y = matrix @ at
            out[:, row, column] = sampled(
                image, ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2
            )
    return out


def slow(name, image, strength, place):
    """What an operation does to one image, float64."""
    image = image.astype(np.float64)
    _, height, width = image.shape
    sine, cosine = math.sin(strength * math.pi / 6), math.cos(strength * math.pi / 6)
    matrices = {
        "translate_x": [[1, 0, 2 * 0.45 * strength], [0, 1, 0]],
        "translate_y": [[1, 0, 0], [0, 1, 2 * 0.45 * strength]],
        "shear_x": [[1, 0.3 * strength, 0], [0, 1, 0]],
        "shear_y": [[1, 0, 0], [0.3 * strength, 1, 0]],
        "rotate": [[cosine, -sine, 0], [sine, cosine, 0]],
    }
    if name in matrices:
        return moved(image, np.array(matrices[name], dtype=np.float64))
    if name == "brightness":
        return np.clip(image * (1 + 0.9 * strength), 0, 255)
    if name == "contrast":
        return np.clip(image.mean() + (image - image.mean()) * (1 + 0.9 * strength), 0, 255)
    if name == "posterize":
        step = 2 ** round(4 * abs(strength))
        return image // step * step
    if name == "cutout":
        half = 0.6 * abs(strength) * min(height, width) / 2
        for row in range(height):
            for column in range(width):
                down, right = row + 0.5 - place[0] * height, column + 0.5 - place[1] * width
                if max(abs(down), abs(right)) < half:
                    image[:, row, column] = 128
    return image


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", augment.OPERATIONS)
def test_each_operation_is_what_it_does_to_one_image(name, shape):
    images = images_of(shape)
    strength = torch.tensor([-1.0, -0.6, -0.1, 0.0, 0.35, 1.0])
    place = torch.rand(2, 6, generator=torch.Generator().manual_seed(1))
    chosen = torch.full((6,), augment.OPERATIONS.index(name))
    got = augment.apply(images, chosen, strength, place)
    assert got.dtype == torch.uint8
    changed = 0
    for i in range(6):
        expected = slow(name, images[i].numpy(), float(strength[i]), place[:, i].tolist())
        # Half a level of rounding, and a hair of float32.
        np.testing.assert_allclose(got[i].numpy(), expected, atol=0.51)
        changed += not torch.equal(got[i], images[i])
    assert changed >= 4 or name == "nothing"


def test_a_mixed_batch_is_each_image_on_its_own():
    n = len(augment.OPERATIONS)
    images = images_of((3, 9, 12), n)
    chosen = torch.arange(n).flip(0)
    strength, place = torch.linspace(-1, 1, n), torch.rand(2, n)
    together = augment.apply(images, chosen, strength, place)
    for i in range(n):
        one = slice(i, i + 1)
        alone = augment.apply(images[one], chosen[one], strength[one], place[:, one])
        assert torch.equal(together[one], alone)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shift_repeats_the_border(shape):
    images = images_of(shape, 25)
    down, right = (t.flatten() for t in torch.meshgrid(*[torch.arange(-2, 3)] * 2, indexing="ij"))
    got = augment.shift(images, down, right, 2)
    _, height, width = shape
    for i in range(25):
        for row in range(height):
            for column in range(width):
                y, x = clamp(row - int(down[i]), height), clamp(column - int(right[i]), width)
                assert torch.equal(got[i, :, row, column], images[i, :, y, x])


def test_a_crop_makes_all_moves_equally_often_and_zero_pad_makes_none():
    images = torch.zeros(9_000, 1, 3, 3, dtype=torch.uint8)
    images[:, :, 1, 1] = 255
    got = augment.random_crop(images, 1, torch.Generator().manual_seed(0))
    # A lone pixel stays whole under moves of one: each of nine places has a ninth.
    share = (got == 255).float().mean(dim=(0, 1))
    assert (share - 1 / 9).abs().max() < 0.015
    still = augment.random_crop(images_of((3, 8, 8)), 0, torch.Generator())
    assert torch.equal(still, images_of((3, 8, 8)))


def test_a_flip_mirrors_about_half_and_twice_is_nothing():
    images = images_of((3, 9, 12), 2_000)
    got = augment.random_flip(images, torch.Generator().manual_seed(0))
    mirrored = torch.tensor([torch.equal(a, b.flip(-1)) for a, b in zip(got, images, strict=True)])
    kept = torch.tensor([torch.equal(a, b) for a, b in zip(got, images, strict=True)])
    assert (mirrored ^ kept).all()
    assert abs(float(mirrored.float().mean()) - 0.5) < 0.04
    assert torch.equal(augment.flip(got, mirrored), images)


def test_rand_augment_draws_all_operations_and_nothing_at_magnitude_zero():
    images = images_of((3, 16, 16), 400)
    still = augment.rand_augment(images, torch.Generator(), magnitude=0.0)
    assert (still.int() - images.int()).abs().max() <= 1  # float32 of the affine sampling
    one = augment.rand_augment(images, torch.Generator(), operations=1, magnitude=1.0)
    same = float(
        torch.tensor([torch.equal(a, b) for a, b in zip(one, images, strict=True)]).float().mean()
    )
    assert abs(same - 1 / len(augment.OPERATIONS)) < 0.06


@pytest.mark.parametrize(
    "vary",
    [
        lambda x, g: augment.random_crop(x, 2, g),
        augment.random_flip,
        augment.rand_augment,
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_seed_gives_the_same_images_in_any_layout_and_inputs_stay(vary, layout):
    images = images_of((3, 9, 12), 30).contiguous(memory_format=layout)
    before = images.clone()
    first, again, other = (vary(images, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(images, before)
    assert first.shape == images.shape
    assert torch.equal(vary(before.contiguous(), torch.Generator().manual_seed(1)), first)
    assert len(vary(images[:0], torch.Generator())) == 0
