"""Errors that a user can mend, and one-line words for those of other people's code."""

LONGEST = 300


class UserError(Exception):
    """Something the user asked for cannot be done; the message is one line: what was expected, what came, what to do."""


def one_line(problem: BaseException, longest: int = LONGEST) -> str:
    """An error's own words without line breaks, shortened where they are long; its type where it has none."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text if len(text) <= longest else text[: longest - 3] + "..."


def with_type(problem: BaseException, longest: int = LONGEST) -> str:
    """An error's type and its own words, on one line."""
    kind = type(problem).__name__
    return f"{kind}: {one_line(problem, longest)}" if str(problem).strip() else kind
