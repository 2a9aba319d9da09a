//! Processes and places: the root of the repository, free ports, children that end with us, and the question whether a
//! broker answers.
//!
//! Promises: a child started through [`child_command`] never outlives xtask, however xtask ends, and is ended by its own
//! process id, never by a name.

use crate::error::{AtPath, Error, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How often a condition that can only be asked about (a port, a file, an exit) is asked again.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How long one question to a broker may take before it counts as not answering.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a process that was asked to end may take before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// The repository's root: xtask is run by cargo, which knows where its manifest is.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// This program's file. To be asked for the first time before cargo, which a run of tests calls, may have put another file in
/// its place: the kernel would tell the old one's name as that of a deleted file.
pub(crate) fn own_program() -> Result<&'static Path> {
    static OWN: OnceLock<PathBuf> = OnceLock::new();
    match OWN.get() {
        Some(path) => Ok(path),
        None => {
            let path = std::env::current_exe()?;
            Ok(OWN.get_or_init(|| path))
        }
    }
}

/// Where xtask keeps what it installs and what its runs leave behind. Git ignores it.
pub(crate) fn workshop() -> PathBuf {
    root().join(".xtask")
}

/// A command whose process the kernel ends when xtask ends, also when xtask is killed.
pub(crate) fn child_command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "TERM", "--"])
        .arg(program)
        .stdin(Stdio::null());
    command
}

/// Runs a command to its end; its output goes to `log` (or to the terminal when there is none).
pub(crate) fn run_to_end(command: &mut Command, log: Option<&Path>) -> Result<ExitStatus> {
    if let Some(path) = log {
        let out = append_to(path)?;
        let err = out.try_clone().at(path)?;
        command.stdout(out).stderr(err);
    }
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .status()
        .map_err(|error| Error::new(format!("{name} cannot be started: {error}")))
}

/// Like [`run_to_end`], and an exit code other than 0 is an error that shows the log's tail.
pub(crate) fn must_succeed(command: &mut Command, log: Option<&Path>) -> Result<()> {
    let shown = format!("{command:?}");
    let status = run_to_end(command, log)?;
    if status.success() {
        return Ok(());
    }
    let tail = log.map(|path| tail(path, 40)).unwrap_or_default();
    Err(Error::new(format!("{shown} ended with {status}\n{tail}")))
}

pub(crate) fn append_to(path: &Path) -> Result<std::fs::File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).at(parent)?;
    }
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .at(path)
}

/// The last lines of a file, each indented, for a person who asks why.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.iter()
        .skip(from)
        .map(|line| format!("    | {line}\n"))
        .collect()
}

pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// A port that was free a moment ago, for Apache Kafka, which must be told its port. (Milena takes port 0 itself.)
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Whether the broker at this address answers an ApiVersions request.
pub(crate) fn answers(address: SocketAddr) -> bool {
    asks_api_versions(address).is_ok_and(|connection| connection.is_some())
}

/// A connection over which the broker has answered an ApiVersions request; none when it said something else.
pub(crate) fn asks_api_versions(address: SocketAddr) -> std::io::Result<Option<TcpStream>> {
    let mut stream = TcpStream::connect_timeout(&address, PROBE_TIMEOUT)?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    // length, api key 18 (ApiVersions), version 0, correlation id 7, no client id
    stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff])?;
    let mut answer = [0u8; 10];
    stream.read_exact(&mut answer)?;
    // the correlation id and error code 0
    Ok((answer[4..] == [0, 0, 0, 7, 0, 0]).then_some(stream))
}

/// A process that this run started. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    pub(crate) log: PathBuf,
}

impl Running {
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        Self::spawn(command.stdin(Stdio::null()), log)
    }

    /// Starts a process whose standard input is what is written into the pipe.
    pub(crate) fn start_fed(command: &mut Command, log: &Path) -> Result<(Self, ChildStdin)> {
        let mut process = Self::spawn(command.stdin(Stdio::piped()), log)?;
        let pipe = process.child.stdin.take();
        let pipe = pipe.ok_or_else(|| Error::new("a process that is to be fed has no standard input"))?;
        Ok((process, pipe))
    }

    fn spawn(command: &mut Command, log: &Path) -> Result<Self> {
        let out = append_to(log)?;
        let err = out.try_clone().at(log)?;
        let name = format!("{command:?}");
        let child = command
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|error| Error::new(format!("{name} cannot be started: {error}")))?;
        Ok(Self {
            child,
            log: log.to_path_buf(),
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `condition` gives a value; an error when the process ends first or the deadline passes.
    pub(crate) fn wait_until<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(value) = condition() {
                return Ok(value);
            }
            if let Some(status) = self.child.try_wait()? {
                let tail = tail(&self.log, 40);
                return Err(Error::new(format!(
                    "the process ended with {status} before {what}\n{tail}"
                )));
            }
            if Instant::now() > deadline {
                let tail = tail(&self.log, 40);
                return Err(Error::new(format!(
                    "{what}: not within {} s\n{tail}",
                    within.as_secs()
                )));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Waits for the end, at most until the deadline; `None` when it still runs (it is killed then).
    pub(crate) fn wait_within(&mut self, within: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                return Ok(None);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Ends the process as a crash would: it is not asked and can tidy nothing up.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the process to end, and kills it when it does not.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // An error here means that it has just ended, which is what is wanted.
            let _ = kill_process(pid, Signal::TERM);
        }
        self.wait_within(STOP_TIMEOUT).map(|_| ())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.stop().is_err() {
            let _ = self.child.kill();
        }
    }
}
