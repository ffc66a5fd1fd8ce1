"""The physics (Eq. 1): grids, the beam, specimens, and electrons on the detector."""

from typing import Literal

Family = Literal["crystal", "vacancies", "island", "edge", "particles", "boundary", "amorphous"]  # adaptycho.physics.specimen.families
