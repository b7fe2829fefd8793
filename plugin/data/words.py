"""How this room words what went wrong elsewhere."""

from newrelax.errors import UserError


def refusal(dataset: str, problem: str) -> UserError:
    """What to raise about the data set of that name."""
    return UserError(f"data set {dataset}: {problem}")


def shown(shape: tuple[int, ...]) -> str:
    """A shape as people write it: 3×32×32."""
    return "×".join(map(str, shape))
