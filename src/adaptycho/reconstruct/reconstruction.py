"""What a descent hands back, and goes on from."""

from dataclasses import dataclass, field, replace
from typing import Literal

from jaxtyping import Complex, Float, Int, Shaped
from torch import Tensor

from adaptycho.reconstruct import Loss, Method, Prior
from adaptycho.reconstruct.refine import Parameter
from adaptycho.reconstruct.refine.state import Refined
from adaptycho.support.notebook import card


@dataclass(frozen=True)
class Made:
    """The settings of a `Reconstructor` that it matters to have the same when its result is gone on from."""

    loss: Loss = "intensity"
    scaling: Literal["none", "illumination"] = "none"
    method: Method = "momentum"
    kind: Literal["potential", "complex"] = "potential"
    prior: Prior = "none"
    strength: float = 0.0
    blob: float = 0.0
    refine: tuple[Parameter, ...] = ()
    modes: int = 1
    slices: int = 1
    thickness: float = 0.0
    step: float | Literal["auto"] = 525.0
    momentum: float = 0.0
    counts_per_electron: float = 1.0

    def weighed_alike(self, other: "Made") -> bool:
        """Whether losses of one can be compared with those of the other."""
        return (self.loss, self.counts_per_electron) == (other.loss, other.counts_per_electron)

    def alike(self, other: "Made") -> bool:
        """Whether steps of one can follow those of the other: the same gradients in the same metric."""
        names = ("scaling", "method", "prior", "blob", "slices")
        return self.weighed_alike(other) and all(getattr(self, name) == getattr(other, name) for name in names)


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A potential and how it came about; handed back as `start`, the descent goes on from it.

    Without a prior, and if nothing but the object is sought, a descent in two parts is the same as one to the last bit. Otherwise it goes
    on from the same place with the same momentum and step, and forgets what it would have gone back to.

    Attributes:
        potential: sigma V in rad on the object grid; complex if absorption is reconstructed. The constant phase is free.
        loss: loss before each iteration so far, per position.
        velocity: last update, which momentum carries on; with a prior that of the coefficients.
        step: step in use, one for each data set.
        count: number of patterns it was made from.
        held: what the next step is judged by: with an automatic step where it would go back to, potential and scaled gradient; with
            conjugate gradients the potential, and the unscaled gradient where the last line began.
        coefficients: of which a prior has the potential made, if there was a prior.
        slices: potentials of which that is the sum, in the order of the beam, if there are several.
        refined: probe, positions and what else was refined with the object, if anything was.
        made: how.
    """

    potential: Shaped[Tensor, "B H W"]
    loss: Float[Tensor, "B I"]
    velocity: Shaped[Tensor, "B *slices H W"]
    step: Float[Tensor, " B"]
    count: Int[Tensor, " B"]
    held: tuple[Shaped[Tensor, "B H W"], Shaped[Tensor, "B H W"]] | None = None
    coefficients: Float[Tensor, "B *slices H W"] | None = None
    slices: Shaped[Tensor, "B S H W"] | None = None
    refined: Refined | None = None
    made: Made = field(default_factory=Made)

    @property
    def probe(self) -> Complex[Tensor, "B M N N2"] | None:
        """Refined modes of the probe, zero position in the corner; None if it was taken as known."""
        return None if self.refined is None else self.refined.probe

    @property
    def positions(self) -> Float[Tensor, "B K 2"] | None:
        """Refined positions, fractions (y, x) of the scan field; None if they were taken as reported."""
        return None if self.refined is None else self.refined.positions

    @property
    def phase(self) -> Float[Tensor, "B H W"]:
        """Real part of the potential in rad."""
        return self.potential.real if self.potential.is_complex() else self.potential

    def to(self, device: str) -> "Reconstruction":
        """Moves what is computed with to a device."""
        held = None if self.held is None else (self.held[0].to(device), self.held[1].to(device))
        coefficients, slices = (None if values is None else values.to(device) for values in (self.coefficients, self.slices))
        potential, velocity = self.potential.to(device), self.velocity.to(device)
        return replace(self, potential=potential, velocity=velocity, held=held, coefficients=coefficients, slices=slices)

    def _repr_html_(self) -> str:
        """As a notebook shows it: the first data set's phase."""
        facts = {
            "data sets": f"{len(self.potential)}",
            "object": f"{self.potential.shape[1]} x {self.potential.shape[2]} pixels",
            "iterations": f"{self.loss.shape[1]}",
            "loss": f"{float(self.loss[0, 0]):.4g} to {float(self.loss[0, -1]):.4g} per position",
        }
        return card("Reconstruction (phase in rad)", facts, self.phase[0].detach().cpu().numpy())
