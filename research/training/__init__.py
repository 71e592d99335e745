"""Training: the step, the epoch and the loop, and what they are made of."""
