"""Where a study is kept, and what a trial reports to it while it is trained."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from limbeck.distill.config import DistillConfig
from limbeck.distill.folder import RunFolder
from limbeck.distill.search.trials import Look
from limbeck.errors import ConfigError, LimbeckError, StorageError, missing_extra, one_line

try:
    import optuna
except ImportError as error:
    raise missing_extra("optuna", "search") from error


def open_study(
    config: DistillConfig, folder: RunFolder, name: str, sampler: "optuna.samplers.BaseSampler"
) -> "optuna.Study":
    """Open or begin a study in its storage.

    Raises:
        ConfigError: the storage cannot be used.
    """
    with _usable(config, folder):
        return optuna.create_study(
            study_name=name, storage=address(config, folder), sampler=sampler,
            pruner=_pruner(config), direction="maximize", load_if_exists=True,
        )  # fmt: skip


def check_storage(config: DistillConfig, folder: RunFolder) -> None:
    """Refuse a storage that cannot be used.

    Raises:
        ConfigError: it cannot.
    """
    if config.search.storage:
        with _usable(config, folder), quiet():
            optuna.get_all_study_names(config.search.storage)


@contextmanager
def _usable(config: DistillConfig, folder: RunFolder) -> Iterator[None]:
    folder.search.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except LimbeckError:
        raise
    except Exception as error:  # of whichever driver the storage has
        raise ConfigError(
            f"search.storage={address(config, folder)!r} cannot be used: {one_line(error)}; give "
            f"an address that Optuna can open, or none for a file in the run folder."
        ) from error


def address(config: DistillConfig, folder: RunFolder) -> str:
    """Where the study is kept."""
    return config.search.storage or f"sqlite:///{folder.search / 'study.sqlite'}"


def make_look(config: DistillConfig, folder: RunFolder, name: str, number: int) -> Look:
    """What a trial reports to while it is trained, in whichever process.

    Raises:
        StorageError: the study is not where it should be.
    """
    if config.search.stop == "never" or number < 0:
        return lambda reward, evaluation: False
    # A sampler that asks for nothing: opening a trial must not propose one.
    plain = optuna.samplers.RandomSampler(0)
    with quiet():
        study = open_study(config, folder, name, plain)
        found = study.get_trials(deepcopy=False)
        if number >= len(found):
            raise StorageError(
                f"trial {number} is not in the study at {address(config, folder)}; give "
                f"search.storage an address that every worker can reach."
            )
        trial = optuna.trial.Trial(study, found[number]._trial_id)

    def look(reward: float, evaluation: int) -> bool:
        with quiet():
            trial.report(reward, evaluation)
            return trial.should_prune()

    return look


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's own log to its warnings, and its remarks on what is experimental to itself."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _pruner(config: DistillConfig) -> "optuna.pruners.BasePruner":
    if config.search.stop == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    if config.search.stop == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    return optuna.pruners.NopPruner()
