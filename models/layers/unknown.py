"""Rows for ids that are born after the training days.

On training days nearly every id of a candidate is in its vocabulary, since the vocabulary is made of those days; what
row 0 (unknown) learns there comes from the few rare ids. On the next day most rooms are new, and row 0 has to stand for
them. Hiding a share of the known ids in training shows the model what it will meet.

    # N candidates
"""

from dataclasses import replace

import torch

from models.batch import FeedBatch
from models.schema import Schema, Vocabulary


def with_hidden_ids(batch: FeedBatch, schema: Schema, share: float) -> FeedBatch:
    """The batch with a random `share` of the candidates' vocabulary rows set to 0, each field on its own.

    Histories, bins, hashes and numbers stay: what a user has done is known, and a hash knows no new ids.
    """
    if share == 0:
        return batch
    hidden = dict(batch.candidate)
    for field in schema.fields_of("candidate"):
        if isinstance(field.encoding, Vocabulary):
            rows_N = hidden[field.name]
            # drawn on the CPU, whose generator a checkpoint holds
            keep_N = torch.rand(rows_N.shape).ge(share).to(rows_N.device)
            hidden[field.name] = rows_N * keep_N
    return replace(batch, candidate=hidden)
