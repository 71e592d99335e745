"""Files of a run: checkpoints, records, exports."""
