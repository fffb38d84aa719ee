"""Any `nn.Module` as a teacher: a factory that builds it, and its weights in safetensors."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from limbeck.errors import AnswerError, ConfigError, one_line
from limbeck.storage import sha256
from limbeck.students.foreign import build_network, find_logits
from limbeck.teachers.base import Head
from limbeck.teachers.head import weights_of
from limbeck.teachers.imports import full_name, source_of
from limbeck.teachers.local import LocalTeacher, Said, fingerprint_of

Rows = list[dict[str, object]]
_BATCH = 256


class ModuleTeacher(LocalTeacher):
    """A network as a teacher.

    Args:
        factory: Called without arguments; gives the module, or a tuple of the module and a
            function `encode`. Without that function the module must have a method `encode`.
            `encode` takes a list of n rows, each a dict of the teacher's columns, and gives the
            module's input: a tensor, a tuple of tensors, or a dict of named ones.
        weights: A `.safetensors` file that fits the module.
        classes: Class names, in the order of the module's outputs.
        columns: Columns that the module sees; a question is their content.
        device: Where it computes. Default: a GPU where there is one.

    The module gives logits of shape (n, C): as a tensor, as `.logits`, under "logits" in a dict or
    first in a tuple. The embedding is the input of the last `nn.Linear` that was called, when that
    is a matrix. The fingerprint is made of the weights, the factory's name and source file, the
    classes and the columns.

    Raises:
        ConfigError: the factory raises or gives no module, or the weights cannot be loaded into it.
    """

    def __init__(
        self,
        factory: Callable[[], object],
        weights: Path,
        classes: Sequence[str],
        columns: Sequence[str],
        *,
        device: str | None = None,
    ) -> None:
        self.name = f"teacher {full_name(factory)}"
        self.classes, self.columns = tuple(classes), tuple(columns)
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._module, self._encode = build_network(
            factory, f"{self.name}: the factory", called="without arguments"
        )
        _load(self._module, weights, self.name)
        self._module.to(self._device).eval()
        self._embedding: Tensor | None = None
        self._last: nn.Linear | None = None
        for layer in self._module.modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_pre_hook(self._keep)
        self.fingerprint = fingerprint_of(
            "module",
            sha256(weights),
            full_name(factory),
            source_of(factory) or "",
            *self.classes,
            "|",
            *self.columns,
        )

    def say(self, rows: pa.RecordBatch) -> Said:
        """Run the module over rows, without gradients."""
        probs, embeddings = [torch.zeros(0, len(self.classes))], []
        for start in range(0, rows.num_rows, _BATCH):
            part = rows.select(list(self.columns)).slice(start, _BATCH).to_pylist()
            logits, embedding = self._run(part)
            probs.append(torch.softmax(logits.float(), dim=-1).cpu())
            embeddings.append(embedding)
        known = [embedding.float().cpu() for embedding in embeddings if embedding is not None]
        complete = bool(known) and len(known) == len(embeddings)
        return Said(torch.cat(probs), torch.cat(known) if complete else None)

    def head(self, rows: pa.RecordBatch) -> Head | None:
        """The last linear layer that is called on rows, where its output is the logits."""
        part = rows.select(list(self.columns)).slice(0, _BATCH).to_pylist()
        if not part:
            return None
        logits, embedding = self._run(part)
        layer = self._last
        if embedding is None or layer is None:
            return None
        with torch.inference_mode():
            made = layer(embedding)
        same = made.shape == logits.shape and torch.allclose(made, logits, atol=1e-4, rtol=1e-4)
        return weights_of(layer) if same else None

    def _run(self, rows: Rows) -> tuple[Tensor, Tensor | None]:
        self._embedding = None
        with torch.inference_mode():
            inputs = _to_device(self._encode(rows), self._device)
            if isinstance(inputs, Mapping):
                out = self._module(**inputs)
            elif isinstance(inputs, tuple):
                out = self._module(*inputs)
            else:
                out = self._module(inputs)
        logits = _logits(out, self.name)
        if logits.ndim != 2 or logits.shape != (len(rows), len(self.classes)):
            raise AnswerError(
                f"{self.name} gave logits of shape {tuple(logits.shape)} for {len(rows)} rows and "
                f"{len(self.classes)} classes {list(self.classes)}; give one logit for each class."
            )
        embedding = self._embedding
        if embedding is not None and (embedding.ndim != 2 or len(embedding) != len(rows)):
            embedding = None
        return logits, embedding

    def _keep(self, layer: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        """Remember the input of a linear layer; the last one called is the head."""
        if inputs:
            self._embedding, self._last = inputs[0], layer


def _load(module: nn.Module, weights: Path, name: str) -> None:
    if weights.suffix != ".safetensors":
        raise ConfigError(
            f"{name}: weights {weights} are no .safetensors file, and pickled weights can run "
            f"code; convert them with safetensors.torch.save_file(model.state_dict(), path)."
        )
    try:
        # load_model also understands weights that are shared between layers.
        safetensors.torch.load_model(module, weights)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ConfigError(
            f"{name}: weights {weights} cannot be loaded into the factory's module "
            f"({one_line(error)}); give the file that was saved from this architecture."
        ) from error


def _to_device(inputs: object, device: torch.device) -> object:
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    if isinstance(inputs, Mapping):
        return {key: _to_device(value, device) for key, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(_to_device(value, device) for value in inputs)
    return inputs


def _logits(out: object, name: str) -> Tensor:
    logits = find_logits(out)
    if logits is None:
        raise AnswerError(
            f"{name} gave {type(out).__name__}, expected logits: a tensor, an object with .logits, "
            f"or a tuple that begins with them."
        )
    return logits
