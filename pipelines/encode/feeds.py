"""The feed table: one row a feed, candidate columns and histories as lists (`pipelines.encode.batches` makes tensors of it).

Two Parquet tables have this shape. *Features* hold raw columns as the data steps compute them; *feeds* hold the
encoded fields of a schema. Both begin with the same `META` columns, so rows of one can be found in the other.
"""

import pyarrow as pa

from models import catalogue
from models.config import ConfigError
from models.schema import Schema

META = pa.schema(
    [
        ("feed_id", pa.int64()),  # unique in a prepared data set
        ("user_id", pa.int64()),
        ("at", pa.int64()),  # when the feed was shown, ms since 1970
        ("day", pa.int32()),  # days since 1970, see `Clock.day`
        ("room_id", pa.list_(pa.int64())),  # candidates in logged order
    ]
)
TABLES = 4  # of the columns below and of the encoder beside them; tables of another number are refused
ROW = pa.int32()  # a table row on disk; int64 as a tensor
LABEL_PREFIX = "label."
EARLIER = catalogue.EARLIER
PREFERENCE_PREFIX = f"{catalogue.PREFERENCE}."
PER_CLICK_PREFIX = "per_click."
STAGE = "stage"


def feeds_schema(schema: Schema) -> pa.Schema:
    """Columns of the encoded feed table.

    `META`; `stage`, an index into `models.schema.STAGES`, where the schema declares stages; level; fields; histories as
    `history.field`. Then what only training has: labels as `label.target`; `preference_count` and `preference.target`, a
    value for each of the schema's windows, null without earlier impressions; and where the schema declares stages, of all
    targets but their click `per_click.target`, the same sum of labels by clicks, null without any. A value's mean label is
    written as its place among the positive labels of training days (see `EncoderState.label_quantiles`). A label that is not
    final is below zero (see `pipelines.encode.open_labels`).

    Raises:
        ConfigError: a field or history whose column would have the name of another.
    """
    columns = [*META]
    if schema.stages is not None:
        columns.append(pa.field(STAGE, pa.int8()))
    columns.append(pa.field("level", pa.list_(pa.int8())))
    for field in schema.fields:
        kind = pa.float32() if field.is_number else ROW
        columns.append(pa.field(field.name, kind if field.of == "feed" else pa.list_(kind)))
    for history in schema.histories:
        columns += [pa.field(f"{history.name}.{field.name}", pa.list_(ROW)) for field in history.fields]
    columns += [pa.field(LABEL_PREFIX + name, pa.list_(pa.float32())) for name in schema.target_names]
    columns.append(pa.field(EARLIER, pa.list_(pa.int64())))
    columns += [pa.field(PREFERENCE_PREFIX + name, pa.list_(pa.float32())) for name in schema.target_names]
    if schema.stages is not None:
        names = [name for name in schema.target_names if name != schema.stages.click]
        columns += [pa.field(PER_CLICK_PREFIX + name, pa.list_(pa.float32())) for name in names]
    names = [column.name for column in columns]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(
            f"the feed table would have two columns `{'`, `'.join(repeated)}`: give the field or history of that name another "
            "name (its `column` may stay)."
        )
    return pa.schema(columns)
