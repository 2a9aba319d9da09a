//! The load tools: `kafka-producer-perf-test`, `kafka-consumer-perf-test` and `kafka-e2e-latency`.
//! Kafka's flags, defaults and output; made to cost little, so that it is the broker that is measured.
//!
//! Where they differ from Kafka's: `--print-metrics` is refused, as there are no Java metrics to
//! print; a load of which a record failed ends with exit code 1; records of random letters are cut
//! from a prepared stretch of them.

pub(crate) mod consumer;
mod date_format;
pub(crate) mod latency;
mod payload;
pub(crate) mod producer;
mod stats;

use rdkafka::error::KafkaError;

use crate::options::Options;
use crate::{ToolError, ToolResult};

fn failed(error: &KafkaError) -> ToolError {
    ToolError::Failed(error.to_string())
}

fn refuse_metrics(options: &Options) -> ToolResult {
    if options.has("print-metrics") {
        return Err(ToolError::Usage(
            "--print-metrics: this command has no Java client whose metrics it could print; leave it out"
                .into(),
        ));
    }
    Ok(())
}

/// A number as Java prints it with `%.Nf`.
fn decimal(number: f64, digits: usize) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else {
        format!("{number:.digits$}")
    }
}

const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Counts are far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn float(count: u64) -> f64 {
    count as f64
}

/// Splitmix64: letters and choices that are the same in every run.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below a bound that is not 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap_or(0)
    }

    /// `A` to `Z`.
    fn letter(&mut self) -> u8 {
        b'A' + u8::try_from(self.next() % 26).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_as_java_prints_them() {
        assert_eq!(decimal(199.680_511_2, 6), "199.680511");
        assert_eq!(decimal(0.0, 4), "0.0000");
        assert_eq!(decimal(f64::NAN, 2), "NaN");
        assert_eq!(decimal(f64::INFINITY, 2), "Infinity");
    }

    #[test]
    fn random_letters_are_letters_and_the_same_every_time() {
        let letters = || {
            let mut random = Random(0);
            (0..1000).map(|_| random.letter()).collect::<Vec<u8>>()
        };
        assert!(letters().iter().all(u8::is_ascii_uppercase));
        assert_eq!(letters(), letters());
        assert!(letters().contains(&b'A') && letters().contains(&b'Z'));
    }
}
