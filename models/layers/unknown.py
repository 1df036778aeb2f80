"""Rows for ids that are born after the training days.

On training days nearly every id of a candidate is in its vocabulary, since the vocabulary is made of those days; what
row 0 (unknown) learns there comes from the few rare ids. On the next day most rooms are new, and row 0 has to stand for
them. Hiding a share of the known ids in training shows the model what it will meet.

    # N candidates
"""

from dataclasses import replace

from models.batch import FeedBatch
from models.layers.draws import uniform_N
from models.schema import Schema, Vocabulary

SALT = 2000  # of the first field's draws, see `layers.draws`


def with_hidden_ids(batch: FeedBatch, schema: Schema, share: float, progress: float) -> FeedBatch:
    """The batch with a random `share` of the candidates' vocabulary rows set to 0, each field on its own.

    Histories, bins, hashes and numbers stay: what a user has done is known, and a hash knows no new ids. Draws belong to
    the candidate (`layers.draws`).
    """
    if share == 0:
        return batch
    hidden = dict(batch.candidate)
    for place, field in enumerate(schema.fields_of("candidate")):
        if isinstance(field.encoding, Vocabulary):
            hidden[field.name] = hidden[field.name] * (uniform_N(batch, progress, SALT + place) >= share)
    return replace(batch, candidate=hidden)
