//! Files of SQLite: there, and to be written.

use std::{
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

use super::report::Line;

/// Free bytes from which on a disk counts as full: a burst of 20,000 webhooks.
const LITTLE_ROOM: u64 = 64 << 20;

/// A file that nobody has made yet.
pub(super) fn missing(path: &Path) -> Line {
    Line::warning(
        "file",
        format!("{} is not there yet", path.display()),
        "`clerk-sync up` makes it; if it was made, name its folder with --data or CLERK_SYNC_DATA",
    )
}

/// Whether the file, and its log beside it, can be written, and whether there is room.
pub(super) fn writable(path: &Path) -> Line {
    const NAME: &str = "file";
    let shown = path.display();
    // What a process that was killed has left beside the file is part of it.
    let all = [path.to_owned(), beside(path, "-wal"), beside(path, "-shm")];
    for path in all {
        if let Err(error) = can_be_written(&path) {
            return Line::problem(
                NAME,
                format!("{} cannot be written: {error}", path.display()),
                "give the file, those beside it (-wal, -shm) and its folder to whom clerk-sync runs \
                 as; is the disk mounted read-only?",
            );
        }
    }
    match room(path) {
        Some(bytes) if bytes < LITTLE_ROOM => Line::warning(
            NAME,
            format!("{shown}: {} MiB are left on its disk", bytes >> 20),
            "make room: with a full disk every webhook is answered 503",
        ),
        _ => Line::ok(NAME, format!("{shown} can be written")),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(ending);
    beside.into()
}

/// Whether a file can be written, or made where it is none.
fn can_be_written(path: &Path) -> io::Result<()> {
    // Opened and closed: nothing is written, and SQLite's locks are on other descriptors.
    match OpenOptions::new().append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => drop(opened?),
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    access(folder, Access::WRITE_OK | Access::EXEC_OK)?;
    Ok(())
}

fn room(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Status;

    #[test]
    fn a_file_is_looked_at_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        assert_eq!(missing(&path).status, Status::Warning);
        std::fs::write(&path, "as it is").unwrap();
        assert_eq!(writable(&path).status, Status::Ok);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "as it is");
        // Something else of that name; permissions mean nothing to root, who may run this.
        let problem = writable(folder.path());
        assert_eq!(problem.status, Status::Problem, "{problem:?}");
        let log = folder.path().join("queue.db-wal");
        std::fs::create_dir(&log).unwrap();
        let problem = writable(&path);
        assert_eq!(problem.status, Status::Problem, "{problem:?}");
        assert!(problem.text.contains("queue.db-wal"), "{problem:?}");
    }
}
