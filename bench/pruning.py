"""Asks after every epoch of a trial whether it is worth going on.

Only with one objective, for Optuna compares single numbers. The look at the model is off the clock
of `unlearn_s`, draws no random number and leaves every module in its mode. A trial is stopped if
after some epoch its best value so far is below the median of the earlier trials at that epoch.
Methods with a training loop of their own are never stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from .errors import PrunedError
from .jobs import Pruning
from .objectives import qualities
from .study_storage import open_storage

STARTUP_TRIALS = 5  # so many come to their end before any is stopped


class Pruner:
    """Reports a trial to its study, and stops it where it lags behind.

    Args:
        pruning: Where to report.
        figures: Measures a model.
        retrained: Figures of the retrained model, on the oracle track.
        whole: Whether the forget set is whole classes.
    """

    def __init__(
        self,
        pruning: Pruning,
        figures: Callable[[nn.Module], dict[str, float]],
        retrained: dict[str, float] | None,
        *,
        whole: bool,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage, _ = open_storage(pruning.storage, Path(), pruning.study)
        study = optuna.load_study(
            study_name=pruning.study,
            storage=storage,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
        )
        self._trial: Any = optuna.trial.Trial(study, pruning.trial)
        self._figures, self._retrained, self._whole = figures, retrained, whole
        self._objective = pruning.objective
        self._epochs = 0

    def epoch_done(self, model: nn.Module, loss: float) -> None:
        """Report an epoch.

        Raises:
            PrunedError: If the trial lags behind.
        """
        self._epochs += 1
        judged = qualities(self._figures(model), self._retrained, whole=self._whole)
        self._trial.report(judged[self._objective], self._epochs)
        if self._trial.should_prune():
            raise PrunedError(
                f"stopped after epoch {self._epochs} with {self._objective} "
                f"{judged[self._objective]:.3f}, which is below the median of earlier trials."
            )
