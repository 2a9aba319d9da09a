//! Every message in every version: what is written reads back, and writes the same bytes again.

#![allow(clippy::expect_used)]

use bytes::Bytes;
use milena_protocol::testing::Sampler;
use milena_protocol::{Message, Reader, Writer};
use proptest::prelude::*;

fn round_trip<M: Message>(seed: u64) {
    for version in M::VERSIONS {
        let sample = M::sample(&mut Sampler::new(seed), version);
        let mut writer = Writer::new();
        sample
            .encode(&mut writer, version)
            .unwrap_or_else(|e| panic!("{} v{version}: {e}", M::NAME));
        let bytes = writer.finish_contiguous();
        let mut reader = Reader::new(bytes.clone());
        let read = M::decode(&mut reader, version)
            .unwrap_or_else(|e| panic!("{} v{version}: {e}\n{sample:?}\n{bytes:?}", M::NAME));
        assert_eq!(reader.remaining(), 0, "{} v{version}", M::NAME);
        assert_eq!(read, sample, "{} v{version}", M::NAME);
        let mut again = Writer::new();
        read.encode(&mut again, version).expect("was encoded before");
        assert_eq!(again.finish_contiguous(), bytes, "{} v{version}", M::NAME);
    }
}

/// Cuts, flips and splices valid bytes; whatever comes out is an error or a message, never a panic.
fn mutate<M: Message>(seed: u64) {
    let mut random = Sampler::new(seed ^ 0x5151);
    for version in M::VERSIONS {
        let mut writer = Writer::new();
        M::sample(&mut Sampler::new(seed), version)
            .encode(&mut writer, version)
            .expect("encodes");
        let mut bytes = writer.finish_contiguous().to_vec();
        for _ in 0..random.below(4) + 1 {
            if bytes.is_empty() {
                break;
            }
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes.truncate(at),
                1 => bytes[at] = 0xff,
                2 => bytes[at] = 0x7f,
                _ => bytes[at] = random.bits() as u8,
            }
        }
        let _ = M::decode(&mut Reader::new(Bytes::from(bytes)), version);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_message_in_every_version_reads_back_what_it_wrote(seed: u64) {
        macro_rules! each { ($message:ty) => { round_trip::<$message>(seed); }; }
        milena_protocol::for_each_message!(each);
        macro_rules! each_stored { ($message:ty) => { round_trip::<$message>(seed); }; }
        milena_protocol::for_each_stored!(each_stored);
    }

    #[test]
    fn mutated_bytes_never_panic(seed: u64) {
        macro_rules! each { ($message:ty) => { mutate::<$message>(seed); }; }
        milena_protocol::for_each_message!(each);
    }
}
