//! Cuts a stream of bytes into frames: a four-byte size, then that many bytes.
//!
//! A size is believed only as far as bytes have arrived: the buffer at most doubles with what is
//! there, so a peer that announces much and sends little costs little.

use bytes::{Bytes, BytesMut};

/// Bytes of the size in front of every frame.
const SIZE_BYTES: usize = 4;
/// Room for the first read of a connection, and for small requests ahead of their turn.
const FIRST_READ_BYTES: usize = 8 * 1024;
/// Room for one read while a large frame arrives; beyond that the buffer doubles.
const READ_BYTES: usize = 64 * 1024;
/// Room for the first read of a frame where the one before was as large.
const MOST_EXPECTED_BYTES: usize = 2 * READ_BYTES;

/// Takes the next whole frame out of the buffer, without its size. `Err` is why no frame can come.
pub(super) fn next_frame(buffer: &mut BytesMut, max_bytes: usize) -> Result<Option<Bytes>, String> {
    let Some(size) = announced(buffer) else {
        return Ok(None);
    };
    let size = match usize::try_from(size) {
        Ok(size) if size <= max_bytes => size,
        _ => return Err(refuse(buffer, size, max_bytes)),
    };
    if buffer.len() < SIZE_BYTES + size {
        return Ok(None);
    }
    let mut frame = buffer.split_to(SIZE_BYTES + size).freeze();
    Ok(Some(frame.split_off(SIZE_BYTES)))
}

/// Whether [`next_frame`] has something to say.
pub(super) fn has_frame(buffer: &BytesMut) -> bool {
    announced(buffer).is_some_and(|size| match usize::try_from(size) {
        Ok(size) => buffer.len() >= SIZE_BYTES + size,
        Err(_) => true,
    })
}

/// The size of the frame that the buffer starts with, as far as that is known and can be right.
pub(super) fn frame_bytes(buffer: &BytesMut) -> Option<usize> {
    announced(buffer).and_then(|size| usize::try_from(size).ok())
}

fn announced(buffer: &BytesMut) -> Option<i32> {
    buffer
        .first_chunk::<SIZE_BYTES>()
        .map(|size| i32::from_be_bytes(*size))
}

/// Makes room for the next read. `expected` is the size of the frame before: a client's requests are
/// often alike, and a frame that is read at once is neither asked for twice nor moved.
pub(super) fn reserve(buffer: &mut BytesMut, expected: usize) {
    let missing = match frame_bytes(buffer) {
        Some(size) => (SIZE_BYTES + size).saturating_sub(buffer.len()),
        None => 0,
    };
    let step = if missing == 0 {
        (SIZE_BYTES + expected)
            .saturating_sub(buffer.len())
            .clamp(FIRST_READ_BYTES, MOST_EXPECTED_BYTES)
    } else {
        missing.clamp(FIRST_READ_BYTES, READ_BYTES.max(buffer.len()))
    };
    buffer.reserve(step);
}

fn refuse(buffer: &BytesMut, size: i32, max_bytes: usize) -> String {
    match recognise(buffer) {
        Some(stranger) => stranger.to_owned(),
        None if size < 0 => format!("it announced a frame of {size} bytes"),
        None => format!("it announced a frame of {size} bytes, socket.request.max.bytes is {max_bytes}"),
    }
}

/// Clients of other protocols that arrive here by mistake, by what they send first.
fn recognise(bytes: &[u8]) -> Option<&'static str> {
    const METHODS: &[&[u8]] = &[
        b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC", b"PRI ",
    ];
    let start = bytes.get(..SIZE_BYTES)?;
    // A TLS record: handshake, version 3.x.
    if start.starts_with(&[0x16, 0x03]) {
        return Some(
            "it is a TLS client on a PLAINTEXT listener: set security.protocol=PLAINTEXT in the client, or use \
             the port of a listener with TLS",
        );
    }
    METHODS
        .contains(&start)
        .then_some("it is an HTTP client on a Kafka listener: this port speaks Kafka's protocol only")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 100;

    fn buffer(bytes: &[u8]) -> BytesMut {
        BytesMut::from(bytes)
    }

    #[test]
    fn frames_are_cut_where_their_sizes_say() {
        let mut bytes = buffer(&[0, 0, 0, 2, 7, 8, 0, 0, 0, 1, 9, 0, 0]);
        assert_eq!(
            next_frame(&mut bytes, LIMIT).unwrap().as_deref(),
            Some(&[7, 8][..])
        );
        assert_eq!(next_frame(&mut bytes, LIMIT).unwrap().as_deref(), Some(&[9][..]));
        assert_eq!(next_frame(&mut bytes, LIMIT).unwrap(), None);
        assert_eq!(bytes.as_ref(), [0, 0]);
    }

    #[test]
    fn a_negative_or_too_large_size_is_refused() {
        let negative = next_frame(&mut buffer(&[0xff, 0xff, 0xff, 0xff]), LIMIT).unwrap_err();
        assert_eq!(negative, "it announced a frame of -1 bytes");
        let large = next_frame(&mut buffer(&i32::MAX.to_be_bytes()), LIMIT).unwrap_err();
        assert_eq!(
            large,
            "it announced a frame of 2147483647 bytes, socket.request.max.bytes is 100"
        );
    }

    #[test]
    fn clients_of_other_protocols_are_named() {
        let http = next_frame(&mut buffer(b"GET / HTTP/1.1\r\n"), LIMIT).unwrap_err();
        assert!(http.contains("HTTP client"), "{http}");
        let tls = next_frame(&mut buffer(&[0x16, 0x03, 0x01, 0x02, 0x00]), LIMIT).unwrap_err();
        assert!(tls.contains("TLS client on a PLAINTEXT listener"), "{tls}");
    }

    #[test]
    fn an_announced_frame_reserves_no_more_than_twice_what_has_arrived() {
        let mut bytes = buffer(&100_000_000_i32.to_be_bytes());
        reserve(&mut bytes, usize::MAX / 2);
        assert!(bytes.capacity() <= 2 * READ_BYTES, "{}", bytes.capacity());
        bytes.resize(1_000_000, 0);
        bytes[..4].copy_from_slice(&100_000_000_i32.to_be_bytes());
        reserve(&mut bytes, 0);
        assert!(bytes.capacity() <= 4 * 1_000_000, "{}", bytes.capacity());
    }
}
