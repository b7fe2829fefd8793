"""Branch and bound: cases that are easier than the whole, bounded many at a time."""
