"""Every system by name, as a row of choices with its paper's hyper-parameters.

`resolve` turns a spelling into a config: `{"system": "mmoe", "fusion": {"experts": 4}}` is the row `mmoe` with another
number of experts; a slot given with another `kind` replaces the row's.
"""

from collections.abc import Mapping
from typing import Any

from models.config import ConfigError, from_dict, overlaid, to_dict
from models.couplings.esmm import EsmmConfig
from models.fusions.mmoe import MmoeConfig
from models.fusions.ple import PleConfig
from models.fusions.shared_bottom import SharedBottomConfig
from models.fusions.single import SingleConfig
from models.interests.din import DinConfig
from models.interests.pooling import PoolingConfig
from models.ranker import RankerConfig

ZOO: dict[str, RankerConfig] = {
    # Cheng et al. 2016, with pooled histories as in the eLiveRec paper (hence WDL+)
    "wdl": RankerConfig(wide=True, interest=PoolingConfig(), fusion=SingleConfig(hidden=(256, 128, 64))),
    # Zhou et al. 2018, Sec. 6.3 and its published code
    "din": RankerConfig(interest=DinConfig(hidden=(80, 40)), fusion=SingleConfig(hidden=(200, 80))),
    # a network a target, layers as in the DBMTL paper
    "single": RankerConfig(fusion=SingleConfig(hidden=(256, 128, 64))),
    # vanilla MTL of the DBMTL paper, Sec. 3.2
    "shared_bottom": RankerConfig(fusion=SharedBottomConfig(hidden=(256, 128, 64), towers=(64, 32))),
    # Ma et al. 2018 with 8 experts as there, of the size in the CMLIR paper
    "mmoe": RankerConfig(fusion=MmoeConfig(experts=8, hidden=(128, 64), towers=(32,))),
    # Tang et al. 2020 with 2 extraction levels
    "ple": RankerConfig(fusion=PleConfig(levels=2, specific=1, shared=2, hidden=(128, 64), towers=(32,))),
    # Ma et al. 2018 (ESMM), Sec. 3.1: 360-200-80
    "esmm": RankerConfig(embedding_width=18, fusion=SingleConfig(hidden=(360, 200, 80)), coupling=EsmmConfig()),
}


def resolve(spelling: Mapping[str, Any]) -> RankerConfig:
    """The config of a spelling; without `system` the defaults of `RankerConfig` are overlaid.

    Raises:
        ConfigError: an unknown system, key or value.
    """
    name = spelling.get("system")
    if name is not None and name not in ZOO:
        raise ConfigError(f"`model.system` is {name!r}, which is not in the zoo. Systems: {', '.join(ZOO)}.")
    row = to_dict(RankerConfig() if name is None else ZOO[name])
    changes = {key: value for key, value in spelling.items() if key != "system"}
    return from_dict(RankerConfig, overlaid(row, changes), where="model")
