//! The events of a run, as requests that are signed beforehand.
//!
//! All events of a run have one shape, and fields of one width: an event is a number, and its
//! request is a copy of the shape with a few bytes overwritten. Kept for each is its signature
//! alone, so a million of them take 44 MB, and sending one costs a copy of 2.5 KB.

use std::{ops::Range, thread};

use anyhow::Context as _;
use chrono::{DateTime, NaiveDateTime};
use clerk_sync_pipeline::{Millis, secret::Secret};
use svix::webhooks::Webhook;

use super::shape::Shape;

/// `updated_at` of the first event of the first run, a number of 13 digits for centuries.
pub(super) const EPOCH_MS: u64 = 1_780_000_000_000;
/// Events that a run can have, so that a later run's are newer.
pub(super) const MOST_EVENTS: u64 = 10_000_000;
/// A signature's length in base64.
const SIGNATURE: usize = 44;
/// Takes users in an order that looks random to an index, each once: it is a prime.
const STRIDE: u64 = 2_654_435_761;

/// Whom the events are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Users {
    /// Somebody new each: they were created.
    New,
    /// This many who are there already, in turn: they were updated.
    Known(u64),
}

/// The events of one run.
pub(super) struct Stock {
    run: u64,
    users: Users,
    shape: Shape,
    signed_at: i64,
    signatures: Vec<[u8; SIGNATURE]>,
}

impl Stock {
    /// Makes and signs the first `count` events of a run; `run` numbers it among those on the same
    /// tables.
    pub(super) fn sign(
        secret: &Secret,
        run: u64,
        users: Users,
        count: u64,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(count < MOST_EVENTS, "at most {MOST_EVENTS} events");
        let mut stock = Self::unsigned(run, users)?;
        let webhook = Webhook::new(secret.expose()).context("the secret of the run")?;
        stock.signed_at = Millis::now().0 / 1000;
        let mut signatures = vec![[0; SIGNATURE]; usize::try_from(count)?];
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let share = signatures.len().div_ceil(threads).max(1);
        thread::scope(|scope| {
            let signing: Vec<_> = signatures
                .chunks_mut(share)
                .zip(0..)
                .map(|(chunk, part)| {
                    let (stock, webhook) = (&stock, &webhook);
                    let from = part * share as u64;
                    scope.spawn(move || stock.sign_chunk(webhook, from, chunk))
                })
                .collect();
            signing
                .into_iter()
                .try_for_each(|thread| thread.join().expect("signing does not panic"))
        })?;
        stock.signatures = signatures;
        Ok(stock)
    }

    /// Events that are not sent over HTTP.
    pub(super) fn unsigned(run: u64, users: Users) -> anyhow::Result<Self> {
        Ok(Self {
            run,
            users,
            shape: Shape::new(users)?,
            signed_at: 0,
            signatures: Vec::new(),
        })
    }

    fn sign_chunk(
        &self,
        webhook: &Webhook,
        from: u64,
        chunk: &mut [[u8; SIGNATURE]],
    ) -> anyhow::Result<()> {
        let mut body = self.shape.bytes.clone();
        for (signature, number) in chunk.iter_mut().zip(from..) {
            self.write_body(number, &mut body);
            let signed = webhook.sign(&self.event_id(number), self.signed_at, &body)?;
            let base64 = signed.strip_prefix("v1,").unwrap_or(&signed);
            *signature = base64
                .as_bytes()
                .try_into()
                .context("a signature of another length")?;
        }
        Ok(())
    }

    /// How many are signed.
    pub(super) fn len(&self) -> u64 {
        self.signatures.len() as u64
    }

