//! Files that every page uses, inside the program.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha256};

use crate::answer::{Answer, content};

/// A file.
pub(crate) struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

static ASSETS: [Asset; 9] = [
    Asset {
        name: "console.css",
        kind: "text/css; charset=utf-8",
        text: include_str!("../assets/console.css"),
    },
    Asset {
        name: "theme.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("../assets/theme.js"),
    },
    Asset {
        name: "console.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("../assets/console.js"),
    },
    Asset {
        name: "axis.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("../assets/axis.js"),
    },
    Asset {
        name: "chart.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("../assets/chart.js"),
    },
    Asset {
        name: "overview.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("../assets/overview.js"),
    },
    Asset {
        name: "stream.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("../assets/stream.js"),
    },
    Asset {
        name: "tail.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("../assets/tail.js"),
    },
    Asset {
        name: "icon.svg",
        kind: "image/svg+xml",
        text: include_str!("../assets/icon.svg"),
    },
];

/// The file of this name.
pub(crate) fn find(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name == name)
}

impl Asset {
    /// The file, or that the browser's is still good. Asked for each time: another version of the
    /// program has other files.
    pub(crate) fn answer(&self, headers: &HeaderMap) -> Answer {
        let digest = Sha256::digest(self.text.as_bytes());
        let start = u64::from_be_bytes(digest[..8].try_into().expect("it has 32"));
        let tag = HeaderValue::from_str(&format!("\"{start:016x}\"")).expect("digits");
        let mut answer = if headers.get(header::IF_NONE_MATCH) == Some(&tag) {
            content(self.kind, "", StatusCode::NOT_MODIFIED)
        } else {
            content(self.kind, self.text, StatusCode::OK)
        };
        let headers = answer.headers_mut();
        headers.insert(header::ETAG, tag);
        let ask = HeaderValue::from_static("no-cache");
        headers.insert(header::CACHE_CONTROL, ask);
        answer
    }
}
