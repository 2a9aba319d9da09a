//! Patterns that members subscribe by: RE2 syntax, matched against whole names of topics (KIP-848).

use std::collections::BTreeSet;

use milena_protocol::{ErrorCode, Str};
use regex::Regex;

use crate::limits::MAX_PATTERN_BYTES;
use crate::modern::Refusal;
use crate::topics::TopicImage;

/// What a compiled pattern may take; both bound what a client's pattern costs.
const MAX_COMPILED_BYTES: usize = 1 << 20;

pub(super) fn compile(pattern: &str) -> Result<Regex, Refusal> {
    let refuse = |reason: &str| {
        Refusal::new(
            ErrorCode::InvalidRegularExpression,
            format!("SubscribedTopicRegex `{pattern}` is not a valid regular expression: {reason}."),
        )
    };
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(refuse("it is too long"));
    }
    // By itself first, so that the anchors cannot complete what is wrong.
    let compile = |text: &str| {
        let mut builder = regex::RegexBuilder::new(text);
        builder
            .size_limit(MAX_COMPILED_BYTES)
            .dfa_size_limit(MAX_COMPILED_BYTES)
            .build()
    };
    let whole = |_| compile(&format!("^(?:{pattern})$"));
    compile(pattern).and_then(whole).map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => refuse("it is too large"),
        regex::Error::Syntax(text) => refuse(
            text.lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: "),
        ),
        _ => refuse("it cannot be compiled"),
    })
}

/// The topics whose names match; internal ones are subscribed to by name only.
pub(super) fn resolve(pattern: &Regex, topics: &TopicImage) -> BTreeSet<Str> {
    topics
        .iter()
        .filter(|topic| !topic.is_internal && pattern.is_match(&topic.name))
        .map(|topic| topic.name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use milena_protocol::Uuid;

    use super::*;
    use crate::topics::TopicInfo;

    fn matched(pattern: &str) -> Vec<String> {
        let mut topics = TopicImage::default();
        for (number, name) in ["a", "a.b", "ab", "b", "__consumer_offsets"]
            .into_iter()
            .enumerate()
        {
            topics.put(TopicInfo {
                id: Uuid::from_bytes([number as u8 + 1; 16]),
                name: Str::from(name),
                partitions: 1,
                is_internal: name.starts_with("__"),
            });
        }
        let resolved = resolve(&compile(pattern).unwrap(), &topics);
        resolved.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn a_pattern_matches_whole_names_of_topics_that_are_not_internal() {
        assert_eq!(matched("a"), ["a"]);
        assert_eq!(matched("a.*"), ["a", "a.b", "ab"]);
        assert_eq!(matched("a|b"), ["a", "b"]);
        assert_eq!(matched("a\\..+"), ["a.b"]);
        assert_eq!(matched(".*").len(), 4);
        assert_eq!(matched("(?i)A"), ["a"]);
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for wrong in ["(", "[", "a)|(b", "(?=a)", "\\1", "*", "a{2000}{2000}"] {
            let refusal = compile(wrong).unwrap_err();
            assert_eq!(refusal.error, ErrorCode::InvalidRegularExpression, "{wrong}");
        }
        assert!(compile(&"a".repeat(MAX_PATTERN_BYTES + 1)).is_err());
    }
}
