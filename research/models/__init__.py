"""The nets; each reads like its figure."""
