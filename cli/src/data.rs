//! The data folder of `clerk-sync up`: queue, tables, and the secrets that are not configured.

use std::{
    ffi::OsString,
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use clerk_sync_pipeline::secret::{Secret, ServerUrl};

/// Where everything is unless servers are named.
pub(crate) const DEFAULT: &str = "clerk-sync-data";

const QUEUE: &str = "queue.db";
const TABLES: &str = "clerk-sync.db";
const SECRET: &str = "webhook-secret";
const TOKEN: &str = "console-token";

/// A data folder.
#[derive(Clone)]
pub(crate) struct DataFolder(PathBuf);

impl From<OsString> for DataFolder {
    fn from(path: OsString) -> Self {
        Self(path.into())
    }
}

impl DataFolder {
    /// Names a folder; nothing is made yet.
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Makes the folder, readable by its owner only: bodies hold personal data.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .with_context(|| format!("cannot make the data folder {}", self.0.display()))
    }

    /// Removes what a former run left in it, and nothing else.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        for name in [QUEUE, TABLES] {
            for suffix in ["", "-wal", "-shm", ".lock"] {
                let path = self.0.join(format!("{name}{suffix}"));
                match fs::remove_file(&path) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => {
                        return Err(error)
                            .with_context(|| format!("cannot remove {}", path.display()));
                    }
                }
            }
        }
        Ok(())
    }

    /// The folder inside it that demonstrations use.
    pub(crate) fn demo(&self) -> Self {
        Self(self.0.join("demo"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn queue(&self) -> PathBuf {
        self.0.join(QUEUE)
    }

    /// The URL of the tables.
    pub(crate) fn tables(&self) -> anyhow::Result<ServerUrl> {
        let path = self.0.join(TABLES);
        let path = path
            .to_str()
            .context("the data folder's path is not UTF-8")?;
        // A URL: what means something in one is written as a number.
        let mut escaped = String::with_capacity(path.len());
        for character in path.chars() {
            match character {
                '%' | '?' | '#' | ' ' => {
                    escaped.push_str(&format!("%{:02X}", u32::from(character)));
                }
                plain => escaped.push(plain),
            }
        }
        format!("sqlite:{escaped}")
            .parse()
            .map_err(anyhow::Error::msg)
    }

    /// The URL of the tables that a former run made.
    pub(crate) fn existing_tables(&self) -> anyhow::Result<ServerUrl> {
        anyhow::ensure!(
            self.0.join(TABLES).exists(),
            "DATABASE_URL is not set, and the data folder {} has no tables: `clerk-sync up` makes \
             them",
            self.0.display()
        );
        self.tables()
    }

    /// The secret that an earlier run made, if any.
    pub(crate) fn secret(&self) -> anyhow::Result<Option<Secret>> {
        self.kept(SECRET)
    }

    /// The secret that an earlier run made, or a new one; and where it is.
    pub(crate) fn secret_or_new(&self) -> anyhow::Result<(Secret, PathBuf)> {
        // 24 bytes, as Svix makes them.
        self.kept_or_new(SECRET, || {
            let bytes = BASE64_STANDARD.encode(rand::random::<[u8; 24]>());
            format!("whsec_{bytes}")
        })
    }

    /// The console's token that an earlier run made, or a new one.
    pub(crate) fn token_or_new(&self, new: impl FnOnce() -> String) -> anyhow::Result<Secret> {
        Ok(self.kept_or_new(TOKEN, new)?.0)
    }

    fn kept(&self, name: &str) -> anyhow::Result<Option<Secret>> {
        let path = self.0.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(Secret::new(text.trim()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn kept_or_new(
        &self,
        name: &str,
        new: impl FnOnce() -> String,
    ) -> anyhow::Result<(Secret, PathBuf)> {
        let path = self.0.join(name);
        if let Some(kept) = self.kept(name)? {
            return Ok((kept, path));
        }
        let new = new();
        let write = || {
            let mut options = fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            writeln!(file, "{new}")?;
            file.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok((Secret::new(new), path))
    }
}
