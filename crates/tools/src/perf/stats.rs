//! What `kafka-producer-perf-test` counts and how it says it: a line per window, and one for all.

use std::time::Instant;

use super::{MEBIBYTE, decimal, float};

/// Latencies that are kept for the percentiles: of more records, every n-th is.
const MOST_LATENCIES: u64 = 500_000;

#[derive(Debug, Default)]
struct Sums {
    count: u64,
    bytes: u64,
    total_latency_ms: u64,
    max_latency_ms: u32,
}

impl Sums {
    fn add(&mut self, latency_ms: u32, bytes: usize) {
        self.count += 1;
        self.bytes += bytes as u64;
        self.total_latency_ms += u64::from(latency_ms);
        self.max_latency_ms = self.max_latency_ms.max(latency_ms);
    }

    fn rates(&self, elapsed_ms: u64) -> (f64, f64) {
        let per_second = |sum: u64| 1000.0 * float(sum) / float(elapsed_ms);
        (per_second(self.count), per_second(self.bytes) / MEBIBYTE)
    }

    fn average_ms(&self) -> f64 {
        float(self.total_latency_ms) / float(self.count)
    }
}

#[derive(Debug)]
pub(super) struct Stats {
    steady: bool,
    /// The first window of the steady state says so.
    announces: bool,
    start: Instant,
    window_start: Instant,
    interval_ms: u64,
    sampling: u64,
    latencies_ms: Vec<u32>,
    total: Sums,
    window: Sums,
    /// Cleared once the steady state prints the windows.
    prints: bool,
}

impl Stats {
    pub(super) fn new(records: u64, interval_ms: u64, steady: bool) -> Self {
        let now = Instant::now();
        let sampling = (records / MOST_LATENCIES).max(1);
        let kept = usize::try_from(records / sampling + 1).unwrap_or(0);
        Self {
            steady,
            announces: steady,
            start: now,
            window_start: now,
            interval_ms,
            sampling,
            latencies_ms: Vec::with_capacity(kept),
            total: Sums::default(),
            window: Sums::default(),
            prints: true,
        }
    }

    pub(super) fn suppress_windows(&mut self) {
        self.prints = false;
    }

    /// Takes a delivered record; gives the line of the window that ends with it.
    pub(super) fn record(&mut self, latency_ms: u32, bytes: usize, now: Instant) -> Option<String> {
        if self.total.count.is_multiple_of(self.sampling) {
            self.latencies_ms.push(latency_ms);
        }
        self.total.add(latency_ms, bytes);
        self.window.add(latency_ms, bytes);
        let elapsed_ms = millis(self.window_start, now);
        if elapsed_ms < self.interval_ms {
            return None;
        }
        let mut line = window_line(&self.window, elapsed_ms);
        if std::mem::take(&mut self.announces) {
            line.insert_str(0, "In steady state.\n");
        }
        self.window = Sums::default();
        self.window_start = now;
        self.prints.then_some(line)
    }

    /// The last line, for which the latencies are sorted.
    pub(super) fn total_line(&mut self, now: Instant) -> String {
        self.latencies_ms.sort_unstable();
        let elapsed_ms = millis(self.start, now);
        total_line(&self.total, elapsed_ms, &self.latencies_ms, self.steady)
    }
}

fn millis(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX)
}

fn window_line(window: &Sums, elapsed_ms: u64) -> String {
    let (records, mebibytes) = window.rates(elapsed_ms);
    format!(
        "{} records sent, {} records/sec ({} MB/sec), {} ms avg latency, {} ms max latency.",
        window.count,
        decimal(records, 1),
        decimal(mebibytes, 2),
        decimal(window.average_ms(), 1),
        decimal(f64::from(window.max_latency_ms), 1),
    )
}

fn total_line(total: &Sums, elapsed_ms: u64, sorted_ms: &[u32], steady: bool) -> String {
    let (records, mebibytes) = total.rates(elapsed_ms);
    let at = |thousandths: usize| {
        let index = sorted_ms.len() * thousandths / 1000;
        sorted_ms.get(index).copied().unwrap_or(0)
    };
    format!(
        "{}{} records sent, {} records/sec ({} MB/sec), {} ms avg latency, {} ms max latency, {} ms 50th, {} ms 95th, {} ms 99th, {} ms 99.9th.",
        total.count,
        if steady { " steady state" } else { "" },
        decimal(records, 6),
        decimal(mebibytes, 2),
        decimal(total.average_ms(), 2),
        decimal(f64::from(total.max_latency_ms), 2),
        at(500),
        at(950),
        at(990),
        at(999),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn sums(latencies_ms: impl IntoIterator<Item = u32>) -> Sums {
        let mut sums = Sums::default();
        for latency_ms in latencies_ms {
            sums.add(latency_ms, 100);
        }
        sums
    }

    #[test]
    fn the_lines_are_those_of_kafka() {
        assert_eq!(
            window_line(&sums([18, 275]), 1006),
            "2 records sent, 2.0 records/sec (0.00 MB/sec), 146.5 ms avg latency, 275.0 ms max latency."
        );
        let sorted: Vec<u32> = (0..1000).collect();
        assert_eq!(
            total_line(&sums(0..1000), 5008, &sorted, false),
            "1000 records sent, 199.680511 records/sec (0.02 MB/sec), 499.50 ms avg latency, 999.00 ms max latency, 500 ms 50th, 950 ms 95th, 990 ms 99th, 999 ms 99.9th."
        );
        assert!(
            total_line(&sums([1]), 1, &[1], true).starts_with("1 steady state records sent, 1000.000000 ")
        );
    }

    #[test]
    fn a_window_ends_with_the_first_record_after_its_interval() {
        let mut stats = Stats::new(10, 1000, false);
        let start = stats.window_start;
        assert_eq!(stats.record(1, 10, start + Duration::from_millis(999)), None);
        let line = stats.record(3, 10, start + Duration::from_millis(1000)).unwrap();
        assert!(line.starts_with("2 records sent, 2.0 records/sec"), "{line}");
        assert_eq!(stats.record(1, 10, start + Duration::from_millis(1999)), None);
        stats.suppress_windows();
        assert_eq!(stats.record(1, 10, start + Duration::from_millis(2000)), None);
        assert!(
            stats
                .total_line(start + Duration::from_secs(2))
                .starts_with("4 records sent, 2.000000 ")
        );
    }

    #[test]
    fn the_first_window_of_the_steady_state_says_so() {
        let mut stats = Stats::new(10, 1000, true);
        let mut next = stats.window_start;
        let mut line = || {
            next += Duration::from_secs(1);
            stats.record(1, 10, next).unwrap()
        };
        assert!(line().starts_with("In steady state.\n1 records sent"));
        assert!(line().starts_with("1 records sent"));
    }

    #[test]
    fn of_many_records_only_so_many_latencies_are_kept() {
        let mut stats = Stats::new(1_500_000, u64::MAX, false);
        let now = stats.start;
        for _ in 0..1_500_000 {
            assert_eq!(stats.record(7, 1, now), None);
        }
        assert_eq!(stats.latencies_ms.len() as u64, MOST_LATENCIES);
        assert_eq!(stats.total.count, 1_500_000);
    }
}
