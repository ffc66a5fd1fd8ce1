"""What a reconstruction may find out beside the object: the probe, and where it was."""

from typing import Literal, get_args

Parameter = Literal["probe", "positions", "affine", "rotation", "defocus", "intensities", "thickness"]
PARAMETERS: tuple[Parameter, ...] = get_args(Parameter)
