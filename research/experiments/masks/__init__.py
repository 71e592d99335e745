"""The study of face masks."""
