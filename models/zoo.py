"""Every system by name, as a row of choices with its paper's hyper-parameters.

`resolve` turns a spelling into a config: `{"system": "mmoe", "fusion": {"experts": 4}}` is the row `mmoe` with another
number of experts; a slot given with another `kind` replaces the row's.
"""

from collections.abc import Mapping
from typing import Any

from models.config import ConfigError, from_dict, overlaid, to_dict
from models.couplings.aitm import AitmConfig
from models.couplings.dbmtl import DbmtlConfig
from models.couplings.esmm import EsmmConfig
from models.couplings.pimm import PimmConfig
from models.fusions.entry_gate import EntryGateConfig
from models.fusions.mmoe import MmoeConfig
from models.fusions.mncm import MncmConfig
from models.fusions.ple import PleConfig
from models.fusions.shared_bottom import SharedBottomConfig
from models.fusions.single import SingleConfig
from models.fusions.star import StarConfig
from models.interests.bst import BstConfig
from models.interests.can import CanConfig
from models.interests.conet import ConetConfig
from models.interests.dasl import DaslConfig
from models.interests.ddtcdr import DdtcdrConfig
from models.interests.dien import DienConfig
from models.interests.din import DinConfig
from models.interests.disentangled import DisentangledConfig
from models.interests.dtcdr import DtcdrConfig
from models.interests.eta import EtaConfig
from models.interests.hgn import HgnConfig
from models.interests.minet import MinetConfig
from models.interests.pooling import PoolingConfig
from models.learners.adaptive import AdaptiveConfig
from models.learners.cmlir import CmlirConfig
from models.learners.finetune import FinetuneConfig
from models.system import SystemConfig
from models.weightings.fixed import FixedConfig
from models.weightings.stage import StageConfig

# DBMTL, Sec. 3.1: shared and specific layers of the vanilla MTL that it is compared with
SHARED_BOTTOM = SharedBottomConfig(hidden=(256, 128, 64), towers=(64, 32))
# the same as trained there; the paper has dropout, L1 and L2 on all layers and says not how much (norms are the optimiser's)
DBMTL_BOTTOM = SharedBottomConfig(hidden=(256, 128, 64), towers=(64, 32), dropout=0.1)
# Ma et al. 2018 with 8 experts as there, of the size in the CMLIR paper
MMOE = MmoeConfig(experts=8, hidden=(128, 64), towers=(32,))
# STAN, Sec. 4.1: a network for each target; sizes are left open there
TOWERS = SingleConfig(hidden=(256, 128, 64))
# PIMM, Sec. 3.2: a tower a target over shared embeddings, sizes for the public data (256-128-64 and width 24 for its own)
PIMM_TOWERS = SingleConfig(hidden=(128, 64, 32))
# Tang et al. 2020 with 2 extraction levels; the STAN paper leaves sizes open and takes the same backbone for its rows
PLE = PleConfig(levels=2, specific=1, shared=2, hidden=(128, 64), towers=(32,))
# eLiveRec, Sec. IV-B3 and IV-C: the entering tower and the experts after the embedding gate; sizes are left open there
ENTRY = EntryGateConfig(entering=(256, 128, 64), experts=4, hidden=(128, 64), towers=(32,))
TOWER = SingleConfig(hidden=(200, 80))  # Zhou et al. 2018, a tower a target
LIVE = ("engagements",)
CLICK, ADAPTIVE = FixedConfig(targets="roots"), AdaptiveConfig()


def dbmtl(root: str | None = None) -> DbmtlConfig:
    return DbmtlConfig(hidden=(32,), dropout=0.1, root=root)


def eliverec(interest: DisentangledConfig, **more: Any) -> SystemConfig:
    return SystemConfig(embedding_width=32, interest=interest, fusion=ENTRY, learner=ADAPTIVE, **more)


