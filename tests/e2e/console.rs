//! The console of the real program: who may come in, what is shown, what is done.

use std::{collections::BTreeSet, time::Duration};

use clerk_sync_stand_in::{Settings, StandIn};
use reqwest::Method;
use serde_json::json;

use crate::{
    dead_letters::{
        on_both_queues,
        site::{On, Site},
    },
    harness::{
        SOON,
        clerk::{Letter, created, deleted, event, updated, user},
        eventually,
        process::{Process, base_env, run},
        servers::{TestDb, TestQueue},
    },
};
use browser::{Browser, TOKEN, form, hidden, sent};

mod browser;
mod tail;
mod text;

on_both_queues! {
    the_overview_goes_on_by_itself
    the_ledger_is_searched_page_by_page_and_watched
    a_letter_is_opened_only_when_asked_and_that_is_logged
    what_is_counted_is_what_is_replayed_or_discarded
    a_user_is_looked_up_and_fetched
}

async fn site(on: On, more: &[(&'static str, &str)]) -> (Site, Browser) {
    let more = [more, &[("CONSOLE_TOKEN", TOKEN)]].concat();
    let site = Site::open(on, &more).await;
    let browser = Browser::signed_in(site.up.address("LISTEN").await, TOKEN).await;
    (site, browser)
}

fn no_address(id: &str) -> Letter {
    let mut nobody = user(id, "", 0);
    nobody["email_addresses"] = json!([]);
    nobody["primary_email_address_id"] = json!(null);
    event("user.created", &nobody)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_in_without_the_token() {
    let site = Site::open(On::File, &[("CONSOLE_TOKEN", TOKEN)]).await;
    let mut browser = Browser::new(site.up.address("LISTEN").await);
    for path in [
        "/console",
        "/console/events?outcome=stale",
        "/console/dead-letters",
        "/console/users?q=user_a",
        "/console/dead-letters/plan?do=discard",
    ] {
        let sent_away = browser.get(path).await;
        assert_eq!(sent_away.status, 303, "{path}");
        let login = &sent_away.headers["location"];
        assert!(login.starts_with("/console/login"), "{path}: {login}");
        assert_eq!(sent_away.text, "", "{path}: nothing is shown");
    }
    for stream in ["/console/stream", "/console/events/stream"] {
        assert_eq!(browser.get(stream).await.status, 401);
    }
    let wrong = browser.post("/console/login", &[("token", "wrong")]).await;
    assert_eq!(wrong.status, 401);
    assert!(!wrong.headers.contains_key("set-cookie"));
    assert!(wrong.text.contains("That is not the token"));

    let next = "/console/events?outcome=stale";
    let fields = [("token", TOKEN), ("next", next)];
    let entered = browser.post("/console/login", &fields).await;
    assert_eq!(
        (entered.status, entered.headers["location"].as_str()),
        (303, next)
    );
    let cookie = entered.headers["set-cookie"].clone();
    for part in [
        "; HttpOnly",
        "; SameSite=Strict",
        "; Path=/console",
        "; Max-Age=43200",
    ] {
        assert!(cookie.contains(part), "{part} in {cookie}");
    }
    assert!(!cookie.contains("Secure"), "plain HTTP on this machine");
    browser.cookie = cookie.split(';').next().map(str::to_owned);
    assert!(browser.page(next).await.contains("<h1>Events</h1>"));

    let left = browser.act("/console/logout", &[]).await;
    assert_eq!(left.status, 303);
    assert!(left.headers["set-cookie"].contains("Max-Age=0"));
    assert_eq!(
        browser.get("/console").await.status,
        303,
        "the session is over"
    );

    // What is guessed is not looked at any more, be it right.
    let mut last = 0;
    for _ in 0..12 {
        last = browser
            .post("/console/login", &[("token", "guess")])
            .await
            .status;
    }
    assert_eq!(last, 429);
    let refused = browser.post("/console/login", &[("token", TOKEN)]).await;
    assert_eq!(refused.status, 429);
    assert!(refused.headers.contains_key("retry-after"));
    let output = site.up.output();
    assert!(!output.contains(TOKEN), "the token is in no log");
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_made_printed_and_kept_where_none_is_set() {
    let site = Site::open(On::File, &[]).await;
    let output = site.up.output();
    let line = output
        .lines()
        .find(|line| line.trim_start().starts_with("token "));
    let token = line.unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let address = site.up.address("LISTEN").await;
    let browser = Browser::signed_in(address, &token).await;
    assert!(browser.page("/console").await.contains("<h1>Overview</h1>"));
    let file = site.folder.path().join("console-token");
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), token);
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    site.close().await;

    let off = Site::open(On::File, &[("CONSOLE", "false")]).await;
    let browser = Browser::new(off.up.address("LISTEN").await);
    assert_eq!(browser.get("/console").await.status, 404);
    assert_eq!(browser.get("/console/assets/console.css").await.status, 404);
    off.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_tells_the_browser_what_it_must_not_do() {
    let (site, browser) = site(On::File, &[]).await;
    let stranger = Browser::new(site.up.address("LISTEN").await);
    let answers = [
        browser.get("/console").await,
        browser.get("/console/events").await,
        browser.get("/console/dead-letters").await,
        browser.get("/console/users?q=user_nobody").await,
        browser.get("/console/event?id=msg_none").await,
        browser.get("/console/nothing").await,
        browser.get("/console/assets/console.js").await,
        browser.post("/console/logout", &[]).await,
        stranger.get("/console").await,
        stranger.get("/console/login").await,
        stranger.get("/console/stream").await,
    ];
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                  connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    for (place, answer) in answers.iter().enumerate() {
        for (name, value) in [
            ("content-security-policy", policy),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-robots-tag", "noindex, nofollow"),
        ] {
            assert_eq!(answer.headers[name], value, "answer {place}");
        }
        let cache = answer.headers["cache-control"].as_str();
        // Files are the same for everybody, and asked for anew each time.
        assert_eq!(cache, if place == 6 { "no-cache" } else { "no-store" });
        if answer
            .headers
            .get("content-type")
            .is_some_and(|kind| kind.contains("html"))
        {
            assert!(
                answer
                    .text
                    .contains("<meta name=\"robots\" content=\"noindex, nofollow\"")
            );
            for forbidden in [
                "style=\"",
                "<style",
                "onclick",
                "http://",
                "https://",
                "javascript:",
            ] {
                assert!(
                    !answer.text.contains(forbidden),
                    "{forbidden} in answer {place}"
                );
            }
        }
    }
    // The browser's file is good until the program is another one.
    let tag = answers[6].headers["etag"].clone();
    let again = browser.request(Method::GET, "/console/assets/console.js");
    let again = sent(again.header("if-none-match", tag)).await;
    assert_eq!((again.status, again.text.as_str()), (304, ""));
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_for_a_page_of_another_site() {
    let (site, browser) = site(On::File, &[]).await;
    site.park(&[no_address("user_a")], 1).await;
    let plan = browser.page("/console/dead-letters/plan?do=discard").await;
    let (csrf, plan) = (hidden(&plan, "csrf"), hidden(&plan, "plan"));
    let discard = "/console/dead-letters/discard";
    let attack = async |fields: &[(&str, &str)], headers: &[(&str, &str)]| {
        let mut request = form(browser.request(Method::POST, discard), fields);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        sent(request).await.status
    };
    let all = [
        ("plan", plan.as_str()),
        ("sure", "yes"),
        ("csrf", csrf.as_str()),
    ];
    assert_eq!(
        attack(&all[..2], &[]).await,
        403,
        "without the form's token"
    );
    let wrong = [all[0], all[1], ("csrf", "wrong")];
    assert_eq!(attack(&wrong, &[]).await, 403);
    for site in ["cross-site", "same-site", "none"] {
        assert_eq!(
            attack(&all, &[("sec-fetch-site", site)]).await,
            403,
            "{site}"
        );
    }
    assert_eq!(
        attack(&all, &[("origin", "https://evil.example")]).await,
        403
    );
    for path in [
        "/console/logout",
        discard,
        "/console/dead-letters/body",
        "/console/users/fetch",
    ] {
        let got = browser.get(path).await;
        assert_eq!(
            (got.status, got.headers["allow"].as_str()),
            (405, "POST"),
            "{path}"
        );
    }
    let login = form(
        browser.request(Method::POST, "/console/login"),
        &[("token", TOKEN)],
    );
    let login = sent(login.header("sec-fetch-site", "cross-site")).await;
    assert_eq!(login.status, 403);
    assert_eq!(site.list(&[]).await["total"], 1, "nothing was done");

    // Without what says that it is meant, neither.
    let not_sure = [all[0], all[2]];
    assert_eq!(attack(&not_sure, &[]).await, 404);
    assert_eq!(site.list(&[]).await["total"], 1);
    // A browser that says neither, over plain HTTP.
    let plan = browser.page("/console/dead-letters/plan?do=discard").await;
    let plan = hidden(&plan, "plan");
    let all = [("plan", plan.as_str()), all[1], all[2]];
    assert_eq!(attack(&all, &[("origin", "null")]).await, 303);
    assert_eq!(site.list(&[]).await["total"], 0);
    site.close().await;
}

async fn the_overview_goes_on_by_itself(on: On) {
    let (site, browser) = site(on, &[]).await;
    let mut stream = browser.stream("/console/stream", None).await;
    let first = stream.next().await.unwrap();
    assert_eq!(first.data["whole"], true);
    let letters: Vec<_> = (0..20)
        .map(|number| created(&format!("user_{number}"), &format!("{number}@example.com")))
        .collect();
    site.deliver(&letters).await;
    site.park(&[no_address("user_nobody")], 1).await;
    let mut last = first;
    let told = |event: &browser::Event| {
        let now = &event.data["news"]["now"];
        now["dead"] == "1" && now["success"] == "100 %" && now["latency"] != "–"
    };
    while !told(&last) {
        last = stream.next().await.unwrap();
        assert_eq!(last.data["whole"], false, "only what is new");
    }
    assert_eq!(
        last.data["news"]["level"], "look",
        "a letter waits for a person"
    );
    let rates = last.data["points"][0]["handled"].as_f64().unwrap();
    assert!(rates > 0.0, "{last:?}");

    // A stream that broke goes on behind its last event; one of another run begins anew.
    let id = last.id.unwrap();
    let mut again = browser.stream("/console/stream", Some(&id)).await;
    let next = again.next().await.unwrap();
    assert_eq!(next.data["whole"], false);
    assert!(next.data["points"].as_array().unwrap().len() <= 2);
    let mut anew = browser.stream("/console/stream", Some("another-3")).await;
    assert_eq!(anew.next().await.unwrap().data["whole"], true);

    let page = browser.page("/console").await;
    assert!(page.contains("1 event could not be applied"), "{page}");
    assert!(!page.contains(" is not ready"), "{page}");
    // Open streams are no reason to stop late.
    let stopping = tokio::time::Instant::now();
    site.close().await;
    assert!(
        stopping.elapsed() < Duration::from_secs(8),
        "{:?}",
        stopping.elapsed()
    );
}

/// Ids of events that a page links to, in its order.
fn ids(page: &str) -> Vec<String> {
    let links = page.split("href=\"/console/event?id=").skip(1);
    links
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect()
}

fn link<'a>(page: &'a str, text: &str) -> Option<&'a str> {
    let (before, _) = page.split_once(&format!("\">{text}</a>"))?;
    before.rsplit_once("href=\"").map(|(_, link)| link)
}

async fn the_ledger_is_searched_page_by_page_and_watched(on: On) {
    let (site, browser) = site(on, &[]).await;
    let mut letters: Vec<_> = (0..120)
        .map(|number| created(&format!("user_{number}"), &format!("{number}@example.com")))
        .collect();
    letters.push(updated("user_7", "seven@example.com", 1));
    letters.push(deleted("user_8"));
    site.deliver(&letters).await;
    site.park(&[no_address("user_nobody")], 1).await;
    let total = letters.len() + 1;
    eventually("all are in the ledger", SOON, async || {
        site.db.ledger().await == i64::try_from(total).unwrap()
    })
    .await;

    let (mut seen, mut path, mut pages) = (BTreeSet::new(), "/console/events".to_owned(), 0);
    loop {
        let page = browser.page(&path).await;
        pages += 1;
        for id in ids(&page) {
            assert!(seen.insert(id), "no event is on two pages");
        }
        match link(&page, "Older") {
            Some(older) => path = older.replace("&amp;", "&"),
            None => break,
        }
    }
    assert_eq!((seen.len(), pages), (total, 3));

    let about_seven = browser.page("/console/events?user=user_7").await;
    assert_eq!(ids(&about_seven).len(), 2);
    let dead = browser.page("/console/events?outcome=dead_lettered").await;
    assert_eq!(ids(&dead).len(), 1);
    let gone = browser.page("/console/events?type=user.deleted").await;
    assert_eq!(ids(&gone), [letters[121].id.clone()]);
    let one = browser
        .page(&format!("/console/events?id={}", letters[3].id))
        .await;
    assert_eq!(ids(&one), [letters[3].id.clone()]);
    let none = browser
        .page("/console/events?user=user_7&outcome=ignored")
        .await;
    assert!(none.contains("No such event"));

    // What others wrote is text.
    let hostile = "/console/events?user=%22%3E%3Cscript%3Ealert(1)%3C/script%3E";
    let page = browser.page(hostile).await;
    assert!(!page.contains("<script>alert") && page.contains("&lt;script&gt;"));

    let step = browser
        .page(&format!("/console/event?id={}", letters[3].id))
        .await;
    for part in [
        "Happened at Clerk",
        "Received and queued",
        "Applied",
        "user_3",
    ] {
        assert!(step.contains(part), "{part}");
    }
    let why = browser
        .page(&format!("/console/event?id={}", ids(&dead)[0]))
        .await;
    for part in ["Tried, and given up", "missing_email", "Open the letter"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let unknown = browser.get("/console/event?id=msg_none").await;
    assert_eq!(unknown.status, 404);
    assert!(
        unknown.text.contains("aria-label=\"Pages\""),
        "a way leads on"
    );

    let mut tail = browser
        .stream("/console/events/stream?outcome=updated", None)
        .await;
    let late = updated("user_9", "nine@example.com", 2);
    site.deliver(&[created("user_late", "late@example.com"), late.clone()])
        .await;
    loop {
        let event = tail.next().await.unwrap();
        assert_eq!(event.name, "rows");
        let found = ids(event.data["rows"].as_str().unwrap());
        if found.contains(&late.id) {
            break;
        }
        assert_eq!(found, [letters[120].id.clone()], "only what was asked for");
    }
    site.close().await;
}

async fn a_letter_is_opened_only_when_asked_and_that_is_logged(on: On) {
    let (site, browser) = site(on, &[]).await;
    let mut nobody = user("user_private", "", 0);
    nobody["email_addresses"] = json!([]);
    nobody["first_name"] = json!("Secretname");
    let letter = event("user.created", &nobody);
    site.park(std::slice::from_ref(&letter), 1).await;

    let page = browser.page("/console/dead-letters").await;
    assert!(page.contains("A user without an address") && page.contains("missing_email"));
    let group = browser
        .page("/console/dead-letters?code=missing_email")
        .await;
    assert!(group.contains(&letter.id));
    let path = format!("/console/dead-letters/letter?id={}", letter.id);
    let closed = browser.page(&path).await;
    assert!(closed.contains("missing_email") && !closed.contains("Secretname"));
    assert!(!site.up.output().contains("was opened in the console"));

    let opened = browser
        .act("/console/dead-letters/body", &[("id", &letter.id)])
        .await;
    assert_eq!(opened.status, 200, "{}", opened.text);
    assert!(opened.text.contains("Secretname"));
    let output = site.up.output();
    let line = output
        .lines()
        .find(|line| line.contains("was opened in the console"));
    assert!(line.unwrap().contains(&letter.id));
    assert!(!output.contains("Secretname") && !output.contains(TOKEN));
    assert_eq!(site.list(&[]).await["total"], 1, "it lies where it was");
    let none = browser
        .act("/console/dead-letters/body", &[("id", "msg_none")])
        .await;
    assert_eq!(none.status, 404);
    site.close().await;
}

async fn what_is_counted_is_what_is_replayed_or_discarded(on: On) {
    let (site, browser) = site(on, &[]).await;
    let nobody = |number: usize| no_address(&format!("user_nobody_{number}"));
    let broken = |number: usize| Letter::new(format!("no JSON {number}"));
    let letters = [nobody(1), nobody(2), nobody(3), broken(1), broken(2)];
    site.park(&letters, 5).await;

    let plan = browser
        .page("/console/dead-letters/plan?do=discard&code=malformed")
        .await;
    assert!(plan.contains("Discard 2 events?"), "{plan}");
    // It comes after the count, so it is not meant.
    site.park(&[broken(3)], 6).await;
    let fields = [("plan", hidden(&plan, "plan")), ("sure", "yes".to_owned())];
    let fields = fields
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let done = browser.act("/console/dead-letters/discard", &fields).await;
    assert_eq!(done.status, 303, "{}", done.text);
    let page = browser.page(&done.headers["location"]).await;
    assert!(page.contains("2 events discarded"), "{page}");
    assert_eq!(site.list(&[]).await["total"], 4);
    let twice = browser.act("/console/dead-letters/discard", &fields).await;
    assert_eq!(twice.headers["location"], done.headers["location"]);
    assert_eq!(site.list(&[]).await["total"], 4, "it is carried out once");
    let nothing = [("plan", "made up"), ("sure", "yes")];
    let nothing = browser.act("/console/dead-letters/discard", &nothing).await;
    assert_eq!(nothing.status, 404);

    // One alone, then a group, when the cause is gone.
    let site = site.reopen_with("MISSING_EMAIL", "placeholder").await;
    let browser = Browser::signed_in(site.up.address("LISTEN").await, TOKEN).await;
    let replay = async |query: &str, question: &str| {
        let path = format!("/console/dead-letters/plan?do=replay&{query}");
        let plan = browser.page(&path).await;
        assert!(plan.contains(question), "{plan}");
        let fields = [("plan", hidden(&plan, "plan"))];
        let fields = fields
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        let done = browser.act("/console/dead-letters/replay", &fields).await;
        assert_eq!(done.status, 303, "{}", done.text);
        browser.page(&done.headers["location"]).await
    };
    let page = replay(&format!("id={}", letters[0].id), "Replay 1 event?").await;
    assert!(page.contains("1 event replayed"), "{page}");
    let page = replay("code=missing_email", "Replay 2 events?").await;
    assert!(page.contains("2 events replayed"), "{page}");
    eventually("all are applied", SOON, async || {
        site.outcomes("created").await == 3
    })
    .await;
    let nothing = browser
        .page("/console/dead-letters/plan?do=replay&code=missing_email")
        .await;
    assert!(nothing.contains("Nothing to do"));
    let output = site.up.output();
    assert!(output.contains("letters were moved from the console"));
    site.close().await;
}

async fn a_user_is_looked_up_and_fetched(on: On) {
    let clerk = StandIn::start_as(Settings::production()).await;
    let (url, key) = (clerk.url(), clerk.settings().secret_key.clone());
    let instance = clerk.settings().instance_id.clone();
    let more = [
        ("CLERK_API_URL", url.as_str()),
        ("CLERK_SECRET_KEY", &key),
        ("CLERK_JWT_KEY", clerk.jwt_key()),
    ];
    let (site, browser) = site(on, &more).await;
    let id = clerk.sign_up("maren@harbour-labs.example");
    let path = format!("/console/users?q={id}");
    let unknown = browser.page(&path).await;
    assert!(unknown.contains("There is no row"), "{unknown}");

    let fetched = browser.act("/console/users/fetch", &[("id", &id)]).await;
    assert_eq!(fetched.status, 303, "{}", fetched.text);
    let page = browser.page(&fetched.headers["location"]).await;
    assert!(page.contains("a row was made") && page.contains("maren@harbour-labs.example"));
    let again = browser.act("/console/users/fetch", &[("id", &id)]).await;
    assert!(again.headers["location"].contains("fetched=current"));

    for address in ["maren@harbour-labs.example", "Maren@Harbour-Labs.example"] {
        let found = browser.act("/console/users/find", &[("q", address)]).await;
        assert_eq!(
            found.headers["location"], path,
            "the address is in no address"
        );
    }
    let nobody = browser
        .act("/console/users/find", &[("q", "no@body.example")])
        .await;
    assert_eq!(nobody.status, 200);
    assert!(nobody.text.contains("Nobody has this address"));

    let address = [("id", "maren@harbour-labs.example")];
    let not_asked = browser.act("/console/users/fetch", &address).await;
    assert_eq!(
        not_asked.status, 404,
        "an address is neither asked for nor logged"
    );

    // Who is gone at Clerk is taken away only where the key is of the rows' instance.
    clerk.remove(&id);
    let refused = browser.act("/console/users/fetch", &[("id", &id)]).await;
    assert!(refused.headers["location"].contains("fetched=other_instance"));
    assert_eq!(site.db.users().await.len(), 1);
    let mut event =
        serde_json::from_slice::<serde_json::Value>(&created("user_x", "x@example.com").body)
            .unwrap();
    event["instance_id"] = json!(instance);
    site.deliver(&[Letter::new(event.to_string())]).await;
    eventually("the event is applied", SOON, async || {
        site.db.users().await.len() == 2
    })
    .await;
    eventually(
        "the instance is known, and the row is gone",
        SOON,
        async || {
            let gone = browser.act("/console/users/fetch", &[("id", &id)]).await;
            gone.headers["location"].contains("fetched=deleted")
        },
    )
    .await;
    let page = browser.page(&path).await;
    assert!(page.contains("brings this user back"), "{page}");

    let touched = browser.page("/console/users?q=user_x").await;
    assert_eq!(
        ids(&touched).len(),
        2,
        "the version's event, and the ledger's row"
    );
    assert!(
        !site.up.output().contains("harbour-labs"),
        "no address is logged"
    );
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_a_process_of_its_own_it_wants_a_token_and_says_what_it_does_not_know() {
    let (queue, db) = (
        TestQueue::with_ladder("100ms,200ms").await,
        TestDb::postgres().await.migrated().await,
    );
    let mut env = base_env();
    queue.env(&mut env);
    env.insert("DATABASE_URL", db.url.expose().to_string());
    let (status, _, said) = run("clerk-sync", &["console"], &env).await;
    assert_eq!(status.code(), Some(64), "{said}");
    assert!(
        said.contains("CONSOLE_TOKEN (--console-token): it is not set"),
        "{said}"
    );
    env.insert("CONSOLE_TOKEN", "short".to_owned());
    let (status, _, said) = run("clerk-sync", &["console"], &env).await;
    assert_eq!(status.code(), Some(64), "{said}");

    env.insert(
        "CLERK_WEBHOOK_SIGNING_SECRET",
        crate::harness::clerk::SECRET.to_owned(),
    );
    let ingest = Process::start("clerk-sync", &["ingest"], &env);
    let worker = Process::start("clerk-sync", &["worker"], &env);
    env.insert("CONSOLE_TOKEN", TOKEN.to_owned());
    let ledger_only = Process::start("clerk-sync", &["console"], &env);
    let metrics = [
        ingest.address("ADMIN_LISTEN").await,
        worker.address("ADMIN_LISTEN").await,
    ];
    let metrics = metrics.map(|address| format!("http://{address}/metrics"));
    env.insert("CONSOLE_SCRAPE", metrics.join(","));
    let scraping = Process::start("clerk-sync", &["console"], &env);
    for process in [&ingest, &worker, &ledger_only, &scraping] {
        process.ready().await;
    }
    let poor = Browser::signed_in(ledger_only.address("LISTEN").await, TOKEN).await;
    let rich = Browser::signed_in(scraping.address("LISTEN").await, TOKEN).await;
    assert!(poor.page("/console").await.contains("set CONSOLE_SCRAPE"));

    let url = ingest.webhook_url().await;
    let letters = [
        created("user_a", "a@example.com"),
        no_address("user_nobody"),
    ];
    crate::harness::clerk::deliver_all(&url, &letters).await;
    for (browser, success) in [(&poor, "unknown"), (&rich, "100 %")] {
        let mut stream = browser.stream("/console/stream", None).await;
        loop {
            let event = stream.next().await.expect("within a minute");
            let now = &event.data["news"]["now"];
            if now["dead"] == "1" && now["success"] == success && now["latency"] != "–" {
                let heard = now["heard"].as_str().unwrap();
                assert!(heard == "just now" || heard.ends_with("ago"), "{now}");
                break;
            }
        }
    }
    let page = rich.page("/console/dead-letters").await;
    assert!(page.contains("missing_email"), "{page}");
    ingest.kill().await;
    let mut stream = rich.stream("/console/stream", None).await;
    loop {
        let event = stream.next().await.expect("within a minute");
        if event.data["news"]["level"] == "trouble" {
            let verdict = event.data["news"]["verdict"].as_str().unwrap();
            assert!(
                verdict.contains("No metrics of http://127.0.0.1"),
                "{verdict}"
            );
            break;
        }
    }
    for process in [worker, ledger_only, scraping] {
        process.stop().await;
    }
    queue.remove().await;
    db.remove().await;
}
