//! What an operator is promised on the file beyond the contract.

use std::fs;

use clerk_sync_pipeline::queue::{
    Reason,
    embedded::{EmbeddedParked, OpenError},
    parked::{Fate, Parked as _, Place},
};
use rusqlite::Connection;

use super::{Embedded, Folder};
use crate::{
    contract::{Queue as _, event, one, settle},
    parked::{Parking as _, numbered, park, poison},
};

fn refused(folder: &Folder) -> OpenError {
    let refused = EmbeddedParked::open(&folder.file()).err().unwrap();
    let path = folder.file();
    assert!(
        refused.to_string().contains(path.to_str().unwrap()),
        "{refused}"
    );
    refused
}

#[test]
fn where_no_queue_is_an_operator_is_told_and_makes_none() {
    let folder = Folder::new();
    let missing = refused(&folder);
    assert!(matches!(missing, OpenError::Missing { .. }), "{missing}");
    for part in ["CLERK_SYNC_DATA", "AMQP_URL"] {
        assert!(missing.to_string().contains(part), "{missing}");
    }
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
    fs::remove_dir(&folder.0).unwrap();
    assert!(matches!(refused(&folder), OpenError::Missing { .. }));
    assert!(!folder.0.exists());

    // A queue that is being made this moment.
    fs::create_dir(&folder.0).unwrap();
    fs::write(folder.file(), "").unwrap();
    assert!(matches!(refused(&folder), OpenError::Missing { .. }));
    assert_eq!(fs::read(folder.file()).unwrap(), b"");
}

#[tokio::test]
async fn what_is_not_ours_to_touch_is_refused_and_left_alone() {
    let folder = Folder::new();
    folder.open().unwrap().close().await;
    let newer = Connection::open(folder.file()).unwrap();
    newer.execute_batch("PRAGMA user_version = 7").unwrap();
    drop(newer);
    let before = fs::read(folder.file()).unwrap();
    let newer = refused(&folder);
    assert!(
        matches!(newer, OpenError::NewerSchema { found: 7, .. }),
        "{newer}"
    );
    assert!(fs::read(folder.file()).unwrap() == before);

    let folder = Folder::new();
    let foreign = Connection::open(folder.file()).unwrap();
    foreign.execute_batch("CREATE TABLE users (id)").unwrap();
    drop(foreign);
    let foreign = refused(&folder);
    assert!(matches!(foreign, OpenError::NotAQueue { .. }), "{foreign}");

    let folder = Folder::new();
    fs::write(folder.file(), "no database at all".repeat(200)).unwrap();
    assert!(matches!(refused(&folder), OpenError::Sqlite { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_moved_while_no_queue_is_open_and_found_by_the_next() {
    let mut queue = Embedded::new().await;
    park(&mut queue, &numbered(3), Reason::MissingEmail).await;
    let Embedded { queue, folder } = queue;
    queue.close().await;
    let mut operator = EmbeddedParked::open(&folder.file()).unwrap();
    let walk = operator.walk(Place::Dead, |letter| match letter.id.as_str() {
        "msg_0" => Fate::Replay,
        "msg_1" => Fate::Mark,
        _ => Fate::Keep,
    });
    assert_eq!(walk.await.unwrap(), 1);
    // It has taken no lock: a process may start at any moment.
    let queue = folder.open().unwrap();
    assert_eq!(operator.discard_marked().await.unwrap(), 1);
    operator.close().await;
    let depths = queue.depths().await.unwrap();
    assert_eq!((depths.ready, depths.dead), (1, 1));
    assert!(one(&mut queue.consumer()).await.event == event("msg_0"));
    queue.close().await;
}

/// Ready by whatever clock the queue goes: the one that dead-lettered it was ahead by a day.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_ahead_does_not_hide_a_replay() {
    let mut queue = Embedded::new().await;
    park(&mut queue, &[event("msg_1")], Reason::MissingEmail).await;
    let file = Connection::open(queue.folder.file()).unwrap();
    let ahead = "UPDATE events SET visible_at = visible_at + 86400000";
    assert_eq!(file.execute(ahead, []).unwrap(), 1);
    let mut operator = queue.operator().await;
    let walk = operator.walk(Place::Dead, |_| Fate::Replay);
    assert_eq!(walk.await.unwrap(), 1);
    let mut consumer = queue.consumer().await;
    assert!(one(&mut consumer).await.event == event("msg_1"));
    operator.close().await;
    drop(consumer);
    queue.remove().await;
}

/// Counted, replayed by somebody else, dead again of something else: not what was meant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_that_died_again_meanwhile_is_not_discarded() {
    let mut queue = Embedded::new().await;
    park(&mut queue, &[event("msg_1")], Reason::MissingEmail).await;
    let (mut slow, mut slower) = (queue.operator().await, queue.operator().await);
    for operator in [&mut slow, &mut slower] {
        let walk = operator.walk(Place::Dead, |_| Fate::Mark);
        assert_eq!(walk.await.unwrap(), 0);
    }
    let mut fast = queue.operator().await;
    let walk = fast.walk(Place::Dead, |_| Fate::Replay);
    assert_eq!(walk.await.unwrap(), 1);
    assert_eq!(slow.discard_marked().await.unwrap(), 0, "it is not dead");
    let mut consumer = queue.consumer().await;
    let delivery = one(&mut consumer).await;
    let again = poison(Reason::EmailTaken);
    settle(&mut consumer, delivery, again).await;
    assert_eq!(slower.discard_marked().await.unwrap(), 0, "another death");
    assert_eq!(slow.count(Place::Dead).await.unwrap(), 1);
    slower.close().await;
    slow.close().await;
    fast.close().await;
    drop(consumer);
    queue.remove().await;
}
