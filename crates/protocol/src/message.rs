//! Reading and writing messages: the traits that the generated types implement, and the primitives
//! that they are made of.

use std::fmt::Debug;
use std::ops::RangeInclusive;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{ApiKey, Chunk, Str, Uuid};

/// Why bytes are not the message that they claim to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{wanted} bytes announced, {remaining} left")]
    TooShort { wanted: usize, remaining: usize },
    #[error("{count} elements announced, which the {remaining} bytes left cannot hold")]
    TooMany { count: usize, remaining: usize },
    #[error("arrays of more than {MOST_ARRAY_BYTES} bytes of memory")]
    TooMuchMemory,
    #[error("negative length {0}")]
    NegativeLength(i64),
    #[error("a field that must not be null is null")]
    Null,
    #[error("a string of {0} bytes is longer than the 32767 that a string may have")]
    StringTooLong(usize),
    #[error("a string is not UTF-8")]
    NotUtf8,
    #[error("a variable-length integer is too long")]
    VarintTooLong,
    #[error("tagged fields are not in ascending order")]
    TagOrder,
    #[error("tagged field {tag} has {left} bytes too many")]
    TagSize { tag: u32, left: usize },
    #[error("{name} has no version {version}")]
    Version { name: &'static str, version: i16 },
}

/// Why a message cannot be written in a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("field {field} is set, and version {version} has no such field")]
    FieldNotInVersion { field: &'static str, version: i16 },
    #[error("field {field} is null, which version {version} cannot say")]
    Null { field: &'static str, version: i16 },
    #[error("{what} of {length} is too long for its length field")]
    TooLong { what: &'static str, length: usize },
    #[error("{name} has no version {version}")]
    Version { name: &'static str, version: i16 },
    #[error("tagged field {0} stands twice")]
    DuplicateTag(u32),
}

/// One of Kafka's messages.
pub trait Message: Default + Clone + Debug + PartialEq + Sized {
    const NAME: &'static str;
    const VERSIONS: RangeInclusive<i16>;

    /// Whether this version has compact lengths and tagged fields (KIP-482).
    fn is_flexible(version: i16) -> bool;

    /// # Errors
    /// When the bytes are no message of this version. Bytes after the message are left unread.
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError>;

    /// # Errors
    /// When a field that is not its default, and that must not be left out, does not exist in this version.
    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError>;

    /// How long the client has to wait, in an answer that can tell (KIP-219).
    fn throttle_time_ms_mut(&mut self) -> Option<&mut i32> {
        None
    }

    /// A value with random content, for tests.
    #[cfg(feature = "testing")]
    fn sample(sampler: &mut crate::testing::Sampler, version: i16) -> Self;
}

/// A message that is asked of a broker.
pub trait Request: Message {
    const KEY: ApiKey;
    type Response: Message;
}

pub(crate) fn check_version<M: Message>(version: i16) -> Result<(), DecodeError> {
    if M::VERSIONS.contains(&version) {
        Ok(())
    } else {
        Err(DecodeError::Version {
            name: M::NAME,
            version,
        })
    }
}

pub(crate) fn check_encode_version<M: Message>(version: i16) -> Result<(), EncodeError> {
    if M::VERSIONS.contains(&version) {
        Ok(())
    } else {
        Err(EncodeError::Version {
            name: M::NAME,
            version,
        })
    }
}

/// Tagged fields that this release does not know: kept, and written back (KIP-482).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaggedFields(pub Vec<(u32, Bytes)>);

/// An array's memory is reserved for no more than this many elements at once, however many the
/// remaining bytes could hold: a peer pays for memory with bytes.
const RESERVED_ELEMENTS: usize = 64;

/// An element can take many times the memory of the one or two bytes that it is sent in. A message
/// whose arrays would take more than this together is refused: it is enough for every partition of a
/// large cluster.
const MOST_ARRAY_BYTES: usize = 64 * 1024 * 1024;

/// Reads primitives from a received buffer. Never panics; never believes a length before the bytes
/// are there.
#[derive(Debug, Clone)]
pub struct Reader {
    bytes: Bytes,
    /// Memory that arrays may still take.
    array_bytes: usize,
}

macro_rules! fixed {
    ($($name:ident: $ty:ty, $get:ident;)*) => { $(
        /// # Errors
        /// When too few bytes are left.
        pub fn $name(&mut self) -> Result<$ty, DecodeError> {
            self.need(size_of::<$ty>())?;
            Ok(self.bytes.$get())
        }
    )* };
}

impl Reader {
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self {
            bytes,
            array_bytes: MOST_ARRAY_BYTES,
        }
    }

    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// Everything that is not read yet.
    #[must_use]
    pub fn into_rest(self) -> Bytes {
        self.bytes
    }

    fn need(&self, wanted: usize) -> Result<(), DecodeError> {
        let remaining = self.bytes.len();
        if wanted <= remaining {
            Ok(())
        } else {
            Err(DecodeError::TooShort { wanted, remaining })
        }
    }

    fixed! {
        i8: i8, get_i8;
        i16: i16, get_i16;
        u16: u16, get_u16;
        i32: i32, get_i32;
        u32: u32, get_u32;
        i64: i64, get_i64;
        f64: f64, get_f64;
    }

    /// # Errors
    /// When no byte is left.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.i8()? != 0)
    }

    /// # Errors
    /// When too few bytes are left.
    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        self.need(16)?;
        let mut bytes = [0; 16];
        self.bytes.copy_to_slice(&mut bytes);
        Ok(Uuid::from_bytes(bytes))
    }

    /// An unsigned variable-length integer of at most 32 bits.
    ///
    /// # Errors
    /// When it takes more than five bytes, or more than 32 bits.
    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.i8()? as u8;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| DecodeError::VarintTooLong);
            }
        }
        Err(DecodeError::VarintTooLong)
    }

    /// The next bytes, as a slice of the buffer.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        self.need(length)?;
        Ok(self.bytes.split_to(length))
    }

    fn compact_length(&mut self) -> Result<Option<usize>, DecodeError> {
        Ok((self.uvarint()? as usize).checked_sub(1))
    }

    fn length(signed: i64) -> Result<Option<usize>, DecodeError> {
        match signed {
            -1 => Ok(None),
            _ => usize::try_from(signed)
                .map(Some)
                .map_err(|_| DecodeError::NegativeLength(signed)),
        }
    }

    fn long_length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if flexible {
            self.compact_length()
        } else {
            Self::length(i64::from(self.i32()?))
        }
    }

    /// # Errors
    /// When the string is cut short, longer than any string may be, or not UTF-8.
    pub fn opt_string(&mut self, flexible: bool) -> Result<Option<Str>, DecodeError> {
        let length = if flexible {
            self.compact_length()?
        } else {
            Self::length(i64::from(self.i16()?))?
        };
        match length {
            None => Ok(None),
            // A compact length could say more than the two bytes of the older form; no string may.
            Some(length) if length > i16::MAX as usize => Err(DecodeError::StringTooLong(length)),
            Some(length) => Str::from_utf8(self.take(length)?)
                .map(Some)
                .map_err(|_| DecodeError::NotUtf8),
        }
    }

    /// # Errors
    /// As [`Self::opt_string`], and when it is null.
    pub fn string(&mut self, flexible: bool) -> Result<Str, DecodeError> {
        self.opt_string(flexible)?.ok_or(DecodeError::Null)
    }

    /// # Errors
    /// When fewer bytes are left than announced.
    pub fn opt_bytes(&mut self, flexible: bool) -> Result<Option<Bytes>, DecodeError> {
        match self.long_length(flexible)? {
            None => Ok(None),
            Some(length) => self.take(length).map(Some),
        }
    }

    /// # Errors
    /// As [`Self::opt_bytes`], and when they are null.
    pub fn bytes(&mut self, flexible: bool) -> Result<Bytes, DecodeError> {
        self.opt_bytes(flexible)?.ok_or(DecodeError::Null)
    }

    fn count_memory(&mut self, count: usize, element_bytes: usize) -> Result<(), DecodeError> {
        self.array_bytes = count
            .checked_mul(element_bytes)
            .and_then(|wanted| self.array_bytes.checked_sub(wanted))
            .ok_or(DecodeError::TooMuchMemory)?;
        Ok(())
    }

    /// An array whose elements take at least `least` bytes each.
    ///
    /// # Errors
    /// When the remaining bytes cannot hold the announced count, or an element is wrong.
    pub fn opt_array<T>(
        &mut self,
        flexible: bool,
        least: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.long_length(flexible)? else {
            return Ok(None);
        };
        let remaining = self.remaining();
        if count
            .checked_mul(least.max(1))
            .is_none_or(|wanted| wanted > remaining)
        {
            return Err(DecodeError::TooMany { count, remaining });
        }
        self.count_memory(count, size_of::<T>())?;
        let mut elements = Vec::with_capacity(count.min(RESERVED_ELEMENTS));
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    /// # Errors
    /// As [`Self::opt_array`], and when it is null.
    pub fn array<T>(
        &mut self,
        flexible: bool,
        least: usize,
        element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        self.opt_array(flexible, least, element)?.ok_or(DecodeError::Null)
    }

    /// The tagged section. `known` reads a field that it knows and says so; others are given back.
    pub(crate) fn tagged_fields(
        &mut self,
        mut known: impl FnMut(u32, &mut Self) -> Result<bool, DecodeError>,
    ) -> Result<TaggedFields, DecodeError> {
        let count = self.uvarint()?;
        let mut unknown = Vec::new();
        let mut previous = None;
        for _ in 0..count {
            let tag = self.uvarint()?;
            if previous.is_some_and(|previous| previous >= tag) {
                return Err(DecodeError::TagOrder);
            }
            previous = Some(tag);
            let size = self.uvarint()? as usize;
            let data = self.take(size)?;
            let mut reader = Self {
                bytes: data.clone(),
                array_bytes: self.array_bytes,
            };
            if known(tag, &mut reader)? {
                self.array_bytes = reader.array_bytes;
                match reader.remaining() {
                    0 => {}
                    left => return Err(DecodeError::TagSize { tag, left }),
                }
            } else {
                self.count_memory(1, size_of::<(u32, Bytes)>())?;
                unknown.push((tag, data));
            }
        }
        Ok(TaggedFields(unknown))
    }
}

