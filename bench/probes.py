"""The probes that a sweep can switch on, by name, and the constants that all models share.

`recovery`: a linear head fitted anew on 2 % and 10 % of the training set, forgotten classes
included, on frozen features. `centres`: nearest class centre on the same features. `cka`: how like
the features of each block are to those of the original and of the retrained model. `relearn`:
steps until the forget set is known again. `divergence`: Jensen-Shannon divergence of the
predictions on the forget set to the retrained model's (`js/retrained`) and to an untrained
model's (`zrf`).

Source: evaluation specification, sections 4.4, 4.5 and 4.7.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .errors import UnknownNameError

PROBES = ("recovery", "centres", "cka", "relearn", "divergence")
ALL = "all"
PROBE_VERSION = 1  # raise it when a probe computes something else

FRACTIONS = {"2": 0.02, "10": 0.1}  # of the training set, by the name in the metric
CENTRES_FRACTION = "10"

CKA_EXAMPLES = 500  # of the forget set, and of the retain set
MOST_BLOCKS = 8

ORDERINGS = 5
MOST_UNTRAINED = 50  # drawn to find as many that do not name the forgotten class by chance
RELEARN_BATCH = 32
RELEARN_SGD_SHARE = 0.1  # of the peak step size, where the recipe is SGD's
RELEARN_LR = 0.01  # where it is not: a step size of AdamW says nothing about SGD
RELEARN_MOMENTUM = 0.9
RELEARN_CLIP = 1.0  # largest norm of the gradient of a step
RELEARN_HOPELESS = 1e6  # nats; a larger loss is a masked logit, or diverges
RELEARN_STEPS = 200
RELEARN_ALPHA = 0.05  # known again: at least 1 - alpha of the original's accuracy
RELEARN_EXAMPLES = 256  # on which that is measured


def chosen_probes(names: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Check names of probes, and put them in order; `all` stands for all of them.

    Args:
        names: A name or a list of names, as a sweep file says it.

    Raises:
        UnknownNameError: If there is no such probe.
        ValueError: If it is neither.
    """
    listed = [names] if isinstance(names, str) else names
    if not isinstance(listed, Iterable) or isinstance(listed, (dict, bytes)):
        raise ValueError(f"give `{ALL}`, or a list of {', '.join(PROBES)}; got {names!r}")
    wanted = list(listed)
    for name in wanted:
        if name not in (*PROBES, ALL):
            raise UnknownNameError("probe", str(name), [*PROBES, ALL])
    return tuple(probe for probe in PROBES if probe in wanted or ALL in wanted)
