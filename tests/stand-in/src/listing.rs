//! `GET /v1/users` and its count: parameters, order, pages.

use std::{borrow::Cow, collections::BTreeSet};

use serde_json::Value;
use url::form_urlencoded;

use crate::{LostCursor, answer::Answer, people::People};

const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: usize = 500;
/// Most values of one filter.
const MAX_VALUES: usize = 100;
/// Fields to order by, beside `created_at` and `updated_at`, and where they are in a user.
const ORDERS: [(&str, &str); 8] = [
    ("email_address", "/email_addresses/0/email_address"),
    ("web3wallet", "/web3_wallets/0/web3_wallet"),
    ("first_name", "/first_name"),
    ("last_name", "/last_name"),
    ("phone_number", "/phone_numbers/0/phone_number"),
    ("username", "/username"),
    ("last_active_at", "/last_active_at"),
    ("last_sign_in_at", "/last_sign_in_at"),
];

/// What a request asks for.
pub(crate) struct Listing<'a> {
    limit: usize,
    offset: usize,
    order: Cow<'a, str>,
    ascending: bool,
    starting_after: Option<Cow<'a, str>>,
    wanted: BTreeSet<Cow<'a, str>>,
    unwanted: BTreeSet<Cow<'a, str>>,
    external_ids: BTreeSet<Cow<'a, str>>,
    emails: BTreeSet<Cow<'a, str>>,
    /// Field, whether later than the time, and the time.
    times: Vec<(&'static str, bool, i64)>,
}

