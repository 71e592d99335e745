"""The ledger: every claim of the report as data, judged by runs that a command makes."""
