"""Tables of README.md and docs/, one module for each experiment that has them."""