/// Byte fields of at least this many bytes are passed on by reference instead of being copied.
const SPLICED_BYTES: usize = 1024;

/// First reservation for a frame: most responses fit.
const FRAME_RESERVED: usize = 256;

/// Writes primitives. What it gives is a list of chunks, to be written one after the other.
#[derive(Debug, Default)]
pub struct Writer {
    chunks: Vec<Chunk>,
    chunked: usize,
    tail: BytesMut,
}

impl Writer {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A writer whose first four bytes become the length of the rest ([`Self::finish_frame`]).
    #[must_use]
    pub(crate) fn with_length_prefix() -> Self {
        let mut writer = Self {
            tail: BytesMut::with_capacity(FRAME_RESERVED),
            ..Self::default()
        };
        writer.tail.put_u32(0);
        writer
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunked + self.tail.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[must_use]
    pub fn finish(mut self) -> Vec<Chunk> {
        self.close_tail();
        self.chunks
    }

    /// The chunks of a frame, with the length written into the first four bytes.
    pub(crate) fn finish_frame(mut self) -> Result<Vec<Chunk>, EncodeError> {
        let length = self.len().saturating_sub(4);
        let short = i32::try_from(length).map_err(|_| EncodeError::TooLong {
            what: "frame",
            length,
        })?;
        // Nothing else refers to the first chunk's bytes yet, so they are not copied here.
        let mut first = match self.chunks.first_mut() {
            // The length stands in the first chunk, which is bytes for that reason.
            Some(Chunk::Bytes(first)) => BytesMut::from(std::mem::take(first)),
            _ => self.tail.split(),
        };
        first[..4].copy_from_slice(&short.to_be_bytes());
        self.close_tail();
        match self.chunks.first_mut() {
            Some(place) => *place = first.freeze().into(),
            None => self.chunks.push(first.freeze().into()),
        }
        Ok(self.chunks)
    }

    /// Everything in one buffer; copies if there are several chunks.
    ///
    /// # Panics
    /// When the message refers to a file; those are only written in chunks.
    #[must_use]
    pub fn finish_contiguous(self) -> Bytes {
        let mut chunks: Vec<Bytes> = self
            .finish()
            .into_iter()
            .map(|chunk| match chunk {
                Chunk::Bytes(bytes) => bytes,
                Chunk::File(_) => panic!("a message that refers to a file is written in chunks"),
            })
            .collect();
        match chunks.len() {
            1 => chunks.swap_remove(0),
            _ => chunks.concat().into(),
        }
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunked += self.tail.len();
            self.chunks.push(self.tail.split().freeze().into());
        }
    }