ZOO: dict[str, SystemConfig] = {
    # Cheng et al. 2016, with pooled histories as in the eLiveRec paper (hence WDL+)
    "wdl": SystemConfig(wide=True, interest=PoolingConfig(), fusion=SingleConfig(hidden=(256, 128, 64))),
    # Zhou et al. 2018, Sec. 6.3 and its published code
    "din": SystemConfig(interest=DinConfig(hidden=(80, 40)), fusion=SingleConfig(hidden=(200, 80))),
    # a network a target over shared embeddings: MLP single of the STAN paper
    "single": SystemConfig(fusion=TOWERS),
    # vanilla MTL of the DBMTL paper, MLP shared of the STAN paper
    "shared_bottom": SystemConfig(fusion=SHARED_BOTTOM),
    "mmoe": SystemConfig(fusion=MMOE),
    "ple": SystemConfig(fusion=PLE),
    # Ma et al. 2018 (ESMM), Sec. 3.1: 360-200-80
    "esmm": SystemConfig(embedding_width=18, fusion=SingleConfig(hidden=(360, 200, 80)), coupling=EsmmConfig()),
    # -- DBMTL, Sec. 3.1, on the schema's graph; and the structures of its Table 5, one target pointing at all others, of which
    # that of the click is the one of its Table 1
    "dbmtl": SystemConfig(embedding_width=64, fusion=DBMTL_BOTTOM, coupling=dbmtl()),
    "dbmtl_click": SystemConfig(embedding_width=64, fusion=DBMTL_BOTTOM, coupling=dbmtl("click")),
    "dbmtl_goods_bag": SystemConfig(embedding_width=64, fusion=DBMTL_BOTTOM, coupling=dbmtl("goods_bag")),
    "dbmtl_follow": SystemConfig(embedding_width=64, fusion=DBMTL_BOTTOM, coupling=dbmtl("follow")),
    # vanilla MTL of its Table 1, and with one layer more: as deep as DBMTL, without its arrows
    "dbmtl_vanilla": SystemConfig(embedding_width=64, fusion=DBMTL_BOTTOM),
    "dbmtl_vanilla_deep": SystemConfig(
        embedding_width=64, fusion=SharedBottomConfig(hidden=(256, 128, 64), towers=(64, 32, 32), dropout=0.1)
    ),
    # -- PIMM, Sec. 3.2 and Table 1: embeddings, towers and curriculum for the public data. What it calls shared-bottom shares
    # embeddings alone
    "pimm_shared_bottom": SystemConfig(embedding_width=5, fusion=PIMM_TOWERS),
    "aitm": SystemConfig(embedding_width=5, fusion=PIMM_TOWERS, coupling=AitmConfig(calibrator=0.6)),
    "mncm": SystemConfig(
        embedding_width=5, fusion=MncmConfig(specific=2, shared=2, hidden=(128, 64), towers=(32,)), coupling=AitmConfig()
    ),
    "pimm": SystemConfig(embedding_width=5, fusion=PIMM_TOWERS, coupling=PimmConfig(alpha=0.5, decay=0.25, floor=0.25)),
    # -- STAN, Sec. 4.1: with the rule-based stage as a feature
    "ple_stage": SystemConfig(embedding_width=128, stage=True, fusion=PLE),
    "stan_without_beta": SystemConfig(embedding_width=128, fusion=PLE, weighting=StageConfig(beta=False)),
    "stan": SystemConfig(embedding_width=128, fusion=PLE, weighting=StageConfig()),
    # -- Sheng et al. 2021, the baseline of CMLIR: shared_bottom with weights of each level
    "star": SystemConfig(fusion=StarConfig(hidden=(256, 128, 64), towers=(64, 32))),
    # -- CMLIR, Sec. 5.1 and 5.3: on MMoE and PLE, with experts as there; N = 25 rounds, k = 4, eta = 1
    "mmoe_cmlir": SystemConfig(fusion=MMOE, learner=CmlirConfig()),
    "mmoe_cmlir_dense": SystemConfig(fusion=MMOE, learner=CmlirConfig(specific="dense")),
    "ple_cmlir": SystemConfig(fusion=PLE, learner=CmlirConfig()),
    "mmoe_finetune": SystemConfig(fusion=MMOE, learner=FinetuneConfig()),
    "mmoe_finetune_balanced": SystemConfig(fusion=MMOE, learner=FinetuneConfig(sampling="balanced")),
    "ple_finetune": SystemConfig(fusion=PLE, learner=FinetuneConfig()),
    # Table 3, on MMoE; without shared parameters it is a model for each level, and MLIR is without the curriculum
    "cmlir_without_shared": SystemConfig(fusion=MMOE, learner=FinetuneConfig(pretraining=0.0)),
    "cmlir_without_specific": SystemConfig(fusion=MMOE, learner=CmlirConfig(specific="none")),
    "cmlir_without_hardness": SystemConfig(fusion=MMOE, learner=CmlirConfig(hardness="even")),
    "cmlir_without_adaptor": SystemConfig(fusion=MMOE, learner=CmlirConfig(adaptor=False)),
    "mlir": SystemConfig(fusion=MMOE, learner=CmlirConfig(sampling="natural")),
    "mlir_over": SystemConfig(fusion=MMOE, learner=CmlirConfig(sampling="over")),
    "mlir_under": SystemConfig(fusion=MMOE, learner=CmlirConfig(sampling="under")),
    # -- eLiveRec, Sec. V-B: the baselines of its Table II, d = 128, 8 heads; towers as in the row `din`; ETA attends to all of
    # its short sequences, as there
    # over the channels alone
    "wdl_channels": SystemConfig(wide=True, interest=PoolingConfig(histories=LIVE), fusion=SingleConfig(hidden=(256, 128, 64))),
    "din_channels": SystemConfig(interest=DinConfig(hidden=(80, 40), histories=LIVE), fusion=TOWER),
    "dien_channels": SystemConfig(embedding_width=32, interest=DienConfig(histories=LIVE), fusion=TOWER),
    "hgn_channels": SystemConfig(embedding_width=32, interest=HgnConfig(histories=LIVE), fusion=TOWER),
    "bst_channels": SystemConfig(embedding_width=32, interest=BstConfig(histories=LIVE), fusion=TOWER),
    "can_channels": SystemConfig(embedding_width=32, interest=CanConfig(histories=LIVE), fusion=TOWER),
    "eta_channels": SystemConfig(embedding_width=32, interest=EtaConfig(keep=None, histories=LIVE), fusion=TOWER),
    # over both domains; `wdl` and `din` stand above
    "dien": SystemConfig(embedding_width=32, interest=DienConfig(), fusion=TOWER),
    "hgn": SystemConfig(embedding_width=32, interest=HgnConfig(), fusion=TOWER),
    "bst": SystemConfig(embedding_width=32, interest=BstConfig(), fusion=TOWER),
    "can": SystemConfig(embedding_width=32, interest=CanConfig(), fusion=TOWER),
    "eta": SystemConfig(embedding_width=32, interest=EtaConfig(keep=None), fusion=TOWER),
    # across domains; the last three in their "+" form, with the user's sequences
    "minet": SystemConfig(embedding_width=32, interest=MinetConfig(), fusion=TOWER),
    "dasl": SystemConfig(embedding_width=32, interest=DaslConfig(), fusion=TOWER),
    "conet": SystemConfig(embedding_width=32, interest=ConetConfig(), fusion=TOWER),
    "dtcdr": SystemConfig(embedding_width=32, interest=DtcdrConfig(), fusion=TOWER),
    "ddtcdr": SystemConfig(embedding_width=32, interest=DdtcdrConfig(), fusion=TOWER),
    # Table IV: for the click alone, with fixed weights, and with adaptive ones
    "din_ctr": SystemConfig(embedding_width=32, interest=DinConfig(hidden=(80, 40)), fusion=ENTRY, weighting=CLICK),
    "din_vanilla": SystemConfig(embedding_width=32, interest=DinConfig(hidden=(80, 40)), fusion=ENTRY),
    "din_adaptive": SystemConfig(embedding_width=32, interest=DinConfig(hidden=(80, 40)), fusion=ENTRY, learner=ADAPTIVE),
    "hgn_ctr": SystemConfig(embedding_width=32, interest=HgnConfig(), fusion=ENTRY, weighting=CLICK),
    "hgn_vanilla": SystemConfig(embedding_width=32, interest=HgnConfig(), fusion=ENTRY),
    "hgn_adaptive": SystemConfig(embedding_width=32, interest=HgnConfig(), fusion=ENTRY, learner=ADAPTIVE),
    "bst_ctr": SystemConfig(embedding_width=32, interest=BstConfig(), fusion=ENTRY, weighting=CLICK),
    "bst_vanilla": SystemConfig(embedding_width=32, interest=BstConfig(), fusion=ENTRY),
    "bst_adaptive": SystemConfig(embedding_width=32, interest=BstConfig(), fusion=ENTRY, learner=ADAPTIVE),
    "eta_ctr": SystemConfig(embedding_width=32, interest=EtaConfig(keep=None), fusion=ENTRY, weighting=CLICK),
    "eta_vanilla": SystemConfig(embedding_width=32, interest=EtaConfig(keep=None), fusion=ENTRY),
    "eta_adaptive": SystemConfig(embedding_width=32, interest=EtaConfig(keep=None), fusion=ENTRY, learner=ADAPTIVE),
    "minet_ctr": SystemConfig(embedding_width=32, interest=MinetConfig(), fusion=ENTRY, weighting=CLICK),
    "minet_vanilla": SystemConfig(embedding_width=32, interest=MinetConfig(), fusion=ENTRY),
    "minet_adaptive": SystemConfig(embedding_width=32, interest=MinetConfig(), fusion=ENTRY, learner=ADAPTIVE),
    "eliverec_ctr": SystemConfig(embedding_width=32, interest=DisentangledConfig(), fusion=ENTRY, weighting=CLICK),
    "eliverec_vanilla": SystemConfig(embedding_width=32, interest=DisentangledConfig(), fusion=ENTRY),
    "eliverec": eliverec(DisentangledConfig()),
    "eliverec_entered": eliverec(DisentangledConfig(), children="entered"),  # the other reading of its Sec. IV-C
    # Table III (w/o P, C, N, D; Cos, Enc, SR), Figure 5, and channels alone; without both regularisers is not in the paper
    "eliverec_learnt_prototypes": eliverec(DisentangledConfig(prototypes="learnt")),
    "eliverec_without_dcor": eliverec(DisentangledConfig(correlation=0.0)),
    "eliverec_without_infonce": eliverec(DisentangledConfig(alignment="none")),
    "eliverec_without_regularisers": eliverec(DisentangledConfig(correlation=0.0, alignment="none")),
    "eliverec_without_disentangling": eliverec(DisentangledConfig(disentangle=False)),
    "eliverec_cosine": eliverec(DisentangledConfig(alignment="cosine")),
    "eliverec_euclidean": eliverec(DisentangledConfig(alignment="euclidean")),
    "eliverec_specific_apart": eliverec(DisentangledConfig(specific="apart")),
    "eliverec_din": eliverec(DisentangledConfig(encoder="din")),
    "eliverec_hgn": eliverec(DisentangledConfig(encoder="hgn")),
    "eliverec_channels": eliverec(DisentangledConfig(histories=LIVE)),
}


def resolve(spelling: Mapping[str, Any]) -> SystemConfig:
    """The config of a spelling; without `system` the defaults of `SystemConfig` are overlaid.

    Raises:
        ConfigError: an unknown system, key or value.
    """
    name = spelling.get("system")
    if name is not None and name not in ZOO:
        raise ConfigError(f"`model.system` is {name!r}, which is not in the zoo. Systems: {', '.join(ZOO)}.")
    row = to_dict(SystemConfig() if name is None else ZOO[name])
    changes = {key: value for key, value in spelling.items() if key != "system"}
    return from_dict(SystemConfig, overlaid(row, changes), where="model")
