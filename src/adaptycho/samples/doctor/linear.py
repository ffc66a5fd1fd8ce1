"""How well a geometry explains the virtual images, where the specimen is a weak phase object.

Of the phase V, the image of the bright-field pixel k has at the scan frequency q (Rodenburg et al., Ultramicroscopy 48, 304, 1993)

    G_k(q) = i V(q) [A*(k) A(k - q) - A(k) A*(k + q)],    A = aperture x exp(-i chi),

with q turned into the detector's frame. Where both sidebands lie inside the aperture, this is the image shifted by the gradient of chi
(parallax, tilt-corrected bright field); at the rim and in focus it is the overlap of the discs (single side-band). Least squares for V
at each q leave what `explained` gives: the share of the power that some V explains. The specimen need not be weak for it to stand out.

Complex conjugation of probe and object turns every pattern by 180 degrees: (defocus, rotation, V) and (-defocus, rotation + 180, -V)
are the same patterns, of a strong object too. What tells them apart is the sign of V alone.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Complex
from scipy.optimize import minimize
from torch import Tensor

from adaptycho.samples.doctor.virtual import Virtual
from adaptycho.support.threads import workers

COARSE = 150  # strongest frequencies that the whole search looks at
WIDEST = 3.0  # sides of the field over the largest shift of a virtual image that is looked for
GROUPS = 4  # of frequencies that fits are repeated with, for their uncertainty
WEAK = 0.02  # of the largest transfer: frequencies that transfer less say little


@dataclass(frozen=True)
class Orientation:
    """How the detector lies to the scan, and the lens.

    Attributes:
        defocus: in Å, positive = underfocus.
        rotation: degrees, counter-clockwise, that turn detector (row, column) into scan (row, column), after `mirrored`.
        mirrored: whether the detector's rows and columns are to be exchanged first.
        astigmatism: of the defocus in Å, along (y - x, diagonal).
    """

    defocus: float
    rotation: float
    mirrored: bool = False
    astigmatism: tuple[float, float] = (0.0, 0.0)

    @property
    def conjugate(self) -> "Orientation":
        """The other orientation that has the same patterns, of the object with its phase turned round."""
        a, b = self.astigmatism
        return replace(self, defocus=-self.defocus, rotation=turned(self.rotation + 180), astigmatism=(-a, -b))


def turned(degrees: float) -> float:
    """An angle from -180 to below 180 degrees."""
    return (degrees + 180) % 360 - 180


def explained(images: Virtual, way: Orientation) -> float:
    """Share of the images' power that a phase object explains, 0 to 1."""
    p = torch.tensor([way.defocus, math.radians(way.rotation), *way.astigmatism])
    return float(_explained(images, p, way.mirrored))


def phase(images: Virtual, way: Orientation) -> Complex[Tensor, " F"]:
    """Spectrum of the phase V at the images' frequencies, damped where little is transferred."""
    p = torch.tensor([way.defocus, math.radians(way.rotation), *way.astigmatism])
    overlap, transfer = _overlap(images, p, way.mirrored)
    return overlap / (transfer + WEAK * transfer.max())


def search(images: Virtual) -> list[Orientation]:
    """The best coarse orientations, mirrored and not, best first: of each pair of conjugates the one with underfocus.

    All rotations are tried, and all defocuses at which the shift of a virtual image at the disc's rim stays below a third of the field.
    """
    power = images.spectra.abs().square().sum(1)
    few = images.only(power.topk(min(COARSE, len(power))).indices)
    alpha = images.cutoff * images.wavelength
    highest = float(few.frequencies.norm(dim=-1).quantile(0.9))
    largest, step = min(images.field) / WIDEST / alpha, 0.3 / (highest * alpha)
    focuses = step * np.arange(max(2, math.ceil(largest / step)))
    found = []
    with workers() as lanes:
        for mirrored in (False, True):
            ways = list(_coarse(focuses, step, mirrored))
            tried = zip(lanes(partial(explained, few), ways), ways, strict=True)
            found += list(_apart(sorted(tried, key=lambda pair: -pair[0]), step))
    return [way for _, way in sorted(found, key=lambda pair: -pair[0])]


