-- Paths that a watcher on standby was told to look at, see watcher/relay.py.

CREATE TABLE hints (
    path   TEXT COLLATE "C" PRIMARY KEY,
    prompt BOOLEAN NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);  -- each row lives for moments
