//! Roles and users made by the files of `deploy/`, just as a platform team runs them.

use std::process::Stdio;

use clerk_sync_pipeline::secret::ServerUrl;
use tokio::process::Command;

use super::servers::{ROOT, TestDb, TestQueue, finish, on_admin, rabbitmqctl, unique};

/// A role of PostgreSQL in a database whose tables belong to somebody else.
pub(crate) struct Role {
    /// The database, as this role.
    pub(crate) url: ServerUrl,
    name: String,
    owner: String,
}

impl Role {
    /// By `deploy/postgres/roles.sql`, run by the owner of everything in the database. Nothing is
    /// open to everybody any more: what the role can do it has been given.
    pub(crate) async fn new(db: &TestDb, variables: &[&str]) -> Self {
        let (name, owner) = (unique(), unique());
        let mut url = db.url.expose().clone();
        url.set_username(&name).unwrap();
        url.set_password(Some(&name)).unwrap();
        db.execute(&format!(
            "CREATE ROLE {owner} CREATEROLE; ALTER DATABASE {database} OWNER TO {owner};
             DO $$ DECLARE what text; BEGIN
               FOR what IN SELECT 'SCHEMA ' || quote_ident(nspname) FROM pg_namespace
                 WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
               UNION ALL SELECT 'TABLE ' || c.oid::regclass FROM pg_class c
                 JOIN pg_namespace n ON n.oid = relnamespace
                 WHERE relkind = 'r' AND nspname !~ '^pg_' AND nspname <> 'information_schema'
               LOOP EXECUTE format('ALTER %s OWNER TO {owner}', what); END LOOP;
             END $$;
             REVOKE ALL ON DATABASE {database} FROM PUBLIC;
             REVOKE ALL ON SCHEMA public FROM PUBLIC",
            database = db.name()
        ))
        .await;
        let role = Self {
            url: url.as_str().parse().unwrap(),
            name,
            owner,
        };
        role.update(db, variables).await;
        role
    }

    /// Runs the file again.
    pub(crate) async fn update(&self, db: &TestDb, variables: &[&str]) {
        let mut psql = Command::new("scripts/services");
        psql.args(["psql", db.name(), "--quiet", "--no-psqlrc"]);
        for variable in [
            format!("role={}", self.name),
            format!("password={}", self.name),
        ]
        .iter()
        .map(String::as_str)
        .chain(variables.iter().copied())
        {
            psql.args(["-v", variable]);
        }
        psql.args(["-c", &format!("SET ROLE {}", self.owner), "-f", "-"]);
        let file = std::fs::File::open(format!("{ROOT}/deploy/postgres/roles.sql")).unwrap();
        psql.stdin(Stdio::from(file));
        finish(psql).await;
    }

    /// Every single right that it has, as `GRANT` and `REVOKE` spell it.
    pub(crate) async fn rights(&self, db: &TestDb) -> Vec<String> {
        let role = format!("grantee = '{}'::regrole", self.name);
        db.texts(&format!(
            "SELECT format('%s ON DATABASE %I', privilege_type, datname)
               FROM pg_database, aclexplode(datacl) WHERE {role}
             UNION ALL SELECT format('%s ON SCHEMA %I', privilege_type, nspname)
               FROM pg_namespace, aclexplode(nspacl) WHERE {role}
             UNION ALL SELECT format('%s ON %s', privilege_type, c.oid::regclass)
               FROM pg_class c, aclexplode(relacl) WHERE {role}
             UNION ALL SELECT format('%s (%I) ON %s', privilege_type, attname, attrelid::regclass)
               FROM pg_attribute, aclexplode(attacl) WHERE {role}
             ORDER BY 1"
        ))
        .await
    }

    pub(crate) async fn take(&self, db: &TestDb, right: &str) {
        db.execute(&format!("REVOKE {right} FROM {}", self.name))
            .await;
    }

    pub(crate) async fn give(&self, db: &TestDb, right: &str) {
        db.execute(&format!("GRANT {right} TO {}", self.name)).await;
    }

    /// With its database.
    pub(crate) async fn remove(self, db: TestDb) {
        db.remove().await;
        on_admin(&format!(
            "DROP ROLE {}; DROP ROLE {}",
            self.name, self.owner
        ))
        .await;
    }
}

/// The users of `deploy/rabbitmq/users.sh` for one prefix.
pub(crate) struct Users {
    prefix: String,
}

pub(crate) const USERS: [&str; 4] = ["ingest", "worker", "dead-letters", "setup"];

impl Users {
    pub(crate) async fn of(queue: &TestQueue) -> Self {
        let prefix = queue.server.topology.prefix.clone();
        let mut script = Command::new("deploy/rabbitmq/users.sh");
        script
            .env("RABBITMQCTL", "scripts/services rabbitmqctl")
            .env("QUEUE_PREFIX", &prefix);
        for user in USERS {
            let variable = user.to_uppercase().replace('-', "_");
            script.env(format!("CLERK_{variable}_PASSWORD"), &prefix);
        }
        finish(script).await;
        Self { prefix }
    }

    /// The broker, as one of them.
    pub(crate) fn url(&self, queue: &TestQueue, user: &str) -> String {
        let mut url = queue.server.nodes.first().expose().clone();
        url.set_username(&self.name(user)).unwrap();
        url.set_password(Some(&self.prefix)).unwrap();
        url.into()
    }

    /// What it may configure, write and read.
    pub(crate) async fn permissions(&self, user: &str) -> [String; 3] {
        let list = ["--quiet", "list_user_permissions", &self.name(user)];
        let table = rabbitmqctl(&list).await;
        let row = table.lines().nth(1).expect("below the head");
        let patterns: Vec<&str> = row.split('\t').skip(1).collect();
        [0, 1, 2].map(|number| patterns[number].to_owned())
    }

    pub(crate) async fn permit(&self, user: &str, [configure, write, read]: [&str; 3]) {
        rabbitmqctl(&["set_permissions", &self.name(user), configure, write, read]).await;
    }

    fn name(&self, user: &str) -> String {
        format!("{}-{user}", self.prefix)
    }

    pub(crate) async fn remove(self) {
        for user in USERS {
            rabbitmqctl(&["delete_user", &self.name(user)]).await;
        }
    }
}
