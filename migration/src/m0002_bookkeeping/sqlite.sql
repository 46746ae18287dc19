-- Times are RFC 3339 texts in UTC, as sqlx writes them; their order as text is their order in time.
CREATE TABLE "clerk_sync_processed_events" (
    "event_id" TEXT NOT NULL PRIMARY KEY,
    "type" TEXT NOT NULL,
    "subject" TEXT,
    "occurred_at" TEXT,
    "received_at" TEXT NOT NULL,
    "processed_at" TEXT NOT NULL,
    "outcome" TEXT NOT NULL
);

-- For pruning: the oldest first.
CREATE INDEX "clerk_sync_processed_events_processed_at_idx"
    ON "clerk_sync_processed_events" ("processed_at");

CREATE TABLE "clerk_sync_user_versions" (
    "clerk_id" TEXT NOT NULL PRIMARY KEY,
    "updated_at_ms" BIGINT NOT NULL,
    "occurred_at_ms" BIGINT NOT NULL,
    "event_id" TEXT NOT NULL,
    "deleted_at" TEXT
);
