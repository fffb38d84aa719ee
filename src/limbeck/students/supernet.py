"""One network that holds the weights of every `image_cnn` of a space: one-shot search.

An architecture uses the first channels of each convolution, the middle of a larger kernel and the
first blocks of a stage. In training every step draws an architecture, all alike; afterwards a
network is cut out, its batch normalisation is measured anew on some rows, and it is scored without
any training of its own.

Source: a design of ours after Guo et al., "Single Path One-Shot Neural Architecture Search with
Uniform Sampling" (ECCV 2020, Sections 3.2 to 3.4: one path a step, drawn uniformly, and batch
normalisation measured again) and Cai et al., "Once-for-All" (ICLR 2020, Section 3.3: parts of
larger kernels, widths and depths). Not part of the source of LayerNAS; a reconstruction.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import ConfigError
from limbeck.objectives.base import StudentOut
from limbeck.search.space import Architecture
from limbeck.students.base import StudentModule
from limbeck.students.image_cnn import (
    Convolution,
    ImageCnnConfig,
    ImageCnnModule,
    Residual,
    convolve,
    squares,
    stages,
)
from limbeck.students.search_spaces import StudentSpace


class ImageCnnSupernet(StudentModule):
    """Weights that all architectures of a space share.

    In training mode a forward pass draws an architecture from the global generator, as dropout
    draws its mask; in evaluation mode it takes the largest one. Batch normalisation always goes by
    the batch: running statistics of one architecture say nothing of another.

    Args:
        students: A space of `image_cnn`.
        outputs: Of the head.
        generator: Draws the weights.

    Raises:
        ConfigError: the space is of another kind of student.
    """

    def __init__(self, students: StudentSpace, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        if not isinstance(students.base, ImageCnnConfig):
            raise ConfigError(
                f"a supernet of {students.kind} does not exist; one-shot search knows image_cnn."
            )
        self.students = students
        self.largest = _largest(students)
        """Positions of the greatest option of every layer."""
        self.whole = _build(students, self.largest, outputs, generator)
        self.settings = self.whole.settings
        self.embedding_dim = self.whole.embedding_dim
        self.head = self.whole.head
        del self.whole.head

    def draw(self) -> Architecture:
        """An architecture of the space, all alike, from the global generator."""
        space = self.students.space
        while True:
            drawn = tuple(int(torch.randint(k, ())) for k in space.sizes)
            if space.valid(drawn):
                return drawn

    def forward(self, inputs: dict[str, Tensor]) -> StudentOut:
        """Outputs of one architecture; its embedding is filled up with zeros, shape (B, D)."""
        return self.path(inputs, self.draw() if self.training else self.largest)

    def path(self, inputs: dict[str, Tensor], architecture: Sequence[int]) -> StudentOut:
        """What an architecture makes of rows, with the statistics of the batch.

        Args:
            inputs: As for `ImageCnnModule`.
            architecture: Positions of options.
        """
        embedding = self.whole.dropout(self._features(inputs["images"], architecture))
        width = embedding.shape[1]
        outputs = F.linear(embedding, self.head.weight[:, :width], self.head.bias)
        return StudentOut(outputs, F.pad(embedding, (0, self.embedding_dim - width)))

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """Input of the head of the largest architecture, shape (B, D)."""
        return self.path(inputs, self.largest).embedding

    def embed_padded(self, padded: Tensor) -> Tensor:
        """The same from rows of pixels, channels last."""
        return self.embed({"images": squares(padded, self.whole.encoded)})

    def cut_out(self, architecture: Sequence[int], outputs: int) -> ImageCnnModule:
        """A network of its own with a copy of the weights; measure its statistics before use.

        Args:
            architecture: Positions of options.
            outputs: Of the head.
        """
        made = _build(self.students, architecture, outputs, torch.Generator())
        weights = self._named(architecture)
        with torch.no_grad():
            for name, target in made.state_dict().items():
                if name.endswith("num_batches_tracked"):
                    continue
                target.copy_(_part(weights[name], target.shape))
        return made

    def _named(self, architecture: Sequence[int]) -> dict[str, Tensor]:
        """Weights by the names that they have in the network of an architecture."""
        config, size = self.students.settings(architecture), self.whole.encoded.size
        assert isinstance(config, ImageCnnConfig)
        places: list[int] = []
        start = 0
        for found, most in zip(stages(config, size), self._stages, strict=True):
            places += range(start, start + found.blocks)
            start += most
        weights = self.whole.state_dict()
        named = {name: t for name, t in weights.items() if not name.startswith(("body.", "head."))}
        named |= {f"head.{name}": t for name, t in self.head.state_dict().items()}
        for block, place in enumerate(places):
            start_of = f"body.{place}."
            named |= {
                f"body.{block}." + name.removeprefix(start_of): t
                for name, t in weights.items()
                if name.startswith(start_of)
            }
        return named

    def _features(self, images: Tensor, architecture: Sequence[int]) -> Tensor:
        """Means of the last maps, shape (B, width of the last stage)."""
        config = self.students.settings(architecture)
        assert isinstance(config, ImageCnnConfig)
        whole, width = self.whole, config.width
        x = (images.to(whole.mean.dtype) - whole.mean) / whole.std
        for convolution in whole.stem:
            x = F.relu(_convolve(convolution, x, width, 3))
        start, size = 0, whole.encoded.size
        for found, most in zip(stages(config, size), self._stages, strict=True):
            for block in list(whole.body)[start : start + found.blocks]:
                assert isinstance(block, Residual)
                inner = F.relu(_convolve(block.first, x, found.inner, found.kernel))
                added = x
                if isinstance(block.skip, Convolution):
                    added = _convolve(block.skip, x, found.width, 1)
                x = F.relu(_convolve(block.second, inner, found.width, found.kernel) + added)
            start += most
        return x.mean(dim=(2, 3))

    @property
    def _stages(self) -> tuple[int, ...]:
        """Blocks of each stage of the largest architecture."""
        assert isinstance(self.whole.settings, ImageCnnConfig)
        return tuple(one.blocks for one in stages(self.whole.settings, self.whole.encoded.size))


@torch.no_grad()
def measure_statistics(module: nn.Module, batches: Iterable[dict[str, Tensor]]) -> None:
    """Measure the means and variances of batch normalisation anew; weights stay.

    Args:
        module: Changed in place; in evaluation mode afterwards.
        batches: Inputs of some hundred to two thousand rows, without augmentation; each counts
            alike.
    """
    norms = [one for one in module.modules() if isinstance(one, nn.BatchNorm2d)]
    module.eval()
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
        norm.train()
    for inputs in batches:
        module(inputs)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.eval()


def _convolve(part: nn.Module, x: Tensor, outputs: int, kernel: int) -> Tensor:
    """A convolution with some of its weights, and normalisation by the batch."""
    assert isinstance(part, Convolution)
    weight = part.conv.weight
    # Contiguous: oneDNN does not take every stride that a part may have.
    weight = _part(weight, torch.Size((outputs, x.shape[1], kernel, kernel))).contiguous()
    out = convolve(x, weight, part.conv.stride[0])
    norm = part.norm
    return F.batch_norm(
        out, None, None, norm.weight[:outputs], norm.bias[:outputs], training=True, eps=norm.eps
    )


def _part(whole: Tensor, shape: torch.Size) -> Tensor:
    """The first of everything, and the middle of kernels."""
    part = whole
    for axis, length in enumerate(shape):
        start = (part.shape[axis] - length) // 2 if axis >= 2 else 0  # of a kernel
        part = part.narrow(axis, start, length)
    return part


def _largest(students: StudentSpace) -> Architecture:
    """Positions of the greatest option of every layer."""
    values = [[float(option) for option in layer.options] for layer in students.space.layers]
    return tuple(options.index(max(options)) for options in values)


def _build(
    students: StudentSpace, architecture: Sequence[int], outputs: int, generator: torch.Generator
) -> ImageCnnModule:
    encoder, settings = students.encoder_of(architecture), students.settings(architecture)
    assert isinstance(settings, ImageCnnConfig)
    return ImageCnnModule(encoder, settings, outputs, generator)  # type: ignore[arg-type] # of its kind
