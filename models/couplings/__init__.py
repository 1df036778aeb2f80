"""Coupling slot: vectors per target -> outputs per target, along the target graph.

A filling is built as `Filling(config, schema, widths)`, `widths` per target, and is called as
`filling(vectors, labels) -> Coupled`. Labels are in the label's own unit and empty when predicting; only fillings that
pass them down the graph in training read them.
"""

from typing import Annotated

from pydantic import Discriminator

from models.couplings.esmm import Esmm, EsmmConfig
from models.couplings.independent import Independent, IndependentConfig

CouplingConfig = Annotated[IndependentConfig | EsmmConfig, Discriminator("kind")]

COUPLINGS = {"independent": Independent, "esmm": Esmm}
