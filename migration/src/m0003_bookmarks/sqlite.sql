-- What is remembered of the whole: of which Clerk instance the rows are, and how far a backfill is.
CREATE TABLE "clerk_sync_bookmarks" (
    "name" TEXT NOT NULL PRIMARY KEY,
    "value" TEXT NOT NULL,
    "changed_at" TEXT NOT NULL
);
