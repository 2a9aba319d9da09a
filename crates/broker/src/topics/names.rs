//! The rules of topic names, with Kafka's sentences.

/// Longest topic name; leaves room for `-<partition>` and a deleted directory's suffix in 255 bytes.
const MAX_NAME_LENGTH: usize = 249;

pub(crate) const INTERNAL_TOPICS: &[&str] =
    &["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// Kafka's own log of cluster metadata; nobody may create a topic of this name.
pub(crate) const CLUSTER_METADATA_TOPIC: &str = "__cluster_metadata";

pub(crate) fn is_internal(name: &str) -> bool {
    INTERNAL_TOPICS.contains(&name)
}

/// `Err` is the sentence for INVALID_TOPIC_EXCEPTION.
pub(crate) fn validate(name: &str) -> Result<(), String> {
    let invalid = |reason: String| Err(format!("Topic name is invalid: {reason}"));
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name {
        "" => invalid("the empty string is not allowed".to_owned()),
        "." | ".." => invalid(format!("'{name}' is not allowed")),
        // Java counts UTF-16 units.
        _ if name.encode_utf16().count() > MAX_NAME_LENGTH => invalid(format!(
            "the length of '{name}' is longer than the max allowed length {MAX_NAME_LENGTH}"
        )),
        _ if !name.chars().all(legal) => invalid(format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        )),
        _ => Ok(()),
    }
}

/// Names that differ only in `.` and `_` collide in metric names, so only one of them may exist.
/// `None`: the name cannot collide.
pub(crate) fn unified(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_with_kafkas_sentences() {
        assert_eq!(validate("ml-events_2.x"), Ok(()));
        assert_eq!(validate(&"a".repeat(249)), Ok(()));
        assert_eq!(
            validate(""),
            Err("Topic name is invalid: the empty string is not allowed".into())
        );
        assert_eq!(
            validate(".."),
            Err("Topic name is invalid: '..' is not allowed".into())
        );
        assert!(
            validate(&"a".repeat(250))
                .unwrap_err()
                .ends_with("longer than the max allowed length 249")
        );
        assert_eq!(
            validate("a/b"),
            Err("Topic name is invalid: 'a/b' contains one or more characters other than ASCII alphanumerics, \
                 '.', '_' and '-'"
                .into())
        );
    }

    #[test]
    fn a_dot_and_an_underscore_collide() {
        assert_eq!(unified("a.b"), unified("a_b"));
        assert_eq!(unified("ab"), None);
    }
}