    /// Bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &Bytes) {
        if bytes.len() < SPLICED_BYTES {
            self.tail.put_slice(bytes);
        } else {
            self.close_tail();
            self.chunked += bytes.len();
            self.chunks.push(bytes.clone().into());
        }
    }

    pub fn i8(&mut self, value: i8) {
        self.tail.put_i8(value);
    }

    pub fn bool(&mut self, value: bool) {
        self.tail.put_u8(u8::from(value));
    }

    pub fn i16(&mut self, value: i16) {
        self.tail.put_i16(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.tail.put_u16(value);
    }

    pub fn i32(&mut self, value: i32) {
        self.tail.put_i32(value);
    }

    pub fn u32(&mut self, value: u32) {
        self.tail.put_u32(value);
    }

    pub fn i64(&mut self, value: i64) {
        self.tail.put_i64(value);
    }

    pub fn f64(&mut self, value: f64) {
        self.tail.put_f64(value);
    }

    pub fn uuid(&mut self, value: &Uuid) {
        self.tail.put_slice(value.as_bytes());
    }

    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.tail.put_u8((value as u8) | 0x80);
            value >>= 7;
        }
        self.tail.put_u8(value as u8);
    }

    fn compact_length(&mut self, what: &'static str, length: usize) -> Result<(), EncodeError> {
        match u32::try_from(length) {
            Ok(short) if short < i32::MAX as u32 => {
                self.uvarint(short + 1);
                Ok(())
            }
            _ => Err(EncodeError::TooLong { what, length }),
        }
    }

    fn long_length(&mut self, what: &'static str, length: usize, flexible: bool) -> Result<(), EncodeError> {
        if flexible {
            return self.compact_length(what, length);
        }
        let short = i32::try_from(length).map_err(|_| EncodeError::TooLong { what, length })?;
        self.i32(short);
        Ok(())
    }

    pub fn null_string(&mut self, flexible: bool) {
        if flexible { self.uvarint(0) } else { self.i16(-1) }
    }

    /// Null for byte fields and arrays.
    pub fn null_long(&mut self, flexible: bool) {
        if flexible { self.uvarint(0) } else { self.i32(-1) }
    }

    /// # Errors
    /// When it is longer than 32767 bytes.
    pub fn string(&mut self, value: &str, flexible: bool) -> Result<(), EncodeError> {
        let too_long = EncodeError::TooLong {
            what: "string",
            length: value.len(),
        };
        let Ok(length) = i16::try_from(value.len()) else {
            return Err(too_long);
        };
        if flexible {
            self.compact_length("string", value.len())?;
        } else {
            self.i16(length);
        }
        self.tail.put_slice(value.as_bytes());
        Ok(())
    }

    /// # Errors
    /// When they are longer than 2 GiB.
    pub fn bytes(&mut self, value: &Bytes, flexible: bool) -> Result<(), EncodeError> {
        self.long_length("byte field", value.len(), flexible)?;
        self.raw(value);
        Ok(())
    }

    /// # Errors
    /// When it is longer than 2 GiB.
    pub fn chunk(&mut self, value: &Chunk, flexible: bool) -> Result<(), EncodeError> {
        match value {
            Chunk::Bytes(bytes) => self.bytes(bytes, flexible),
            Chunk::File(range) => {
                self.long_length("records field", range.length, flexible)?;
                self.close_tail();
                self.chunked += range.length;
                self.chunks.push(value.clone());
                Ok(())
            }
        }
    }

    /// # Errors
    /// When there are more than 2^31 elements.
    pub fn array_length(&mut self, count: usize, flexible: bool) -> Result<(), EncodeError> {
        self.long_length("array", count, flexible)
    }

    /// Appends another writer's content, by reference where it is large.
    fn append(&mut self, other: Self) {
        for chunk in other.finish() {
            match chunk {
                Chunk::Bytes(bytes) => self.raw(&bytes),
                Chunk::File(_) => {
                    self.chunked += chunk.len();
                    self.close_tail();
                    self.chunks.push(chunk);
                }
            }
        }
    }
}

