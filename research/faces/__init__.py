"""Faces: read from annotated photographs, cut out, shared out, detected."""
