//! The codecs, in the framings that Kafka's clients use.
//!
//! - gzip: RFC 1952, several members allowed.
//! - snappy: the framing of the Java library (magic, two versions, then blocks with their length in
//!   front); a bare snappy block is read too, since some clients send that.
//! - lz4: the standard frame format.
//! - zstd: the standard frame format.
//!
//! Decompression is always bounded: a small batch cannot make the broker hold or walk through more
//! than the caller's limit.

use std::io::{self, BufRead, BufReader, Read, Write};

use bytes::Bytes;

use super::RecordError;

/// What the records of a batch are compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    #[must_use]
    pub const fn from_id(id: i16) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The lowest three bits of a batch's attributes.
    #[must_use]
    pub const fn id(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

const SNAPPY_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const SNAPPY_VERSION: i32 = 1;
const SNAPPY_BLOCK_BYTES: usize = 32 * 1024;
/// A block that decompresses to more than this is refused: writers make blocks of 32 KiB, and of the
/// whole payload where they use none.
const SNAPPY_MOST_BLOCK_BYTES: usize = 128 * 1024 * 1024;

/// `compression.lz4.level`: Kafka compresses fast at its default, and with high compression at every
/// other level.
const LZ4_FAST_LEVEL: i32 = 9;
/// The lowest level that is high compression; Kafka's library makes no difference between 1 and 2.
const LZ4_LEAST_HIGH_LEVEL: i32 = 2;

/// Compresses a batch's records. `level` is that of Kafka's `compression.*.level`; `None` is the
/// codec's default. snappy has no levels.
///
/// # Errors
/// When the level is outside the codec's scale.
pub fn compress(codec: Compression, level: Option<i32>, records: &[u8]) -> io::Result<Bytes> {
    let out = match codec {
        Compression::None => records.to_vec(),
        Compression::Gzip => {
            let level = match level {
                None | Some(-1) => flate2::Compression::default(),
                Some(level) => {
                    flate2::Compression::new(u32::try_from(level).map_err(io::Error::other)?.min(9))
                }
            };
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(records)?;
            encoder.finish()?
        }
        Compression::Snappy => compress_snappy(records)?,
        Compression::Lz4 => match level {
            None | Some(LZ4_FAST_LEVEL) => compress_lz4_fast(records)?,
            Some(level) => compress_lz4_high(records, level)?,
        },
        Compression::Zstd => {
            zstd::stream::encode_all(records, level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL))?
        }
    };
    Ok(Bytes::from(out))
}

fn compress_lz4_fast(records: &[u8]) -> io::Result<Vec<u8>> {
    let info = lz4_flex::frame::FrameInfo::new().block_size(lz4_flex::frame::BlockSize::Max64KB);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(records)?;
    encoder.finish().map_err(io::Error::other)
}

/// Kafka's Java client reads only blocks that do not refer to each other.
fn compress_lz4_high(records: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let level = u32::try_from(level.max(LZ4_LEAST_HIGH_LEVEL)).map_err(io::Error::other)?;
    let mut encoder = lz4::EncoderBuilder::new()
        .block_size(lz4::BlockSize::Max64KB)
        .block_mode(lz4::BlockMode::Independent)
        .block_checksum(lz4::liblz4::BlockChecksum::NoBlockChecksum)
        .checksum(lz4::ContentChecksum::NoChecksum)
        .level(level)
        .build(Vec::new())?;
    encoder.write_all(records)?;
    let (out, finished) = encoder.finish();
    finished?;
    Ok(out)
}

fn compress_snappy(records: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(records.len() / 2 + 32);
    out.extend_from_slice(&SNAPPY_MAGIC);
    out.extend_from_slice(&SNAPPY_VERSION.to_be_bytes());
    out.extend_from_slice(&SNAPPY_VERSION.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in records.chunks(SNAPPY_BLOCK_BYTES) {
        let block = encoder.compress_vec(block).map_err(io::Error::other)?;
        out.extend_from_slice(
            &u32::try_from(block.len())
                .map_err(io::Error::other)?
                .to_be_bytes(),
        );
        out.extend_from_slice(&block);
    }
    Ok(out)
}

/// Decompresses into one buffer of at most `limit` bytes.
///
/// # Errors
/// When the bytes are not what the codec makes, or there would be more than `limit`.
pub fn decompress(codec: Compression, bytes: &[u8], limit: usize) -> Result<Bytes, RecordError> {
    with_decompressed(codec, bytes, |reader| {
        let mut out = Vec::new();
        let mut limited = reader.take((limit as u64).saturating_add(1));
        limited
            .read_to_end(&mut out)
            .map_err(|error| RecordError::Decompress(error.to_string()))?;
        if out.len() > limit {
            Err(RecordError::TooLarge { limit })
        } else {
            Ok(Bytes::from(out))
        }
    })
}

/// Gives a stream of the decompressed bytes to `read`.
pub(super) fn with_decompressed<T>(
    codec: Compression,
    bytes: &[u8],
    read: impl FnOnce(&mut dyn BufRead) -> Result<T, RecordError>,
) -> Result<T, RecordError> {
    match codec {
        Compression::None => read(&mut { bytes }),
        Compression::Gzip => read(&mut BufReader::new(flate2::bufread::MultiGzDecoder::new(bytes))),
        Compression::Snappy => read(&mut BufReader::new(SnappyReader::new(bytes)?)),
        Compression::Lz4 => read(&mut BufReader::new(lz4_flex::frame::FrameDecoder::new(bytes))),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(bytes)
                .map_err(|error| RecordError::Decompress(error.to_string()))?;
            read(&mut BufReader::new(decoder))
        }
    }
}

