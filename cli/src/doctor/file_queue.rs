//! The queue of `clerk-sync up`, in a file.

use std::path::{Path, PathBuf};

use clerk_sync_pipeline::queue::{
    RetryLadder,
    embedded::{Depths, EmbeddedParked, OpenError},
};
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    depths::dead_letters,
    files,
    network::ALL_QUESTIONS,
    report::{Group, Line},
};

/// SQLite blocks its thread, a disk of the network perhaps for ever; the other questions go on.
pub(super) async fn examine(path: PathBuf, ladder: RetryLadder) -> Group {
    let asked = spawn_blocking(move || lines(&path, &ladder));
    let lines = match timeout(ALL_QUESTIONS, asked).await {
        Ok(lines) => lines.expect("a question does not panic"),
        Err(_) => vec![Line::problem(
            "queue",
            format!("the file did not answer within {ALL_QUESTIONS:?}"),
            "is its disk one of the network? Who holds the file: `fuser -v` with its name",
        )],
    };
    Group::new("queue file", lines)
}

fn lines(path: &Path, ladder: &RetryLadder) -> Vec<Line> {
    if !path.exists() {
        return vec![files::missing(path)];
    }
    let mut lines = vec![files::writable(path)];
    let depths = EmbeddedParked::open(path).and_then(|file| {
        file.depths(ladder).map_err(|error| OpenError::Io {
            path: path.to_owned(),
            source: std::io::Error::other(error.cause),
        })
    });
    match depths {
        Ok(depths) => {
            lines.push(queue(&depths));
            lines.push(dead_letters(depths.dead));
        }
        Err(error) => lines.push(Line::problem(
            "queue",
            error.to_string(),
            "name another data folder (--data, CLERK_SYNC_DATA), or move the file away: what waits \
             in it is lost then",
        )),
    }
    lines
}

fn queue(depths: &Depths) -> Line {
    let delayed: u64 = depths.delayed.iter().map(|(_, count)| count).sum();
    let text = format!(
        "{} ready, {} in hand, {delayed} wait for a retry",
        depths.ready, depths.in_flight
    );
    Line::ok("queue", text)
}
