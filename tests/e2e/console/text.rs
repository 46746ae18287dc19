//! What others wrote is text, wherever it is shown.

use serde_json::json;

use crate::{
    console::site,
    dead_letters::site::On,
    harness::{
        SOON,
        clerk::{Letter, event, user},
        eventually,
    },
};

/// Would end any attribute, element or script that it stood in.
const HOSTILE: &str = r#"'"></pre></script><script>alert(1)</script><img/src=x/onerror=alert(2)>"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_others_wrote_is_text() {
    let (site, browser) = site(On::File, &[]).await;
    let named = |letter: Letter, id: &str| Letter {
        id: format!("{id}{HOSTILE}"),
        ..letter
    };
    let id = format!("user_{HOSTILE}");
    let mut known = user(&id, &format!("{HOSTILE}@example.com"), 0);
    known["first_name"] = json!(HOSTILE);
    known["image_url"] = json!(format!("javascript:{HOSTILE}"));
    let known = named(event("user.created", &known), "msg_known");
    let mut nobody = user(&format!("{id}nobody"), "", 1);
    nobody["email_addresses"] = json!([]);
    nobody["primary_email_address_id"] = json!(null);
    nobody["last_name"] = json!(HOSTILE);
    let nobody = named(event("user.created", &nobody), "msg_nobody");
    site.park(std::slice::from_ref(&nobody), 1).await;
    site.deliver(std::slice::from_ref(&known)).await;
    eventually("it is applied", SOON, async || {
        site.outcomes("created").await == 1
    })
    .await;

    let address = |path: &str, name: &str, value: &str| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        format!("{path}?{}", query.append_pair(name, value).finish())
    };
    let letter = address("/console/dead-letters/letter", "id", &nobody.id);
    let encoded: String = url::form_urlencoded::byte_serialize(nobody.id.as_bytes()).collect();
    let plan = format!("/console/dead-letters/plan?do=replay&id={encoded}");
    let mut texts = Vec::new();
    for path in [
        "/console/events".to_owned(),
        address("/console/events", "user", &id),
        address("/console/events", "id", &known.id),
        address("/console/event", "id", &known.id),
        address("/console/event", "id", &nobody.id),
        address("/console/users", "q", &id),
        address("/console/dead-letters", "code", "missing_email"),
        letter,
    ] {
        texts.push((browser.page(&path).await, path));
    }
    let opened = [("id", nobody.id.as_str())];
    let body = browser.act("/console/dead-letters/body", &opened).await;
    texts.push((body.text, "the body".to_owned()));
    for path in ["/console/event", "/console/dead-letters/letter"] {
        let refused = browser.get(&address(path, "id", HOSTILE)).await;
        assert_eq!(refused.status, 404, "{path}");
        texts.push((refused.text, format!("{path}, refused")));
    }
    for (text, place) in &texts {
        let shown = text.contains("&lt;script&gt;alert(1)&lt;/script&gt;");
        assert!(shown, "it is there, as text: {place}:\n{text}");
    }
    texts.push((browser.page(&plan).await, plan));
    for (text, place) in &texts {
        for open in ["<script>alert", "<img", "'\"></pre>"] {
            assert!(!text.contains(open), "{open} in {place}:\n{text}");
        }
    }

    let mut tail = browser.stream("/console/events/stream", None).await;
    let rows = tail.next().await.unwrap().data["rows"].to_string();
    assert!(
        rows.contains("&lt;script") && !rows.contains("<script"),
        "{rows}"
    );
    site.close().await;
}
