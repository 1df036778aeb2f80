"""Coupling slot: vectors per target -> outputs per target, along the target graph.

A filling is built as `Filling(config, schema, widths)`, `widths` per target, and is called as

    filling(vectors, training) -> Coupled        training: `slots.Training`, or None when predicting;
    filling.edges(vectors) -> {(parent, child): Tensor_N}, what it passes on, for reports; `carries` says what that number is.
"""

from typing import Annotated

from pydantic import Discriminator

from models.couplings.esmm import Esmm, EsmmConfig
from models.couplings.independent import Independent, IndependentConfig

CouplingConfig = Annotated[IndependentConfig | EsmmConfig, Discriminator("kind")]

COUPLINGS = {"independent": Independent, "esmm": Esmm}
