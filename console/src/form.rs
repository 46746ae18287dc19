//! What a request brings: parameters of its address, fields of its form.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::refusal::Refusal;

/// Longest form: a token, an id and a few words.
const MAX_BYTES: usize = 16 * 1024;
/// Longest time for it.
const WITHIN: Duration = Duration::from_secs(4);

/// Names with their values, as a browser sends them.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Of an address.
    pub(crate) fn of_query(query: Option<&str>) -> Self {
        Self::parse(query.unwrap_or_default().as_bytes())
    }

    /// Of a form.
    pub(crate) async fn of_body(body: Incoming) -> Result<Self, Refusal> {
        Ok(Self::parse(&read(body).await?))
    }

    fn parse(text: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(text).into_owned().collect())
    }

    /// The value of a field, trimmed; `None` where it is blank.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(found, _)| found == name);
        let value = found.map(|(_, value)| value.trim());
        value.filter(|value| !value.is_empty())
    }

    /// A number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }
}

/// Reads a body to its end, so that the next request on the connection is found behind it.
pub(crate) async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    let read = Limited::new(body, MAX_BYTES).collect();
    match timeout(WITHIN, read).await {
        Ok(Ok(read)) => Ok(read.to_bytes()),
        Ok(Err(_)) | Err(_) => Err(Refusal::BadBody),
    }
}

/// An address of ours with parameters; those without a value are left out.
pub(crate) fn address(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let query = query.finish();
    let separator = if query.is_empty() { "" } else { "?" };
    format!("{}{path}{separator}{query}", crate::service::HOME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_blank_is_not_there() {
        let fields = Fields::of_query(Some("a=+x%20&b=&c=%26&n=12"));
        assert_eq!(fields.get("a"), Some("x"));
        assert_eq!(fields.get("b"), None);
        assert_eq!(fields.get("c"), Some("&"));
        assert_eq!(fields.number("n"), Some(12));
        assert_eq!(fields.number("a"), None);
    }

    #[test]
    fn an_address_is_escaped() {
        let address = address("/event", &[("id", Some("a&b=c")), ("x", None)]);
        assert_eq!(address, "/console/event?id=a%26b%3Dc");
    }
}
