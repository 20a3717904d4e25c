-- The ledger in PostgreSQL: what schema.sql to schema_3.sql make in SQLite, where the columns are explained. Texts are in byte order.

CREATE TABLE images (
    image_id        TEXT COLLATE "C" PRIMARY KEY,
    state           TEXT NOT NULL CHECK (state IN ('pending', 'running', 'indexed', 'failed')),
    reason          TEXT,
    detail          TEXT,
    bytes           BIGINT NOT NULL,
    width           INTEGER,
    height          INTEGER,
    segments        INTEGER NOT NULL DEFAULT 0,
    attempts        INTEGER NOT NULL DEFAULT 0,
    crashes         INTEGER NOT NULL DEFAULT 0,
    next_attempt_at DOUBLE PRECISION NOT NULL DEFAULT 0,
    priority        INTEGER NOT NULL DEFAULT 0,
    lease_id        TEXT,
    lease_until     DOUBLE PRECISION,
    noticed_at      DOUBLE PRECISION NOT NULL,
    indexed_at      DOUBLE PRECISION,
    failed_at       DOUBLE PRECISION,
    fingerprint     TEXT,
    paths_version   INTEGER NOT NULL DEFAULT 0,
    payload_version INTEGER NOT NULL DEFAULT 0,
    orphaned_at     DOUBLE PRECISION,
    layout          INTEGER NOT NULL DEFAULT 1,
    CHECK ((state = 'running') = (lease_id IS NOT NULL))
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);  -- a row is written some times in a minute, then rests

CREATE INDEX images_to_claim ON images (priority DESC, noticed_at) WHERE state = 'pending' AND orphaned_at IS NULL;
CREATE INDEX images_by_state ON images (state) INCLUDE (segments);
CREATE INDEX images_running ON images (lease_until) WHERE state = 'running';
CREATE INDEX images_orphaned ON images (orphaned_at) WHERE orphaned_at IS NOT NULL;
CREATE INDEX images_moved ON images (image_id) WHERE payload_version <> paths_version AND indexed_at IS NOT NULL;
CREATE INDEX images_by_fingerprint ON images (fingerprint) WHERE state IN ('indexed', 'failed');
CREATE INDEX images_unsettled ON images (fingerprint) WHERE state IN ('pending', 'running') AND fingerprint IS NOT NULL;

CREATE TABLE paths (
    path     TEXT COLLATE "C" PRIMARY KEY,
    image_id TEXT COLLATE "C" REFERENCES images (image_id),
    size     BIGINT NOT NULL,
    mtime_ns BIGINT NOT NULL,
    inode    BIGINT NOT NULL,
    reason   TEXT,
    detail   TEXT,
    seen_at  DOUBLE PRECISION NOT NULL,
    CHECK ((image_id IS NULL) <> (reason IS NULL))
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

CREATE INDEX paths_by_image ON paths (image_id);
CREATE INDEX paths_by_inode ON paths (inode, size, mtime_ns);
CREATE INDEX paths_failed ON paths (seen_at) WHERE reason IS NOT NULL;

CREATE TABLE mounts (
    path   TEXT COLLATE "C" PRIMARY KEY,
    device BIGINT NOT NULL
);

CREATE TABLE editions (
    fingerprint TEXT PRIMARY KEY,
    profile     TEXT NOT NULL,
    collections TEXT NOT NULL,
    met_at      DOUBLE PRECISION NOT NULL
);

CREATE TABLE course (
    only_one    INTEGER PRIMARY KEY CHECK (only_one = 1),
    searched    TEXT NOT NULL REFERENCES editions (fingerprint),
    target      TEXT NOT NULL REFERENCES editions (fingerprint),
    previous    TEXT REFERENCES editions (fingerprint),
    declined    TEXT,
    stopped     BOOLEAN NOT NULL DEFAULT FALSE
);

CREATE TABLE comparisons (
    collection  TEXT PRIMARY KEY,
    compared_to TEXT NOT NULL
);
