import math
import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from limbeck.errors import ConfigError
from limbeck.students import ImageCnnConfig, ImageCnnEncoder, student_space
from limbeck.students.image_cnn import convolve
from limbeck.students.supernet import ImageCnnSupernet, measure_statistics

OPTIONS = {
    "width": (4, 6, 8),
    "expansion": (0.5, 1.0, 2.0),
    "kernel": (3, 5),
    "blocks": (1, 2),
    "last_width": (6, 10),
    "last_kernel": (3, 5),
    "last_blocks": (1, 3),
}


def space_of(size=16, channels=1):
    base = ImageCnnConfig(
        size=size, channels=channels, width=4, last_width=6, last_blocks=1, dropout=0.0
    )
    encoder = ImageCnnEncoder("photo", base, (0.5,) * channels, (2.0,) * channels)
    alone = ("kernel", "blocks") if size <= 8 else ()  # such small images have one stage
    options = {name: values for name, values in OPTIONS.items() if name not in alone}
    return student_space("image_cnn", encoder, base, 3, options=options)


def supernet_of(students):
    return ImageCnnSupernet(students, 3, torch.Generator().manual_seed(0))


def some(students, count, seed=0):
    rng = random.Random(seed)
    return [tuple(rng.randrange(k) for k in students.space.sizes) for _ in range(count)]


def images(n=12, size=16, channels=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {"images": 8 * torch.rand(n, channels, size, size, generator=generator)}


@pytest.mark.parametrize(("size", "channels"), [(16, 1), (32, 3), (8, 1)])
def test_a_path_is_the_network_that_is_cut_out_with_the_statistics_of_the_batch(size, channels):
    students = space_of(size, channels)
    supernet = supernet_of(students).eval()
    inputs = images(12, size, channels)
    for architecture in some(students, 6):
        alone = supernet.cut_out(architecture, 3)
        for norm in (one for one in alone.modules() if isinstance(one, nn.BatchNorm2d)):
            norm.train()
        path, own = supernet.path(inputs, architecture), alone(inputs)
        torch.testing.assert_close(path.outputs, own.outputs)
        width = own.embedding.shape[1]
        torch.testing.assert_close(path.embedding[:, :width], own.embedding)
        assert (path.embedding[:, width:] == 0).all()
        assert alone.settings == students.settings(architecture)


def test_the_largest_architecture_is_the_whole_network():
    students = space_of()
    supernet = supernet_of(students)
    whole = students.build(supernet.largest, torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        dict(supernet.cut_out(supernet.largest, 3).named_parameters()),
        dict(whole.named_parameters()),
    )


def test_what_is_cut_out_is_a_copy():
    students = space_of()
    supernet = supernet_of(students)
    alone = supernet.cut_out(students.space.default, 3)
    before = [p.clone() for p in supernet.parameters()]
    with torch.no_grad():
        for p in alone.parameters():
            p.zero_()
    assert all(torch.equal(a, b) for a, b in zip(before, supernet.parameters(), strict=True))


def test_measured_statistics_are_those_of_the_rows_that_were_shown():
    students = space_of()
    alone = supernet_of(students).cut_out(students.space.default, 3)
    inputs = images(40)
    measure_statistics(alone, [inputs])
    first = alone.stem[0]
    x = (inputs["images"] - alone.mean) / alone.std
    maps = first.conv(x)
    torch.testing.assert_close(first.norm.running_mean, maps.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(first.norm.running_var, maps.var(dim=(0, 2, 3)))
    assert not any(one.training for one in alone.modules())
    assert first.norm.momentum == 0.1


def test_batches_count_alike():
    students = space_of()
    alone = supernet_of(students).cut_out(students.space.default, 3)
    a, b = images(20, seed=1), images(20, seed=2)
    measure_statistics(alone, [a, b])
    norm, found = alone.stem[0].norm, alone.stem[0].norm.running_mean.clone()
    means = []
    for part in (a, b):
        measure_statistics(alone, [part])
        means.append(norm.running_mean.clone())
    torch.testing.assert_close(found, (means[0] + means[1]) / 2)


def test_a_step_trains_only_what_its_architecture_uses():
    students = space_of()
    supernet = supernet_of(students).train()
    smallest = tuple(layer.options.index(min(layer.options)) for layer in students.space.layers)
    supernet.path(images(), smallest).outputs.square().sum().backward()
    grad = supernet.whole.stem[0].conv.weight.grad
    assert (grad[:4] != 0).any()
    assert (grad[4:] == 0).all()
    kernel = supernet.whole.body[0].first.conv.weight.grad
    assert (kernel[..., 1:4, 1:4] != 0).any()
    assert math.isclose(float(kernel.abs().sum()), float(kernel[..., 1:4, 1:4].abs().sum()))


def test_architectures_are_drawn_alike_and_from_the_global_generator():
    students = space_of()
    supernet = supernet_of(students)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [supernet.draw() for _ in range(3000)]
        torch.manual_seed(0)
        assert drawn[:5] == [supernet.draw() for _ in range(5)]
    for layer, k in enumerate(students.space.sizes):
        for option in range(k):
            share = sum(one[layer] == option for one in drawn) / len(drawn)
            assert abs(share - 1 / k) < 4 * math.sqrt((1 / k) * (1 - 1 / k) / len(drawn))


def test_training_draws_and_evaluation_does_not():
    supernet = supernet_of(space_of())
    inputs = images()
    supernet.eval()
    torch.testing.assert_close(
        supernet(inputs).outputs, supernet.path(inputs, supernet.largest).outputs
    )
    supernet.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        outs = {float(supernet(inputs).outputs.detach().sum()) for _ in range(8)}
    assert len(outs) > 1


def test_a_wider_head_goes_with_what_is_cut_out():
    students = space_of()
    supernet = supernet_of(students).eval()
    supernet.replace_head(9, torch.Generator().manual_seed(3))
    alone = supernet.cut_out(students.space.default, 9)
    width = alone.head.weight.shape[1]
    torch.testing.assert_close(alone.head.weight, supernet.head.weight[:, :width])


def test_other_kinds_have_no_supernet():
    students = replace(space_of(), base=object())
    with pytest.raises(ConfigError, match="one-shot search knows image_cnn"):
        supernet_of(students)


@pytest.mark.parametrize("channels", [1, 2, 4, 7, 8, 16])
def test_a_stride_that_is_taken_first_is_the_same_convolution(channels):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, channels, 9, 9, generator=generator, dtype=torch.float64)
    for side in (1, 3):
        weight = torch.randn(6, channels, side, side, generator=generator, dtype=torch.float64)
        plain = nn.functional.conv2d(x, weight, stride=2, padding=side // 2)
        torch.testing.assert_close(convolve(x, weight, 2), plain)


@pytest.mark.slow
def test_networks_of_few_channels_train():
    students = space_of()
    for step, architecture in enumerate(some(students, 20)):
        module = students.build(architecture, torch.Generator().manual_seed(step)).train()
        maps = images(16)["images"].contiguous(memory_format=torch.channels_last)
        module({"images": maps}).outputs.square().sum().backward()
