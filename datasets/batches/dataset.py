"""The Dataset of a pack.

Some of its rows, gathered a batch at a time as raw values in torch's memory.

Nothing is decoded or standardised here. `datasets/images/` decodes each picture once, and
`transform.py` standardises on the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...schema import Batch, FeatureSchema, Schema
from ..kinds import (
    Gather,
    Pictures,
    Questions,
    ask_questions,
    file_scale,
    kind_of,
    picture_sizes,
    target_ids,
)
from ..pack import Pack

# Shapes: B rows in a batch, C channels, H height, W width, D columns, T targets, P points.

# Bytes of pixels that are copied into memory, and how many rows of them at once.
MOST_IN_MEMORY = 2**29
# Where a process in a container sees its own limits.
CGROUP = Path("/sys/fs/cgroup")


class PackDataset(Dataset[Batch]):
    """Some rows of a pack, gathered a batch at a time.

    Args:
        pack: raw values.
        schema: the features that make a batch, and the ids of their classes.
        rows: int64, positions in the pack, for example those of one split.
        in_memory: copy the pixels of these rows into memory, where they are few enough: for rows
            that are gathered again and again, at random. From one block they come three times as
            fast as from the shards of a store.
        with_mirrors: copy their mirror images too, where both are few enough: for rows that are
            asked for mirrored.

    A target that the pack does not have, because its rows are to be predicted, is zeros: their
    losses mean nothing.

    Triples whose tails are ranked are asked in both directions, so that there are twice as many
    items as rows, the backward ones last; to be predicted, each is asked for its tail alone. See
    `datasets/kinds/triples.py`.

    Raises:
        DataError: a row's target is no class of the schema.
    """

    def __init__(
        self,
        pack: Pack,
        schema: Schema,
        rows: np.ndarray,
        in_memory: bool = False,
        with_mirrors: bool = False,
    ) -> None:
        self._pack, self._schema = pack, schema
        self.rows = np.asarray(rows, np.int64)
        if schema.triple is None:
            self._of_item = self.rows
            self._inputs = [
                kind_of(feature.kind).gatherer(pack, feature, self.rows, schema)
                for feature in schema.inputs
            ]
            if in_memory:
                self._copy_pictures(with_mirrors)
            kind = kind_of(schema.target_kind)
            has_target = all(target.name in pack.features for target in schema.targets)
            self._target = (
                kind.target_gatherer(pack, schema, self.rows) if has_target else kind.zeros(schema)
            )
        else:
            asked = self.questions()
            self._of_item = self.rows[asked.row]
            given = {schema.triple.head: asked.head, schema.triple.relation: asked.relation}
            self._inputs = [_picker(given[at][:, None]) for at in sorted(given)]
            self._target = _picker(asked.answer)

    def __len__(self) -> int:
        return len(self._of_item)

    @property
    def targets(self) -> list[FeatureSchema]:
        """What the batches' target is."""
        return self._schema.targets

    def __getitem__(self, index: int) -> Batch:
        """One row, without the first dimension."""
        batch = self.__getitems__([index])
        return Batch(batch.rows[0], tuple(one[0] for one in batch.inputs), batch.target[0])

    def __getitems__(self, indices: Iterable[int] | np.ndarray) -> Batch:
        """Gather a whole batch, copied into memory of its own.

        Args:
            indices: positions in this data set, not in the pack; of shape (2, B) with
                `Batch.repeats` beneath, of (3, B) with 1 beneath these for rows whose pictures come
                mirrored, else 0.
        """
        index, repeats, mirrored = np.asarray(indices, np.int64), None, None
        if index.ndim == 2:
            index, repeats, mirrored = (
                index[0],
                torch.from_numpy(index[1]),
                index[2] if len(index) > 2 else None,
            )
        return Batch(
            torch.from_numpy(self._of_item[index]),
            tuple(
                gather(index, mirrored) if isinstance(gather, Pictures) else gather(index)
                for gather in self._inputs
            ),
            self._target(index),
            repeats,
        )

    def rows_of(self, items: np.ndarray) -> np.ndarray:
        """Positions in the pack of positions in this data set, int64."""
        return self._of_item[items]

    def questions(self) -> Questions:
        """What the items ask, where the schema has a triple."""
        [target] = self._schema.targets
        is_known = target.name in self._pack.features
        tails = target_ids(self._pack, target, self.rows) if is_known else None
        return ask_questions(self._pack, self._schema, self.rows, tails)

    def scale(self, points: FeatureSchema) -> Tensor:
        """Pixels of the file in a pixel of the stored image, along x and y, for
        each of these rows.

        Args:
            points: a feature of points; a distance between two of them times this is one in the
                table's units.
        Returns:
            float64, shape (rows, 2), in the order of the rows.
        """
        return torch.from_numpy(
            file_scale(*picture_sizes(self._pack, self._schema, points, self.rows))
        )

    def classes(self) -> np.ndarray:
        """The class id of every row, int64 (N,).

        Of several category targets, that of the first.
        """
        return self._target(np.arange(len(self))).numpy().reshape(len(self), -1)[:, 0]

    def _copy_pictures(self, with_mirrors: bool) -> None:
        """Copy pictures, and where asked their mirror images, into memory,
        as far as there is room.
        """
        room = min(MOST_IN_MEMORY, free_memory() // 4)
        for one in self._inputs:
            if isinstance(one, Pictures) and one.num_bytes <= room:
                both = with_mirrors and 2 * one.num_bytes <= room
                one.copy(both)
                room -= (1 + both) * one.num_bytes

    def __reduce__(self) -> tuple[type[PackDataset], tuple[Pack, Schema, np.ndarray]]:
        # Without the copies, which each worker of a system that cannot fork would make anew.
        return PackDataset, (self._pack, self._schema, self.rows)


def _picker(values: np.ndarray) -> Gather:
    """What gathers from an array in memory."""
    return lambda index: torch.from_numpy(values[index])


def free_memory() -> int:
    """Bytes that this process may still take.

    What the machine has, or what a container allows (control groups, v2).
    """
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError, KeyError):  # another system, or no limit
        limit, used = (
            int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current")
        )
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        free = min(
            free, max(0, limit - used + int(stat["inactive_file"]))
        )  # files that were read give way
    return free
