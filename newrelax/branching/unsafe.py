"""What outputs must not do: linear conditions, joined by "and" within a conjunction and by "or" between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Unsafe:
    """Outputs z are unsafe if in some conjunction every row has matrix·z ≤ limit.

    matrix: [rows, outputs]; limit: [rows]; conjunction: the number of each row's conjunction, 0, 1, …, [rows].
    """

    matrix: Tensor
    limit: Tensor
    conjunction: Tensor

    @classmethod
    def either(cls, rows: Tensor, limit: Tensor | None = None) -> Unsafe:
        """Each row is a conjunction of its own: one that holds is enough; limit: zero unless given."""
        found = torch.zeros_like(rows[:, 0]) if limit is None else limit
        return cls(rows, found, torch.arange(len(rows), device=rows.device))

    @classmethod
    def any_of(cls, conjunctions: Sequence[tuple[Tensor, Tensor]]) -> Unsafe:
        """From (matrix, limit) of each conjunction; one without rows holds for all outputs, which 0·z ≤ 0 says as well."""
        conjunctions = [(matrix, limit) if len(limit) else _always(matrix, limit) for matrix, limit in conjunctions]
        number = torch.cat([torch.full((len(limit),), i) for i, (_, limit) in enumerate(conjunctions)])
        return cls(
            torch.cat([matrix for matrix, _ in conjunctions]),
            torch.cat([limit for _, limit in conjunctions]),
            number.to(conjunctions[0][0].device),
        )

    def __len__(self) -> int:
        return int(self.conjunction.max()) + 1

    def parts(self, numbers: Sequence[int]) -> Unsafe:
        """Some of its conjunctions."""
        return Unsafe.any_of([(self.matrix[self.conjunction == i], self.limit[self.conjunction == i]) for i in numbers])

    def of_each(self, rows: Tensor) -> Tensor:
        """matrix·z − limit [batch, rows] → the largest of each conjunction, [batch, conjunctions]."""
        index = self.conjunction.expand_as(rows)
        return torch.full((len(rows), len(self)), -torch.inf).to(rows).scatter_reduce(1, index, rows, "amax")

    def deciding(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """From bounds of the rows [batch, rows]: the worth's, and the row that it rests on, the best one of the worst
        conjunction, [batch] each."""
        bound, worst = self.of_each(rows).min(1)
        return bound, torch.where(self.conjunction == worst.unsqueeze(1), rows, -torch.inf).argmax(1)

    def worth(self, outputs: Tensor) -> Tensor:
        """At or below zero exactly where outputs [batch, outputs] are unsafe, [batch]: the least over conjunctions of the
        largest matrix·z − limit. Lower bounds of the rows make a lower bound of it."""
        return self.of_each(outputs @ self.matrix.t() - self.limit).amin(1)


def _always(matrix: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """A condition on as many outputs that always holds."""
    return matrix.new_zeros(1, matrix.shape[1]), limit.new_zeros(1)
