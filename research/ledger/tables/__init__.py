"""Tables of README.md, one module for each experiment that has them."""
