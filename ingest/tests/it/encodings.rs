//! Unusual but valid ways to bring a request, and the bytes that reach the queue.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::rig::{BODY, PATH, Rig, now_s, request, sign, signed, signed_headers, within};

/// Valid JSON that no serializer would give back as it was.
fn awkward() -> Vec<u8> {
    let mut body =
        b"\r\n\t { \"type\" :\"user.updated\" ,\"data\":{\"id\":\"user_1\",\"id\":\"user_1\",\
        \"n\":1.0e+00,\"big\":123456789012345678901234567890,\"esc\":\"\\u00e9\\/\\ud83d\\ude00\",\
        \"raw\":\""
            .to_vec();
    body.extend("\u{e9}\u{1F600}\u{feff}\u{2028}".as_bytes());
    body.extend(b"\"}} \n\n");
    body
}

#[tokio::test]
async fn the_bytes_that_arrive_are_the_bytes_that_are_queued() {
    let mut rig = Rig::start().await;
    let mut large = b"{\"type\":\"user.updated\",\"data\":\"".to_vec();
    large.extend(
        (0..350_000_u32)
            .map(|n| b' ' + u8::try_from(n * 7 % 94).unwrap())
            .map(|byte| {
                if matches!(byte, b'"' | b'\\') {
                    b'_'
                } else {
                    byte
                }
            }),
    );
    large.extend(b"\"}");
    for body in [awkward(), large] {
        rig.ask(&signed("msg_1", &body)).await.is_accepted();
        let event = rig.event().await;
        assert_eq!(event.body.len(), body.len());
        assert!(event.body == body, "byte for byte");
        assert_eq!(event.event_type.as_str(), "user.updated");
    }
}

#[tokio::test]
async fn a_chunked_body_in_odd_pieces_is_one_body() {
    let mut rig = Rig::start().await;
    let body = awkward();
    let headers = signed_headers("msg_1", &body);
    let mut wire = rig.connect().await;
    for _ in 0..2 {
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: test\r\n{headers}transfer-encoding: chunked\r\n\r\n"
        );
        wire.send(head.as_bytes()).await;
        let mut rest = &body[..];
        for size in [1, 1, 7, 64, 2].into_iter().cycle() {
            let (piece, after) = rest.split_at(rest.len().min(size));
            rest = after;
            wire.send(format!("{:X};odd=\"yes\"\r\n", piece.len()).as_bytes())
                .await;
            wire.send(piece).await;
            wire.send(b"\r\n").await;
            if rest.is_empty() {
                break;
            }
        }
        wire.send(b"0\r\nx-trailer: ignored\r\n\r\n").await;
        let answer = wire.answer().await;
        answer.is_accepted();
        assert!(!answer.closes());
        assert!(rig.event().await.body == body);
    }
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let mut rig = Rig::start().await;
    let mut wire = rig.connect().await;
    for byte in signed("msg_1", BODY) {
        wire.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    wire.answer().await.is_accepted();
    assert_eq!(rig.event().await.body, BODY);
}

#[tokio::test]
async fn a_client_that_expects_100_is_told_to_continue() {
    let mut rig = Rig::start().await;
    let headers = format!("{}expect: 100-continue\r\n", signed_headers("msg_1", BODY));
    let whole = request(&headers, BODY);
    let (head, body) = whole.split_at(whole.len() - BODY.len());
    let mut wire = rig.connect().await;
    wire.send(head).await;
    assert_eq!(wire.answer().await.status, 100);
    wire.send(body).await;
    wire.answer().await.is_accepted();
    assert_eq!(rig.event().await.body, BODY);
    // Without the headers nobody should send the body at all.
    let mut wire = rig.connect().await;
    wire.send(&request("expect: 100-continue\r\n", BODY)[..head.len() - headers.len() + 22])
        .await;
    let answer = wire.answer().await;
    answer.is_problem(400, "missing_header");
    assert!(answer.closes());
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let mut rig = Rig::start().await;
    let mut wire = rig.connect().await;
    let mut all = Vec::new();
    for n in 0..40 {
        if n % 4 == 3 {
            all.extend(request("", BODY));
        } else {
            all.extend(signed(&format!("msg_{n}"), BODY));
        }
        // Empty lines between requests are skipped.
        all.extend(b"\r\n");
    }
    wire.send(&all).await;
    for n in 0..40 {
        let answer = wire.answer().await;
        if n % 4 == 3 {
            answer.is_problem(400, "missing_header");
        } else {
            answer.is_accepted();
            assert_eq!(rig.event().await.id.as_str(), format!("msg_{n}"));
        }
        assert!(!answer.closes());
    }
}