def refine(images: Virtual, way: Orientation, free: str = "fr") -> Orientation:
    """The orientation near a given one that explains most.

    Args:
        images: to explain.
        way: to start from.
        free: what may change: f(ocus), r(otation), a(stigmatism).
    """
    images = images.double()  # or differences of the shares drown in rounding
    alpha = images.cutoff * images.wavelength
    highest = float(images.frequencies.norm(dim=-1).quantile(0.9))
    focus = 0.1 / (highest * alpha)
    units = torch.tensor([focus, focus / max(abs(way.defocus), 3 * focus), focus, focus], dtype=torch.float64)
    open_ = torch.tensor([c in free for c in "fraa"])
    start = torch.tensor([way.defocus, math.radians(way.rotation), *way.astigmatism], dtype=torch.float64)

    def cost(x: np.ndarray) -> tuple[float, np.ndarray]:
        moved = torch.zeros(4, dtype=torch.float64)
        moved[open_] = torch.from_numpy(x)
        moved.requires_grad_()
        lost = -_explained(images, start + units * moved, way.mirrored)
        (slope,) = torch.autograd.grad(lost, moved)
        return 100 * float(lost.detach()), 100 * slope[open_].numpy()

    with workers():  # torch's own threads take longer to start than these sums
        best = minimize(cost, np.zeros(int(open_.sum())), jac=True, method="BFGS", options={"gtol": 0.02, "maxiter": 40})
    moved = torch.zeros(4, dtype=torch.float64)
    moved[open_] = torch.from_numpy(best.x)
    f, r, a, b = (start + units * moved).tolist()
    return replace(way, defocus=f, rotation=turned(math.degrees(r)), astigmatism=(a, b))


def uncertain(images: Virtual, way: Orientation, free: str = "fr") -> Orientation:
    """Standard errors of `refine`, from fits to separate groups of frequencies."""
    group = torch.arange(len(images.frequencies)) % GROUPS
    parts = [images.only((group == g).nonzero()[:, 0]) for g in range(GROUPS)]
    with workers() as lanes:
        fits = list(lanes(partial(refine, way=way, free=free), parts))

    def error(values: list[float]) -> float:
        return float(np.std(values, ddof=1) / math.sqrt(GROUPS))

    return Orientation(
        error([f.defocus for f in fits]),
        error([turned(f.rotation - way.rotation) for f in fits]),
        way.mirrored,
        (error([f.astigmatism[0] for f in fits]), error([f.astigmatism[1] for f in fits])),
    )


def _coarse(focuses: np.ndarray, step: float, mirrored: bool) -> Iterator[Orientation]:
    """Orientations so close to each other that one of them is near the best: all turns at each defocus."""
    for focus in focuses:
        turns = 12 * math.ceil(max(3.0, min(10.0, 2 * math.pi * focus / step / 12)))
        for rotation in np.arange(turns) * 360 / turns - 180:
            if focus or rotation < 0:  # in focus the conjugate is the same turned by 180 degrees
                yield Orientation(float(focus), float(rotation), mirrored)


def _apart(tried: list[tuple[float, Orientation]], step: float) -> Iterator[tuple[float, Orientation]]:
    """The best few that are no neighbours of a better one."""
    kept: list[Orientation] = []
    for score, way in tried:
        if all(_distance(way, other) > 2.5 * step for other in kept):
            kept.append(way)
            yield score, way
        if len(kept) == 3:
            return


def _distance(one: Orientation, other: Orientation) -> float:
    points = [w.defocus * np.array([math.cos(math.radians(w.rotation)), math.sin(math.radians(w.rotation))]) for w in (one, other)]
    return float(np.linalg.norm(points[0] - points[1]))


def _explained(images: Virtual, p: Tensor, mirrored: bool) -> Tensor:
    overlap, transfer = _overlap(images, p, mirrored)
    power = (overlap.real.square() + overlap.imag.square()) / (transfer + WEAK * transfer.detach().max())
    return power.sum() / images.spectra.abs().square().sum()


def _overlap(images: Virtual, p: Tensor, mirrored: bool) -> tuple[Tensor, Tensor]:
    """Sums over the images of conj(W) G and of |W|^2 at each frequency, with G = V W."""
    focus, angle, along, across = p
    cos, sin = torch.cos(angle), torch.sin(angle)
    y, x = images.frequencies[:, 0], images.frequencies[:, 1]
    qy, qx = (cos * y + sin * x)[:, None], (cos * x - sin * y)[:, None]
    ky, kx = images.angles[None, :, int(mirrored)], images.angles[None, :, 1 - int(mirrored)]

    def lens(y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Aperture and -chi, with C10 = -defocus."""
        yy, xx = y * y, x * x
        square = yy + xx
        open_ = ((images.cutoff - square.clamp(min=1e-20).sqrt()) / images.width + 0.5).clamp(0, 1)
        turns = focus * square
        if astigmatic:
            turns = turns + along * (yy - xx) + 2 * across * y * x
        return open_, math.pi * images.wavelength * turns

    astigmatic = p.requires_grad or bool(along) or bool(across)
    (a, chi), (low, chi_low), (high, chi_high) = lens(ky, kx), lens(ky - qy, kx - qx), lens(ky + qy, kx + qx)
    first, second = chi_low - chi, chi - chi_high
    # i (first sideband - second), each of modulus low or high.
    real = -(low * torch.sin(first) - high * torch.sin(second)) * a
    imaginary = (low * torch.cos(first) - high * torch.cos(second)) * a
    g = images.spectra
    overlap = torch.complex((real * g.real + imaginary * g.imag).sum(1), (real * g.imag - imaginary * g.real).sum(1))
    return overlap, (real.square() + imaginary.square()).sum(1)
