-- The role that clerk-sync-worker connects as, with the least rights that suffice; they suffice for
-- `clerk-sync backfill` and `clerk-sync reconcile` too. For psql,
-- as the owner of the application's tables who may create roles, or as a superuser:
--
--   clerk-sync migrate up                           # before: it makes the schema clerk_sync
--   psql "$OWNERS_DATABASE_URL" -f deploy/postgres/roles.sql
--   psql "$OWNERS_DATABASE_URL" -c '\password clerk_sync_worker'
--
-- It can be run again at any time: the rights end as they are written here, wider ones from
-- before are taken back. Variables, each given with -v:
--
--   role      clerk_sync_worker. Do not name it clerk_sync: a role finds the schema of its own
--             name first
--   schema    public; where the application's tables are. It is Prisma's `?schema=`, and must be
--             in the worker's DATABASE_URL too: postgres://…/app?schema=shop
--   credits   off; on, if INITIAL_CREDITS is set
--   api       off; on, if the role serves the API for applications too: it counts what belongs to
--             a user
--   password  none. For automation; `\password` sends only a hash, which no log can show
--
-- Needed beyond this list only if you have made it so: USAGE on the sequence of a column of
-- `users` with a default nextval(), what your own triggers on `users` do, and a policy that lets
-- the role through if `users` has row level security.

\set ON_ERROR_STOP on
\if :{?role}    \else \set role    clerk_sync_worker \endif
\if :{?schema}  \else \set schema  public            \endif
\if :{?credits} \else \set credits off               \endif
\if :{?api}     \else \set api     off               \endif

BEGIN;

SELECT format('CREATE ROLE %I LOGIN', :'role')
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = :'role') \gexec
\if :{?password}
ALTER ROLE :"role" PASSWORD :'password';
\endif

-- A clean slate; within this transaction, so that a worker that is at work does not notice.
REVOKE ALL ON ALL TABLES IN SCHEMA clerk_sync FROM :"role";
REVOKE ALL ON :"schema".users FROM :"role";
SELECT to_regclass(format('%I.credits', :'schema')) IS NOT NULL AS has_credits \gset
\if :has_credits
REVOKE ALL ON :"schema".credits FROM :"role";
\endif
SELECT to_regclass(format('%I.projects', :'schema')) IS NOT NULL AS has_projects \gset
\if :has_projects
REVOKE ALL ON :"schema".projects FROM :"role";
\endif
SELECT to_regclass(format('%I.designs', :'schema')) IS NOT NULL AS has_designs \gset
\if :has_designs
REVOKE ALL ON :"schema".designs FROM :"role";
\endif

-- Usually everybody has the first two, by way of PUBLIC; said here for databases that are stricter.
SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), :'role') \gexec
GRANT USAGE ON SCHEMA :"schema" TO :"role";
GRANT USAGE ON SCHEMA clerk_sync TO :"role";

-- Our own tables, whole: one line each rather than a list of columns. A user's version cannot be
-- deleted, so no worker can forget that somebody was deleted. The history of migrations is not
-- the worker's concern.
GRANT SELECT, INSERT, UPDATE, DELETE ON clerk_sync.processed_events TO :"role";
GRANT SELECT, INSERT, UPDATE         ON clerk_sync.user_versions    TO :"role";
GRANT SELECT, INSERT, UPDATE, DELETE ON clerk_sync.bookmarks        TO :"role";

-- The application's table, by column: columns of your own are neither read nor written, and the
-- two keys of a row never change. SELECT is what ON CONFLICT DO UPDATE and RETURNING demand.
-- Deleting a user needs nothing on projects, designs, images and credits: cascades run with the
-- rights of those tables' owner.
GRANT SELECT ("id", "clerkId", "email", "name", "imageUrl", "createdAt", "updatedAt"),
      INSERT ("id", "clerkId", "email", "name", "imageUrl", "createdAt", "updatedAt"),
      UPDATE (                 "email", "name", "imageUrl", "createdAt", "updatedAt"),
      DELETE
   ON :"schema".users TO :"role";

\if :credits
GRANT INSERT ("id", "userId", "amount", "createdAt", "updatedAt") ON :"schema".credits TO :"role";
\endif

\if :api
\if :has_credits
GRANT SELECT ("userId", "amount") ON :"schema".credits TO :"role";
\endif
\if :has_projects
GRANT SELECT ("userId") ON :"schema".projects TO :"role";
\endif
\if :has_designs
GRANT SELECT ("userId") ON :"schema".designs TO :"role";
\endif
\endif

COMMIT;
