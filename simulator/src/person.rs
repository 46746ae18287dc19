//! A user as Clerk has it.

use crate::history::Snapshot;

#[derive(Clone, Debug)]
pub(crate) struct Person {
    /// `user_…`
    pub(crate) clerk_id: String,
    pub(crate) external_id: Option<String>,
    pub(crate) first_name: Option<String>,
    pub(crate) last_name: Option<String>,
    pub(crate) image_url: String,
    /// In no order that means anything.
    pub(crate) addresses: Vec<Address>,
    /// `idn_…` of one of the addresses; or of one that is gone.
    pub(crate) primary: Option<String>,
    /// `idn_…` and number.
    pub(crate) phone: Option<(String, String)>,
    /// How often the metadata was written.
    pub(crate) edition: usize,
    pub(crate) last_sign_in_at: Option<i64>,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
}

#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// `idn_…`
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) verified: bool,
    pub(crate) created_at: i64,
}

impl Person {
    /// The address that stands for the user: the primary one, found by its id; if that points at
    /// nothing, the first verified one.
    pub(crate) fn address(&self) -> Option<&Address> {
        let mut addresses = self.addresses.iter();
        let primary = addresses.find(|address| Some(&address.id) == self.primary.as_ref());
        primary.or_else(|| self.addresses.iter().find(|address| address.verified))
    }

    /// First and last name joined by a space, where there are any.
    fn name(&self) -> Option<String> {
        let names = [&self.first_name, &self.last_name];
        let names = names.into_iter().flatten();
        let names: Vec<&str> = names
            .map(String::as_str)
            .filter(|name| !name.is_empty())
            .collect();
        (!names.is_empty()).then(|| names.join(" "))
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            email: self.address().map(|address| address.email.clone()),
            name: self.name(),
            image_url: self.image_url.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}
