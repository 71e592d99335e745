"""Noise that changes what a frozen classifier says: methods, their judge, and the one call."""
