"""The feed table: one row a feed, candidate columns and histories as lists (`pipelines.batches` makes tensors of it).

Two Parquet tables have this shape. *Features* hold raw columns as the data steps compute them; *feeds* hold the
encoded fields of a schema. Both begin with the same `META` columns, so rows of one can be found in the other.
"""

import pyarrow as pa

from models.schema import Schema

META = pa.schema(
    [
        ("feed_id", pa.int64()),  # unique in a prepared data set
        ("user_id", pa.int64()),
        ("at", pa.int64()),  # when the feed was shown, ms since 1970
        ("day", pa.int32()),  # days since 1970, cut at the configured hour
        ("room_id", pa.list_(pa.int64())),  # candidates in logged order
    ]
)
ROW = pa.int32()  # a table row on disk; int64 as a tensor
LABEL_PREFIX = "label."


def feeds_schema(schema: Schema) -> pa.Schema:
    """Columns of the encoded feed table: `META`, level, fields, histories as `history.field`, labels as `label.target`."""
    columns = [*META, pa.field("level", pa.list_(pa.int8()))]
    for field in schema.fields:
        kind = pa.float32() if field.is_number else ROW
        columns.append(pa.field(field.name, kind if field.of == "feed" else pa.list_(kind)))
    for history in schema.histories:
        columns += [pa.field(f"{history.name}.{field.name}", pa.list_(ROW)) for field in history.fields]
    columns += [pa.field(LABEL_PREFIX + name, pa.list_(pa.float32())) for name in schema.target_names]
    return pa.schema(columns)
