"""B samples under one microscope, to be scanned and reconstructed together."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from adaptycho.instruments.recorded import Recorded
from adaptycho.instruments.simulated import Simulated
from adaptycho.physics.optics import Setup
from adaptycho.samples.sample import Sample
from adaptycho.settings import build
from adaptycho.types import Measurement


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples of one geometry, and what is known about them.

    Attributes:
        samples: one by one.
        microscope: over all of them.
    """

    samples: tuple[Sample, ...]
    microscope: Simulated | Recorded

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Which they are."""
        return tuple(s.number for s in self.samples)

    @property
    def setup(self) -> Setup:
        """Geometry and beam."""
        return self.microscope.setup

    def to(self, device: torch.device | str) -> "Batch":
        """The same samples, scanned and looked at on a device."""
        return dataclasses.replace(self, microscope=self.microscope.to(device))

    @property
    def columns(self) -> tuple[Float[Tensor, "_ 2"], ...]:
        """Atom columns of each, fractions of the field; empty where they are not known."""
        return tuple(s.columns.to(self.microscope.device) for s in self.samples)

    @property
    def inside(self) -> Bool[Tensor, "B h w"]:
        """Pixels of the field where there is structure."""
        return torch.stack([s.inside for s in self.samples]).to(self.microscope.device)

    @property
    def truth(self) -> Float[Tensor, "B h w"] | None:
        """True phase in rad inside the field with a mean of zero, where there is a truth.

        Descent leaves the free constant at a mean of zero; with the truth's own, structural similarity would compare brightness.
        """
        if isinstance(self.microscope, Recorded):
            return None
        truth = build.truth_in_field(self.microscope)
        return truth - truth.mean((1, 2), keepdim=True)

    @property
    def full_scan(self) -> Float[Tensor, "B h w"]:
        """Phase in rad inside the field from the full scan, or from recorded patterns that scores refer to."""
        return torch.cat([s.full_scan for s in self.samples]).to(self.microscope.device)


def together(samples: Sequence[Sample], setup: Setup) -> Batch:
    """Samples under one microscope, as the first is under.

    Args:
        samples: of one kind and size.
        setup: their geometry and beam; fields of windows may differ by the rounding of recorded positions.
    """
    first, microscopes = samples[0].microscope, [s.microscope for s in samples]
    if isinstance(first, Recorded):
        setup = _lit(setup, [s.setup.measured_probe for s in samples])
        measured = Measurement.stack([m.measurement for m in microscopes if isinstance(m, Recorded)])
        return Batch(tuple(samples), dataclasses.replace(first, setup=setup, measurement=measured))
    potential = torch.cat([m.potential for m in microscopes if isinstance(m, Simulated)])
    return Batch(tuple(samples), dataclasses.replace(first, setup=setup, potential=potential))


def _lit(setup: Setup, probes: Sequence[Tensor | None]) -> Setup:
    """The geometry with the measured probe of each sample, where they are not all the same."""
    known = [probe for probe in probes if probe is not None]
    if len(known) < len(probes) or all(probe is known[0] or torch.equal(probe, known[0]) for probe in known):
        return setup
    return dataclasses.replace(setup, measured_probe=torch.stack(known))
