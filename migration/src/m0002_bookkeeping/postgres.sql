-- Versions are compared bytewise, as Rust does: COLLATE "C".
CREATE TABLE clerk_sync.processed_events (
    "event_id" text COLLATE "C" PRIMARY KEY,
    "type" text NOT NULL,
    "subject" text,
    "occurred_at" timestamptz,
    "received_at" timestamptz NOT NULL,
    "processed_at" timestamptz NOT NULL,
    "outcome" text NOT NULL
);

-- For pruning: the oldest first.
CREATE INDEX processed_events_processed_at_idx ON clerk_sync.processed_events ("processed_at");

-- A tenth of each page stays free, so that an update of a version, which changes no indexed
-- column, finds room beside the old row and leaves the index alone (HOT).
CREATE TABLE clerk_sync.user_versions (
    "clerk_id" text COLLATE "C" PRIMARY KEY,
    "updated_at_ms" bigint NOT NULL,
    "occurred_at_ms" bigint NOT NULL,
    "event_id" text COLLATE "C" NOT NULL,
    "deleted_at" timestamptz
) WITH (fillfactor = 90);
