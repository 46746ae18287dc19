//! The process's limit of open files, which is also one of connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files beside the webhook port's connections: the broker's, the database's, the admin port's,
/// the queue's file, the runtime's own. More than twice what all of them were seen to use.
const OTHERS: u64 = 128;

/// Sees to it that so many connections can be open, as far as the system allows; how many can be.
///
/// Many systems give a process 1,024 files and let it have more when it asks.
pub(crate) fn room_for(connections: usize) -> usize {
    let wanted = u64::try_from(connections)
        .unwrap_or(u64::MAX)
        .saturating_add(OTHERS);
    let limit = getrlimit(Resource::Nofile);
    // `None` is no limit.
    if limit.current.is_none_or(|current| current >= wanted) {
        return connections;
    }
    let most = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = Rlimit {
        current: Some(most),
        ..limit
    };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => most,
        Err(error) => {
            tracing::debug!(%error, "the limit of open files not raised");
            limit.current.unwrap_or(most)
        }
    };
    let room = fitting(files, connections);
    if room < connections {
        tracing::warn!(
            files,
            connections,
            room,
            "fewer connections than MAX_CONNECTIONS, for want of open files (ulimit -n)"
        );
    }
    room
}

/// How many of `connections` fit into `files`; a few in any case.
fn fitting(files: u64, connections: usize) -> usize {
    let room = files.saturating_sub(OTHERS).max(files / 4).max(1);
    usize::try_from(room).unwrap_or(usize::MAX).min(connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_need_files_too() {
        assert_eq!(fitting(10_000, 4096), 4096);
        assert_eq!(fitting(1024, 4096), 896);
        assert_eq!(fitting(100, 4096), 25);
        assert_eq!(fitting(0, 4096), 1);
    }
}
