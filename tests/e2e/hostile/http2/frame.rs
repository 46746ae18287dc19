//! HTTP/2 frames and header blocks by hand (RFC 9113, RFC 7541), also those that no client library
//! would send.

/// What a client says first: the preface and its settings, none.
pub(in super::super) const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

pub(super) const FLOW_CONTROL_ERROR: u32 = 3;
pub(super) const CANCEL: u32 = 8;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header block: POST to `path`, then these fields as they are.
pub(super) fn block(path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    // `:method: POST` and `:scheme: http` of the static table, `:path` and `:authority` by name.
    let mut block = vec![0x83, 0x86, 0x04];
    text(&mut block, path);
    block.push(0x01);
    text(&mut block, "test");
    for (name, value) in fields {
        block.push(0x00);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// A string as it is, its length in a prefix of seven bits.
pub(super) fn text(block: &mut Vec<u8>, text: &str) {
    let mut rest = text.len();
    if rest < 127 {
        block.push(u8::try_from(rest).unwrap());
    } else {
        block.push(127);
        rest -= 127;
        while rest >= 128 {
            block.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        block.push(u8::try_from(rest).unwrap());
    }
    block.extend(text.as_bytes());
}

/// The ids of a client's streams.
pub(super) fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

/// Why the server ended the connection, if it said so.
pub(super) fn goaway(bytes: &[u8]) -> Option<u32> {
    frames(bytes)
        .filter(|(kind, ..)| *kind == GOAWAY)
        .filter_map(|(.., payload)| payload.get(4..8)?.try_into().ok())
        .map(u32::from_be_bytes)
        .last()
}

/// Whether a request was answered, or its stream was reset, or its connection ended, for it.
pub(in super::super) fn is_answered(bytes: &[u8]) -> bool {
    frames(bytes).any(|(kind, ..)| [HEADERS, RST_STREAM].contains(&kind))
        || goaway(bytes).is_some_and(|code| code != 0)
}

/// Kind, flags, stream and payload of each whole frame.
pub(super) fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (u8, u8, u32, &[u8])> {
    std::iter::from_fn(move || {
        let head: &[u8; 9] = bytes.first_chunk()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = bytes.get(9..9 + usize::try_from(length).ok()?)?;
        bytes = &bytes[9 + payload.len()..];
        Some((head[3], head[4], stream, payload))
    })
}
