//! All users, and those that changed, while the instance goes on living.

use std::collections::BTreeSet;

use clerk_sync_clerk::backend::{ApiError, Backend, ChangedWalk, User, Walk};
use clerk_sync_stand_in::{Endpoint, Failure, LostCursor, Settings};

use crate::{clerk, clerk_as};

/// Clerk does not say what becomes of such a page: every way there is must be borne.
const LOST_CURSORS: [LostCursor; 3] = [
    LostCursor::Unprocessable,
    LostCursor::NotFound,
    LostCursor::EmptyPage,
];

async fn rest(walk: &mut Walk) -> Vec<User> {
    let mut users = Vec::new();
    while let Some(page) = walk.next_page().await.unwrap() {
        users.extend(page);
    }
    users
}

fn ids(users: &[User]) -> Vec<&str> {
    users.iter().map(|user| user.id.as_str()).collect()
}

#[tokio::test]
async fn a_walk_sees_everybody_once_oldest_first() {
    let (clerk, backend) = clerk().await;
    let everybody = clerk.fill(1_234);
    let users = rest(&mut backend.walk(None)).await;
    assert_eq!(ids(&users), everybody);
    assert_eq!(clerk.requests(Endpoint::Users), 3);
}

#[tokio::test]
async fn a_walk_ends_also_when_the_last_page_is_full() {
    let (clerk, backend) = clerk().await;
    assert!(rest(&mut backend.walk(None)).await.is_empty());
    let everybody = clerk.fill(1_000);
    let users = rest(&mut backend.walk(None)).await;
    assert_eq!(ids(&users), everybody);
}

#[tokio::test]
async fn a_walk_is_resumed_after_a_user() {
    let (clerk, backend) = clerk().await;
    let everybody = clerk.fill(1_234);
    let mut walk = backend.walk(Some(everybody[700].clone()));
    assert_eq!(ids(&rest(&mut walk).await), &everybody[701..]);
}

#[tokio::test]
async fn who_signs_up_during_a_walk_is_seen_at_its_end() {
    let (clerk, backend) = clerk().await;
    clerk.fill(700);
    let mut walk = backend.walk(None);
    walk.next_page().await.unwrap().unwrap();
    let late = clerk.sign_up("late@people.example");
    let users = rest(&mut walk).await;
    assert_eq!(users.last().unwrap().id, late);
}

#[tokio::test]
async fn a_walk_goes_on_when_the_user_that_it_stands_on_is_deleted() {
    for lost_cursor in LOST_CURSORS {
        let (clerk, backend) = clerk_as(Settings {
            lost_cursor,
            ..Settings::production()
        })
        .await;
        let everybody = clerk.fill(1_234);
        let mut walk = backend.walk(None);
        let first = walk.next_page().await.unwrap().unwrap();
        // All of its page but three, as when an instance is purged of those who signed up in a row.
        for id in &everybody[3..505] {
            clerk.remove(id);
        }
        let asked = clerk.requests(Endpoint::Users);
        let rest = rest(&mut walk).await;
        assert!(clerk.requests(Endpoint::Users) - asked < 10);
        let seen: BTreeSet<&str> = ids(&first).into_iter().chain(ids(&rest)).collect();
        let missed = everybody.iter().filter(|id| !seen.contains(id.as_str()));
        let missed: Vec<_> = missed.collect();
        assert_eq!(
            missed,
            everybody[500..505].iter().collect::<Vec<_>>(),
            "{lost_cursor:?}"
        );
    }
}

#[tokio::test]
async fn a_walk_that_has_nowhere_left_to_stand_says_so_and_does_not_end() {
    for lost_cursor in LOST_CURSORS {
        let (clerk, backend) = clerk_as(Settings {
            lost_cursor,
            ..Settings::production()
        })
        .await;
        let everybody = clerk.fill(5);
        clerk.remove(&everybody[2]);
        let mut walk = backend.walk(Some(everybody[2].clone()));
        for _ in 0..2 {
            let error = walk.next_page().await.unwrap_err();
            let lost = matches!(&error, ApiError::CursorLost { after } if *after == everybody[2]);
            assert!(lost, "{lost_cursor:?}: {error:?}");
            assert!(!error.is_transient());
        }
    }
}

/// A refusal for another reason is told as it is.
#[tokio::test]
async fn a_walk_whose_page_is_refused_does_not_go_elsewhere() {
    let (clerk, backend) = clerk().await;
    let everybody = clerk.fill(700);
    let mut walk = backend.walk(None);
    walk.next_page().await.unwrap().unwrap();
    clerk.fail_next(1, Failure::Status(402, None));
    let error = walk.next_page().await.unwrap_err();
    assert!(matches!(error, ApiError::Refused { .. }), "{error:?}");
    assert_eq!(ids(&rest(&mut walk).await), &everybody[500..]);
}

async fn rest_of_changed(walk: &mut ChangedWalk) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    while let Some(page) = walk.next_page().await.unwrap() {
        seen.extend(page.into_iter().map(|user| user.id));
    }
    seen
}

/// When the user with this id changed last.
async fn changed_at(backend: &Backend, id: &str) -> i64 {
    let user = backend.user(id).await.unwrap().unwrap();
    user.updated_at.unwrap()
}

#[tokio::test]
async fn a_walk_of_changes_sees_those_and_no_others() {
    let (clerk, backend) = clerk().await;
    let everybody = clerk.fill(1_500);
    // The last 700 that were made up, and two old ones that have changed since.
    let since = changed_at(&backend, &everybody[800]).await;
    for n in [3, 4] {
        clerk.change(&everybody[n], |user| {
            user.insert("first_name".into(), "Changed".into());
        });
    }
    let seen = rest_of_changed(&mut backend.walk_changed(since)).await;
    let mut expected: BTreeSet<String> = everybody[800..].iter().cloned().collect();
    expected.extend(everybody[3..5].iter().cloned());
    assert_eq!(seen, expected);
    // Not the rest of the instance: two pages have them.
    assert_eq!(clerk.requests(Endpoint::Users), 2);
}

/// Offsets count from the newest: each deletion moves everybody behind it to the front, past the
/// walk's eyes.
#[tokio::test]
async fn a_walk_of_changes_misses_nobody_when_users_are_deleted_or_change_meanwhile() {
    let (clerk, backend) = clerk().await;
    let everybody = clerk.fill(2_600);
    let mut walk = backend.walk_changed(0);
    let mut seen = BTreeSet::new();
    let mut deleted = BTreeSet::new();
    let mut changed = BTreeSet::new();
    let mut newest = everybody.iter().rev();
    while let Some(page) = walk.next_page().await.unwrap() {
        seen.extend(page.into_iter().map(|user| user.id));
        for id in newest.by_ref().take(40) {
            clerk.remove(id);
            deleted.insert(id.clone());
        }
        let number = seen.len() % everybody.len();
        if clerk.user(&everybody[number]).is_some() {
            clerk.change(&everybody[number], |_| {});
            changed.insert(everybody[number].clone());
        }
    }
    let missed: Vec<_> = everybody
        .iter()
        .filter(|id| !seen.contains(*id) && !deleted.contains(*id) && !changed.contains(*id))
        .collect();
    assert!(missed.is_empty(), "{} missed", missed.len());
    assert!(
        clerk.requests(Endpoint::Users) < 40,
        "{}",
        clerk.requests(Endpoint::Users)
    );
}
