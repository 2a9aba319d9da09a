//! Which lines the program writes to its log: levels by logger, as Kafka has them (KIP-412). A logger is a part
//! of the program by its path, `milena_broker.net`; what it is not given, it has from the path before it and at
//! last from `root`. Levels are not stored: a start begins with those of its environment.
//!
//! Deciding is done here. Putting levels in force is the program's, which gives a function for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use milena_protocol::ErrorCode;

use crate::api_error::ApiError;
use crate::config::{AlterOp, Alteration};

const ROOT: &str = "root";
/// Says each request at DEBUG. Off at first, as in the configuration that comes with Kafka.
const REQUESTS: &str = "kafka.request.logger";
/// [`REQUESTS`] where a line is written.
pub(crate) const REQUEST_TARGET: &str = "kafka::request::logger";

/// Beside `root`: the parts that write lines, each with those before it.
const KNOWN: [&str; 27] = [
    REQUESTS,
    "milena",
    "milena.serve",
    "milena_broker",
    "milena_broker.broker",
    "milena_broker.groups",
    "milena_broker.handlers",
    "milena_broker.net",
    "milena_broker.producer_ids",
    "milena_broker.settings",
    "milena_broker.shards",
    "milena_broker.share",
    "milena_broker.topics",
    "milena_broker.transactions",
    "milena_log_disk",
    "milena_log_disk.aborted",
    "milena_log_disk.cleaner",
    "milena_log_disk.directory",
    "milena_log_disk.journal",
    "milena_log_disk.log",
    "milena_log_disk.moving",
    "milena_log_disk.recovery",
    "milena_log_disk.retention",
    "milena_log_disk.ring",
    "milena_log_disk.segment",
    "milena_log_disk.store",
    "milena_state_sqlite",
];

/// Kafka's levels, the quietest first. No line here is FATAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Only from the environment: a client cannot set it.
    Off,
    Fatal,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    const ALL: [(&'static str, Self); 7] = [
        ("DEBUG", Self::Debug),
        ("ERROR", Self::Error),
        ("FATAL", Self::Fatal),
        ("INFO", Self::Info),
        ("TRACE", Self::Trace),
        ("WARN", Self::Warn),
        ("OFF", Self::Off),
    ];

    fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, level)| *level == self);
        found.map_or("INFO", |(name, _)| name)
    }

    /// As a client says it: in capitals, and not OFF.
    fn of_client(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, level)| *level).filter(|level| *level != Self::Off)
    }

    fn of_environment(name: &str) -> Option<Self> {
        let found = Self::ALL
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, level)| *level)
    }
}

/// The levels of all loggers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevels {
    root: LogLevel,
    /// By logger, only those that were set.
    set: BTreeMap<String, LogLevel>,
}

impl Default for LogLevels {
    fn default() -> Self {
        Self {
            root: LogLevel::Info,
            set: BTreeMap::from([(REQUESTS.to_owned(), LogLevel::Warn)]),
        }
    }
}

