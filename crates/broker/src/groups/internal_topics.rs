//! The internal topics of streams groups (KIP-1071): created when a heartbeat finds that they are missing, each once
//! at a time, and not again before the group's members could have heard why it did not work.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use milena_protocol::messages::CreateTopicsRequest;
use milena_protocol::messages::create_topics_request::CreatableTopic;
use milena_protocol::{ErrorCode, Str};

use crate::broker::Broker;
use crate::context::RequestContext;
use crate::handlers::create_topics;

/// Topics whose creation did not work and that are remembered, as in Kafka.
const MAX_ERRORS: usize = 1_000;
/// Topics that are being created. Beyond it, more wait for a later heartbeat.
const MAX_IN_FLIGHT: usize = 10_000;
/// How many errors one sentence tells.
const MAX_TOLD: usize = 3;
/// The version of CreateTopics whose rules hold: the newest, as for Kafka's own requests to the controller.
const CREATE_TOPICS_VERSION: i16 = 7;

#[derive(Debug, Default)]
pub(crate) struct InternalTopics(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    in_flight: HashSet<Str>,
    errors: HashMap<Str, Failed>,
}

#[derive(Debug)]
struct Failed {
    why: String,
    /// It is tried again then.
    until_ms: i64,
}

impl InternalTopics {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What went wrong lately with these topics, as the status of a heartbeat tells it.
    pub(crate) fn what_failed(&self, topics: &[CreatableTopic], now_ms: i64) -> Option<String> {
        let known = self.known();
        let errors = topics.iter().filter_map(|topic| {
            let failed = known.errors.get(&topic.name)?;
            (failed.until_ms > now_ms).then(|| format!("{} ({})", topic.name, failed.why))
        });
        let errors: Vec<String> = errors.collect();
        if errors.is_empty() {
            return None;
        }
        let told = errors
            .iter()
            .take(MAX_TOLD)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        Some(match errors.len().saturating_sub(MAX_TOLD) {
            0 => told,
            more => format!("{told} and {more} more"),
        })
    }

    /// Those that nobody creates just now and that did not fail lately. [`Self::created`] must follow.
    fn begin(&self, topics: Vec<CreatableTopic>, now_ms: i64) -> Vec<CreatableTopic> {
        let mut known = self.known();
        let has_failed = |known: &Known, name: &Str| {
            let failed = known.errors.get(name);
            failed.is_some_and(|failed| failed.until_ms > now_ms)
        };
        let mut begun = topics;
        begun.retain(|topic| {
            !has_failed(&known, &topic.name)
                && known.in_flight.len() < MAX_IN_FLIGHT
                && known.in_flight.insert(topic.name.detached())
        });
        begun
    }

    fn created(&self, names: &[Str], errors: Vec<(Str, String)>, now_ms: i64, keep_ms: i64) {
        let mut known = self.known();
        for name in names {
            known.in_flight.remove(name);
        }
        known.errors.retain(|_, failed| failed.until_ms > now_ms);
        let until_ms = now_ms.saturating_add(keep_ms);
        for (name, why) in errors {
            if known.errors.len() < MAX_ERRORS || known.errors.contains_key(&name) {
                known.errors.insert(name.detached(), Failed { why, until_ms });
            }
        }
    }
}

/// Creates what is missing by the rules of CreateTopics, as the client whose heartbeat it was. Errors are kept for
/// `keep_ms`, and the topic is not tried again meanwhile.
pub(crate) async fn create(
    broker: &Arc<Broker>,
    context: &RequestContext,
    topics: Vec<CreatableTopic>,
    keep_ms: i64,
) {
    let topics = broker.internal_topics.begin(topics, broker.clock.now_ms());
    if topics.is_empty() {
        return;
    }
    let names: Vec<Str> = topics.iter().map(|topic| topic.name.clone()).collect();
    let request = CreateTopicsRequest {
        topics,
        ..CreateTopicsRequest::default()
    };
    let context = RequestContext {
        api_version: CREATE_TOPICS_VERSION,
        ..context.clone()
    };
    let response = create_topics::handle(broker, &context, request).await;
    let failed = response.topics.into_iter().filter_map(|topic| {
        let error = ErrorCode::from_code(topic.error_code);
        // One that somebody else has created meanwhile is what was wanted.
        if matches!(error, ErrorCode::None | ErrorCode::TopicAlreadyExists) {
            return None;
        }
        let sentence = topic.error_message.filter(|sentence| !sentence.is_empty());
        let why = sentence.map_or_else(|| error.name().to_owned(), |sentence| sentence.to_string());
        tracing::warn!(
            topic = &*topic.name,
            why,
            "an internal topic of a streams group could not be created"
        );
        Some((topic.name, why))
    });
    let errors = failed.collect();
    let now_ms = broker.clock.now_ms();
    broker.internal_topics.created(&names, errors, now_ms, keep_ms);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &'static str) -> CreatableTopic {
        CreatableTopic {
            name: Str::from(name),
            ..CreatableTopic::default()
        }
    }

    #[test]
    fn a_topic_is_created_by_one_heartbeat_at_a_time() {
        let topics = InternalTopics::default();
        let both = || vec![topic("a"), topic("b")];
        assert_eq!(topics.begin(vec![topic("a")], 0).len(), 1);
        assert_eq!(topics.begin(both(), 0), [topic("b")]);
        topics.created(&[Str::from("a")], Vec::new(), 0, 10);
        assert_eq!(topics.begin(both(), 0), [topic("a")]);
    }

    #[test]
    fn what_failed_is_told_and_not_tried_again_until_it_is_forgotten() {
        let topics = InternalTopics::default();
        let names: Vec<Str> = ["a", "b", "c", "d"].map(Str::from).into();
        let all = || {
            names
                .iter()
                .cloned()
                .map(|name| CreatableTopic {
                    name,
                    ..CreatableTopic::default()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(topics.begin(all(), 0).len(), 4);
        let errors = names.iter().map(|name| (name.clone(), "no".to_owned())).collect();
        topics.created(&names, errors, 0, 10);
        let told = topics.what_failed(&all(), 9);
        assert_eq!(told.as_deref(), Some("a (no), b (no), c (no) and 1 more"));
        assert!(topics.begin(all(), 9).is_empty());
        assert_eq!(topics.what_failed(&all(), 10), None);
        assert_eq!(topics.begin(all(), 10).len(), 4);
    }
}
