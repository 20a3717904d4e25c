-- Editions: what the models of one fingerprint made of all pictures. Which of them answers, and which the images are indexed for.

CREATE TABLE editions (
    fingerprint TEXT PRIMARY KEY,
    profile     TEXT NOT NULL,
    collections TEXT NOT NULL,                      -- their names, as JSON
    met_at      REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE course (                               -- one row, from the first models on
    only_one    INTEGER PRIMARY KEY CHECK (only_one = 1),
    searched    TEXT NOT NULL REFERENCES editions (fingerprint),
    target      TEXT NOT NULL REFERENCES editions (fingerprint),    -- that of `images.fingerprint`, in the end
    previous    TEXT REFERENCES editions (fingerprint),             -- searched before, and kept
    declined    TEXT,                               -- the settings' models, while a revert holds against them
    stopped     INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX images_unsettled ON images (fingerprint) WHERE state IN ('pending', 'running') AND fingerprint IS NOT NULL;
