//! The nodes of a broker: one, or those of a cluster.

use std::{fmt, str::FromStr};

use crate::secret::ServerUrl;

/// Addresses of one broker, at least one: `amqp://` or `amqps://`, with user, password and vhost.
///
/// They are nodes of one cluster, so which of them a connection is on makes no difference. Each
/// attempt to connect takes the next, so a process outlives the node that it was connected to.
#[derive(Clone, PartialEq, Eq)]
pub struct Nodes(Vec<ServerUrl>);

impl Nodes {
    /// The first that was named.
    #[must_use]
    pub fn first(&self) -> &ServerUrl {
        &self.0[0]
    }

    /// All, in the order in which they were named.
    pub fn iter(&self) -> impl Iterator<Item = &ServerUrl> {
        self.0.iter()
    }

    /// The nodes in turn, round and round, beginning somewhere: of many processes with the same
    /// setting, not all crowd on the first.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = &ServerUrl> {
        let from = rand::random_range(0..self.0.len());
        self.0.iter().cycle().skip(from)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl From<ServerUrl> for Nodes {
    fn from(url: ServerUrl) -> Self {
        Self(vec![url])
    }
}

impl FromStr for Nodes {
    type Err = String;

    /// URLs with commas between them. A comma within a password is none of these: what follows it
    /// does not begin with `amqp`.
    ///
    /// # Errors
    /// One of them is not an AMQP address. No text is repeated: it may hold a password.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut urls: Vec<String> = Vec::new();
        for part in text.split(',') {
            match urls.last_mut() {
                Some(url) if !part.trim_start().starts_with("amqp") => {
                    url.push(',');
                    url.push_str(part);
                }
                _ => urls.push(part.to_owned()),
            }
        }
        urls.iter()
            .map(|url| node(url))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn node(text: &str) -> Result<ServerUrl, String> {
    let url: ServerUrl = text.parse()?;
    match url.expose().scheme() {
        "amqp" | "amqps" => Ok(url),
        scheme => Err(format!("`{scheme}:` is not amqp: or amqps:")),
    }
}

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, url) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{url}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Nodes, String> {
        text.parse()
    }

    #[test]
    fn several_nodes_are_taken_and_no_password_is_printed() {
        let nodes = parse("amqp://me:a,b@one/%2f, amqps://me:hunter2@two:5671/%2f").unwrap();
        assert_eq!(
            nodes.to_string(),
            "amqp://me:***@one/%2f, amqps://me:***@two:5671/%2f"
        );
        assert_eq!(format!("{nodes:?}"), nodes.to_string());
        assert_eq!(nodes.first().expose().password(), Some("a,b"));
    }

    #[test]
    fn one_that_is_none_is_refused_without_repeating_it() {
        for text in [
            "",
            "http://me:hunter2@one",
            "amqp://one,amqp://me:hunter2@:x",
        ] {
            let problem = parse(text).unwrap_err();
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn every_node_has_its_turn() {
        let nodes = parse("amqp://one,amqp://two,amqp://three").unwrap();
        let turns: Vec<_> = nodes.in_turn().take(6).collect();
        assert_eq!(turns[..3], turns[3..]);
        assert!(nodes.0.iter().all(|node| turns.contains(&node)));
    }
}
