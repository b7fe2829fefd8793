"""How this room words what went wrong elsewhere."""

from newrelax.errors import UserError

LONGEST = 300


def refusal(dataset: str, problem: str) -> UserError:
    """What to raise about the data set of that name."""
    return UserError(f"data set {dataset}: {problem}")


def one_line(problem: BaseException) -> str:
    """An error's own words without line breaks; its type where it has none."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def with_type(problem: BaseException) -> str:
    """An error's type and its own words, on one line."""
    kind = type(problem).__name__
    return f"{kind}: {one_line(problem)}" if str(problem).strip() else kind


def shown(shape: tuple[int, ...]) -> str:
    """A shape as people write it: 3×32×32."""
    return "×".join(map(str, shape))
