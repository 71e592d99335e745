"""Masks found in photographs of the user."""
