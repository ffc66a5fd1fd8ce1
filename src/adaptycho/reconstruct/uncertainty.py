"""How uncertain a reconstruction with a prior is, place by place: a standard error of the phase.

Two things make a phase uncertain. Electrons are counted, and other counts would have given another phase: how far, is seen by dividing the
electrons at random into halves and reconstructing each with the same prior, whose results differ by twice of that. And where little or
nothing was seen, all halves agree on what the prior says, and know nothing: there a phase may be whatever phases are elsewhere. With the
variance v of the phase where it was seen, and the Fisher information I of the electrons in a square of wavelength over semi-angle, what is
left of v is v / (1 + v I s / `ENOUGH`), where s is how bright the beam has been there compared with its brightest within its width: at the
rim of what was scanned only tails tell anything.

A reconstruction without a prior has neither: it invents where nobody looked, and stops before it has converged. Errors of the model, above
all a wrong probe, are not in it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from adaptycho.physics.optics import Setup
from adaptycho.reconstruct import held_out
from adaptycho.reconstruct.choice import choose
from adaptycho.reconstruct.data_sets import DataSet
from adaptycho.reconstruct.descent import Reconstructor
from adaptycho.reconstruct.proximal import blurred
from adaptycho.support.threads import workers
from adaptycho.types import Measurement

SPLITS = 4  # into halves, over which differences are averaged
NEAR = 0.4  # wavelengths over the semi-angle, over which they are averaged in the image
# Found on two training specimens each of crystals, films, islands and particles, at 300 to 10,000 electrons, scanned whole and by half:
WIDER = 1.4  # what a prior pulls to one side in all halves alike, times what halves differ by
ENOUGH = 5.0  # of v I, where half of the variance is left


def uncertainty(descent: Reconstructor, measurement: Measurement, *, seed: int = 0) -> Float[Tensor, "B H W"]:
    """Standard error of the phase in rad at every pixel of the object.

    Args:
        descent: with a prior, or `auto` for one that is chosen; for one slice of an object and a known probe.
        measurement: B data sets of counted electrons.
        seed: of the divisions.

    Raises:
        ValueError: there is no prior, more than the object is sought, or counts are not electrons.
    """
    if descent.prior == "none" or not descent.known:
        found = "none" if descent.prior == "none" else "more than one slice and a known probe"
        raise ValueError(f"uncertainty: expected a prior and nothing else that is sought, got {found}")
    if not held_out.counted(measurement, descent.counts_per_electron):
        raise ValueError("uncertainty: expected patterns of counted electrons, one count of each, got others")
    how = choose(descent, measurement) if descent.prior == "auto" else descent
    phase, scattered = how(measurement).phase, torch.zeros(())
    for split in range(SPLITS):
        one, other = next(held_out.divided(measurement, 2, seed + split))
        scattered = scattered + (how(one).phase - how(other).phase).square() / (4 * SPLITS)
    with workers():
        sets = how.prepared(measurement, "poisson")
    beams = [how.setup.with_defocus(float(one.defocus.mean(dtype=torch.float64))) for one in measurement.split()]
    unseen = torch.stack([_unseen(*each) for each in zip(beams, sets, phase, strict=True)])
    near = NEAR * how.setup.resolution / how.setup.object.pixel
    return (WIDER**2 * blurred(scattered, near).clamp(min=0) + unseen).sqrt()


def _unseen(setup: Setup, data: DataSet, phase: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """Variance that is left where little was seen."""
    light, pixel = data.illumination, setup.object.pixel
    reach = max(1, round(_width(setup) / pixel))
    brightest = torch.nn.functional.max_pool2d(light[None, None], 2 * reach + 1, 1, reach)[0, 0]
    share = light / light.sum()
    variance = ((phase - (phase * share).sum()).square() * share).sum()
    information = 4 * data.dose * light * (setup.resolution / pixel) ** 2
    return variance / (1 + variance * information * light / (brightest.clamp(min=torch.finfo(light.dtype).tiny) * ENOUGH))


def _width(setup: Setup) -> float:
    """Twice the rms radius of the beam in Å."""
    power = setup.probe().abs().square().reshape(-1, *setup.window.shape).sum(0)
    y, x = (torch.fft.fftfreq(n, 1 / n) * setup.window.pixel for n in setup.window.shape)
    return 2 * float(((y[:, None].square() + x.square()) * power).sum() / power.sum()) ** 0.5
