//! Frames: a length of four bytes, a header, a body.
//!
//! The request header is flexible (v2) where the request's version is; the response header (v1)
//! likewise, but that of ApiVersions is always v0, since a client reads it before it knows what the
//! broker speaks (KIP-511).

use bytes::{BufMut, Bytes, BytesMut};

use crate::message::{DecodeError, EncodeError, Message, Reader, Request, Writer};
use crate::messages::{RequestHeader, ResponseHeader};
use crate::{ApiKey, Chunk, Str};

#[must_use]
pub const fn request_header_version(api: ApiKey, api_version: i16) -> i16 {
    if api.is_flexible(api_version) { 2 } else { 1 }
}

#[must_use]
pub const fn response_header_version(api: ApiKey, api_version: i16) -> i16 {
    match api {
        ApiKey::ApiVersions => 0,
        _ if api.is_flexible(api_version) => 1,
        _ => 0,
    }
}

/// The start of every request header, the same in all versions. Enough to refuse what is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestStart {
    pub api_key: i16,
    pub api_version: i16,
    pub correlation_id: i32,
}

/// Looks at a request without consuming it.
///
/// # Errors
/// When it is shorter than eight bytes.
pub fn peek_request(frame: &Bytes) -> Result<RequestStart, DecodeError> {
    let mut reader = Reader::new(frame.clone());
    Ok(RequestStart {
        api_key: reader.i16()?,
        api_version: reader.i16()?,
        correlation_id: reader.i32()?,
    })
}

/// Reads the header of a request whose API and version are known.
///
/// # Errors
/// When the bytes are no such header.
pub fn decode_request_header(
    reader: &mut Reader,
    api: ApiKey,
    api_version: i16,
) -> Result<RequestHeader, DecodeError> {
    RequestHeader::decode(reader, request_header_version(api, api_version))
}

/// Reads a response's header and leaves its body.
///
/// # Errors
/// When the bytes are no such header.
pub fn decode_response_header(
    reader: &mut Reader,
    api: ApiKey,
    api_version: i16,
) -> Result<ResponseHeader, DecodeError> {
    ResponseHeader::decode(reader, response_header_version(api, api_version))
}

/// A whole request with its length in front.
///
/// # Errors
/// When the request cannot be said in this version.
pub fn encode_request<R: Request>(
    request: &R,
    api_version: i16,
    correlation_id: i32,
    client_id: Option<Str>,
) -> Result<Vec<Bytes>, EncodeError> {
    let header = RequestHeader {
        request_api_key: R::KEY.code(),
        request_api_version: api_version,
        correlation_id,
        client_id,
        ..RequestHeader::default()
    };
    let chunks = framed(
        &header,
        request_header_version(R::KEY, api_version),
        request,
        api_version,
    )?;
    // Requests have no records in files.
    let bytes = chunks.into_iter().filter_map(|chunk| match chunk {
        Chunk::Bytes(bytes) => Some(bytes),
        Chunk::File(_) => None,
    });
    Ok(bytes.collect())
}

/// A whole response with its length in front. Large byte fields are chunks of their own.
///
/// # Errors
/// When the response cannot be said in this version.
pub fn encode_response<M: Message>(
    api: ApiKey,
    api_version: i16,
    correlation_id: i32,
    response: &M,
) -> Result<Vec<Chunk>, EncodeError> {
    let header = ResponseHeader {
        correlation_id,
        ..ResponseHeader::default()
    };
    framed(
        &header,
        response_header_version(api, api_version),
        response,
        api_version,
    )
}

fn framed<H: Message, M: Message>(
    header: &H,
    header_version: i16,
    body: &M,
    version: i16,
) -> Result<Vec<Chunk>, EncodeError> {
    let mut writer = Writer::with_length_prefix();
    header.encode(&mut writer, header_version)?;
    body.encode(&mut writer, version)?;
    writer.finish_frame()
}

/// A length of four bytes before bytes that are encoded already.
#[must_use]
pub fn prefix(body: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(4 + body.len());
    framed.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    framed.put_slice(body);
    framed.freeze()
}
