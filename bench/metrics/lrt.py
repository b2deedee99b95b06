"""Likelihood ratios of margins: reference fits with moderated variances.

For one example, the reference margins of models that were trained on it (IN) and of models that
never were (OUT) are each fitted with a location-scale law; the score of a margin is the log
ratio of the two densities. There are few margins a side, so that their variance is the weak
spot; `Variance` says what is done about it:

    eb_t             Student t with a variance shrunk towards the other examples' (the default)
    pooled           normal, one variance for all examples: mean of the unbiased variances
    per_example      normal, each example its own unbiased variance, as the LiRA paper plugs it in
    reference_fixed  normal, for both sides the variance of all IN margins in one heap, as the
                     released LiRA code does it. Between-example spread inflates it, and swapping
                     IN and OUT does not flip the sign of a score. For cross-checks only.

The first two allow for the uncertain location: their scale is sqrt(s^2 (1 + 1/n)).

Source: Carlini et al., "Membership inference attacks from first principles", IEEE S&P 2022,
https://arxiv.org/abs/2112.03570 (likelihood ratio); Smyth, "Linear models and empirical Bayes
methods for assessing differential expression in microarray experiments", Stat. Appl. Genet. Mol.
Biol. 3(1), 2004, sections 3 and 6.2 (moderated variance, its prior by moments).

Changes:
    1: first version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
from scipy import special

from ..errors import UnknownNameError
from .choices import Centre as Centre
from .choices import Variance as Variance
from .margin import MarginError, as_array, check_finite

VERSION = 1
FloatArray = npt.NDArray[np.float64]
VARIANCES: tuple[Variance, ...] = get_args(Variance)
CENTRES: tuple[Centre, ...] = get_args(Centre)
# a variance below this share of an example's total variance is rounding noise
LEAST_SHARE = 1e-12
# and below this share of the median one it does not shape the prior (as in limma)
LEAST_PRIOR_SHARE = 1e-5


@dataclass(frozen=True, eq=False)
class Side:
    """The law fitted to the reference margins of one side, for K folds and E examples.

    Attributes:
        location: `(K, E)`.
        scale2: `(K, E)` or `(K, 1)`, squared scale, positive.
        dof: `(K, 1)` degrees of freedom; infinite for a normal law.
    """

    location: FloatArray
    scale2: FloatArray
    dof: FloatArray

    def log_density(self, x: FloatArray) -> FloatArray:
        """Log density at `(K, E)`, or with K = 1 at `(T, E)`, less the constant log(2 pi) / 2."""
        z2 = x - self.location
        z2 *= z2
        z2 /= self.scale2
        heavy = np.isfinite(self.dof[:, 0])
        if not heavy.any():
            z2 *= -0.5
        elif heavy.all():
            z2 = _student(z2, self.dof)
        else:
            z2[~heavy] *= -0.5
            z2[heavy] = _student(z2[heavy], self.dof[heavy])
        z2 -= 0.5 * np.log(self.scale2)
        return z2

    def quantile(self, share: float) -> FloatArray:
        """Quantile of the law, `(K, E)`."""
        finite = np.where(np.isfinite(self.dof), self.dof, 1.0)
        standard = np.where(
            np.isfinite(self.dof), special.stdtrit(finite, share), special.ndtri(share)
        )
        quantiles: FloatArray = self.location + np.sqrt(self.scale2) * standard
        return quantiles


def lrt(
    x: npt.ArrayLike,
    ref_in: npt.ArrayLike,
    ref_out: npt.ArrayLike,
    variance: Variance = "eb_t",
    centre: Centre = "mean",
) -> FloatArray:
    """Score margins by the log likelihood ratio of two sets of reference margins.

    Who is in the reference is the caller's care: a margin that is also one of its own reference
    margins looks like a member. `ulira.leave_pair_out` and `ulira.held_out` take that care.

    Args:
        x: `(E,)` or `(T, E)` margins to score, nats.
        ref_in: `(n, E)` margins of models trained on the example, n >= 2.
        ref_out: `(m, E)` margins of models never trained on it, m >= 2.
        variance: How variances are estimated; see the module.
        centre: Location of a side, the mean or the median of its margins.

    Returns:
        Log likelihood ratios in nats, of the shape of `x`; positive speaks for IN.

    Raises:
        MarginError: If a value is not finite or shapes do not fit.
        UnknownNameError: If `variance` or `centre` is unknown.
    """
    check_choice(variance, centre)
    points, inside, outside = as_array(x), as_array(ref_in), as_array(ref_out)
    for name, values, least in (("x", points, 0), ("ref_in", inside, 2), ("ref_out", outside, 2)):
        if least and (values.ndim != 2 or len(values) < least):
            raise MarginError(f"`{name}` must be `(n, E)` with n >= 2; got shape {values.shape}.")
        if values.ndim not in (1, 2) or values.shape[-1] != inside.shape[-1]:
            raise MarginError(
                f"`{name}` must have {inside.shape[-1]} examples; got shape {values.shape}."
            )
        check_finite(values, name)
    floor = variance_floor(np.concatenate([inside, outside]))
    heap = np.full((1, 1), inside.var()) if variance == "reference_fixed" else None
    sides = [
        fit_side(
            _locate(ref, centre),
            ref.var(0, ddof=1)[None],
            len(ref),
            variance,
            floor=floor,
            heap=heap,
        )
        for ref in (inside, outside)
    ]
    scores = sides[0].log_density(np.atleast_2d(points)) - sides[1].log_density(
        np.atleast_2d(points)
    )
    return scores.reshape(points.shape)


def check_choice(variance: str, centre: str) -> None:
    """Refuse an unknown kind of variance or centre.

    Raises:
        UnknownNameError: If one is not known.
    """
    for kind, name, known in (("variance", variance, VARIANCES), ("centre", centre, CENTRES)):
        if name not in known:
            raise UnknownNameError(kind, name, known)


def variance_floor(values: FloatArray) -> FloatArray:
    """Give the variance below which there is only rounding noise, per example.

    It does not depend on who is IN, so that it favours no side, and scales with the margins.

    Args:
        values: `(n, E)` margins of both sides together.

    Returns:
        `(E,)`, positive.
    """
    own = values.var(0)
    mean = float(own.mean())
    return LEAST_SHARE * (own + mean) if mean > 0 else np.ones_like(own)


def fit_side(
    location: FloatArray,
    v: FloatArray,
    n: int,
    variance: Variance,
    *,
    floor: FloatArray,
    heap: FloatArray | None = None,
) -> Side:
    """Fit one side from its moments.

    Args:
        location: `(K, E)`.
        v: `(K, E)` unbiased variances of n margins each.
        n: Number of reference margins.
        variance: How variances are estimated.
        floor: `(E,)` from `variance_floor`.
        heap: `(K, 1)` variance of all IN margins, for `reference_fixed`.
    """
    dof = np.full((len(v), 1), np.inf)
    if heap is not None:
        return Side(location, np.maximum(heap, floor.min()), dof)
    if variance == "pooled":
        s2 = np.maximum(v.mean(1, keepdims=True), floor.min())
    elif variance == "per_example":
        return Side(location, np.maximum(v, floor), dof)
    else:
        nu = n - 1
        nu0, s02 = fit_prior(np.maximum(v, floor), nu)
        with np.errstate(invalid="ignore"):
            weight = np.where(np.isinf(nu0), 1.0, nu0 / (nu0 + nu))[:, None]
        # Smyth 2004, equation for the posterior variance: (nu0 s0^2 + nu v) / (nu0 + nu)
        s2 = np.maximum(weight * s02[:, None] + (1 - weight) * v, floor)
        dof = (nu0 + nu)[:, None]
    return Side(location, s2 * (1 + 1 / n), dof)


def fit_prior(v: FloatArray, nu: int) -> tuple[FloatArray, FloatArray]:
    """Fit a scaled inverse chi-squared prior to variances by moments of their logarithms.

    With nu degrees of freedom a variance, e = log v - digamma(nu/2) + log(nu/2) has mean
    log s0^2 - digamma(nu0/2) + log(nu0/2) and variance trigamma(nu/2) + trigamma(nu0/2). Where the
    spread is no more than sampling explains, nu0 is infinite and s0^2 the mean variance.

    Args:
        v: `(K, E)` positive variances.
        nu: Degrees of freedom of each.

    Returns:
        nu0 and s0^2, each `(K,)`.
    """
    least = LEAST_PRIOR_SHARE * np.median(v, axis=1, keepdims=True)
    e = np.log(np.maximum(v, least))
    e -= special.digamma(nu / 2) - np.log(nu / 2)
    nu0 = np.full(len(v), np.inf)
    s02: FloatArray = v.mean(1)
    if v.shape[1] < 2:
        return nu0, s02
    excess = e.var(1, ddof=1) - special.polygamma(1, nu / 2)
    wide = excess > 0
    half = trigamma_inverse(excess[wide])
    nu0[wide] = 2 * half
    s02[wide] = np.exp(e.mean(1)[wide] + special.digamma(half) - np.log(half))
    return nu0, s02


def trigamma_inverse(x: FloatArray) -> FloatArray:
    """Solve trigamma(y) = x for y > 0 by Newton's method.

    The iteration is on 1 / trigamma, which is nearly linear and convex, so that it approaches
    the root from one side (Smyth 2004, appendix).

    Args:
        x: Positive values.
    """
    # where Newton's correction would be lost in rounding, the leading term is exact
    safe = np.clip(x, 1e-6, 1e7)
    y = 0.5 + 1 / safe
    for _ in range(50):
        value = special.polygamma(1, y)
        step = value * (1 - value / safe) / special.polygamma(2, y)
        y = y + step
        if not (np.abs(step) > 1e-10 * y).any():
            break
    roots: FloatArray = np.where(x > 1e7, 1 / np.sqrt(x), np.where(x < 1e-6, 1 / x + 0.5, y))
    return roots


def _locate(ref: FloatArray, centre: Centre) -> FloatArray:
    return (ref.mean(0) if centre == "mean" else np.median(ref, axis=0))[None]


def _student(z2: FloatArray, dof: FloatArray) -> FloatArray:
    """Log density of the standard t at z, less log(2 pi) / 2; `z2` is used up."""
    # poch(a, 1/2) = gamma(a + 1/2) / gamma(a), without the cancellation of two log-gammas
    constant = np.log(special.poch(dof / 2, 0.5)) - 0.5 * np.log(dof / 2)
    z2 /= dof
    np.log1p(z2, out=z2)
    z2 *= -0.5 * (dof + 1)
    z2 += constant
    return z2