/// Collects the tagged section of a struct: each field has its size in front of it.
#[derive(Debug, Default)]
pub(crate) struct TagWriter {
    fields: Vec<(u32, Writer)>,
}

impl TagWriter {
    pub(crate) fn put(
        &mut self,
        tag: u32,
        write: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let mut writer = Writer::new();
        write(&mut writer)?;
        self.fields.push((tag, writer));
        Ok(())
    }

    pub(crate) fn finish(mut self, w: &mut Writer, unknown: &TaggedFields) -> Result<(), EncodeError> {
        for (tag, data) in &unknown.0 {
            self.put(*tag, |w| {
                w.raw(data);
                Ok(())
            })?;
        }
        self.fields.sort_by_key(|(tag, _)| *tag);
        if let Some(pair) = self.fields.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(EncodeError::DuplicateTag(pair[0].0));
        }
        let too_many = |length| EncodeError::TooLong {
            what: "tagged section",
            length,
        };
        w.uvarint(u32::try_from(self.fields.len()).map_err(|_| too_many(self.fields.len()))?);
        for (tag, field) in self.fields {
            w.uvarint(tag);
            w.uvarint(u32::try_from(field.len()).map_err(|_| too_many(field.len()))?);
            w.append(field);
        }
        Ok(())
    }
}
