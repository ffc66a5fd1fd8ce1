"""The paper's policy: a recurrent network that remembers a scan and has one output head for each sub-sequence (Eqs. 3 to 5, Fig. 2).

Its input is the latest sub-sequence's positions and the encoder's latent of the current reconstruction; what it proposes are positions of
this one field at this one number of sub-sequences, so a new field or scan length needs training anew.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from adaptycho.scan import patterns
from adaptycho.scan.networks.autoencoder import Encoder, prepare
from adaptycho.types import Observation

LAYERS = 2  # stacked GRU layers, Table II
SLOPE = 0.1  # of the leaky ReLU where it is negative
LEAST = 0.01  # of the latent's spread as a whole: a number that varies less is not blown up


@dataclass(frozen=True, eq=False)
class Recollection:
    """What the network hands itself from one sub-sequence to the next.

    Attributes:
        hidden: the state of each GRU layer; gradients flow through it to earlier sub-sequences.
        number: of the sub-sequence to propose next; 0 is the survey.
    """

    hidden: Float[Tensor, "layers B hidden"]
    number: int


class Recurrent(nn.Module):
    """The recurrent policy; a `adaptycho.scan.policies.learned.Network`.

    Every step computes, with fully connected layers FC, L = FC(latest positions) (Eq. 4), C = FC(z) of the encoder's latent z (Eq. 5) and
    X = FC(L, C); two GRU layers turn X and their hidden state into the next, H; the head of the sub-sequence proposes initial + FC(H)
    (Eq. 3). L, C and X pass a leaky ReLU. Proposals may lie outside the field: the microscope clips, and a bound would bend the Gaussian.

    The latent of an encoder that has learnt little differs little from one reconstruction to the next, so z is standardised, once
    `standardise` has been told how latents spread.

    Args:
        lengths: positions of every sub-sequence, the survey's first. They may differ: FC of the positions is as wide as the longest
            needs, and shorter ones leave the rest of it at zero.
        encoder: compresses the reconstruction; the policy keeps a copy, saved with it and frozen (`policy.encoder.requires_grad_()`
            makes it trainable).
        hidden: width of the GRU's state; the paper has 2048, `light` 512.
        location: width of L.
        structure: width of C; X is as wide as both together.
        start: `halton` proposes exactly the Halton points that follow the survey's, whatever is seen, until it is trained: where the
            supervised initialisation (C1) ends. `scratch` proposes what an ordinary random layer puts out, round the middle of the
            field: where it begins.

    Raises:
        ValueError: fewer than two sub-sequences, an empty one, or a width below 1.
    """

    initial: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        lengths: Sequence[int],
        encoder: Encoder,
        *,
        hidden: int = 512,
        location: int = 256,
        structure: int = 256,
        start: Literal["halton", "scratch"] = "halton",
    ) -> None:
        super().__init__()
        if len(lengths) < 2 or min(lengths) < 1:
            raise ValueError(f"lengths: expected a survey and at least one more sub-sequence, none of them empty, got {list(lengths)}")
        self.lengths = tuple(lengths)
        self.widths = {"hidden": hidden, "location": location, "structure": structure}
        for name, width in self.widths.items():
            if width < 1:
                raise ValueError(f"{name}: expected a width of at least 1, got {width}")
        self.longest = max(self.lengths[:-1])  # of those that are ever looked at
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        latent = torch.Size(encoder.latent).numel()
        self.register_buffer("centre", torch.zeros(encoder.latent))
        self.register_buffer("spread", torch.ones(encoder.latent))
        self.location = nn.Sequential(nn.Linear(2 * self.longest, location), nn.LeakyReLU(SLOPE))
        self.structure = nn.Sequential(nn.Flatten(), nn.Linear(latent, structure), nn.LeakyReLU(SLOPE))
        self.join = nn.Sequential(nn.Linear(location + structure, location + structure), nn.LeakyReLU(SLOPE))
        self.gru = nn.GRU(location + structure, hidden, LAYERS)
        self.heads = nn.ModuleList(nn.Linear(hidden, 2 * length) for length in self.lengths[1:])
        ahead = sum(self.lengths[1:])
        if start == "halton":
            self.register_buffer("initial", patterns.halton(sum(self.lengths))[-ahead:].to(torch.get_default_dtype()))
            for parameter in self.heads.parameters():
                nn.init.zeros_(parameter)
        else:
            self.register_buffer("initial", torch.full((ahead, 2), 0.5))

    def forward(self, seen: Observation, memory: Recollection | None) -> tuple[Float[Tensor, "B K 2"], Recollection]:
        """Proposed positions of the next sub-sequence, fractions (y, x) of the field, and what to hand back for the one after.

        Raises:
            ValueError: the scan has other sub-sequences than the network was made for.
        """
        self._check(seen, 1 if memory is None else memory.number)
        return self.propose(self.latent(seen.potential), seen.positions, memory)

    def latent(self, potential: Shaped[Tensor, "B h w"]) -> Float[Tensor, "B c m m"]:
        """What the encoder makes of reconstructions."""
        return self.encoder(prepare(potential.to(self.initial), self.encoder.size))

    def standardise(self, latents: Float[Tensor, "B c m m"]) -> None:
        """Takes mean and spread of every number of the latent from those of some reconstructions; they are saved with the weights."""
        self.centre.copy_(latents.mean(0))
        self.spread.copy_(latents.std(0).clamp(min=LEAST * latents.std()))

    def propose(
        self, latent: Float[Tensor, "B c m m"], positions: Float[Tensor, "B P 2"], memory: Recollection | None
    ) -> tuple[Float[Tensor, "B K 2"], Recollection]:
        """The next positions from the latent of the current reconstruction and the positions so far, of which only the latest count."""
        hidden, number = (None, 1) if memory is None else (memory.hidden, memory.number)
        z = (latent - self.centre) / self.spread
        together = torch.cat([self._located(positions, number), self.structure(z)], 1)
        output, hidden = self.gru(self.join(together)[None], hidden)
        moved = self.heads[number - 1](output[0]).unflatten(1, (-1, 2))
        begin = sum(self.lengths[1:number])
        return self.initial[begin : begin + self.lengths[number]] + moved, Recollection(hidden, number + 1)

    def _located(self, positions: Float[Tensor, "B P 2"], number: int) -> Float[Tensor, "B L"]:
        """Location information of the sub-sequence before `number` (Eq. 4)."""
        latest = positions[:, -self.lengths[number - 1] :].to(self.initial)
        # Positions spread evenly over the field get zero mean and unit variance, as images have.
        flat = ((latest - 0.5) * 12**0.5).flatten(1)
        return self.location(nn.functional.pad(flat, (0, 2 * self.longest - flat.shape[1])))

    def _check(self, seen: Observation, number: int) -> None:
        if number >= len(self.lengths):
            raise ValueError(f"scan: expected no more than the {len(self.lengths)} sub-sequences the network was made for, got one more")
        asked = (seen.positions.shape[1], seen.count, seen.total)
        expected = (sum(self.lengths[:number]), self.lengths[number], sum(self.lengths))
        for name, want, got in zip(("seen", "to propose", "in all"), expected, asked, strict=True):
            if want != got:
                raise ValueError(
                    f"scan: expected {want} positions {name} at sub-sequence {number} of the {list(self.lengths)} "
                    f"the network was made for, got {got}"
                )
