//! Two ports, two doors: nothing of one is found behind the other, however it is asked for.

use futures_util::future::join_all;

use super::{
    http2::{HELLO, is_answered, request_to},
    siege::{PATH, PER_CONNECTION, Siege, signed_lines},
};
use crate::harness::{
    clerk::created,
    wire::{Wire, lossy, statuses},
};

const ADMIN_PATHS: [&str; 3] = ["/metrics", "/readyz", "/livez"];

/// Whether this is something that only the admin port says.
fn is_admin(answer: &str) -> bool {
    ["clerk_sync_", "\"ready\"", "ok\n", "this port has"]
        .iter()
        .any(|mark| answer.contains(mark))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_port_has_nothing_of_the_admin_port() {
    let siege = Siege::lay().await;
    let admin = siege.admin_address().await;
    for path in ADMIN_PATHS {
        let mut wire = Wire::connect(admin).await;
        wire.send(
            format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes(),
        )
        .await;
        let said = wire.until_closed().await;
        assert!(is_admin(&lossy(&said)), "{path}: {}", lossy(&said));
    }
    let mut requests = Vec::new();
    for path in ADMIN_PATHS {
        let name = path.trim_start_matches('/');
        for target in [
            path.to_owned(),
            format!("http://{admin}{path}"),
            format!("https://{admin}{path}"),
            format!("http://127.0.0.1{path}"),
            format!("/{path}"),
            format!("/.{path}"),
            format!("{PATH}/../../..{path}"),
            format!("{PATH}/..;{path}"),
            format!("/%2e%2e{path}"),
            format!("/%{:02x}{}", name.as_bytes()[0], &name[1..]),
            format!("{path}?"),
            format!("{path}/"),
            format!("{path}%00"),
            format!("{path};a=b"),
            path.to_uppercase(),
        ] {
            for method in ["GET", "HEAD", "POST", "get"] {
                requests.push(format!("{method} {target} HTTP/1.1\r\nhost: {admin}\r\n"));
            }
        }
        for lines in [
            format!("host: {admin}\r\nx-forwarded-host: {admin}\r\nx-original-url: {path}\r\n"),
            format!("host: {admin}\r\nx-rewrite-url: {path}\r\nforwarded: host={admin}\r\n"),
            format!("host: {admin}{path}\r\n"),
            format!("host: localhost\r\nhost: {admin}\r\n"),
            "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABk\r\n"
                .to_owned(),
            "upgrade: websocket\r\nconnection: upgrade\r\n".to_owned(),
        ] {
            requests.push(format!("GET {path} HTTP/1.1\r\n{lines}"));
            requests.push(format!("POST {PATH} HTTP/1.1\r\n{lines}"));
        }
    }
    for line in [
        format!("CONNECT {admin} HTTP/1.1\r\nhost: {admin}\r\n"),
        format!("CONNECT http://{admin}/metrics HTTP/1.1\r\nhost: {admin}\r\n"),
        format!("OPTIONS * HTTP/1.1\r\nhost: {admin}\r\n"),
        format!("TRACE /metrics HTTP/1.1\r\nhost: {admin}\r\n"),
        format!(
            "PROXY TCP4 127.0.0.1 127.0.0.1 1 {}\r\nGET /metrics HTTP/1.1\r\nhost: {admin}\r\n",
            admin.port()
        ),
    ] {
        requests.push(line);
    }
    for request in requests {
        let said = siege
            .ask(format!("{request}connection: close\r\n\r\n").as_bytes())
            .await;
        let statuses = statuses(&said);
        assert!(
            statuses.len() == 1 && (400..500).contains(&statuses[0]),
            "{request:?}: {}",
            lossy(&said)
        );
        assert!(!is_admin(&lossy(&said)), "{request:?}: {}", lossy(&said));
    }
    let mut asked = Vec::new();
    for path in ADMIN_PATHS {
        for authority in [admin.to_string(), "localhost".to_owned(), "test".to_owned()] {
            for method in ["GET", "POST", "CONNECT"] {
                let mut wire = siege.connect().await;
                wire.send(&[HELLO, &request_to(method, &authority, path)].concat())
                    .await;
                // An HTTP/2 connection stays until it is idle, so all of them at once.
                asked.push(async move { wire.until_closed().await });
            }
        }
    }
    for said in join_all(asked).await {
        assert!(!is_admin(&lossy(&said)), "{}", lossy(&said));
        assert!(is_answered(&said), "{said:?}");
    }
    siege
        .lifted("the way to the other door", PER_CONNECTION)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_takes_no_event() {
    let siege = Siege::lay().await;
    let admin = siege.admin_address().await;
    let letter = created("user_1", "a@a.example");
    let body = String::from_utf8(letter.body.clone()).unwrap();
    let rest = format!(
        "{}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        signed_lines(&letter),
        body.len()
    );
    for target in [
        PATH.to_owned(),
        format!("http://{}{PATH}", siege.address),
        format!("/metrics/..{PATH}"),
        format!("/metrics?{PATH}"),
        format!("/readyz{PATH}"),
        "/metrics".to_owned(),
        "/".to_owned(),
    ] {
        for host in [siege.address, admin] {
            let mut wire = Wire::connect(admin).await;
            wire.send(format!("POST {target} HTTP/1.1\r\nhost: {host}\r\n{rest}").as_bytes())
                .await;
            let said = wire.until_closed().await;
            assert!(
                matches!(statuses(&said)[..], [404 | 405]),
                "{target}: {}",
                lossy(&said)
            );
        }
    }
    let mut wire = Wire::connect(admin).await;
    wire.send(&[HELLO, &request_to("POST", &siege.address.to_string(), PATH)].concat())
        .await;
    assert!(!lossy(&wire.until_closed().await).starts_with("HTTP/1.1 2"));
    siege
        .lifted("events at the admin port", PER_CONNECTION)
        .await;
}
