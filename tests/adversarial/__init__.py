"""The tests of the attacks, whose names those of other directories repeat."""
