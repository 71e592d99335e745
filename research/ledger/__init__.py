"""The ledger: every claim of the report as data, judged by records that a command makes."""
