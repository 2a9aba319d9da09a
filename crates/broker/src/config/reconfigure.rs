//! What Kafka's parts say about a change of their settings while they run, beyond what a start would say.

use super::value::Value;
use super::{BrokerConfig, ConfigError};

/// Threads of Kafka's that may at most be doubled and halved by one change.
const THREADS: [&str; 9] = [
    "background.threads",
    "num.io.threads",
    "num.network.threads",
    "num.recovery.threads.per.data.dir",
    "num.replica.fetchers",
    "remote.log.manager.copier.thread.pool.size",
    "remote.log.manager.expiration.thread.pool.size",
    "remote.log.manager.follower.thread.pool.size",
    "remote.log.reader.threads",
];
const CLEANER_THREADS: &str = "log.cleaner.threads";
/// Limits that a start may set to nothing, and a change may not.
const NOT_NOTHING: [&str; 2] = ["max.connection.creation.rate", "max.connections"];
const REPORTERS: &str = "metric.reporters";
/// The one reporter that comes with Kafka, and its default. There are no others to load.
const JMX_REPORTER: &str = "org.apache.kafka.common.metrics.JmxReporter";

/// Checks the step from one configuration to the next.
///
/// # Errors
/// [`ConfigError::Invalid`] with Kafka's sentence.
pub(super) fn check(before: &BrokerConfig, after: &BrokerConfig) -> Result<(), ConfigError> {
    for name in NOT_NOTHING {
        if changed(before, after, name)?.is_some_and(|(_, new)| new == 0) {
            return refuse(&format!("Invalid {name} 0"));
        }
    }
    for name in THREADS {
        if let Some((old, new)) = changed(before, after, name)? {
            let failed = format!("Dynamic thread count update validation failed for {name}={new}");
            if new < old / 2 {
                return refuse(&format!(
                    "{failed}, value should be at least half the current value {old}"
                ));
            }
            if new > old.saturating_mul(2) {
                return refuse(&format!(
                    "{failed}, value should not be greater than double the current value {old}"
                ));
            }
        }
    }
    if let Some((old, new)) = changed(before, after, CLEANER_THREADS)? {
        if new < old / 2 {
            return refuse(&format!(
                "Log cleaner threads cannot be reduced to less than half the current value {old}"
            ));
        }
        if new > old.saturating_mul(2) {
            return refuse(&format!(
                "Log cleaner threads cannot be increased to more than double the current value {old}"
            ));
        }
    }
    check_local_retention(
        after,
        "log.local.retention.ms",
        "log.retention.ms",
        after.log.retention_ms,
    )?;
    check_local_retention(
        after,
        "log.local.retention.bytes",
        "log.retention.bytes",
        after.log.retention_bytes,
    )?;
    check_reporters(before, after)
}

fn changed(
    before: &BrokerConfig,
    after: &BrokerConfig,
    name: &str,
) -> Result<Option<(i64, i64)>, ConfigError> {
    let (old, new) = (before.layers().integer(name)?, after.layers().integer(name)?);
    Ok(old.zip(new).filter(|(old, new)| old != new))
}

/// What a topic keeps on the local disk is no more than what it keeps: -2 is the same, -1 is everything.
fn check_local_retention(
    config: &BrokerConfig,
    name: &str,
    whole_name: &str,
    whole: i64,
) -> Result<(), ConfigError> {
    let local = config.layers().integer(name)?.unwrap_or(-2);
    if whole == -1 || local == -2 {
        return Ok(());
    }
    let value = |message: &str| {
        let inner = ConfigError::value(name, &local.to_string(), message);
        refuse(&inner.to_string())
    };
    if local == -1 {
        return value(&format!(
            "Value must not be -1 as {whole_name} value is set as {whole}."
        ));
    }
    if local > whole {
        return value(&format!(
            "Value must not be more than {whole_name} property value: {whole}"
        ));
    }
    Ok(())
}

fn check_reporters(before: &BrokerConfig, after: &BrokerConfig) -> Result<(), ConfigError> {
    let (old, new) = (
        before.layers().value(REPORTERS)?,
        after.layers().value(REPORTERS)?,
    );
    let can_be_loaded = match &new {
        Some(Value::List(items)) => items.iter().all(|item| item == JMX_REPORTER),
        _ => true,
    };
    if old == new || can_be_loaded {
        return Ok(());
    }
    refuse(&format!(
        "Validation of dynamic config update of Set({REPORTERS}) failed with class class kafka.server.DynamicMetricsReporters"
    ))
}

