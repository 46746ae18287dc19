//! Where a request carries its token.

use clerk_sync_clerk::token::{Carrier, Cookies, FrontendApi, PublishableKey};
use http::{HeaderMap, HeaderName, HeaderValue};

/// `clerk.example.com$`
const KEY: &str = "pk_live_Y2xlcmsuZXhhbXBsZS5jb20k";

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect()
}

fn key() -> PublishableKey {
    KEY.parse().unwrap()
}

#[test]
fn a_publishable_key_names_the_frontend_api() {
    assert_eq!(key().frontend().issuer(), "https://clerk.example.com");
    // With padding, as some keys have it: `clerk.inspired.puma-74.lcl.dev$`
    let padded: PublishableKey = "pk_test_Y2xlcmsuaW5zcGlyZWQucHVtYS03NC5sY2wuZGV2JA=="
        .parse()
        .unwrap();
    assert_eq!(
        padded.frontend().issuer(),
        "https://clerk.inspired.puma-74.lcl.dev"
    );
}

/// The suffix that Clerk's own tests expect of this key.
#[test]
fn the_suffix_of_a_cookie_is_that_of_clerks_sdk() {
    let key: PublishableKey = "pk_test_Y2xlcmsuY2xlcmsuZGV2JA".parse().unwrap();
    assert_eq!(key.cookie_suffix(), "QvfNY2dr");
}

#[test]
fn what_is_no_publishable_key_is_refused_and_not_repeated() {
    for text in [
        "",
        "sk_live_Y2xlcmsuZXhhbXBsZS5jb20k",
        "pk_live_",
        "pk_live_Y2xlcmsuZXhhbXBsZS5jb20",
        "pk_live_Y2xlcmsuZXhhbXBsZS5jb20vYT8k",
        "pk_live_bWVAZXhhbXBsZS5jb20k",
        "pk_live_%%%",
        "Y2xlcmsuZXhhbXBsZS5jb20k",
    ] {
        let error = text.parse::<PublishableKey>().unwrap_err();
        assert!(
            error.contains("dashboard") && !error.contains("Y2xlcms"),
            "{error}"
        );
    }
    for text in [
        "clerk.example.com",
        "ftp://a.example",
        "https://me:secret@a.example",
        "https://a.example/?secret",
    ] {
        let error = text.parse::<FrontendApi>().unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn the_authorization_header_comes_before_cookies() {
    let cookies = Cookies::of(None);
    for (value, token) in [
        ("Bearer a.b.c", Some("a.b.c")),
        ("a.b.c", Some("a.b.c")),
        // Another scheme is somebody else's, and no error: the cookie counts.
        ("Basic dXNlcjpwYXNz", None),
        ("bearer a.b.c", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("", None),
    ] {
        let headers = headers(&[
            ("authorization", value),
            ("cookie", "__session=from.a.cookie"),
        ]);
        let found = cookies.find(&headers).unwrap();
        match token {
            Some(token) => {
                assert_eq!(
                    (found.token, found.carrier),
                    (token, Carrier::Authorization)
                );
            }
            None => {
                assert_eq!(
                    (found.token, found.carrier),
                    ("from.a.cookie", Carrier::Cookie)
                );
            }
        }
    }
}

#[test]
fn the_cookie_of_this_instance_comes_before_the_shared_one() {
    let suffix = key().cookie_suffix();
    let both = format!("a=1; __session=shared; __session_{suffix}=own; __session_other=x");
    let mut headers = HeaderMap::new();
    headers.insert("cookie", both.parse().unwrap());
    let own = Cookies::of(Some(&key()));
    assert_eq!(own.find(&headers).unwrap().token, "own");
    assert_eq!(Cookies::of(None).find(&headers).unwrap().token, "shared");
}

#[test]
fn a_request_without_a_token_has_none() {
    let own = Cookies::of(Some(&key()));
    for lines in [
        &[][..],
        &[("authorization", "Basic dXNlcjpwYXNz")],
        &[(
            "cookie",
            "__session_other=x; __sessions=y; session=z; __session=",
        )],
    ] {
        assert!(own.find(&headers(lines)).is_none(), "{lines:?}");
    }
    // HTTP/2 sends a header for each cookie.
    let split = headers(&[("cookie", "a=1"), ("cookie", "__session=x.y.z")]);
    assert_eq!(own.find(&split).unwrap().token, "x.y.z");
}

#[test]
fn nothing_of_a_token_is_printed() {
    let headers = headers(&[("authorization", "Bearer secret.secret.secret")]);
    let found = Cookies::of(None).find(&headers).unwrap();
    assert_eq!(format!("{found:?}"), "Carried(…, Authorization)");
}
