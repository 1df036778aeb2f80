"""Interest slot: histories and candidate -> interest vectors, per feed or per candidate.

A filling is built as `Filling(config, schema, inputs)` (`layers.embedding.InterestInputs`), tells its `widths: Widths`, the
names of its `penalties` and its `together` (`slots.Together` or None), and is called as

    filling(embedded, batch, training, gathered) -> Interests

with `training` None when predicting. One that can stop doing what it is there for without a loss that shows it has besides

    filling.probe(embedded, batch) -> {name: slots.Probe},

and one with a loss of the domain of products (`layers.source`) names that history in `contrasted`.

`gathered` is for table sets of its own, as in `TableSet.forward`; None reads the
tables themselves.
"""

from typing import Annotated

from pydantic import Discriminator

from models.interests.bst import Bst, BstConfig
from models.interests.can import Can, CanConfig
from models.interests.conet import Conet, ConetConfig
from models.interests.dasl import Dasl, DaslConfig
from models.interests.ddtcdr import Ddtcdr, DdtcdrConfig
from models.interests.dien import Dien, DienConfig
from models.interests.din import Din, DinConfig
from models.interests.disentangled import Disentangled, DisentangledConfig
from models.interests.dtcdr import Dtcdr, DtcdrConfig
from models.interests.eta import Eta, EtaConfig
from models.interests.hgn import Hgn, HgnConfig
from models.interests.minet import Minet, MinetConfig
from models.interests.pooling import Pooling, PoolingConfig

InterestConfig = Annotated[
    PoolingConfig
    | DinConfig
    | ConetConfig
    | DtcdrConfig
    | DdtcdrConfig
    | MinetConfig
    | DaslConfig
    | BstConfig
    | EtaConfig
    | HgnConfig
    | DienConfig
    | CanConfig
    | DisentangledConfig,
    Discriminator("kind"),
]

INTERESTS = {
    "pooling": Pooling,
    "din": Din,
    "conet": Conet,
    "dtcdr": Dtcdr,
    "ddtcdr": Ddtcdr,
    "minet": Minet,
    "dasl": Dasl,
    "bst": Bst,
    "eta": Eta,
    "hgn": Hgn,
    "dien": Dien,
    "can": Can,
    "disentangled": Disentangled,
}
