"""`make move-state`: ledger and ratings from SQLite to PostgreSQL, or back, row by row, in one transaction."""
