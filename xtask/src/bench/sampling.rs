//! What the kernel knows about a process and about the machine, from `/proc`.

use crate::error::{AtPath, Error, Result};
use crate::process::root;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The kernel counts CPU time in these units on every machine that Rust's std supports here (`getconf CLK_TCK`).
const TICKS_PER_SECOND: f64 = 100.0;

fn of_process(process: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/{name}"))
}

/// User and system time of a process with all its threads, also those that ended: the 14th and 15th field of its `stat`
/// (the 2nd, the name, may have spaces).
pub(super) fn cpu_seconds(process: u32) -> Result<f64> {
    let path = of_process(process, "stat");
    let text = std::fs::read_to_string(&path).at(&path)?;
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    Ok(fields.iter().sum::<f64>() / TICKS_PER_SECOND)
}

/// `VmRSS`, what is resident now, or `VmHWM`, the most that was since [`reset_peak`].
pub(super) fn memory_mib(process: u32, field: &str) -> Result<f64> {
    let path = of_process(process, "status");
    let text = std::fs::read_to_string(&path).at(&path)?;
    kib_field(&text, field)
        .map(|kib| kib / 1024.0)
        .ok_or_else(|| Error::new(format!("{} has no {field}", path.display())))
}

/// Makes what is resident now the peak.
pub(super) fn reset_peak(process: u32) -> Result<()> {
    let path = of_process(process, "clear_refs");
    std::fs::write(&path, "5").at(&path)
}

pub(super) fn open_files(process: u32) -> Result<usize> {
    let path = of_process(process, "fd");
    Ok(std::fs::read_dir(&path).at(&path)?.count())
}

/// What the files below a directory hold. Files that go away meanwhile do not count.
#[allow(clippy::cast_precision_loss)]
pub(super) fn stored_mib(directory: &Path) -> f64 {
    fn bytes(directory: &Path) -> u64 {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let size = |entry: std::fs::DirEntry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        };
        entries.map(size).sum()
    }
    bytes(directory) as f64 / (1024.0 * 1024.0)
}

/// Thousands of connections and partitions need more than the usual thousand of files, here and in the brokers, which
/// inherit it.
pub(super) fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        eprintln!("The limit of open files stays at {:?}: {error}", limit.current);
    }
}

pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get((values.len().max(1) - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

/// The percentiles that a report shows.
pub(super) fn percentiles(mut times_ms: Vec<f64>) -> super::Values {
    times_ms.sort_by(f64::total_cmp);
    let wanted = [("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999)];
    wanted
        .iter()
        .filter_map(|(name, part)| Some((*name, percentile(&times_ms, *part)?)))
        .collect()
}

/// The value below which this part of the sorted values lies.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
fn percentile(sorted: &[f64], part: f64) -> Option<f64> {
    let at = (sorted.len() as f64 * part) as usize;
    sorted.get(at).or(sorted.last()).copied()
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = lines.filter_map(|(known, value)| (known.trim() == name).then_some(value.trim()));
    values.next()
}

fn kib_field(text: &str, name: &str) -> Option<f64> {
    field(text, name)?.split_whitespace().next()?.parse().ok()
}

/// The first line that a program prints here, if it prints one.
fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let done = Command::new(program).args(arguments).current_dir(root()).output();
    let text = String::from_utf8_lossy(&done.ok()?.stdout).into_owned();
    text.lines().next().map(|line| line.trim().to_string())
}

/// Where, when and of what the numbers are.
#[derive(Debug)]
pub(super) struct Circumstances {
    pub(super) date: String,
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) memory_gib: f64,
    pub(super) kernel: String,
    pub(super) java: String,
    /// Of this repository, with a `+` when the sources differ from it.
    pub(super) commit: String,
}

pub(super) fn circumstances() -> Circumstances {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let unknown = || "unknown".to_string();
    let memory_kib = kib_field(&read("/proc/meminfo"), "MemTotal").unwrap_or(0.0);
    let cpu = read("/proc/cpuinfo");
    let changes = [
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        "crates",
        "Cargo.lock",
    ];
    let changed = first_line("git", &changes).map_or("", |_| "+");
    let commit = first_line("git", &["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(unknown);
    Circumstances {
        date: first_line("date", &["-u", "+%Y-%m-%d"]).unwrap_or_else(unknown),
        cpu: field(&cpu, "model name").map_or_else(unknown, str::to_string),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        memory_gib: memory_kib / (1024.0 * 1024.0),
        kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        java: first_line("sh", &["-c", "java -version 2>&1"]).unwrap_or_else(unknown),
        commit: commit + changed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_ones() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn this_process_has_memory_and_files_and_used_a_time() {
        let own = std::process::id();
        assert!(memory_mib(own, "VmRSS").unwrap() > 0.0);
        assert!(memory_mib(own, "VmHWM").unwrap() >= memory_mib(own, "VmRSS").unwrap() / 2.0);
        assert!(memory_mib(own, "VmNothing").is_err());
        assert!(open_files(own).unwrap() > 0);
        assert!(cpu_seconds(own).unwrap() >= 0.0);
    }
}
