"""Settings of hyper-parameter tuning in a sweep."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

Track = Literal["validation", "oracle"]
Objective = Literal["retain", "forget", "seconds", "balance"]
SamplerName = Literal["tpe", "nsgaii", "gp", "random"]

DEFAULT: tuple[Objective, ...] = ("retain", "forget", "seconds")


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class TuneSettings(BaseModel):
    """What a sweep file may say under `tune`.

    Attributes:
        trials: Trials of every method; those that fail or are pruned count.
        development_models: Originals, trained for tuning alone, on which each trial is run.
        track: `validation` looks at training and validation images only; `oracle` compares with
            models that were retrained from the development originals, which nobody has who needs
            unlearning.
        objectives: What is made best: `retain`, `forget`, `seconds`, or `balance`, the product of
            the first two; see `objectives`. Several give a front, one a winner.
        sampler: Optuna's: `tpe`, `nsgaii`, `gp` (one worker's time goes into each trial) or
            `random`.
        prune: Stop trials that lag behind at an unlearning epoch; with one objective only.
        tolerance: Share of the original's validation accuracy on what is to be kept that a winner
            may lose.
        time_limit_s: Seconds that a trial may take.
        seed: Draws the trials and starts the development originals.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trials: Annotated[int, Field(ge=1)] = 30
    development_models: Annotated[int, Field(ge=1)] = 2
    track: Track = "validation"
    objectives: Annotated[
        tuple[Objective, ...], BeforeValidator(_as_tuple), Field(min_length=1)
    ] = DEFAULT
    sampler: SamplerName = "tpe"
    prune: bool = True
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.02
    time_limit_s: Annotated[float, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("objectives")
    @classmethod
    def _once(cls, objectives: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(objectives)) < len(objectives):
            raise ValueError(f"each objective is named once; got {', '.join(objectives)}")
        return objectives

    @property
    def determines(self) -> dict[str, Any]:
        """What the value of a trial depends on, beside its hyper-parameters."""
        return {
            "development_models": self.development_models,
            "track": self.track,
            "objectives": list(self.objectives),
            "seed": self.seed,
        }
