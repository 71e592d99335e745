"""The tests of the figures, whose names those of other directories repeat."""
