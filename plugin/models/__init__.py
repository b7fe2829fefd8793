"""Networks by name, and weights from files."""
