"""Probes of several modes: partially coherent light, whose intensities add (Thibault and Menzel, Nature 494, 68, 2013)."""

import torch
from jaxtyping import Complex
from torch import Tensor

from adaptycho.physics.grid import fft2, ifft2

FAINT = 0.03  # fraction of the intensity that each further mode begins with


def first(probe: Complex[Tensor, "M N N2"], count: int) -> Complex[Tensor, "count N N2"]:
    """So many orthogonal modes of as much intensity: those given, and further ones that a small source adds, derivatives of the first.

    Of more than are wanted the strongest remain.
    """
    known = orthogonal(probe)[0][:count]
    more = count - len(known)
    if not more:
        return known
    spectrum = fft2(known[0])
    ky, kx = (torch.fft.fftfreq(n, dtype=probe.real.dtype, device=probe.device) for n in probe.shape[-2:])
    orders = sorted(((p, order - p) for order in range(1, count) for p in range(order + 1)), key=lambda pq: (sum(pq), pq[1]))
    added = torch.stack([ifft2(spectrum * (1j * ky[:, None]) ** p * (1j * kx[None, :]) ** q) for p, q in orders[:more]])
    basis = torch.linalg.qr(torch.cat([known, added]).flatten(1).mT)[0].mT.unflatten(1, probe.shape[-2:])[len(known) :]
    total = float(known.abs().square().sum())
    return orthogonal(torch.cat([known * (1 - FAINT * more) ** 0.5, basis * (FAINT * total) ** 0.5]))[0]


def orthogonal(probe: Complex[Tensor, "M N N2"], *others: Complex[Tensor, "M N N2"]) -> list[Tensor]:
    """Modes of the same intensities everywhere, orthogonal to one another and the strongest first; others are mixed in the same way."""
    if len(probe) == 1:
        return [probe, *others]
    mixture, _, _ = torch.linalg.svd(probe.flatten(1), full_matrices=False)
    # The phase of each mode is free: that of its largest part stays as it was.
    largest = mixture.gather(0, mixture.abs().argmax(0)[None])
    unmixed = (mixture * largest.conj() / largest.abs()).mH
    return [(unmixed @ x.flatten(1)).unflatten(1, x.shape[1:]) for x in (probe, *others)]
