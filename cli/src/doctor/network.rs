//! Servers: how long they are waited for, and where they are.

use std::{net::IpAddr, time::Duration};

use clerk_sync_pipeline::secret::ServerUrl;

use super::report::Line;
use crate::progress::in_words;

/// Longest wait for a server that does not say anything. One that refuses is told at once.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time for all questions to one server.
pub(super) const ALL_QUESTIONS: Duration = Duration::from_secs(15);

/// Whether what is sent to a server leaves this machine.
fn leaves_this_machine(url: &ServerUrl) -> bool {
    let is_loopback = |name: &str| {
        let name = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost"
            || name
                .parse()
                .is_ok_and(|address: IpAddr| address.is_loopback())
    };
    match url.expose().host_str() {
        // A socket of this machine; a folder of it may stand in a host's place.
        None | Some("") => false,
        Some(name) => !is_loopback(name) && !name.to_ascii_lowercase().starts_with("%2f"),
    }
}

/// Whether what is sent to a server can be read on the way.
pub(super) fn encryption(url: &ServerUrl, encrypted: bool, cure: &str) -> Line {
    const NAME: &str = "encryption";
    if encrypted {
        Line::ok(NAME, "TLS")
    } else if leaves_this_machine(url) {
        Line::warning(
            NAME,
            "none: password and users can be read on the way",
            cure,
        )
    } else {
        Line::ok(NAME, "none, and nothing leaves this machine")
    }
}

pub(super) fn in_millis(took: Duration) -> String {
    if took < Duration::from_secs(10) {
        format!("{:.1} ms", took.as_secs_f64() * 1000.0)
    } else {
        in_words(took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_machine_is_reached_over_a_network() {
        for (url, leaves) in [
            ("amqp://localhost/%2f", false),
            ("postgres://me@127.0.0.1:5432/app", false),
            ("postgres://me@[::1]/app", false),
            ("postgres:///app?host=/run/postgresql", false),
            ("postgres://db/app", true),
            ("amqp://10.0.0.7/%2f", true),
        ] {
            assert_eq!(leaves_this_machine(&url.parse().unwrap()), leaves, "{url}");
        }
    }
}
