"""Where do the numbers come from: data sets as arrays."""
