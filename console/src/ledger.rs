//! Pages of the ledger: found by walking its index of time from new to old, a stretch at a time, as
//! there is no index for users or outcomes that would slow the worker down.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clerk_sync_entity::processed_events::{self, Place, Row, Wanted};
use clerk_sync_projection::Unavailable;
use tokio::time::Instant;

use crate::reader::Reader;

/// Rows of a page.
pub(crate) const PAGE: usize = 50;
/// Rows that are walked by one statement.
const STRETCH: u64 = 20_000;
/// Rows that one look at the ledger's end is about: two seconds of 2,500 events each.
const AMONG: u64 = 5000;
/// How long a search may take before it shows what it has.
const SEARCH_WITHIN: Duration = Duration::from_millis(1500);

/// A page, and where it ended.
#[derive(Debug)]
pub(crate) struct Page {
    /// The newest first.
    pub(crate) rows: Vec<Row>,
    /// Where to go on; `None` at the ledger's end.
    pub(crate) next: Option<Place>,
    /// Whether time was over before the page was full: there may be more further back.
    pub(crate) unfinished: bool,
}

/// Wanted rows behind a place.
pub(crate) async fn search(
    reader: &Reader,
    wanted: &Wanted,
    after: Option<Place>,
) -> Result<Page, Unavailable> {
    let backend = reader.backend();
    let deadline = Instant::now() + SEARCH_WITHIN;
    let (mut rows, mut after): (Vec<Row>, _) = (Vec::new(), after);
    loop {
        // Without conditions the first rows are the page.
        let end: Option<Place> = if wanted.is_all() {
            None
        } else {
            let end = processed_events::end_of_stretch(backend, after.as_ref(), STRETCH);
            reader.one(&end).await?
        };
        let left = (PAGE - rows.len()) as u64;
        let stretch =
            processed_events::newest_first(backend, wanted, after.as_ref(), end.as_ref(), left);
        rows.extend(reader.all::<Row>(&stretch).await?);
        if rows.len() >= PAGE {
            let next = rows.last().map(place);
            return Ok(Page {
                rows,
                next,
                unfinished: false,
            });
        }
        let unfinished = Instant::now() >= deadline;
        if end.is_none() || unfinished {
            return Ok(Page {
                rows,
                unfinished: unfinished && end.is_some(),
                next: end,
            });
        }
        after = end;
    }
}

/// One row.
pub(crate) async fn event(reader: &Reader, id: &str) -> Result<Option<Row>, Unavailable> {
    reader
        .one(&processed_events::by_id(reader.backend(), id))
        .await
}

/// The newest wanted rows since a moment, at most so many. Of a flood, only the newest
/// [`AMONG`] are looked at.
pub(crate) async fn since(
    reader: &Reader,
    wanted: &Wanted,
    from: DateTime<Utc>,
    limit: u64,
) -> Result<Vec<Row>, Unavailable> {
    let newest = processed_events::newest_among(reader.backend(), wanted, from, AMONG, limit);
    reader.all(&newest).await
}

/// The place behind a row.
fn place(row: &Row) -> Place {
    Place {
        processed_at: row.processed_at,
        event_id: row.event_id.clone(),
    }
}

/// A place as a parameter of an address: nanoseconds since 1970, and the id.
pub(crate) fn write(place: &Place) -> String {
    let nanoseconds = place.processed_at.timestamp_nanos_opt().unwrap_or_default();
    format!("{nanoseconds}.{}", place.event_id)
}

/// The place that a parameter names.
pub(crate) fn read(text: &str) -> Option<Place> {
    let (nanoseconds, event_id) = text.split_once('.')?;
    Some(Place {
        processed_at: DateTime::from_timestamp_nanos(nanoseconds.parse().ok()?),
        event_id: event_id.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_its_way_through_an_address() {
        let place = Place {
            processed_at: DateTime::from_timestamp_nanos(1_764_354_000_123_456_789),
            event_id: "msg_a.b".to_owned(),
        };
        assert_eq!(read(&write(&place)), Some(place));
        assert_eq!(read("x.msg"), None);
        assert_eq!(read("12"), None);
    }
}
