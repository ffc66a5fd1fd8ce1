"""Electrons counted on the detector: Poisson numbers by inverting their distribution, from one uniform random number for each pixel.

Samplers that reject and draw again take as many random numbers as the rate has it, so a rate that differs in its last bit (another
processor, another library of Fourier transforms) may change every count after it. Here the count of a pixel is the smallest n with
`u < P(N <= n)`: u is drawn for every pixel whatever its rate, and a rate that differs a little changes, rarely and by one, the count of its
own pixel.
"""

import math

import numba
import torch
from jaxtyping import Float
from torch import Tensor

FEW = 16.0  # electrons below which probabilities are simply added up
MOST = 1e15  # electrons per pixel; neighbouring whole numbers are told apart up to there
PLENTY = 1e8  # electrons from which on probabilities are no longer summed up: the expansion is good to a millionth of an electron
LEAST = 2.0**-54  # what a uniform number of 0 counts as: half the smallest other one

_compiled = numba.njit(nogil=True, cache=True)


def counted(expected: Float[Tensor, "*shape"], *, generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Numbers of electrons where so many are expected, drawn from Poisson's distribution.

    Args:
        expected: mean number of each pixel.
        generator: gives one uniform number in double precision for each pixel, in their order.

    Raises:
        ValueError: an expected number is negative, not a number, or above 1e15.
    """
    if bool(((expected >= 0) & (expected <= MOST)).all()):
        uniform = torch.rand(expected.shape, generator=generator, dtype=torch.float64, device=generator.device)
        return quantile(uniform.to(expected.device), expected.double()).to(expected.dtype)
    low, high = float(expected.min()), float(expected.max())
    raise ValueError(f"dose: expected 0 to {MOST:g} electrons in each detector pixel, got {low:g} to {high:g}")


def quantile(uniform: Float[Tensor, "*shape"], mean: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Smallest n with `uniform < P(N <= n)` for N of Poisson's distribution, in double precision.

    On a CPU one compiled loop; elsewhere the same in plain torch (compared with the loop on the CPU; untested on a GPU).

    Args:
        uniform: from 0 to below 1.
        mean: at least 0.
    """
    uniform = uniform.clamp(min=LEAST)
    if uniform.device.type != "cpu":
        return _quantile_torch(uniform, mean)
    found = torch.empty_like(mean)
    many = mean >= FEW
    normal = torch.special.ndtri(uniform[many])
    _quantile(uniform.numpy().reshape(-1), mean.numpy().reshape(-1), normal.numpy(), found.numpy().reshape(-1))
    return found


@_compiled
def _quantile(uniform, mean, normal, out):  # type: ignore[no-untyped-def]
    seen = 0  # of the quantiles in `normal`, which only means of at least FEW have
    for i in range(len(mean)):
        u, m = uniform[i], mean[i]
        if m < FEW:
            n, term = 0, math.exp(-m)
            total = term
            # The sum may end below a u next to 1: then terms that change nothing are waited for no longer.
            while u >= total and total + term > total:
                n += 1
                term *= m / n
                total += term
            out[i] = n
            continue
        w = normal[seen]
        seen += 1
        guess = _expansion(w, m)
        nearest = float(math.floor(guess + 0.5))
        # The bound is what the expansion leaves out, by comparison with the incomplete gamma function for m >= 16, almost doubled.
        if m > PLENTY or abs(guess - nearest) > (0.05 + abs(w) ** 5 / 100) / m**1.5:
            out[i] = math.floor(guess)
        else:
            out[i] = _search(u, m, max(nearest, 0.0))


@_compiled
def _expansion(w, m):  # type: ignore[no-untyped-def]
    """Where `P(N < x)`, as a continuous function, has the value of the normal quantile w, to order 1/m (Cornish and Fisher; Giles 2016)."""
    s = math.sqrt(m)
    w2 = w * w
    return m + s * w + (1 / 3 + w2 / 6) - w * (1 / 36 + w2 / 72) / s + (-8 / 405 + w2 * (7 / 810 + w2 / 270)) / m


@_compiled
def _search(u, m, n):  # type: ignore[no-untyped-def]
    """Smallest n with u < P(N <= n), sought from near it; P is summed from the term at n, away from the middle."""
    term = math.exp(n * math.log(m) - m - math.lgamma(n + 1))  # P(N = n)
    part, k = term, n
    if n <= m:
        below, total = 0.0, 0.0  # P(N < n)
        while k > 0:
            part *= k / m
            k -= 1
            total = below + part
            if total == below:
                break
            below = total
    else:
        above = part
        while True:
            k += 1
            part *= m / k
            total = above + part
            if total == above:
                break
            above = total
        below = 1 - above
    while u < below and n > 0:
        term *= n / m
        n -= 1
        below -= term
    while u >= below + term and below + term > below:
        below += term
        n += 1
        term *= m / n
    return n


def _quantile_torch(uniform: Tensor, mean: Tensor) -> Tensor:
    """The same by whole arrays: a guess, and steps until it is right."""
    m = mean.clamp(min=1.0)
    w = torch.special.ndtri(uniform)
    guess = m + m.sqrt() * w + (1 / 3 + w**2 / 6) - (w / 36 + w**3 / 72) / m.sqrt()
    n = torch.where(mean < FEW, 0.0, guess.floor().clamp(min=0.0))
    while True:
        # P(N <= n) is the regularised incomplete gamma function Q(n + 1, m); a mean of 0 has no electrons.
        up = (uniform >= torch.special.gammaincc(n + 1, mean)) & (mean > 0) & (n < 4 * mean + 200)
        down = (n > 0) & (uniform < torch.special.gammaincc(n.clamp(min=1.0), mean)) & ~up
        if not bool((up | down).any()):
            return n
        n = n + up.double() - down.double()
