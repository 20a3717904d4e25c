-- Tasks that are believed to be in the broker, see watcher/queue/tasks.py.

CREATE TABLE tasks (
    image_id TEXT COLLATE "C" PRIMARY KEY REFERENCES images (image_id) ON DELETE CASCADE,
    priority INTEGER NOT NULL,
    sent_at  DOUBLE PRECISION NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);  -- each row lives for moments

CREATE INDEX tasks_oldest ON tasks (sent_at);
