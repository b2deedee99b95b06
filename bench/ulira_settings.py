"""Settings of the membership-inference attack in a sweep."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from .metrics.choices import Variance

LEAST_SHADOWS = 4


class UliraSettings(BaseModel):
    """What a sweep file may say under `ulira`.

    Attributes:
        shadows: N, the number of half-data originals of every dataset, architecture and recipe;
            0 for no attack. More of them find weaker leaks. Fewer than 6 are too few for U-LIRA,
            and RMIA takes its place.
        variance: How variances are estimated; `eb_t` is the leaderboard's.
        redraws: Number of redraws of the null band.
        seed: Draws the halves and starts the shadow models.
        stratify: Scenarios on whose forget sets the halves are balanced, beside classes; without
            them, `random` in the usual fractions. They are part of the bank: sweeps that are to
            share one give the same list.
        keep_models: Keep the shadow models in the store. Without them only margins are kept, and
            a method that is added later trains the shadow models again, which has to give the
            same models: not for devices that do not repeat themselves.
        klom: Report KLoM with its floor, from 6 shadow models on.
        forgetting_score: Report the forgetting score of the NeurIPS 2023 challenge with its null,
            from 6 shadow models on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shadows: Annotated[int, Field(ge=0)] = 0
    variance: Variance = "eb_t"
    redraws: Annotated[int, Field(ge=20)] = 200
    seed: Annotated[int, Field(ge=0)] = 0
    stratify: list[Any] = []
    keep_models: bool = True
    klom: bool = False
    forgetting_score: bool = False

    @field_validator("shadows")
    @classmethod
    def _pairs(cls, shadows: int) -> int:
        if shadows and (shadows % 2 or shadows < LEAST_SHADOWS):
            raise ValueError(
                f"shadow models come in pairs: give 0, or an even number from {LEAST_SHADOWS}"
            )
        return shadows