/// Kafka puts the sentence into another exception's.
fn refuse(sentence: &str) -> Result<(), ConfigError> {
    Err(ConfigError::Invalid(format!(
        "Invalid value org.apache.kafka.common.config.ConfigException: {sentence} for configuration Invalid dynamic \
         configuration"
    )))
}

#[cfg(test)]
mod tests {
    use super::super::{Properties, validate_dynamic};
    use super::*;

    fn answer(config: &BrokerConfig, pairs: &[(&str, &str)]) -> Result<BrokerConfig, String> {
        let new: Properties = pairs
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        match validate_dynamic(config, true, &new) {
            Ok((config, _)) => Ok(config),
            Err(error) => {
                assert_eq!(error.code(), milena_protocol::ErrorCode::InvalidRequest);
                let text = error.to_string();
                let inner =
                    text.strip_prefix("Invalid value org.apache.kafka.common.config.ConfigException: ");
                let inner = inner
                    .and_then(|text| text.strip_suffix(" for configuration Invalid dynamic configuration"));
                Err(inner.unwrap_or(&text).to_owned())
            }
        }
    }

    /// Settings and the refusal.
    type Case<'a> = (&'a [(&'a str, &'a str)], Option<String>);

    /// Each change is answered as Kafka 4.3.1 answers it.
    #[test]
    fn changes_are_refused_in_kafkas_words() {
        let config = BrokerConfig::new(Properties::new()).unwrap();
        let mebibyte_each =
            "requirement failed: log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.";
        let threads = "Dynamic thread count update validation failed for num.io.threads=";
        let cases: [Case<'_>; 20] = [
            (
                &[("num.io.threads", "3")],
                Some(format!("{threads}3, value should be at least half the current value 8")),
            ),
            (&[("num.io.threads", "4")], None),
            (&[("num.io.threads", "16")], None),
            (
                &[("num.io.threads", "17")],
                Some(format!("{threads}17, value should not be greater than double the current value 8")),
            ),
            (&[("num.network.threads", "1")], None),
            (
                &[("log.cleaner.threads", "3")],
                Some("Log cleaner threads cannot be increased to more than double the current value 1".into()),
            ),
            (&[("log.cleaner.threads", "2")], None),
            (&[("log.cleaner.dedupe.buffer.size", "1048576")], Some(mebibyte_each.into())),
            (&[("log.cleaner.dedupe.buffer.size", "1048577")], None),
            (
                &[("log.cleaner.threads", "2"), ("log.cleaner.dedupe.buffer.size", "2097152")],
                Some(mebibyte_each.into()),
            ),
            (&[("max.connections", "0")], Some("Invalid max.connections 0".into())),
            (
                &[("max.connection.creation.rate", "0")],
                Some("Invalid max.connection.creation.rate 0".into()),
            ),
            (
                &[("log.local.retention.ms", "-1")],
                Some("Invalid value -1 for configuration log.local.retention.ms: Value must not be -1 as log.retention.ms value is set as 604800000.".into()),
            ),
            (
                &[("log.retention.ms", "100"), ("log.local.retention.ms", "200")],
                Some("Invalid value 200 for configuration log.local.retention.ms: Value must not be more than log.retention.ms property value: 100".into()),
            ),
            (&[("log.retention.ms", "-1"), ("log.local.retention.ms", "200")], None),
            (
                &[("log.retention.bytes", "100"), ("log.local.retention.bytes", "200")],
                Some("Invalid value 200 for configuration log.local.retention.bytes: Value must not be more than log.retention.bytes property value: 100".into()),
            ),
            (&[("log.retention.bytes", "100"), ("log.local.retention.bytes", "100")], None),
            (
                &[("metric.reporters", "x")],
                Some("Validation of dynamic config update of Set(metric.reporters) failed with class class kafka.server.DynamicMetricsReporters".into()),
            ),
            (&[("metric.reporters", "")], None),
            (
                &[("group.consumer.assignment.interval.ms", "100000")],
                Some("group.consumer.assignment.interval.ms must be less than or equal to group.consumer.max.assignment.interval.ms".into()),
            ),
        ];
        for (pairs, expected) in cases {
            assert_eq!(answer(&config, pairs).err(), expected, "{pairs:?}");
        }
    }

    #[test]
    fn a_change_is_measured_against_what_is_in_force() {
        let config = BrokerConfig::new(Properties::new()).unwrap();
        let config = answer(&config, &[("num.io.threads", "16")]).unwrap();
        let config = answer(&config, &[("num.io.threads", "32")]).unwrap();
        assert!(answer(&config, &[("num.io.threads", "8")]).is_err());
        // To take a setting away is a change, too.
        assert!(answer(&config, &[]).is_err());
    }
}
