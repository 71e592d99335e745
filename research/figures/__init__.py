"""Pictures: arrays in, a figure out; one file a question."""
