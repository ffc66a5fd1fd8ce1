"""Limits that no request may break (`adaptycho.instruments.guard`). All are off until they are set."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from adaptycho.settings.bounds import STRICT, Dose, Fraction, Length, Positive, Real

Total = Annotated[Real, Field(gt=0, le=1e18)]


@dataclass(frozen=True, config=STRICT)
class Safety:
    """What no request may do to the specimen; one that would is refused before an electron is sent."""

    outside: Length | None = Field(default=None, description="Å that a request may lie outside the scan field; unset: any")
    dose: Total | None = Field(default=None, description="electrons that a specimen may receive in all; unset: any number")
    local: Total | None = Field(default=None, description="electrons per Å² that any place of it may receive; unset: any number")
    jump: Positive | None = Field(default=None, description="Å from one position to the next at most; unset: any")
    seconds: Positive | None = Field(default=None, description="of a sub-sequence at most, then the beam is parked; unset: any time")
    electrons: Dose | None = Field(default=None, description="sent to each position at most, where the microscope does not tell")
    calibrate: Fraction | None = Field(
        default=None, description="part of the field that a check before the scan may expose, 0 for none; unset: as the microscope has it"
    )
    waiting: Fraction = Field(default=1.0, description="part of the beam that reaches the specimen between sub-sequences, if none parks it")
