//! What a peer may send instead of a message: cut, overwritten, random and lying bytes. Nothing
//! panics, and memory stays within a multiple of the bytes that the peer paid for.
//!
//! Memory is counted by an allocator of this test's own, for each thread by itself.

// The trait of allocators is unsafe to implement. What is here only counts and passes on.
#![allow(unsafe_code)]
#![allow(clippy::expect_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use milena_protocol::records::{
    self, Batch, BatchBuilder, BatchHeader, Compression, HEADER_BYTES, NewRecord, RecordError, RecordHeader,
};
use milena_protocol::testing::Sampler;
use milena_protocol::{ApiKey, Message, Reader, Writer, frame};

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

fn count(bytes: isize) {
    // A thread that is ending has no counters any more, and nobody asks for them.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new may be there at the same time.
        count(size as isize);
        count(-(layout.size() as isize));
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What the work gives, and the most memory that it held at once beyond what was held before.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    LIVE.set(0);
    PEAK.set(0);
    let result = work();
    (
        result,
        usize::try_from(PEAK.get()).expect("a peak is never below its start"),
    )
}

#[test]
fn the_counter_sees_the_peak_and_not_what_is_left() {
    let ((), peak) = peak_of(|| drop(std::hint::black_box(vec![0u8; 100_000])));
    assert!((100_000..101_000).contains(&peak), "{peak}");
    let ((), peak) = peak_of(|| ());
    assert_eq!(peak, 0);
}

/// A decoded message may take this many times its bytes. The densest are structs of a byte or two on
/// the wire (a null, an empty array, no tagged fields) in an array that has just doubled.
const MOST_TIMES: usize = 200;

/// And this much more, for the first reservation of each of a few nested arrays.
const MOST_MORE: usize = 128 * 1024;

fn encoded<M: Message>(message: &M, version: i16) -> Vec<u8> {
    let mut writer = Writer::new();
    message
        .encode(&mut writer, version)
        .unwrap_or_else(|error| panic!("{} v{version}: {error}", M::NAME));
    writer.finish_contiguous().to_vec()
}

/// A sample with much in it that is still so short, where there is one, that every byte can be tried.
fn sample<M: Message>(seed: u64, version: i16, most: usize) -> Vec<u8> {
    let samples = (0..8).map(|more| encoded(&M::sample(&mut Sampler::new(seed + more), version), version));
    // Of those that are not too long the longest, else the shortest.
    samples
        .max_by_key(|bytes| {
            let length = bytes.len() as isize;
            if bytes.len() <= most { length } else { -length }
        })
        .unwrap_or_default()
}

/// Decodes, and returns whether it was a message and the peak of memory.
fn decode<M: Message>(bytes: Vec<u8>, version: i16) -> (bool, usize) {
    let frame = Bytes::from(bytes);
    let (read, peak) = peak_of(|| M::decode(&mut Reader::new(frame.clone()), version));
    let most = frame.len() * MOST_TIMES + MOST_MORE;
    assert!(
        peak <= most,
        "{} v{version}: {peak} bytes held for {} received",
        M::NAME,
        frame.len()
    );
    let Ok(message) = read else {
        return (false, peak);
    };
    // What was accepted can be said, and reads back as what was accepted. (Compared as bytes: a
    // peer may send a float that is not equal to itself.)
    let said = encoded(&message, version);
    let again = M::decode(&mut Reader::new(Bytes::from(said.clone())), version)
        .unwrap_or_else(|error| panic!("{} v{version}: {error}\n{message:?}", M::NAME));
    assert_eq!(encoded(&again, version), said, "{} v{version}", M::NAME);
    (true, peak)
}

/// What is written over each position: lengths and counts that are huge, negative or just wrong.
const LIES: [&[u8]; 11] = [
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x80, 0, 0, 0],
    &[0xff, 0xff, 0xff, 0xfe],
    &[0xff, 0xff, 0xff, 0xff],
    &[0x00, 0x10, 0, 0],
    &[0x7f, 0xff],
    &[0x80, 0],
    &[0xff],
    &[0xff, 0xff, 0xff, 0xff, 0x07],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
];

fn overwritten(good: &[u8], at: usize, lie: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    let within = lie.len().min(bytes.len() - at);
    bytes[at..at + within].copy_from_slice(&lie[..within]);
    bytes
}

/// The lie instead of one byte, and everything after it kept: what a longer varint does.
fn spliced(good: &[u8], at: usize, lie: &[u8]) -> Vec<u8> {
    [&good[..at], lie, &good[at + 1..]].concat()
}

