-- The ledger: which images there are, where they lie, and how far each one is. Times are Unix seconds.

CREATE TABLE images (
    image_id        TEXT PRIMARY KEY,
    state           TEXT NOT NULL CHECK (state IN ('pending', 'running', 'indexed', 'failed')),
    reason          TEXT,
    detail          TEXT,
    bytes           INTEGER NOT NULL,
    width           INTEGER,
    height          INTEGER,
    segments        INTEGER NOT NULL DEFAULT 0,
    attempts        INTEGER NOT NULL DEFAULT 0,     -- those that went wrong and count against the image
    crashes         INTEGER NOT NULL DEFAULT 0,     -- of them, those in which the model service died
    next_attempt_at REAL NOT NULL DEFAULT 0,
    priority        INTEGER NOT NULL DEFAULT 0,
    lease_id        TEXT,
    lease_until     REAL,
    noticed_at      REAL NOT NULL,
    indexed_at      REAL,
    failed_at       REAL,
    fingerprint     TEXT,                           -- of the models that indexed or refused it
    paths_version   INTEGER NOT NULL DEFAULT 0,     -- grows with every change of its paths
    payload_version INTEGER NOT NULL DEFAULT 0,     -- the version that its points' payload shows
    orphaned_at     REAL,                           -- since when it has no path; NULL while it has one
    CHECK ((state = 'running') = (lease_id IS NOT NULL))
) STRICT;

CREATE INDEX images_to_claim ON images (priority DESC, noticed_at) WHERE state = 'pending' AND orphaned_at IS NULL;
CREATE INDEX images_by_state ON images (state, segments);
CREATE INDEX images_running ON images (lease_until) WHERE state = 'running';
CREATE INDEX images_orphaned ON images (orphaned_at) WHERE orphaned_at IS NOT NULL;
CREATE INDEX images_moved ON images (image_id) WHERE payload_version <> paths_version AND indexed_at IS NOT NULL;
CREATE INDEX images_by_fingerprint ON images (fingerprint) WHERE state IN ('indexed', 'failed');

CREATE TABLE paths (
    path     TEXT PRIMARY KEY,                      -- relative, `/` between parts, see core/filenames.py
    image_id TEXT REFERENCES images (image_id),     -- NULL: this file never became an image, `reason` says why
    size     INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode    INTEGER NOT NULL,
    reason   TEXT,
    detail   TEXT,
    seen_at  REAL NOT NULL,
    CHECK ((image_id IS NULL) <> (reason IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX paths_by_image ON paths (image_id);
CREATE INDEX paths_by_inode ON paths (inode, size, mtime_ns);
CREATE INDEX paths_failed ON paths (seen_at) WHERE reason IS NOT NULL;

CREATE TABLE mounts (                               -- file systems that the folder spans; '' is the folder itself
    path   TEXT PRIMARY KEY,
    device INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
