-- How far the comparison with each collection has come, so that one of a hundred million points goes on after a restart.

CREATE TABLE comparisons (
    collection  TEXT PRIMARY KEY,
    compared_to TEXT NOT NULL                       -- image ids below this were compared
) STRICT, WITHOUT ROWID;