impl LogLevels {
    /// From a list of `level` (the root's), `logger=level` and `logger` (all its lines), parted by commas. A
    /// logger may be written with `::` for each dot. The second part is what could not be understood.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<String>) {
        let mut levels = Self::default();
        let mut unknown = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (logger, level) = match part.split_once('=') {
                Some((logger, level)) => (Some(logger), LogLevel::of_environment(level)),
                None => match LogLevel::of_environment(part) {
                    Some(level) => (None, Some(level)),
                    None => (Some(part), Some(LogLevel::Trace)),
                },
            };
            match (logger.map(|logger| logger.replace("::", ".")), level) {
                (None, Some(level)) => levels.root = level,
                (Some(logger), Some(level)) if logger == ROOT => levels.root = level,
                (Some(logger), Some(level)) if is_name(&logger) => {
                    levels.set.insert(logger, level);
                }
                _ => unknown.push(part.to_owned()),
            }
        }
        (levels, unknown)
    }

    /// The level of whatever no logger of [`Self::targets`] is for.
    #[must_use]
    pub fn root(&self) -> LogLevel {
        self.root
    }

    /// The level of every logger by its path in the program, `milena_broker::net`. The longest that a line's
    /// path begins with counts.
    pub fn targets(&self) -> impl Iterator<Item = (String, LogLevel)> + '_ {
        self.names()
            .into_iter()
            .map(|name| (name.replace('.', "::"), self.of(name)))
    }

    /// Name and level of every logger, as they are described to clients.
    pub(crate) fn described(&self) -> Vec<(String, &'static str)> {
        let root = (ROOT.to_owned(), self.root.name());
        let others = self
            .names()
            .into_iter()
            .map(|name| (name.to_owned(), self.of(name).name()));
        std::iter::once(root).chain(others).collect()
    }

    fn names(&self) -> BTreeSet<&str> {
        let set = self.set.keys().map(String::as_str);
        KNOWN.into_iter().chain(set).collect()
    }

    fn of(&self, logger: &str) -> LogLevel {
        let mut path = logger;
        loop {
            if let Some(level) = self.set.get(path) {
                return *level;
            }
            match path.rsplit_once('.') {
                Some((before, _)) => path = before,
                None => return self.root,
            }
        }
    }

    /// The levels after a client's changes; all of them or none.
    pub(crate) fn altered(&self, alterations: &[Alteration<'_>]) -> Result<Self, ApiError> {
        let mut levels = self.clone();
        for alteration in alterations {
            let name = alteration.name;
            let exists = || match name == ROOT || self.names().contains(name) {
                true => Ok(()),
                false => Err(no_such_logger(name)),
            };
            match alteration.op {
                AlterOp::Set => {
                    exists()?;
                    let value = alteration.value.unwrap_or_default();
                    let level = LogLevel::of_client(value).ok_or_else(|| unsupported_level(name, value))?;
                    match name {
                        ROOT => levels.root = level,
                        _ => {
                            levels.set.insert(name.to_owned(), level);
                        }
                    }
                }
                AlterOp::Delete => {
                    exists()?;
                    if name == ROOT {
                        return Err(ApiError::invalid_request(
                            "Removing the log level of the root logger is not allowed",
                        ));
                    }
                    levels.set.remove(name);
                }
                AlterOp::Append | AlterOp::Subtract => {
                    return Err(ApiError::invalid_request(format!(
                        "{} operation is not allowed for the BROKER_LOGGER resource",
                        alteration.op.name()
                    )));
                }
            }
        }
        Ok(levels)
    }
}

fn is_name(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    text.split('.').all(is_part)
}

pub(crate) fn no_such_logger(name: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidConfig, format!("Logger {name} does not exist!"))
}

fn unsupported_level(logger: &str, level: &str) -> ApiError {
    ApiError::new(
        ErrorCode::InvalidConfig,
        format!(
            "Cannot set the log level of {logger} to {level} as it is not a supported log level. Valid log levels \
             are DEBUG, ERROR, FATAL, INFO, TRACE, WARN"
        ),
    )
}

/// Puts levels in force.
type Apply = Box<dyn Fn(&LogLevels) -> Result<(), String> + Send + Sync>;

/// The levels in force, which clients may change.
pub struct Loggers {
    levels: Mutex<LogLevels>,
    apply: Apply,
}

impl fmt::Debug for Loggers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loggers").finish_non_exhaustive()
    }
}