/// Snappy in Java's framing, or one bare block.
struct SnappyReader<'a> {
    rest: &'a [u8],
    framed: bool,
    block: Vec<u8>,
    at: usize,
    decoder: snap::raw::Decoder,
}

impl<'a> SnappyReader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let framed = bytes.starts_with(&SNAPPY_MAGIC);
        let header = if framed { SNAPPY_MAGIC.len() + 8 } else { 0 };
        let rest = bytes
            .get(header..)
            .ok_or_else(|| RecordError::Decompress("the snappy header is cut short".into()))?;
        Ok(Self {
            rest,
            framed,
            block: Vec::new(),
            at: 0,
            decoder: snap::raw::Decoder::new(),
        })
    }

    fn next_block(&mut self) -> io::Result<bool> {
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
        if self.rest.is_empty() {
            return Ok(false);
        }
        let block = if self.framed {
            let (length, rest) = self
                .rest
                .split_first_chunk::<4>()
                .ok_or_else(|| invalid("a block length is cut short"))?;
            let length = u32::from_be_bytes(*length) as usize;
            if length > rest.len() {
                return Err(invalid("a block is cut short"));
            }
            let (block, rest) = rest.split_at(length);
            self.rest = rest;
            block
        } else {
            std::mem::take(&mut self.rest)
        };
        let size = snap::raw::decompress_len(block).map_err(io::Error::other)?;
        // Snappy cannot expand by more than about 21 to 1, so the announced size is bounded by the
        // bytes that are there before any memory is reserved for it.
        if size > SNAPPY_MOST_BLOCK_BYTES || size > block.len().saturating_mul(64).saturating_add(64) {
            return Err(invalid("a block announces more than it can hold"));
        }
        self.block.resize(size, 0);
        let written = self
            .decoder
            .decompress(block, &mut self.block)
            .map_err(io::Error::other)?;
        self.block.truncate(written);
        self.at = 0;
        Ok(true)
    }
}

impl Read for SnappyReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let length = out.len().min(self.block.len() - self.at);
        out[..length].copy_from_slice(&self.block[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Vec<u8> {
        (0..100_000u32).flat_map(|i| (i / 7).to_be_bytes()).collect()
    }

    #[test]
    fn every_codec_reads_back_what_it_wrote() {
        for codec in Compression::ALL {
            for records in [Vec::new(), b"short".to_vec(), text()] {
                let compressed = compress(codec, None, &records).unwrap();
                assert_eq!(
                    decompress(codec, &compressed, 1 << 20).unwrap(),
                    records,
                    "{codec:?}"
                );
            }
        }
    }

    #[test]
    fn every_level_that_kafka_allows_reads_back_and_a_higher_one_packs_tighter() {
        // Words in changing order: something to look for, but not the same at every distance.
        let mut seed = 7_u32;
        let words: Vec<u8> = (0..40_000)
            .flat_map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                format!("word{} ", (seed >> 20) % 700).into_bytes()
            })
            .collect();
        let size = |codec, level| {
            let compressed = compress(codec, Some(level), &words).unwrap();
            assert_eq!(
                decompress(codec, &compressed, 1 << 20).unwrap(),
                words,
                "{codec:?} {level}"
            );
            compressed.len()
        };
        let lz4: Vec<usize> = (1..=17).map(|level| size(Compression::Lz4, level)).collect();
        let fast = lz4[8];
        assert!(lz4[11] < lz4[2] && lz4[2] < fast, "{lz4:?}");
        for (codec, low, high) in [(Compression::Gzip, 1, 9), (Compression::Zstd, -50, 19)] {
            assert!(size(codec, high) < size(codec, low), "{codec:?}");
        }
        assert_eq!(size(Compression::Gzip, -1), size(Compression::Gzip, 6));
        for level in [-131_072, 22] {
            size(Compression::Zstd, level);
        }
    }

    #[test]
    fn more_than_the_limit_is_refused() {
        for codec in Compression::ALL {
            let compressed = compress(codec, None, &text()).unwrap();
            let error = decompress(codec, &compressed, 1000).unwrap_err();
            assert_eq!(error, RecordError::TooLarge { limit: 1000 }, "{codec:?}");
        }
    }

    #[test]
    fn a_bare_snappy_block_is_read() {
        let bare = snap::raw::Encoder::new()
            .compress_vec(b"hello hello hello")
            .unwrap();
        assert_eq!(
            decompress(Compression::Snappy, &bare, 100).unwrap(),
            "hello hello hello"
        );
    }

    #[test]
    fn a_snappy_block_that_lies_about_its_size_reserves_nothing() {
        let lie = [0xff, 0xff, 0xff, 0xff, 0x07, 0x00];
        assert!(matches!(
            decompress(Compression::Snappy, &lie, 1 << 30),
            Err(RecordError::Decompress(_))
        ));
    }

    #[test]
    fn cut_or_wrong_bytes_are_an_error() {
        for codec in [
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ] {
            let compressed = compress(codec, None, &text()).unwrap();
            assert!(
                decompress(codec, &compressed[..compressed.len() / 2], 1 << 20).is_err(),
                "{codec:?}"
            );
            assert!(
                decompress(codec, b"\xff\xfe\xfd\xfc\xfb\xfa\xf9", 1 << 20).is_err(),
                "{codec:?}"
            );
        }
    }
}
