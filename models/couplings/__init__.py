"""Coupling slot: vectors per target -> outputs per target, along the target graph.

A filling is built as `Filling(config, schema, widths)`, `widths` per target, and is called as

    filling(vectors, training) -> Coupled        training: `slots.Training`, or None when predicting;
    filling.edges(vectors) -> {(parent, child): Tensor_N}, what it passes on, for reports; `carries` says what that number is;
    filling.curriculum_epochs: epochs until training is shown no more than predicting, 0 without a curriculum.
"""

from typing import Annotated

from pydantic import Discriminator

from models.couplings.aitm import Aitm, AitmConfig
from models.couplings.dbmtl import Dbmtl, DbmtlConfig
from models.couplings.esmm import Esmm, EsmmConfig
from models.couplings.independent import Independent, IndependentConfig
from models.couplings.pimm import Pimm, PimmConfig

CouplingConfig = Annotated[IndependentConfig | EsmmConfig | AitmConfig | PimmConfig | DbmtlConfig, Discriminator("kind")]

COUPLINGS = {"independent": Independent, "esmm": Esmm, "aitm": Aitm, "pimm": Pimm, "dbmtl": Dbmtl}