impl Loggers {
    /// `levels` are in force already; `apply` puts others in force, or says why it cannot.
    pub fn new(
        levels: LogLevels,
        apply: impl Fn(&LogLevels) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            levels: Mutex::new(levels),
            apply: Box::new(apply),
        }
    }

    fn levels(&self) -> MutexGuard<'_, LogLevels> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn described(&self) -> Vec<(String, &'static str)> {
        self.levels().described()
    }

    pub(crate) fn alter(&self, alterations: &[Alteration<'_>], validate_only: bool) -> Result<(), ApiError> {
        let mut levels = self.levels();
        let altered = levels.altered(alterations)?;
        if validate_only || altered == *levels {
            return Ok(());
        }
        (self.apply)(&altered).map_err(|why| ApiError::new(ErrorCode::UnknownServerError, why))?;
        *levels = altered;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn change<'a>(name: &'a str, op: AlterOp, value: Option<&'a str>) -> Alteration<'a> {
        Alteration { name, op, value }
    }

    fn level(levels: &LogLevels, logger: &str) -> &'static str {
        let described = levels.described();
        described.iter().find(|(name, _)| name == logger).unwrap().1
    }

    #[test]
    fn a_logger_without_a_level_has_that_of_the_path_before_it() {
        let levels = LogLevels::default();
        let levels = levels
            .altered(&[
                change("milena_broker", AlterOp::Set, Some("WARN")),
                change("milena_broker.net", AlterOp::Set, Some("TRACE")),
            ])
            .unwrap();
        let seen = [
            "root",
            "milena_broker",
            "milena_broker.net",
            "milena_broker.topics",
            "milena",
        ]
        .map(|logger| level(&levels, logger));
        assert_eq!(seen, ["INFO", "WARN", "TRACE", "WARN", "INFO"]);
        let levels = levels
            .altered(&[
                change("milena_broker.net", AlterOp::Delete, None),
                change("root", AlterOp::Set, Some("FATAL")),
            ])
            .unwrap();
        assert_eq!(level(&levels, "milena_broker.net"), "WARN");
        assert_eq!(level(&levels, "milena_log_disk.store"), "FATAL");
        let targets: BTreeMap<String, LogLevel> = levels.targets().collect();
        assert_eq!(targets["milena_broker::net"], LogLevel::Warn);
        assert_eq!(targets[REQUEST_TARGET], LogLevel::Warn);
    }

    #[test]
    fn wrong_changes_are_refused_in_kafkas_words_and_change_nothing() {
        let refused = |changes: &[Alteration<'_>]| {
            let error = LogLevels::default().altered(changes).unwrap_err();
            (error.code, error.message.unwrap())
        };
        for wrong in ["debug", "LOUD", "", "OFF", " DEBUG "] {
            assert_eq!(
                refused(&[change("root", AlterOp::Set, Some(wrong))]),
                (
                    ErrorCode::InvalidConfig,
                    format!(
                        "Cannot set the log level of root to {wrong} as it is not a supported log level. Valid log levels are DEBUG, ERROR, FATAL, INFO, TRACE, WARN"
                    )
                )
            );
        }
        for op in [AlterOp::Set, AlterOp::Delete] {
            assert_eq!(
                refused(&[
                    change("milena", AlterOp::Set, Some("DEBUG")),
                    change("ROOT", op, Some("LOUD"))
                ]),
                (ErrorCode::InvalidConfig, "Logger ROOT does not exist!".to_owned())
            );
        }
        assert_eq!(
            refused(&[change("root", AlterOp::Delete, Some(""))]),
            (
                ErrorCode::InvalidRequest,
                "Removing the log level of the root logger is not allowed".to_owned()
            )
        );
        assert_eq!(
            refused(&[change("root", AlterOp::Append, Some("DEBUG"))]).1,
            "APPEND operation is not allowed for the BROKER_LOGGER resource"
        );
    }

    #[test]
    fn levels_come_from_a_list() {
        let (levels, unknown) =
            LogLevels::parse("debug, milena_log_disk::cleaner=off,hyper=trace,milena_broker::net,a=b,[span]");
        let seen = [
            "root",
            "milena_log_disk.cleaner",
            "hyper",
            "milena_broker.net",
            REQUESTS,
        ]
        .map(|logger| level(&levels, logger));
        assert_eq!(seen, ["DEBUG", "OFF", "TRACE", "TRACE", "WARN"]);
        assert_eq!(unknown, ["a=b", "[span]"]);
        assert_eq!(LogLevels::parse(""), (LogLevels::default(), Vec::new()));
    }

    #[test]
    fn levels_that_cannot_be_put_in_force_are_not_told() {
        let loggers = Loggers::new(LogLevels::default(), |_| Err("no".to_owned()));
        let changes = [change("root", AlterOp::Set, Some("DEBUG"))];
        assert_eq!(loggers.alter(&changes, true), Ok(()));
        assert_eq!(
            loggers.alter(&changes, false).unwrap_err().code,
            ErrorCode::UnknownServerError
        );
        assert_eq!(loggers.described()[0], ("root".to_owned(), "INFO"));
    }

    fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    /// Every file of a crate that writes lines belongs to a logger, down to its first directory.
    #[test]
    fn every_part_that_writes_lines_has_a_logger() {
        const MACROS: [&str; 5] = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut checked = 0;
        for (directory, name) in [
            ("milena", "milena"),
            ("broker", "milena_broker"),
            ("log-disk", "milena_log_disk"),
            ("state-sqlite", "milena_state_sqlite"),
        ] {
            let source = crates.join(directory).join("src");
            let mut files = Vec::new();
            sources(&source, &mut files);
            for file in files {
                let text = std::fs::read_to_string(&file).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap();
                let has_own_target = |rest: &str| rest.trim_start().starts_with("target:");
                let writes = |start: &&str| {
                    let mut places = code.match_indices(*start);
                    places.any(|(at, _)| !has_own_target(&code[at + start.len()..]))
                };
                if !MACROS.iter().any(writes) {
                    continue;
                }
                let inside = file.strip_prefix(&source).unwrap().with_extension("");
                let first = inside.iter().next().unwrap().to_str().unwrap();
                let is_whole = name == "milena_state_sqlite" || first == "lib" || first == "main";
                let logger = if is_whole {
                    name.to_owned()
                } else {
                    format!("{name}.{first}")
                };
                assert!(KNOWN.contains(&logger.as_str()), "{logger} of {}", file.display());
                checked += 1;
            }
        }
        assert!(checked > 15, "{checked}");
    }
}