impl<'a> Listing<'a> {
    pub(crate) fn parse(query: &'a str) -> Result<Self, Answer> {
        let mut listing = Self {
            limit: DEFAULT_LIMIT,
            offset: 0,
            order: "created_at".into(),
            ascending: false,
            starting_after: None,
            wanted: BTreeSet::new(),
            unwanted: BTreeSet::new(),
            external_ids: BTreeSet::new(),
            emails: BTreeSet::new(),
            times: Vec::new(),
        };
        let (mut ordered, mut user_ids) = (false, 0);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "limit" => {
                    let limit: usize = number(&name, &value)?;
                    // Silently, as Clerk does.
                    let fits = (1..=MAX_LIMIT).contains(&limit);
                    listing.limit = if fits { limit } else { DEFAULT_LIMIT };
                }
                "offset" => listing.offset = number(&name, &value)?,
                // Only the first is used.
                "order_by" if ordered => {}
                "order_by" => {
                    ordered = true;
                    listing.order_by(&value)?;
                }
                "starting_after" => listing.starting_after = Some(value),
                "user_id" => {
                    user_ids += 1;
                    let (set, id) = match value.strip_prefix('-') {
                        Some(id) => (&mut listing.unwanted, id),
                        None => (
                            &mut listing.wanted,
                            value.strip_prefix('+').unwrap_or(&value),
                        ),
                    };
                    set.insert(id.to_owned().into());
                }
                "external_id" => drop(listing.external_ids.insert(value)),
                "email_address" => drop(listing.emails.insert(value)),
                "created_at_before" => listing.time("created_at", false, &value)?,
                "created_at_after" => listing.time("created_at", true, &value)?,
                "last_active_at_before" => listing.time("last_active_at", false, &value)?,
                "last_active_at_after" => listing.time("last_active_at", true, &value)?,
                "last_sign_in_at_before" => listing.time("last_sign_in_at", false, &value)?,
                "last_sign_in_at_after" => listing.time("last_sign_in_at", true, &value)?,
                "__clerk_api_version" => {}
                _ => return Err(Answer::parameter(&name, "The stand-in does not know it.")),
            }
        }
        let sizes = [user_ids, listing.external_ids.len(), listing.emails.len()];
        if sizes.into_iter().any(|size| size > MAX_VALUES) {
            return Err(Answer::parameter(
                "user_id",
                "There are more than 100 values.",
            ));
        }
        if listing.starting_after.is_some() && (listing.order != "created_at" || listing.offset > 0)
        {
            return Err(Answer::parameter(
                "starting_after",
                "starting_after needs order_by created_at and no offset",
            ));
        }
        Ok(listing)
    }

    fn order_by(&mut self, value: &str) -> Result<(), Answer> {
        let (field, ascending) = match value.split_at_checked(1) {
            Some(("-", field)) => (field, false),
            Some(("+", field)) => (field, true),
            // Without a sign it is ascending. A plus sign that was not escaped is a space.
            _ => (value, true),
        };
        let known = ORDERS.iter().any(|(name, _)| *name == field);
        if !known && !matches!(field, "created_at" | "updated_at") {
            return Err(Answer::parameter("order_by", "There is no such order."));
        }
        self.order = field.to_owned().into();
        self.ascending = ascending;
        Ok(())
    }

    fn time(&mut self, field: &'static str, later: bool, value: &str) -> Result<(), Answer> {
        self.times.push((field, later, number(field, value)?));
        Ok(())
    }

    pub(crate) fn count(&self, people: &People) -> usize {
        people.ids().filter(|id| self.wants(people, id)).count()
    }

    /// The users of the page.
    pub(crate) fn page<'p>(
        &self,
        people: &'p People,
        lost_cursor: LostCursor,
        cap: usize,
    ) -> Result<Vec<&'p str>, Answer> {
        let ids: Box<dyn Iterator<Item = &str>> = match (&self.starting_after, &*self.order) {
            (Some(cursor), _) => match (people.around(cursor), lost_cursor) {
                (Some([_, after]), _) if self.ascending => Box::new(after),
                (Some([before, _]), _) => Box::new(before.rev()),
                (None, LostCursor::EmptyPage) => Box::new(std::iter::empty()),
                (None, LostCursor::NotFound) => {
                    return Err(Answer::not_found("No user was found for starting_after"));
                }
                (None, LostCursor::Unprocessable) => {
                    return Err(Answer::parameter(
                        "starting_after",
                        "There is no such user.",
                    ));
                }
            },
            (None, "created_at") if self.ascending => Box::new(people.by_creation()),
            (None, "created_at") => Box::new(people.by_creation().rev()),
            (None, "updated_at") if self.ascending => Box::new(people.by_change()),
            (None, "updated_at") => Box::new(people.by_change().rev()),
            (None, field) => Box::new(self.sorted(people, field).into_iter()),
        };
        let ids = ids.filter(|id| self.wants(people, id));
        let page = ids.skip(self.offset).take(self.limit.min(cap));
        Ok(page.filter_map(|id| people.json(id)).collect())
    }

    /// Everybody by a field that no order is kept of.
    fn sorted<'p>(&self, people: &'p People, field: &str) -> Vec<&'p str> {
        let place = ORDERS.iter().find(|(name, _)| *name == field);
        let (_, place) = place.expect("checked when the query was read");
        let key = |id: &str| match user(people, id).pointer(place) {
            Some(Value::Number(number)) => (number.as_i64(), String::new()),
            Some(Value::String(text)) => (None, text.clone()),
            _ => (None, String::new()),
        };
        let mut ids: Vec<&str> = people.ids().collect();
        ids.sort_by_cached_key(|id| (key(id), *id));
        if !self.ascending {
            ids.reverse();
        }
        ids
    }

    fn wants(&self, people: &People, id: &str) -> bool {
        if !self.wanted.is_empty() && !self.wanted.contains(id) || self.unwanted.contains(id) {
            return false;
        }
        if self.external_ids.is_empty() && self.emails.is_empty() && self.times.is_empty() {
            return true;
        }
        let user = user(people, id);
        let external_id = user["external_id"].as_str().unwrap_or_default();
        let emails = user["email_addresses"].as_array().into_iter().flatten();
        let mut emails = emails.filter_map(|email| email["email_address"].as_str());
        let in_time = |(field, later, time): &(&str, bool, i64)| {
            let at = user[*field].as_i64();
            at.is_some_and(|at| if *later { at > *time } else { at < *time })
        };
        (self.external_ids.is_empty() || self.external_ids.contains(external_id))
            && (self.emails.is_empty() || emails.any(|email| self.emails.contains(email)))
            && self.times.iter().all(in_time)
    }
}

fn user(people: &People, id: &str) -> Value {
    let json = people.json(id).expect("listed users are there");
    serde_json::from_str(json).expect("it was read when it came")
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Answer> {
    value
        .parse()
        .map_err(|_| Answer::parameter(name, "It is not a number."))
}
