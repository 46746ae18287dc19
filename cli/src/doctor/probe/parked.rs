//! A probe's event among the dead letters, if it ended there.

use std::time::Duration;

use clerk_sync_pipeline::queue::{
    amqp::AmqpParked,
    embedded::EmbeddedParked,
    parked::{Fate, Interrupted, Parked, Place},
};
use tokio::time::{sleep, timeout};

use super::{MadeUp, Settings};

/// A worker notes the outcome first, and then moves the event.
const TRIES: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(100);
/// Longest walk along the dead letters.
const WALK_WITHIN: Duration = Duration::from_secs(20);

/// Takes it out for good; why it was there: code and detail.
///
/// # Errors
/// The dead letters cannot be read.
pub(super) async fn take_out(settings: &Settings, user: &MadeUp) -> Result<Option<String>, String> {
    let taken = async {
        match settings.broker.server() {
            Some(server) => from(AmqpParked::open(&server).await?, user).await,
            None => {
                let parked =
                    EmbeddedParked::open(&settings.data.queue()).map_err(|error| Interrupted {
                        done: 0,
                        cause: error.to_string(),
                    });
                from(parked?, user).await
            }
        }
    };
    match timeout(WALK_WITHIN, taken).await {
        Ok(taken) => taken.map_err(|error| error.cause),
        Err(_) => Err(format!("no end of the dead letters within {WALK_WITHIN:?}")),
    }
}

async fn from(mut parked: impl Parked, user: &MadeUp) -> Result<Option<String>, Interrupted> {
    let taken = discard(&mut parked, user).await;
    parked.close().await;
    taken
}

async fn discard(parked: &mut impl Parked, user: &MadeUp) -> Result<Option<String>, Interrupted> {
    for _ in 0..TRIES {
        let mut why = None;
        let walk = parked.walk(Place::Dead, |letter| {
            if !user.has_event(letter.id.as_str()) {
                return Fate::Keep;
            }
            why = Some(match &letter.detail {
                Some(detail) => format!("{}: {detail}", letter.code),
                None => letter.code.clone(),
            });
            Fate::Mark
        });
        walk.await?;
        if why.is_some() {
            parked.discard_marked().await?;
            return Ok(why);
        }
        sleep(BETWEEN).await;
    }
    Ok(None)
}
