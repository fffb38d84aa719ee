"""Settings of the purchase: which pool rows are asked about, and in how many rounds."""

from dataclasses import dataclass
from typing import Literal

from limbeck.errors import ConfigError


@dataclass(frozen=True, slots=True)
class BuyConfig:
    """Which pool rows are worth an answer. By default they are drawn uniformly, all at once."""

    rule: str = "uniform"
    """How rows are chosen, such as rad, adaprod, greedy, badge, or your own as
    `package.module:Class`."""
    rounds: int = 1
    """Purchases. Before each of them a student is trained on what is there, and the rule looks at
    what it says of the pool."""
    per_round: int = 0
    """Pool rows of a round. Default 0: what the budget leaves for the pool, divided evenly."""
    audit_share: float = 0.1
    """Share of each batch that is drawn uniformly whatever the rule says, in [0, 1], so that every
    row can be chosen and the pool can be estimated."""
    measure: str = "margin"
    """What is informative: a measure of `limbeck.select.gains`, or your own function as
    `package.module:function`."""
    arm: str = "soft_kd"
    """How the student that chooses is trained: an arm of the objectives."""
    steps: int = 0
    """Its gradient steps. Default 0: `train.epochs` over the rows bought so far, at least 300."""
    candidates: int = 0
    """Pool rows, drawn uniformly, among which the rule chooses. Default 0: all."""
    beside: Literal["", "uniform"] = ""
    """Buy as many rows at random beside those of the rule, out of the same budget, and draw their
    learning curve in the report; the arms do not learn from them."""
    stop: bool = True
    """Stop buying when the teacher is worse than the student on validation, or `patience` rounds
    have brought no better student."""
    patience: int = 3
    """Rounds without a better student after which nothing more is bought."""
    min_gain: float = 0.002
    """Validation accuracy by which a student must be better to count, in [0, 1]."""

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("per_round", 0), ("steps", 0), ("candidates", 0),
                            ("patience", 1)):  # fmt: skip
            value = getattr(self, name)
            if value < least:
                raise ConfigError(f"buy.{name}={value}: must be at least {least}.")
        for name in ("audit_share", "min_gain"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"buy.{name}={value}: must be in [0, 1].")
        if self.audit_share == 1 and self.rule != "uniform":
            raise ConfigError(
                f"buy.audit_share=1 leaves nothing for the rule {self.rule!r}; give 0.1, or set "
                f"buy.rule = 'uniform'."
            )
        if self.beside == self.rule:
            raise ConfigError(
                "buy.beside='uniform' would buy the rule 'uniform' twice; leave one of them out."
            )
        if not self.in_rounds and (self.per_round or self.candidates or self.beside):
            raise ConfigError(
                "buy.per_round, buy.candidates and buy.beside are for purchases in rounds; set "
                "buy.rounds above 1 or choose a buy.rule."
            )

    @property
    def in_rounds(self) -> bool:
        """Whether a student chooses, or rows are bought in several purchases."""
        return self.rounds > 1 or self.rule != "uniform"