#[tokio::test]
async fn a_proxys_absolute_form_names_the_same_path() {
    let mut rig = Rig::start().await;
    let text = String::from_utf8(signed("msg_1", BODY)).unwrap();
    let absolute = text.replace(PATH, &format!("http://hooks.example{PATH}"));
    rig.ask(absolute.as_bytes()).await.is_accepted();
    assert_eq!(rig.event().await.id.as_str(), "msg_1");
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let rig = Rig::start().await;
    let text = String::from_utf8(signed("msg_1", BODY)).unwrap();
    let mut wire = rig.connect().await;
    wire.send(text.replace("HTTP/1.1", "HTTP/1.0").as_bytes())
        .await;
    wire.answer().await.is_accepted();
    wire.closed().await;
}

type Http2 = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

/// An HTTP/2 connection with prior knowledge.
pub(crate) async fn http2(rig: &Rig) -> Http2 {
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let (sender, connection) = within(hyper::client::conn::http2::handshake(
        TokioExecutor::new(),
        TokioIo::new(stream),
    ))
    .await
    .unwrap();
    tokio::spawn(connection);
    sender
}

/// A signed HTTP/2 request.
pub(crate) fn http2_request(rig: &Rig, id: &str, body: &[u8]) -> Request<Full<Bytes>> {
    let now = now_s();
    Request::post(format!("http://{}{PATH}", rig.address))
        .header("svix-id", id)
        .header("svix-timestamp", now)
        .header("svix-signature", sign(crate::rig::SECRET, id, now, body))
        .body(Full::from(body.to_vec()))
        .unwrap()
}

#[tokio::test]
async fn http_2_with_prior_knowledge_is_served_on_the_same_port() {
    let mut rig = Rig::start().await;
    let mut client = http2(&rig).await;
    let body = vec![b'x'; 300_000];
    for body in [BODY.to_vec(), awkward(), body] {
        let answer = within(client.send_request(http2_request(&rig, "msg_1", &body)))
            .await
            .unwrap();
        assert_eq!(
            (answer.version(), answer.status()),
            (Version::HTTP_2, StatusCode::NO_CONTENT)
        );
        assert!(rig.event().await.body == body);
    }
    // Many at once.
    let requests: Vec<_> = (0..200)
        .map(|n| client.send_request(http2_request(&rig, &format!("msg_{n}"), BODY)))
        .collect();
    for answer in requests {
        assert_eq!(
            within(answer).await.unwrap().status(),
            StatusCode::NO_CONTENT
        );
    }
    assert_eq!(rig.events().len(), 200);
    // Refusals: the same documents, without HTTP/1.1's `Connection`.
    let mut refused = http2_request(&rig, "msg_1", &vec![b'x'; 600_000]);
    let answer = within(client.send_request(refused)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(!answer.headers().contains_key("connection"));
    refused = http2_request(&rig, "msg_1", BODY);
    refused.headers_mut().remove("svix-id");
    let answer = within(client.send_request(refused)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let problem = within(answer.into_body().collect())
        .await
        .unwrap()
        .to_bytes();
    assert!(String::from_utf8_lossy(&problem).contains("missing_header"));
}

#[tokio::test]
async fn an_http_2_connection_that_waits_before_its_first_request_is_served() {
    let rig = Rig::with(|args| args.port.head_timeout = Duration::from_millis(200)).await;
    let mut client = http2(&rig).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let answer = within(client.send_request(http2_request(&rig, "msg_1", BODY)))
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
}
