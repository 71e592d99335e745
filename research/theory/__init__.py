"""What mean-field theory predicts of a net before its first step; pure functions in float64."""
