"""Every field of a batch as named vectors.

# R feeds, N candidates, L history length, E width of a whole history entry
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.batch import FeedBatch, HistoryBatch
from models.layers.numbers import NUMBERS, NumbersConfig
from models.layers.tables import Gathered, Reads, TableSet
from models.schema import Schema
from models.slots import Widths


@dataclass(frozen=True, kw_only=True)
class EmbeddedHistory:
    """One domain's histories.

    Attributes:
        entries_RLE: all attributes of an entry side by side; those that match a candidate field come first, in the
            order of `schema.matches`. Padded entries hold row 0's values and must be masked.
        is_real_RL: False where padded.
        other_RE: an entry of another user; None where a batch has none (`batch.Others`).
    """

    entries_RLE: Tensor
    is_real_RL: Tensor
    other_RE: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """A batch as vectors, addressed by field and history name."""

    feed: Mapping[str, Tensor]
    candidate: Mapping[str, Tensor]
    histories: Mapping[str, EmbeddedHistory]


@dataclass(frozen=True, kw_only=True)
class HistoryWidths:
    """Width of a whole entry and of its matched part, which comes first."""

    entry: int
    matched: int


@dataclass(frozen=True, kw_only=True)
class InterestInputs:
    """What an interest knows beforehand of what it will read.

    Attributes:
        fields: of `Embedded.feed` and `Embedded.candidate`.
        histories: by name.
        table_sizes: rows of each table, for tables of an interest's own.
    """

    fields: Widths
    histories: Mapping[str, HistoryWidths]
    table_sizes: Mapping[str, int]


def _embedded(entries_RLE: Tensor, history: HistoryBatch) -> EmbeddedHistory:
    """Args: `entries_RLE` as `tables.Looked` has them."""
    if history.others is None:
        return EmbeddedHistory(entries_RLE=entries_RLE, is_real_RL=history.is_real_RL)
    return EmbeddedHistory(entries_RLE=entries_RLE[:, :-1], is_real_RL=history.is_real_RL, other_RE=entries_RLE[:, -1])


class Embedding(nn.Module):
    """Tables of every width, and numbers.

    Rows start normal with deviation 0.01; row 0, unknown or missing, is a row like any other.

    Args:
        schema: fields, histories and who shares a table.
        table_sizes: rows of each table.
        width: of tables whose width the schema leaves open.
        numbers: how float fields become vectors.
    """

    like: Tensor

    def __init__(self, schema: Schema, table_sizes: Mapping[str, int], width: int, numbers: NumbersConfig) -> None:
        super().__init__()
        self.table_widths = {table: declared or width for table, (_, declared) in schema.tables.items()}
        self._matched = {history.name: [item.name for item, _ in schema.matches(history.name)] for history in schema.histories}
        self._entry_order = {
            history.name: [
                *self._matched[history.name],
                *(item.name for item in history.fields if item.name not in self._matched[history.name]),
            ]
            for history in schema.histories
        }
        self.sets = nn.ModuleDict(
            {
                f"width_{each}": TableSet(self._reads(schema, each), table_sizes, each)
                for each in sorted(set(self.table_widths.values()))
            }
        )
        self._numbers = {of: [item.name for item in schema.fields_of(of) if item.is_number] for of in ("feed", "candidate")}
        self.numbers = nn.ModuleDict(
            {of: NUMBERS[numbers.kind](numbers, len(names)) for of, names in self._numbers.items() if names}
        )
        self.register_buffer("like", torch.zeros(()), persistent=False)  # of the dtype that the module was brought to
        self._order = {of: [item.name for item in schema.fields_of(of)] for of in ("feed", "candidate")}
        number_width = numbers.width
        each_width = {item.name: number_width if item.is_number else self.table_widths[item.table] for item in schema.fields}
        self.widths = Widths(
            feed={name: each_width[name] for name in self._order["feed"]},
            candidate={name: each_width[name] for name in self._order["candidate"]},
        )
        history_widths = {}
        for history in schema.histories:
            by_name = {item.name: self.table_widths[item.table] for item in history.fields}
            history_widths[history.name] = HistoryWidths(
                entry=sum(by_name.values()), matched=sum(by_name[name] for name in self._matched[history.name])
            )
        self.inputs = InterestInputs(fields=self.widths, histories=history_widths, table_sizes=table_sizes)

    def forward(self, batch: FeedBatch, gathered: Mapping[nn.Module, Gathered] | None = None) -> Embedded:
        """Args: `gathered` holds the training leaf of every table set; None reads the tables themselves."""
        feed: dict[str, Tensor] = {}
        candidate: dict[str, Tensor] = {}
        entries: dict[str, dict[str, Tensor]] = {name: {} for name in self._entry_order}
        whole: dict[str, Tensor] = {}
        for tables in self.sets.values():
            assert isinstance(tables, TableSet)
            looked = tables(batch, None if gathered is None else gathered[tables])
            if looked.feed_RFD is not None:
                feed.update(zip(tables.reads.feed, looked.feed_RFD.unbind(1), strict=True))
            if looked.candidate_NFD is not None:
                candidate.update(zip(tables.reads.candidate, looked.candidate_NFD.unbind(1), strict=True))
            for name, block_RLFD in looked.histories.items():
                names = list(tables.reads.histories[name])
                if names == self._entry_order[name]:  # one width, as usual: already side by side, nothing to copy
                    whole[name] = block_RLFD.flatten(2)
                else:
                    entries[name].update(zip(names, block_RLFD.unbind(2), strict=True))
        for of, into in (("feed", feed), ("candidate", candidate)):
            if of in self.numbers:
                columns = getattr(batch, of)
                values_NF = torch.stack([columns[name] for name in self._numbers[of]], dim=1)
                vectors_NFD = self.numbers[of](values_NF.to(self.like.dtype))
                into.update(zip(self._numbers[of], vectors_NFD.unbind(1), strict=True))
        return Embedded(
            feed={name: feed[name] for name in self._order["feed"]},
            candidate={name: candidate[name] for name in self._order["candidate"]},
            histories={
                name: _embedded(
                    whole[name] if name in whole else torch.cat([entries[name][item] for item in order], dim=2),
                    batch.histories[name],
                )
                for name, order in self._entry_order.items()
            },
        )

    def _reads(self, schema: Schema, width: int) -> Reads:
        of_width = lambda pairs: {name: table for name, table in pairs if self.table_widths[table] == width}
        histories = {}
        for history in schema.histories:
            by_name = {item.name: item.table for item in history.fields}
            found = of_width((name, by_name[name]) for name in self._entry_order[history.name])
            if found:
                histories[history.name] = found
        return Reads(
            feed=of_width((item.name, item.table) for item in schema.fields_of("feed") if not item.is_number),
            candidate=of_width((item.name, item.table) for item in schema.fields_of("candidate") if not item.is_number),
            histories=histories,
        )