    pub(super) fn event_type(&self) -> &'static str {
        self.shape.event_type
    }

    /// The `svix-id` of an event, as long as Svix's, and as sortable by time.
    pub(super) fn event_id(&self, number: u64) -> String {
        format!("msg_bench{:04}{number:018}", self.run)
    }

    /// The number in such an id, if it is of this run.
    pub(super) fn number(&self, event_id: &str) -> Option<u64> {
        let run = format!("msg_bench{:04}", self.run);
        event_id.strip_prefix(&run)?.parse().ok()
    }

    /// Ids of the run: the first, and the first that is past it.
    pub(super) fn event_ids(&self) -> Range<String> {
        self.event_id(0)..self.event_id(MOST_EVENTS)
    }

    /// Number of the user whom an event is about.
    pub(super) fn user(&self, number: u64) -> u64 {
        match self.users {
            Users::New => self.run * MOST_EVENTS + number,
            Users::Known(count) => (number % count) * STRIDE % count,
        }
    }

    /// `updated_at` of the user, and time of the event: one of its own for each.
    pub(super) fn updated_at(&self, number: u64) -> u64 {
        EPOCH_MS + self.run * MOST_EVENTS + number
    }

    /// The same as the databases have it.
    pub(super) fn time(&self, number: u64) -> NaiveDateTime {
        moment(self.updated_at(number))
    }

    /// The number of the event that wrote a row of `users`, if one of this run did.
    pub(super) fn written_by(&self, updated_at: NaiveDateTime) -> Option<u64> {
        let at = u64::try_from(updated_at.and_utc().timestamp_millis()).ok()?;
        let number = at.checked_sub(self.updated_at(0))?;
        (number < MOST_EVENTS).then_some(number)
    }

    /// `updated_at` of the first event, and of the first that is past the run.
    pub(super) fn times(&self) -> Range<NaiveDateTime> {
        self.time(0)..self.time(MOST_EVENTS)
    }

    /// The body of an event.
    pub(super) fn body(&self, number: u64) -> Vec<u8> {
        let mut body = self.shape.bytes.clone();
        self.write_body(number, &mut body);
        body
    }

    fn write_body(&self, number: u64, body: &mut [u8]) {
        let user = self.user(number);
        self.shape.write(
            body,
            &clerk_id(user),
            &address(user),
            self.updated_at(number),
        );
    }

    /// A request for an event, over what was a request before or is empty.
    pub(super) fn write_request(&self, number: u64, request: &mut Vec<u8>) {
        let number = number % self.len().max(1);
        let signature = &self.signatures[usize::try_from(number).expect("an index")];
        request.clear();
        request.extend_from_slice(b"POST /api/webhooks/clerk HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: Svix-Webhooks/1.84 (clerk-sync bench)\r\ncontent-type: application/json\r\nsvix-id: ");
        request.extend_from_slice(self.event_id(number).as_bytes());
        request.extend_from_slice(b"\r\nsvix-timestamp: ");
        request.extend_from_slice(self.signed_at.to_string().as_bytes());
        request.extend_from_slice(b"\r\nsvix-signature: v1,");
        request.extend_from_slice(signature);
        request.extend_from_slice(b"\r\ncontent-length: ");
        request.extend_from_slice(self.shape.bytes.len().to_string().as_bytes());
        request.extend_from_slice(b"\r\n\r\n");
        let head = request.len();
        request.extend_from_slice(&self.shape.bytes);
        self.write_body(number, &mut request[head..]);
    }
}

/// Clerk's id of a user, as long as Clerk's.
pub(super) fn clerk_id(user: u64) -> String {
    format!("user_bench{user:022}")
}

/// The address of a user.
pub(super) fn address(user: u64) -> String {
    format!("user{user:022}@bench.example")
}

/// A key of our own for a user, as long as a cuid.
pub(super) fn key(user: u64) -> String {
    format!("c{user:024}")
}

fn moment(ms: u64) -> NaiveDateTime {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    DateTime::from_timestamp_millis(ms)
        .expect("a time within centuries")
        .naive_utc()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use clerk_sync_ingest::verify::{Unverified, Verifier};
    use serde_json::Value;

    use super::*;

    fn secret() -> Secret {
        Secret::new("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
    }

    #[test]
    fn a_request_is_one_that_the_ingester_believes() {
        let stock = Stock::sign(&secret(), 3, Users::Known(1000), 50).unwrap();
        let mut request = Vec::new();
        stock.write_request(48, &mut request);
        stock.write_request(49, &mut request);
        let mut parsed = [httparse::EMPTY_HEADER; 16];
        let mut parser = httparse::Request::new(&mut parsed);
        let head = parser.parse(&request).unwrap().unwrap();
        let mut headers = http::HeaderMap::new();
        for header in parser.headers.iter() {
            let name = http::HeaderName::from_bytes(header.name.as_bytes()).unwrap();
            headers.insert(name, http::HeaderValue::from_bytes(header.value).unwrap());
        }
        let body = request[head..].to_vec();
        assert_eq!(headers["content-length"], body.len().to_string());
        let unverified = Unverified::read(&headers, Millis::now()).unwrap();
        let verifier = Verifier::new(&[secret()]).unwrap();
        let verified = unverified.verify(&verifier, body.into()).unwrap();
        let event = verified.into_event(Millis::now(), None);
        assert_eq!(event.id.as_str(), stock.event_id(49));
        assert_eq!(stock.number(event.id.as_str()), Some(49));
        let body: Value = serde_json::from_slice(&event.body).unwrap();
        let data = &body["data"];
        assert_eq!(data["id"], clerk_id(stock.user(49)));
        assert_eq!(
            data["email_addresses"][0]["email_address"],
            address(stock.user(49))
        );
        assert_eq!(data["updated_at"], stock.updated_at(49));
        assert_eq!(body["timestamp"], stock.updated_at(49));
        assert_eq!(body["type"], "user.updated");
        assert!((2200..2800).contains(&event.body.len()));
    }

    #[test]
    fn known_users_are_taken_once_each_before_any_is_taken_again() {
        let stock = Stock::unsigned(0, Users::Known(10_000)).unwrap();
        let users: HashSet<u64> = (0..10_000).map(|number| stock.user(number)).collect();
        assert_eq!(users.len(), 10_000);
        assert!(users.iter().all(|user| *user < 10_000));
        assert_eq!(stock.user(10_000), stock.user(0));
    }

    #[test]
    fn a_later_run_is_newer_and_about_other_new_users() {
        let (first, second) = (0, 1);
        let first = Stock::unsigned(first, Users::New).unwrap();
        let second = Stock::unsigned(second, Users::New).unwrap();
        assert!(first.updated_at(MOST_EVENTS - 1) < second.updated_at(0));
        assert!(first.user(MOST_EVENTS - 1) < second.user(0));
        assert!(first.event_ids().end <= second.event_ids().start);
        let at = moment(second.updated_at(7));
        assert_eq!(
            (first.written_by(at), second.written_by(at)),
            (None, Some(7))
        );
    }
}
