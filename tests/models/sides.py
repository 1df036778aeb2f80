"""The user's side of a domain, one candidate at a time, for tests of interests in which two domains meet."""

import math

import torch
from torch import Tensor, nn

from models.layers.embedding import Embedding
from models.layers.numbers import RawConfig
from tests.samples import TABLE_SIZES, random_batch, tiny_schema


def embedded(seed: int = 0, **kwargs):
    """`tiny_schema`, its embedding of width 4, a batch, and the batch embedded."""
    schema = tiny_schema()
    torch.manual_seed(seed)
    embedding = Embedding(schema, TABLE_SIZES, 4, RawConfig()).double()
    nn.init.normal_(embedding.sets["width_4"].weight)
    batch = random_batch(schema, TABLE_SIZES, seed=seed, **kwargs)
    return schema, embedding, batch, embedding(batch)


def drawn(module: nn.Module) -> nn.Module:
    """In float64, every parameter normal and far from its start; wide layers do not blow up."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double()


def content_and_item(content: nn.Module, schema, vectors, batch, candidate: int) -> tuple[Tensor, Tensor]:
    """The candidate's view of its feed's history, head by head and entry by entry, and the candidate as an item."""
    domain, attention = content.domain, content.attention
    history = vectors.histories[domain.history]
    feed = int(batch.feed_of_candidate_N[candidate])
    matched = [field.name for _, field in schema.matches(domain.history)]
    others = [field.name for field in schema.fields_of("candidate") if not field.is_number and field.name not in matched]
    item = domain.candidate_bias_D + torch.cat([vectors.candidate[name][candidate] for name in matched]) @ domain.matched_MD
    item = item + torch.cat([vectors.candidate[name][candidate] for name in others]) @ domain.candidate_CD
    real = history.entries_RLE[feed, : int(history.is_real_RL[feed].sum())]
    return attended(attention, item, [in_space(domain, entry) for entry in real]), item


def in_space(domain: nn.Module, entry: Tensor) -> Tensor:
    """An entry where it meets the candidates."""
    split = len(domain.matched_MD)
    found = entry[:split] @ domain.matched_MD + domain.entry_bias_D
    return found if domain.entry_ED is None else found + entry[split:] @ domain.entry_ED


def attended(attention: nn.Module, item: Tensor, entries: list[Tensor]) -> Tensor:
    """What an item finds among entries, head by head."""
    query = item @ attention.query_DD + attention.query_bias_D
    width = len(query)
    size = width // attention.heads
    found = []
    for head in range(attention.heads):
        places = slice(head * size, (head + 1) * size)
        key_DK, value_DK = attention.both_D2D[:, :width][:, places], attention.both_D2D[:, width:][:, places]
        weights = [math.exp((query[places] @ (entry @ key_DK)).item() / math.sqrt(size)) for entry in entries]
        total = torch.zeros(size, dtype=item.dtype)
        for weight, entry in zip(weights, entries, strict=True):
            total = total + weight / sum(weights) * (entry @ value_DK)
        found.append(total)
    return torch.cat(found) @ attention.out_DD + attention.out_bias_D


def user_and_item(side: nn.Module, schema, vectors, batch, candidate: int) -> tuple[Tensor, Tensor]:
    """The user's embedding in a domain: fields plus content."""
    content, item = content_and_item(side.content, schema, vectors, batch, candidate)
    feed = int(batch.feed_of_candidate_N[candidate])
    return torch.cat([vectors.feed[name][feed] for name in vectors.feed]) @ side.profile_FD + content, item
