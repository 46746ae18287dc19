//! Users and events of earlier days, made by the database itself.

use sea_orm::{ConnectionTrait as _, DatabaseConnection};

use super::stock::EPOCH_MS;

/// Rows in one statement.
const CHUNK: u64 = 250_000;

/// Fills the tables: `users` with their versions, and `ledger_rows` events of the last four weeks,
/// which no pruning takes away.
pub(super) async fn fill(
    db: &DatabaseConnection,
    users: u64,
    ledger_rows: u64,
    say: impl Fn(String),
) -> anyhow::Result<()> {
    let version = EPOCH_MS - 86_400_000;
    for (from, to) in chunks(users) {
        say(format!("making users, {from} of {users}"));
        // The forms of `stock`, in SQL.
        let clerk_id = "'user_bench' || lpad(n::text, 22, '0')";
        db.execute_unprepared(&format!(
            r#"INSERT INTO users (id, "clerkId", email, name, "imageUrl", "createdAt", "updatedAt")
               SELECT 'c' || lpad(n::text, 24, '0'), {clerk_id},
                   'user' || lpad(n::text, 22, '0') || '@bench.example', 'Maren Holt-Aas',
                   'https://img.clerk.com/' || repeat('x', 180),
                   timestamp '2026-01-01', timestamp 'epoch' + {version} * interval '1 ms'
               FROM generate_series({from}, {to} - 1) AS n"#
        ))
        .await?;
        db.execute_unprepared(&format!(
            "INSERT INTO clerk_sync.user_versions
                 (clerk_id, updated_at_ms, occurred_at_ms, event_id)
             SELECT {clerk_id}, {version}, {version}, 'msg_aaaaa' || lpad(n::text, 22, '0')
             FROM generate_series({from}, {to} - 1) AS n"
        ))
        .await?;
    }
    for (from, to) in chunks(ledger_rows) {
        say(format!("making ledger rows, {from} of {ledger_rows}"));
        let age = format!("interval '28 days' * (1 - n / {ledger_rows}.0) + interval '1 hour'");
        db.execute_unprepared(&format!(
            "INSERT INTO clerk_sync.processed_events
                 (event_id, type, subject, occurred_at, received_at, processed_at, outcome)
             SELECT 'msg_aaaaa' || lpad(n::text, 22, '0'), 'user.updated',
                 'user_bench' || lpad((n % greatest({users}, 1))::text, 22, '0'),
                 now() - {age}, now() - {age}, now() - {age}, 'updated'
             FROM generate_series({from}, {to} - 1) AS n"
        ))
        .await?;
    }
    if users + ledger_rows > 0 {
        say("tidying up the tables".to_owned());
        for table in [
            "users",
            "clerk_sync.user_versions",
            "clerk_sync.processed_events",
        ] {
            db.execute_unprepared(&format!("VACUUM (ANALYZE) {table}"))
                .await?;
        }
    }
    Ok(())
}

fn chunks(count: u64) -> impl Iterator<Item = (u64, u64)> {
    let starts = (0..count).step_by(usize::try_from(CHUNK).unwrap_or(usize::MAX));
    starts.map(move |from| (from, (from + CHUNK).min(count)))
}
