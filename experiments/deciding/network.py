"""One trained network and what became of the images it was asked about; a file of such, one a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from newrelax.errors import UserError


@dataclass(frozen=True)
class Network:
    """How many of the first `images` test images a network classifies, keeps under attack, certifies, and truly has robust.

    `origin`: where its weights are from, in words; `seed`: None where nobody knows it.  `own`: certified by the relaxation
    that trained it; `verified`, `falsified`: decided by the ladder, for every point of the ball or by one of its points.
    `rungs`: how many images each rung decided.  `seconds`: of all rungs on all images.

    Raises:
        UserError: more images certified than can be, since the others were falsified.
    """

    origin: str
    dataset: str
    model: str
    eps: float
    method: str
    seed: int | None
    images: int
    natural: int
    attacked: int
    own: int
    verified: int
    falsified: int
    rungs: Mapping[str, int]
    seconds: float
    ladder: str
    timeout: float
    device: str

    def __post_init__(self) -> None:
        if max(self.own, self.verified) + self.falsified > self.images:
            raise UserError(
                f"{self.method} on {self.dataset}: expected that no image is both certified and falsified, got {self.own} "
                f"certified by its own relaxation and {self.falsified} falsified of {self.images}: were both asked of the "
                "same images, weights and eps?"
            )

    @property
    def proven(self) -> int:
        """Robust images, as far as anybody proved it: by the ladder, or by its own relaxation alone."""
        return max(self.own, self.verified)

    @property
    def undecided(self) -> int:
        """Images that no rung decided in its time."""
        return self.images - self.verified - self.falsified

    @property
    def group(self) -> tuple[str, str, str, float]:
        """What networks share that are laid beside each other."""
        return self.origin, self.dataset, self.model, self.eps

    @property
    def key(self) -> tuple[Any, ...]:
        """What two lines of a file differ in."""
        return *self.group, self.method, -1 if self.seed is None else self.seed, self.images


def read_networks(path: Path) -> list[Network]:
    """The networks of a file; none where it is missing.

    Raises:
        UserError: a line that is no network.
    """
    if not path.exists():
        return []
    networks = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            networks.append(Network(**json.loads(line)))
        except (ValueError, TypeError):
            raise UserError(f"{path}, line {number}: expected a network as experiments.exact writes it") from None
    return networks


def merge(kept: Iterable[Network], found: Iterable[Network]) -> list[Network]:
    """Both in a fixed order; a network that is found again takes the place of the one that was kept."""
    networks = {each.key: each for each in (*kept, *found)}
    return [networks[key] for key in sorted(networks)]


def written(networks: Iterable[Network]) -> str:
    """The text of a file with these networks."""
    return "".join(json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in networks)
