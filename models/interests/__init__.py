"""Interest slot: histories and candidate -> interest vectors, per feed or per candidate.

A filling is built as `Filling(config, schema, history_widths)`, tells its `widths: Widths`, and is called as
`filling(embedded, batch) -> Interests`.
"""

from typing import Annotated

from pydantic import Discriminator

from models.interests.din import Din, DinConfig
from models.interests.pooling import Pooling, PoolingConfig

InterestConfig = Annotated[PoolingConfig | DinConfig, Discriminator("kind")]

INTERESTS = {"pooling": Pooling, "din": Din}
