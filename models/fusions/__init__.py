"""Fusion slot: named input vectors of both levels -> one vector per target.

A filling is built as `Filling(config, schema, widths)`, tells its `widths: dict[target, int]`, and is called as
`filling(vectors) -> dict[target, Tensor_NH]`. It ends with the target's tower; the coupling makes the output of it. For
reports, `filling.gates(vectors) -> {target: Tensor_NE}` are the weights of the targets' (last) gates over experts with the
names `filling.expert_names: {target: tuple}`; both are empty for a filling without gates.
"""

from typing import Annotated

from pydantic import Discriminator

from models.fusions.entry_gate import EntryGate, EntryGateConfig
from models.fusions.mmoe import Mmoe, MmoeConfig
from models.fusions.mncm import Mncm, MncmConfig
from models.fusions.ple import Ple, PleConfig
from models.fusions.shared_bottom import SharedBottom, SharedBottomConfig
from models.fusions.single import Single, SingleConfig
from models.fusions.star import Star, StarConfig

FusionConfig = Annotated[
    SingleConfig | SharedBottomConfig | MmoeConfig | PleConfig | MncmConfig | StarConfig | EntryGateConfig,
    Discriminator("kind"),
]

FUSIONS = {
    "single": Single,
    "shared_bottom": SharedBottom,
    "mmoe": Mmoe,
    "ple": Ple,
    "mncm": Mncm,
    "star": Star,
    "entry_gate": EntryGate,
}
