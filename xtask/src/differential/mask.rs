//! What two brokers cannot have in common: ids that they choose, times, ports and places. Each is masked only where it
//! says something: -1, 0, null and the empty text stay, so that "none" is never taken for "some".
//!
//! Lists of objects are put in the order of what they name, because Kafka's order is often that of its hash maps.

use serde_json::{Map, Value};
use std::net::SocketAddr;

/// Ids that a broker chooses.
const IDS: &[&str] = &[
    "TopicId",
    "ProducerId",
    "ClusterId",
    "SessionId",
    "SubscriptionId",
    "ClientInstanceId",
    "CurrentLeaderDirectoryId",
    "ReplicaDirectoryId",
    "FinalizedFeaturesEpoch",
];
/// What depends on the machine and the installation.
const PLACES: &[&str] = &["Port", "LogDir", "TotalBytes", "UsableBytes", "HmacKey"];
/// Times that are not told by their names.
const TIMES: &[&str] = &[
    "MaxTimestamp",
    "Timestamp",
    "LastTimestamp",
    "LogAppendTimeMs",
    "BaseTimestamp",
];
/// The year 2020: times before it are those that cases wrote.
const TIMES_BEGIN: i64 = 1_577_836_800_000;
/// The year 2100.
const TIMES_END: i64 = 4_102_444_800_000;
/// Fields that say which element of a list this is.
const NAMES: &[&str] = &[
    "Name",
    "TopicName",
    "Topic",
    "GroupId",
    "TransactionalId",
    "ResourceType",
    "ResourceName",
    "ConfigName",
    "Key",
    "Feature",
    "PartitionIndex",
    "Partition",
    "PartitionId",
    "ApiKey",
    "NodeId",
    "BrokerId",
    "MemberId",
];

pub(super) fn masked(
    answer: Value,
    address: SocketAddr,
    variables: &Map<String, Value>,
    only: Option<&String>,
) -> Value {
    let mut words: Vec<(String, String)> = vec![
        (address.to_string(), "<address>".to_string()),
        (format!(":{}", address.port()), ":<port>".to_string()),
    ];
    for (name, value) in variables.iter().filter(|(name, _)| *name != "me") {
        if let Some(text) = value.as_str().filter(|text| text.len() >= 16) {
            words.push((text.to_string(), format!("<{name}>")));
        }
    }
    walk("", answer, &words, only)
}

fn walk(name: &str, value: Value, words: &[(String, String)], only: Option<&String>) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| {
                    let value = walk(&name, value, words, only);
                    (name, value)
                })
                .collect(),
        ),
        Value::Array(elements) => {
            let mut elements: Vec<Value> = elements
                .into_iter()
                .filter(|one| only.is_none_or(|me| is_mine(one, me)))
                .map(|one| walk(name, one, words, only))
                .collect();
            if name != "Records" {
                elements.sort_by_cached_key(place);
            }
            Value::Array(elements)
        }
        Value::Number(number) if number.is_f64() => Value::Number(number),
        Value::Number(number) => {
            let number = number.as_i64().unwrap_or(0);
            let timely = name.ends_with("Ms") || TIMES.contains(&name);
            if (IDS.contains(&name) && number >= 0 && (name != "SessionId" || number > 0))
                || (PLACES.contains(&name) && number > 0)
            {
                Value::from(format!("<{name}>"))
            } else if timely && number > TIMES_BEGIN {
                Value::from("<time>")
            } else {
                Value::from(number)
            }
        }
        Value::String(text) => Value::from(masked_text(name, text, words)),
        other => other,
    }
}

fn masked_text(name: &str, mut text: String, words: &[(String, String)]) -> String {
    let none = text.is_empty() || text.bytes().all(|letter| letter == b'A');
    if !none && (IDS.contains(&name) || PLACES.contains(&name)) {
        return format!("<{name}>");
    }
    for (word, mask) in words {
        text = text.replace(word, mask);
    }
    without_times(&without_uuids(&text))
}

/// Milliseconds since 1970 in a text, and what is left of the largest number when they are taken from it.
fn without_times(text: &str) -> String {
    let mut out = String::new();
    for part in text.split_inclusive(|letter: char| !letter.is_ascii_digit()) {
        let digits = part.trim_end_matches(|letter: char| !letter.is_ascii_digit());
        let is_time = digits
            .parse::<i64>()
            .is_ok_and(|number| (TIMES_BEGIN..TIMES_END).contains(&number) || number > i64::MAX - TIMES_END);
        out.push_str(if is_time { "<time>" } else { digits });
        out.push_str(part.get(digits.len()..).unwrap_or_default());
    }
    out
}

/// Java's and Rust's text of a UUID in any place of a text, as in member ids.
fn without_uuids(text: &str) -> String {
    const LENGTH: usize = 36;
    let is_uuid = |candidate: &str| {
        candidate.bytes().enumerate().all(|(at, letter)| match at {
            8 | 13 | 18 | 23 => letter == b'-',
            _ => letter.is_ascii_hexdigit(),
        })
    };
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if rest.get(..LENGTH).is_some_and(is_uuid) {
            out.push_str("<uuid>");
            rest = rest.get(LENGTH..).unwrap_or_default();
        } else {
            out.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    out
}

/// Whether an element of a list belongs to the case; one that names nothing of this kind does.
fn is_mine(element: &Value, me: &str) -> bool {
    let named = [
        "Name",
        "TopicName",
        "Topic",
        "GroupId",
        "TransactionalId",
        "ResourceName",
        "EntityName",
    ]
    .iter()
    .find_map(|name| element[*name].as_str());
    named.is_none_or(|name| name.contains(me))
}

/// What an element of a list is about, in an order that numbers keep.
pub(super) fn named(element: &Value) -> String {
    let mut key = String::new();
    for name in NAMES {
        match &element[*name] {
            Value::String(text) => key.push_str(text),
            Value::Number(number) => key.push_str(&format!("{:020}", number.as_i64().unwrap_or(0))),
            _ => {}
        }
        key.push('\u{1}');
    }
    key
}

fn place(element: &Value) -> (String, String) {
    let whole = match element {
        // Plain numbers in the order of numbers.
        Value::Number(number) => format!("{:020}", number.as_i64().unwrap_or(0)),
        other => other.to_string(),
    };
    (named(element), whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mask(value: Value) -> Value {
        masked(value, SocketAddr::from(([127, 0, 0, 1], 9)), &Map::new(), None)
    }

    #[test]
    fn none_is_not_taken_for_some() {
        let none = json!({"ProducerId": -1, "TopicId": "AAAAAAAAAAAAAAAAAAAAAA", "ClusterId": null, "Port": -1, "TimestampMs": 0});
        assert_eq!(mask(none.clone()), none);
        let some = json!({"ProducerId": 4, "TimestampMs": 1_800_000_000_000_i64});
        assert_eq!(
            mask(some),
            json!({"ProducerId": "<ProducerId>", "TimestampMs": "<time>"})
        );
    }

    #[test]
    fn a_member_id_keeps_what_the_client_gave() {
        let id = json!({"MemberId": "me-0123abcd-0123-4567-89ab-0123456789ab"});
        assert_eq!(mask(id), json!({"MemberId": "me-<uuid>"}));
    }

    #[test]
    fn lists_are_in_the_order_of_their_names() {
        let list = json!({"Topics": [{"ErrorCode": 0, "Name": "b"}, {"ErrorCode": 3, "Name": "a"}]});
        assert_eq!(mask(list)["Topics"][0]["Name"], "a");
    }
}