fn lie_everywhere<M: Message>(seed: u64) {
    let mut random = Sampler::new(seed);
    for version in M::VERSIONS {
        let good = sample::<M>(seed, version, 150);
        assert!(decode::<M>(good.clone(), version).0, "{} v{version}", M::NAME);
        for at in 0..good.len() {
            let (whole, _) = decode::<M>(good[..at].to_vec(), version);
            assert!(!whole, "{} v{version} is whole after {at} bytes", M::NAME);
            for lie in LIES {
                decode::<M>(overwritten(&good, at, lie), version);
                if lie.len() > 4 {
                    decode::<M>(spliced(&good, at, lie), version);
                }
            }
        }
        for _ in 0..40 {
            // Small values are the lengths and counts that lead deeper.
            let noise: Vec<u8> = (0..random.below(200))
                .map(|_| match random.below(4) {
                    0 => random.bits() as u8,
                    _ => random.below(4) as u8,
                })
                .collect();
            decode::<M>(noise, version);
        }
    }
}

/// A frame in which the bytes at `at` announce `count` elements, followed by the bytes for them.
fn stuffed<M: Message>(good: &[u8], at: usize, version: i16, count: u32, filler: u8) -> Vec<u8> {
    let mut bytes = good[..at].to_vec();
    if M::is_flexible(version) {
        let mut length = Writer::new();
        length.uvarint(count + 1);
        bytes.extend_from_slice(&length.finish_contiguous());
    } else {
        bytes.extend_from_slice(&count.to_be_bytes());
    }
    bytes.resize(
        bytes.len() + count as usize * if M::is_flexible(version) { 4 } else { 12 },
        filler,
    );
    bytes
}

/// Announces as many elements as there are bytes for, at every position, and then the worst of them
/// again in a frame that is much larger. Returns the worst relation of memory to bytes.
fn stuff<M: Message>(seed: u64) -> f64 {
    const FEW: u32 = 128;
    // One more than a power of two: the array has just doubled.
    const MANY: u32 = 16 * 1024 + 1;
    let mut worst_relation = 0.0f64;
    for version in M::VERSIONS {
        let good = sample::<M>(seed, version, 60);
        let mut worst: Option<(usize, usize, u8)> = None;
        for at in 0..good.len() {
            for filler in [0, 1] {
                let (_, peak) = decode::<M>(stuffed::<M>(&good, at, version, FEW, filler), version);
                if worst.is_none_or(|(most, ..)| peak > most) {
                    worst = Some((peak, at, filler));
                }
            }
        }
        if let Some((_, at, filler)) = worst {
            let bytes = stuffed::<M>(&good, at, version, MANY, filler);
            let length = bytes.len();
            let (_, peak) = decode::<M>(bytes, version);
            worst_relation = worst_relation.max(peak as f64 / length as f64);
        }
    }
    worst_relation
}

#[test]
fn every_message_survives_lies_at_every_byte_and_costs_memory_in_proportion_to_its_bytes() {
    macro_rules! each {
        ($message:ty) => {
            lie_everywhere::<$message>(1);
        };
    }
    milena_protocol::for_each_message!(each);
}

#[test]
fn every_stored_record_survives_lies_at_every_byte() {
    macro_rules! each {
        ($message:ty) => {
            lie_everywhere::<$message>(2);
        };
    }
    milena_protocol::for_each_stored!(each);
}

#[test]
fn a_frame_full_of_the_smallest_elements_costs_memory_in_proportion_to_its_bytes() {
    let mut worst: Vec<(f64, &str)> = Vec::new();
    macro_rules! each {
        ($message:ty) => {
            worst.push((stuff::<$message>(3), <$message>::NAME));
        };
    }
    milena_protocol::for_each_message!(each);
    worst.sort_by(|a, b| b.0.total_cmp(&a.0));
    println!("memory for each byte received: {:.0?}", &worst[..8]);
}

#[test]
fn a_compact_string_is_no_longer_than_any_string_may_be() {
    for (length, fits) in [(i16::MAX as usize, true), (i16::MAX as usize + 1, false)] {
        let mut writer = Writer::new();
        writer.uvarint(length as u32 + 1);
        let bytes = [&writer.finish_contiguous()[..], &vec![b's'; length]].concat();
        let read = Reader::new(Bytes::from(bytes)).string(true);
        assert_eq!(read.is_ok(), fits, "{length}");
    }
}

#[test]
fn a_request_header_may_be_any_bytes() {
    let mut random = Sampler::new(4);
    for _ in 0..20_000 {
        let noise: Bytes = (0..random.below(24))
            .map(|_| match random.below(3) {
                0 => 0xff,
                1 => random.below(4) as u8,
                _ => random.bits() as u8,
            })
            .collect();
        assert_eq!(frame::peek_request(&noise).is_ok(), noise.len() >= 8);
        for (api, version) in [
            (ApiKey::Produce, 3),
            (ApiKey::ApiVersions, 4),
            (ApiKey::Fetch, 17),
        ] {
            let (_, peak) = peak_of(|| {
                let mut reader = Reader::new(noise.clone());
                frame::decode_request_header(&mut reader, api, version).is_ok()
            });
            assert!(peak <= 4096, "{peak}");
        }
    }
}

