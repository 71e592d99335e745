"""Data sets as arrays: the forms in which they are read, checked and cached."""
