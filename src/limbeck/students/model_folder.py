"""Local Hugging Face model folders: configuration, tokenizer and weights, and nothing fetched.

No code in a folder is run and no pickle is opened. Needs the extra `text`.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from limbeck.errors import ConfigError, missing_extra, one_line

_SAFE = {"local_files_only": True, "trust_remote_code": False}
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")


def require_transformers() -> None:
    """Refuse to go on without the extra `text`.

    Raises:
        MissingExtraError: with the install line.
    """
    if find_spec("transformers") is None:
        raise missing_extra("transformers", "text")


def check_folder(
    folder: Path, *, setting: str = "student.settings.path", word: str | None = None
) -> None:
    """Refuse a folder without a configuration, or without weights in safetensors.

    Args:
        folder: What `save_pretrained` wrote.
        setting: What names it, for messages.
        word: The setting by which a user may allow pickled weights; None: there is none.

    Raises:
        ConfigError: one of them is missing.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{setting}={str(folder)!r} is no folder with a config.json; give the folder that "
            f"save_pretrained wrote."
        )
    if not list(folder.glob("*.safetensors")):
        last_resort = f", or allow them with {word} = true" if word else ""
        raise ConfigError(
            f"{folder} has no weights in safetensors, and pickled ones can run code; load the "
            f"model where you trust it, and save it with save_pretrained(folder){last_resort}."
        )


def _check_tokenizer(folder: Path) -> None:
    """Without its files, transformers makes an empty tokenizer and says nothing."""
    if not any(list(folder.glob(name)) for name in _TOKENIZER_FILES):
        raise ConfigError(
            f"{folder} has no tokenizer that can be used (none of {', '.join(_TOKENIZER_FILES)}); "
            f"its files must lie beside the model."
        )


def read_architecture(folder: Path) -> dict[str, Any]:
    """The model's configuration as plain values.

    Raises:
        ConfigError: it cannot be read, or is of a model of two halves.
    """
    from transformers import AutoConfig

    try:
        with _quiet():
            config = AutoConfig.from_pretrained(str(folder), **_SAFE)
    except Exception as error:  # the package raises whatever it meets
        raise ConfigError(
            f"{folder / 'config.json'} cannot be used ({one_line(error)}); give a model that "
            f"transformers knows without code of its own."
        ) from error
    if getattr(config, "is_encoder_decoder", False):
        raise ConfigError(
            f"the model in {folder} is an encoder and a decoder ({config.model_type}); give one "
            f"that is only one of them, such as a BERT."
        )
    found: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    found.pop("_name_or_path", None)
    return found


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, one that the tokenizers package runs.

    Raises:
        ConfigError: there is none that can be used.
    """
    from transformers import AutoTokenizer

    _check_tokenizer(folder)
    try:
        with _quiet():
            found = AutoTokenizer.from_pretrained(str(folder), use_fast=True, **_SAFE)
            found.backend_tokenizer.to_str()
    except Exception as error:  # the package raises whatever it meets
        raise ConfigError(
            f"{folder} has no tokenizer that can be used ({one_line(error)}); its files must lie "
            f"beside the model, a tokenizer.json among them."
        ) from error
    return found


def load_image_processor(folder: Path) -> Any:
    """What turns images into the model's input.

    Raises:
        ConfigError: there is none that can be used.
    """
    from transformers import AutoImageProcessor

    try:
        with _quiet():
            return AutoImageProcessor.from_pretrained(str(folder), **_SAFE)  # type: ignore[no-untyped-call] # theirs
    except Exception as error:  # the package raises whatever it meets
        raise ConfigError(
            f"{folder} has no image processor that can be used ({one_line(error)}); a "
            f"preprocessor_config.json must lie beside the model."
        ) from error


def read_classifier(folder: Path, *, images: bool) -> Any:
    """A whole classifier in float32, head included.

    Args:
        folder: What `save_pretrained` wrote; where there are no safetensors, pickled weights are
            opened, as tensors only.
        images: Whether it looks at images, else at text.

    Raises:
        ConfigError: it cannot be loaded, or there is no trained head among its weights.
    """
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

    kind = AutoModelForImageClassification if images else AutoModelForSequenceClassification
    try:
        with _quiet():
            model, info = kind.from_pretrained(
                str(folder),
                use_safetensors=bool(list(folder.glob("*.safetensors"))),
                output_loading_info=True,
                dtype="float32",
                **_SAFE,
            )
    except Exception as error:  # the package raises whatever it meets
        raise ConfigError(
            f"the model in {folder} cannot be used as a classifier of "
            f"{'images' if images else 'text'} ({one_line(error)}); give one that transformers "
            f"knows as such, as save_pretrained wrote it."
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise ConfigError(
            f"the weights in {folder} lack {', '.join(missing[:3])}, so the model would answer by "
            f"chance; give one that was fine-tuned for your classes."
        )
    return model.float().eval()


def read_tokenizer_of(folder: Path, max_tokens: int) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer, told how long a row may be, and the marks that rows are made up with.

    Raises:
        ConfigError: there is none that can be used.
    """
    found = load_tokenizer(folder)
    tokenizer = Tokenizer.from_str(found.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    padding = found.pad_token_id or 0
    empty = next(
        (i for i in (found.eos_token_id, found.bos_token_id, found.unk_token_id) if i is not None),
        padding,
    )
    between = f" {found.sep_token} " if found.sep_token else "\n"
    return tokenizer, {"padding": padding, "empty": empty, "between": between}


def read_model(architecture: Mapping[str, Any], weights: Path | None) -> Any:
    """The base model in float32: pretrained from a folder, or of that architecture, drawn anew.

    Draws from the global generators, as the package does.

    Raises:
        ConfigError: the weights do not fit.
    """
    from transformers import AutoConfig, AutoModel

    if weights is None:
        settings = dict(architecture)
        with _quiet():
            config = AutoConfig.for_model(settings.pop("model_type"), **settings)
            model = AutoModel.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call] # theirs
    else:
        try:
            with _quiet():
                model = AutoModel.from_pretrained(str(weights), use_safetensors=True, **_SAFE)
        except Exception as error:  # the package raises whatever it meets
            raise ConfigError(
                f"the weights in {weights} cannot be used ({one_line(error)}); save the model "
                f"again with save_pretrained."
            ) from error
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # a layer over the first state that nothing here reads
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    return model.float()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the package's progress bars and advice away from the user."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call] # theirs
    logging.disable_progress_bar()  # type: ignore[no-untyped-call] # theirs
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call] # theirs
