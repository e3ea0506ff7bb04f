"""What a sequence's constants mean to a stage."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.fidelity import Fidelity
from daemon.sampling import SamplingParams
from daemon.stage.ledger import Constants


@dataclass(frozen=True, slots=True)
class Known:
    """A sequence's constants, as they came and as they were read."""

    constants: Constants
    params: SamplingParams
    fidelity: Fidelity

    @classmethod
    def read(cls, constants: Constants) -> Known:
        """Raises KeyError, TypeError or ValueError for what cannot be used."""
        params = SamplingParams.from_wire(constants["sampling"])
        return cls(constants, params, Fidelity.from_wire(constants))
