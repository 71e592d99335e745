"""A laboratory for how small neural networks train and fail."""
