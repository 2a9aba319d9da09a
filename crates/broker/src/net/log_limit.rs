//! Keeps a hostile or broken client from filling the disk with log lines.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines that may be written in one [`INTERVAL`].
const LINES_PER_INTERVAL: u32 = 20;
const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

#[derive(Debug)]
pub(crate) struct LogLimit(Mutex<Window>);

impl LogLimit {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Window {
            since: Instant::now(),
            lines: 0,
            suppressed: 0,
        }))
    }

    /// Whether a line may be written now, and if so how many were left out since the last one.
    pub(crate) fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(window.since) >= INTERVAL {
            window.since = now;
            window.lines = 0;
        }
        if window.lines >= LINES_PER_INTERVAL {
            window.suppressed += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_are_counted_and_told_later() {
        let limit = LogLimit::new();
        let start = Instant::now();
        let admitted = (0..LINES_PER_INTERVAL + 7)
            .filter(|_| limit.admit_at(start).is_some())
            .count();
        assert_eq!(admitted, LINES_PER_INTERVAL as usize);
        assert_eq!(limit.admit_at(start + INTERVAL), Some(7));
        assert_eq!(limit.admit_at(start + INTERVAL), Some(0));
    }
}