/// Decompressors hold a window and a block of their own, whatever the batch says.
const DECOMPRESSOR_BYTES: usize = 12 << 20;

fn good_batch(codec: Compression) -> Bytes {
    let mut builder = BatchBuilder::new().compression(codec, None).producer(7, 1, 5);
    for i in 0..6u8 {
        builder.push(&NewRecord {
            timestamp: 1_000 + i64::from(i),
            key: (i % 2 == 0).then(|| Bytes::from(vec![b'k'; usize::from(i)])),
            value: Some(Bytes::from(vec![b'v'; usize::from(i) * 9])),
            headers: vec![RecordHeader {
                key: Bytes::from_static(b"h"),
                value: None,
            }],
        });
    }
    builder.build().expect("built")
}

/// The header with another count of records, and a length and a CRC that fit the payload.
fn sealed(header: &BatchHeader, payload: &[u8], records: i32) -> Bytes {
    let mut header = *header;
    header.record_count = records;
    header.last_offset_delta = records.wrapping_sub(1);
    header.batch_length = i32::try_from(payload.len() + HEADER_BYTES - 12).expect("small");
    header.seal(payload);
    [&header.to_bytes()[..], payload].concat().into()
}

/// Everything that reads batches reads this one.
fn read_batch(bytes: &Bytes, limit: usize) {
    let (_, peak) = peak_of(|| {
        let _ = records::validate(bytes);
    });
    assert!(
        peak <= bytes.len() * 64 + DECOMPRESSOR_BYTES,
        "validating held {peak}"
    );
    for batch in records::batches(bytes).flatten() {
        let ((), peak) = peak_of(|| {
            let Ok(records) = batch.records(limit) else {
                return;
            };
            for record in records {
                drop(std::hint::black_box(record));
            }
        });
        // The buffer of decompressed records doubles as it grows; a header is two slices.
        assert!(
            peak <= 3 * limit + 64 * limit.min(64 * bytes.len()) + DECOMPRESSOR_BYTES,
            "iterating held {peak}"
        );
    }
}

#[test]
fn a_batch_that_was_tampered_with_never_panics_whether_its_crc_fits_or_not() {
    let mut random = Sampler::new(5);
    for codec in Compression::ALL {
        let good = good_batch(codec);
        let header = BatchHeader::parse(&good).expect("good");
        records::validate(&good).expect("good");
        for at in 0..good.len() {
            assert!(records::validate(&good.slice(..at)).is_err(), "{codec:?} {at}");
            read_batch(&good.slice(..at), 1 << 16);
            for lie in LIES {
                let bad = overwritten(&good, at, lie);
                read_batch(&Bytes::from(bad.clone()), 1 << 16);
                if at >= HEADER_BYTES {
                    for count in [6, i32::MAX] {
                        read_batch(&sealed(&header, &bad[HEADER_BYTES..], count), 1 << 16);
                    }
                }
            }
        }
        for _ in 0..500 {
            let noise: Vec<u8> = (0..random.below(300)).map(|_| random.bits() as u8).collect();
            read_batch(&Bytes::from(noise.clone()), 1 << 16);
            read_batch(&sealed(&header, &noise, 3), 1 << 16);
        }
    }
}

/// One record whose value is this long, as it stands in a payload.
fn one_record_of(length: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord {
        value: Some(Bytes::from(vec![0; length])),
        ..NewRecord::default()
    });
    builder.build().expect("built")[HEADER_BYTES..].to_vec()
}

#[test]
fn a_decompression_bomb_is_walked_through_without_being_held() {
    const BOMB: usize = 24 << 20;
    let payload = one_record_of(BOMB);
    for codec in Compression::ALL {
        if codec == Compression::None {
            continue;
        }
        let small = records::compress(codec, None, &payload).expect("compressed");
        assert!(small.len() < BOMB / 10, "{codec:?} makes {} bytes", small.len());
        let mut header = BatchHeader::parse(&good_batch(codec)).expect("good");
        header.set_compression(codec);
        let bomb = sealed(&header, &small, 1);
        let (result, peak) = peak_of(|| records::validate(&bomb).map(|_| ()));
        assert_eq!(result, Ok(()), "{codec:?}");
        assert!(peak <= DECOMPRESSOR_BYTES, "{codec:?}: validating held {peak}");
        let limit = 1 << 20;
        let batch = Batch::parse(&bomb).expect("whole");
        let (result, peak) = peak_of(|| batch.records(limit).map(|_| ()));
        assert_eq!(result, Err(RecordError::TooLarge { limit }), "{codec:?}");
        assert!(
            peak <= 4 * limit + DECOMPRESSOR_BYTES,
            "{codec:?}: decompressing held {peak}"
        );
    }
}
