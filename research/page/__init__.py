"""The page: the ledger and the figures of the report, redrawn, in one HTML file."""
