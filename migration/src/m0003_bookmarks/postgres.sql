-- What is remembered of the whole: of which Clerk instance the rows are, and how far a backfill is.
CREATE TABLE clerk_sync.bookmarks (
    "name" text COLLATE "C" PRIMARY KEY,
    "value" text NOT NULL,
    "changed_at" timestamptz NOT NULL
);
