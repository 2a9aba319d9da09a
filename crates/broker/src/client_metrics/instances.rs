//! What each client is told, and when it may push: a pure decision over what clients did before.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use milena_protocol::records::Compression;
use milena_protocol::{ErrorCode, Uuid};

use super::subscriptions::{ALL, DEFAULT_INTERVAL_MS};
use super::{Subscriptions, Who};

/// How many clients are remembered, as in Kafka; more displace those that were not heard of for longest.
const MAX_INSTANCES: usize = 16_384;
/// How long a client is remembered at least.
const MIN_EXPIRY_MS: i64 = 60_000;
/// Pushes that a client may leave out before it is forgotten.
const EXPIRY_INTERVALS: i64 = 3;

#[derive(Debug, Default)]
pub(crate) struct Instances(HashMap<Uuid, Instance>);

#[derive(Debug)]
struct Instance {
    who: Who,
    /// Those that it was given its own from.
    subscriptions: Arc<Subscriptions>,
    subscription_id: i32,
    metrics: BTreeSet<String>,
    interval_ms: i32,
    last_get_ms: Option<i64>,
    last_push_ms: Option<i64>,
    terminating: bool,
    seen_ms: i64,
}

/// What a client is to push.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) subscription_id: i32,
    pub(crate) interval_ms: i32,
    pub(crate) metrics: Vec<String>,
}

/// What a client pushes, without the metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Push {
    pub(crate) subscription_id: i32,
    pub(crate) terminating: bool,
    pub(crate) compression_type: i8,
    pub(crate) bytes: usize,
    pub(crate) max_bytes: usize,
}

impl Instance {
    fn new(id: &Uuid, who: Who, subscriptions: Arc<Subscriptions>) -> Self {
        let mut metrics = BTreeSet::new();
        let mut interval_ms = DEFAULT_INTERVAL_MS;
        for subscription in subscriptions.all().filter(|one| one.fits(&who)) {
            metrics.extend(subscription.metrics.iter().cloned());
            interval_ms = interval_ms.min(subscription.interval_ms);
        }
        if metrics.contains(ALL) {
            metrics = BTreeSet::from([ALL.to_owned()]);
        }
        Self {
            who,
            subscriptions,
            subscription_id: subscription_id(id, &metrics, interval_ms),
            metrics,
            interval_ms,
            last_get_ms: None,
            last_push_ms: None,
            terminating: false,
            seen_ms: 0,
        }
    }

    fn is_expired(&self, now_ms: i64) -> bool {
        let expiry_ms = MIN_EXPIRY_MS.max(i64::from(self.interval_ms) * EXPIRY_INTERVALS);
        now_ms.saturating_sub(self.seen_ms) > expiry_ms
    }

    fn has_waited(&self, since_ms: Option<i64>, now_ms: i64) -> bool {
        since_ms.is_none_or(|since_ms| now_ms.saturating_sub(since_ms) >= i64::from(self.interval_ms))
    }
}

/// Tells a client's set of metrics and its interval from any other, as Kafka works it out.
fn subscription_id(id: &Uuid, metrics: &BTreeSet<String>, interval_ms: i32) -> i32 {
    let names: Vec<&str> = metrics.iter().map(String::as_str).collect();
    let crc = crc32c::crc32c(format!("[{}]{interval_ms}", names.join(", ")).as_bytes());
    let folded = id
        .as_bytes()
        .as_chunks::<4>()
        .0
        .iter()
        .fold(0, |folded, part| folded ^ u32::from_be_bytes(*part));
    (crc ^ folded).cast_signed()
}

impl Instances {
    /// What a client is to push. One that asks again before its interval is over is told to wait, unless
    /// there is something new to tell.
    pub(crate) fn get(
        &mut self,
        subscriptions: Arc<Subscriptions>,
        id: &Uuid,
        who: Who,
        now_ms: i64,
    ) -> Result<Given, ErrorCode> {
        let instance = self.instance(subscriptions, id, who, now_ms);
        if !instance.has_waited(instance.last_get_ms.max(instance.last_push_ms), now_ms) {
            return Err(ErrorCode::ThrottlingQuotaExceeded);
        }
        instance.last_get_ms = Some(now_ms);
        Ok(Given {
            subscription_id: instance.subscription_id,
            interval_ms: instance.interval_ms,
            metrics: instance.metrics.iter().cloned().collect(),
        })
    }

    /// Whether what a client pushes is taken. The first push after a client has asked may come early, because
    /// clients spread theirs over the interval.
    pub(crate) fn push(
        &mut self,
        subscriptions: Arc<Subscriptions>,
        id: &Uuid,
        who: Who,
        push: Push,
        now_ms: i64,
    ) -> Result<(), ErrorCode> {
        let instance = self.instance(subscriptions, id, who, now_ms);
        let was_terminating = std::mem::replace(&mut instance.terminating, push.terminating);
        if was_terminating {
            return Err(ErrorCode::InvalidRequest);
        }
        let in_time = instance.last_get_ms > instance.last_push_ms
            || instance.has_waited(instance.last_push_ms, now_ms);
        if in_time {
            instance.last_push_ms = Some(now_ms);
        } else if !push.terminating {
            return Err(ErrorCode::ThrottlingQuotaExceeded);
        }
        if push.subscription_id != instance.subscription_id {
            return Err(ErrorCode::UnknownSubscriptionId);
        }
        if Compression::from_id(push.compression_type.into()).is_none() {
            return Err(ErrorCode::UnsupportedCompressionType);
        }
        if push.bytes > push.max_bytes {
            return Err(ErrorCode::TelemetryTooLarge);
        }
        Ok(())
    }

