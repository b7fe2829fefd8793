"""Markdown tables, read back."""


def rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table, its head first."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("| :--")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
