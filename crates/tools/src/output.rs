//! Where the commands print to. A reader that has gone, as `| head` does, is no error: what is
//! printed to it is lost, and the command ends as it would have. Any other failure to write is
//! said, and makes the command fail.
//!
//! The macros stand before those of the standard library, which panic.

use std::fmt::Arguments;
use std::io::{ErrorKind, Result, Write};
use std::sync::atomic::{AtomicBool, Ordering};

static FAILED: AtomicBool = AtomicBool::new(false);

macro_rules! print {
    ($($part:tt)*) => { $crate::output::write(std::format_args!($($part)*), "") };
}

macro_rules! println {
    () => { $crate::output::write(std::format_args!(""), "\n") };
    ($($part:tt)*) => { $crate::output::write(std::format_args!($($part)*), "\n") };
}

macro_rules! eprintln {
    ($($part:tt)*) => { $crate::output::complain(std::format_args!($($part)*)) };
}

pub(crate) fn write(text: Arguments<'_>, end: &str) {
    let mut out = std::io::stdout().lock();
    if is_failure(&write_to(&mut out, text, end)) {
        FAILED.store(true, Ordering::SeqCst);
    }
}

/// To standard error; where that is gone, there is nobody left to tell.
pub(crate) fn complain(text: Arguments<'_>) {
    let _ = write_to(&mut std::io::stderr().lock(), text, "\n");
}

/// Whether all that was printed could be written, or had nobody to read it.
pub(crate) fn is_whole() -> bool {
    let flushed = std::io::stdout().lock().flush();
    let failed = is_failure(&flushed) || FAILED.load(Ordering::SeqCst);
    if failed {
        complain(format_args!("The output could not be written."));
    }
    !failed
}

fn write_to(out: &mut impl Write, text: Arguments<'_>, end: &str) -> Result<()> {
    out.write_fmt(text)?;
    out.write_all(end.as_bytes())
}

fn is_failure(written: &Result<()>) -> bool {
    written
        .as_ref()
        .is_err_and(|error| error.kind() != ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is() {
        let written = |kind| write_to(&mut Broken(kind), format_args!("text"), "\n");
        assert!(!is_failure(&written(ErrorKind::BrokenPipe)));
        assert!(is_failure(&written(ErrorKind::StorageFull)));
    }
}