    /// The client as it is known, or anew: if it was not, if it has come back over another connection, or if the
    /// subscriptions are others.
    fn instance(
        &mut self,
        subscriptions: Arc<Subscriptions>,
        id: &Uuid,
        who: Who,
        now_ms: i64,
    ) -> &mut Instance {
        let is_as_before = self.0.get(id).is_some_and(|known| {
            known.who.peer == who.peer
                && Arc::ptr_eq(&known.subscriptions, &subscriptions)
                && !known.is_expired(now_ms)
        });
        if !is_as_before {
            self.0.remove(id);
            self.make_room(now_ms);
        }
        let instance = self
            .0
            .entry(*id)
            .or_insert_with(|| Instance::new(id, who, subscriptions));
        instance.seen_ms = now_ms;
        instance
    }

    fn make_room(&mut self, now_ms: i64) {
        if self.0.len() < MAX_INSTANCES {
            return;
        }
        self.0.retain(|_, instance| !instance.is_expired(now_ms));
        if self.0.len() >= MAX_INSTANCES {
            let oldest = self.0.iter().min_by_key(|(_, instance)| instance.seen_ms);
            if let Some(id) = oldest.map(|(id, _)| *id) {
                self.0.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::topics::Overrides;

    const ID: Uuid = Uuid::from_bytes([1; 16]);
    const START: i64 = 1_000_000;

    fn who(port: u16) -> Who {
        Who {
            peer: ([127, 0, 0, 1], port).into(),
            attributes: BTreeMap::from([("client_id", "app".to_owned())]),
        }
    }

    fn subscribed(pairs: &[(&str, &str)]) -> Arc<Subscriptions> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let overrides: Overrides = pairs.iter().map(pair).collect();
        Arc::new(Subscriptions::default().with("s", overrides).unwrap().0)
    }

    struct Case {
        instances: Instances,
        subscriptions: Arc<Subscriptions>,
    }

    impl Case {
        fn new() -> Self {
            Self {
                instances: Instances::default(),
                subscriptions: subscribed(&[("metrics", "a.,b."), ("interval.ms", "1000")]),
            }
        }

        fn get(&mut self, port: u16, now_ms: i64) -> Result<Given, ErrorCode> {
            self.instances
                .get(self.subscriptions.clone(), &ID, who(port), now_ms)
        }

        fn push(&mut self, change: impl FnOnce(&mut Push), now_ms: i64) -> Result<(), ErrorCode> {
            let known = Instance::new(&ID, who(1), self.subscriptions.clone());
            let mut push = Push {
                subscription_id: known.subscription_id,
                terminating: false,
                compression_type: 0,
                bytes: 10,
                max_bytes: 100,
            };
            change(&mut push);
            self.instances
                .push(self.subscriptions.clone(), &ID, who(1), push, now_ms)
        }
    }

    #[test]
    fn a_client_is_told_what_fits_it_and_not_again_before_its_interval_is_over() {
        let mut case = Case::new();
        let given = case.get(1, START).unwrap();
        assert_eq!((given.interval_ms, given.metrics.len()), (1_000, 2));
        assert_eq!(case.get(1, START + 999), Err(ErrorCode::ThrottlingQuotaExceeded));
        assert_eq!(case.get(1, START + 1_000), Ok(given));
        // Over another connection it starts anew, and so it does when there is something new to tell.
        assert!(case.get(2, START + 1_001).is_ok());
        case.subscriptions = subscribed(&[("metrics", "a.,*")]);
        assert_eq!(case.get(2, START + 1_002).unwrap().metrics, ["*"]);
    }

    #[test]
    fn a_push_comes_after_its_interval_but_the_first_and_the_last_may_come_at_once() {
        let mut case = Case::new();
        case.get(1, START).unwrap();
        assert_eq!(case.push(|_| (), START + 1), Ok(()));
        assert_eq!(
            case.push(|_| (), START + 1_000),
            Err(ErrorCode::ThrottlingQuotaExceeded)
        );
        assert_eq!(case.push(|_| (), START + 1_001), Ok(()));
        assert_eq!(case.push(|push| push.terminating = true, START + 1_002), Ok(()));
        assert_eq!(case.push(|_| (), START + 9_000), Err(ErrorCode::InvalidRequest));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut case = Case::new();
        let mut refused =
            |change: &dyn Fn(&mut Push), at: i64| case.push(change, START + at * 1_000).unwrap_err();
        assert_eq!(
            refused(&|push| push.subscription_id ^= 1, 1),
            ErrorCode::UnknownSubscriptionId
        );
        assert_eq!(
            refused(&|push| push.compression_type = 5, 2),
            ErrorCode::UnsupportedCompressionType
        );
        assert_eq!(refused(&|push| push.bytes = 101, 3), ErrorCode::TelemetryTooLarge);
    }

    #[test]
    fn only_so_many_clients_are_remembered() {
        let mut instances = Instances::default();
        let subscriptions = subscribed(&[("metrics", "*")]);
        let id = |number: usize| Uuid::from_bytes((number as u128 + 1).to_be_bytes());
        for number in 0..=MAX_INSTANCES {
            let now_ms = START + i64::try_from(number).unwrap();
            instances
                .get(subscriptions.clone(), &id(number), who(1), now_ms)
                .unwrap();
        }
        assert_eq!(instances.0.len(), MAX_INSTANCES);
        assert!(!instances.0.contains_key(&id(0)) && instances.0.contains_key(&id(1)));
    }
}
