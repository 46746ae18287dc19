//! Where HTTP without TLS may go.

use url::{Host, Url};

/// Whether what is sent to this URL, and what comes back, can be read and changed on its way: plain
/// HTTP to another machine.
pub(crate) fn is_exposed(url: &Url) -> bool {
    let here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() != "https" && !here
}
