//! What is in force for one share group, from the broker's settings and the group's own configs.

use milena_coordinator::SharePartitionConfig;
use milena_log::ReadBound;

use crate::broker::Broker;
use crate::config::GroupSettings;

/// Where a share group starts in a partition that it has not fetched from yet (`share.auto.offset.reset`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OffsetReset {
    Earliest,
    Latest,
    /// At the records of so many milliseconds ago.
    ByDuration(i64),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ShareSettings {
    pub(crate) group: SharePartitionConfig,
    /// `share.isolation.level`
    pub(crate) bound: ReadBound,
    pub(crate) reset: OffsetReset,
}

pub(crate) fn of_group(broker: &Broker, group_id: &str) -> ShareSettings {
    let config = broker.topics.settings().current();
    let overrides = broker.group_configs.current().of(group_id);
    let settings = GroupSettings::new(&config, &overrides);
    let limit = settings.integer("share.delivery.count.limit");
    ShareSettings {
        group: SharePartitionConfig {
            partition_max_record_locks: settings.integer("share.partition.max.record.locks"),
            delivery_count_limit: i16::try_from(limit).unwrap_or(i16::MAX),
            record_lock_duration_ms: settings.integer("share.record.lock.duration.ms"),
            renewals_enabled: settings.boolean("share.renew.acknowledge.enable"),
        },
        bound: match &*settings.text("share.isolation.level") {
            "read_committed" => ReadBound::LastStable,
            _ => ReadBound::HighWatermark,
        },
        reset: offset_reset(&settings.text("share.auto.offset.reset")),
    }
}

/// `group.share.max.share.sessions`
pub(crate) fn max_sessions(broker: &Broker) -> usize {
    let config = broker.topics.settings().current();
    let none = crate::topics::Overrides::new();
    let limit = GroupSettings::new(&config, &none).of_broker("group.share.max.share.sessions");
    usize::try_from(limit).unwrap_or(0)
}

/// Configs were checked when they were set.
fn offset_reset(text: &str) -> OffsetReset {
    match text.split_once(':') {
        Some((_, duration)) => OffsetReset::ByDuration(duration_ms(duration)),
        None if text == "earliest" => OffsetReset::Earliest,
        None => OffsetReset::Latest,
    }
}

/// An ISO-8601 duration of days, hours, minutes and seconds (`P1DT2H3M4.5S`).
fn duration_ms(text: &str) -> i64 {
    let mut total_ms = 0.0_f64;
    let mut number = String::new();
    for character in text.to_ascii_uppercase().chars() {
        let unit_ms = match character {
            'D' => 86_400_000.0,
            'H' => 3_600_000.0,
            'M' => 60_000.0,
            'S' => 1_000.0,
            digit if digit.is_ascii_digit() || digit == '.' => {
                number.push(digit);
                continue;
            }
            _ => continue,
        };
        total_ms += number.parse::<f64>().unwrap_or(0.0) * unit_ms;
        number.clear();
    }
    // Saturates.
    #[allow(clippy::cast_possible_truncation)]
    let total_ms = total_ms as i64;
    total_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_by_duration_is_read_in_all_its_units() {
        let cases = [
            ("earliest", OffsetReset::Earliest),
            ("latest", OffsetReset::Latest),
            ("by_duration:PT1H", OffsetReset::ByDuration(3_600_000)),
            ("by_duration:P1DT2H3M4.5S", OffsetReset::ByDuration(93_784_500)),
            ("by_duration:pt0s", OffsetReset::ByDuration(0)),
        ];
        for (text, expected) in cases {
            assert_eq!(offset_reset(text), expected, "{text}");
        }
    }
}
