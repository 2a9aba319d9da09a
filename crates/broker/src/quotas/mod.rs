//! Quotas of clients: bytes produced and fetched, time of request threads, partitions created and deleted
//! (KIP-13, KIP-124, KIP-599), and connections made by one address (KIP-612).
//!
//! What happened is measured against the quota in force ([`configs`], [`rate`]), and who is above it waits: the answer tells for
//! how long, and the connection is not read from meanwhile (KIP-219). Where no quota is set, nothing is measured.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use milena_protocol::ErrorCode;
use milena_state::{Change, StateStore};

use crate::api_error::ApiError;
use crate::broker::StartError;
use crate::config::BrokerConfig;
use crate::context::RequestContext;
use crate::small_facts::SmallFacts;

mod configs;
mod rate;
pub(crate) mod throttle;

pub(crate) use configs::{Alteration, CLIENT_ID, Entity, IP, QuotaConfigs, USER};
pub(crate) use rate::Windows;

use configs::Tags;
use rate::{Rate, TokenBucket};

const SHARD: &str = "quotas";
/// How many rates are measured at most.
const MAX_SENSORS: usize = 100_000;
/// What nobody has asked about for this long is forgotten, as in Kafka.
const SENSOR_EXPIRY_MS: i64 = 3_600_000;
/// Whoever comes without authentication.
const ANONYMOUS: &str = "ANONYMOUS";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Produce,
    Fetch,
    Request,
    Mutation,
    ConnectionRate,
}

impl Kind {
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Produce => "producer_byte_rate",
            Self::Fetch => "consumer_byte_rate",
            Self::Request => "request_percentage",
            Self::Mutation => "controller_mutation_rate",
            Self::ConnectionRate => "connection_creation_rate",
        }
    }
}

#[derive(Debug)]
enum Measure {
    Rate(Rate),
    Tokens(TokenBucket),
}

#[derive(Debug)]
struct Sensor {
    measure: Measure,
    used_ms: i64,
}

#[derive(Debug)]
pub(crate) struct Quotas {
    configs: SmallFacts<QuotaConfigs>,
    /// Whether there is any quota: what every request looks at.
    is_active: AtomicBool,
    /// New connections per second by address; without one what every other may make.
    connection_rates: RwLock<HashMap<Option<IpAddr>, f64>>,
    sensors: Mutex<HashMap<(Kind, Tags), Sensor>>,
    windows: Windows,
    mutation_windows: Windows,
}

impl Quotas {
    pub(crate) async fn load(facts: Arc<dyn StateStore>, config: &BrokerConfig) -> Result<Self, StartError> {
        let quotas = Self {
            configs: SmallFacts::load(facts, SHARD).await?,
            is_active: AtomicBool::new(false),
            connection_rates: RwLock::default(),
            sensors: Mutex::default(),
            windows: config.quota_windows,
            mutation_windows: config.controller_quota_windows,
        };
        quotas.notice().await;
        Ok(quotas)
    }

    pub(crate) fn configs(&self) -> Arc<QuotaConfigs> {
        self.configs.current()
    }

    pub(crate) fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Relaxed)
    }

    pub(crate) async fn change(
        &self,
        decide: impl FnOnce(&QuotaConfigs) -> (QuotaConfigs, Vec<Change>),
    ) -> Result<(), ApiError> {
        let changed = self.configs.change(|configs| Ok(decide(configs))).await;
        self.notice().await;
        changed
    }

    async fn notice(&self) {
        let configs = self.configs.current();
        let mut rates = HashMap::new();
        for (host, rate) in configs.connection_rates() {
            match host {
                None => drop(rates.insert(None, rate)),
                Some(host) => rates.extend(resolved(host).await.into_iter().map(|ip| (Some(ip), rate))),
            }
        }
        *self
            .connection_rates
            .write()
            .unwrap_or_else(PoisonError::into_inner) = rates;
        self.is_active.store(!configs.is_empty(), Ordering::Relaxed);
    }

    /// Counts bytes that were produced; milliseconds to wait.
    pub(crate) fn produced(&self, context: &RequestContext, bytes: usize, now_ms: i64) -> i32 {
        self.recorded(Kind::Produce, context, as_f64(bytes), now_ms)
    }

    /// Counts bytes that are about to be answered. Above the quota they are not answered, and not counted.
    pub(crate) fn fetched(&self, context: &RequestContext, bytes: usize, now_ms: i64) -> i32 {
        let throttle_ms = self.recorded(Kind::Fetch, context, as_f64(bytes), now_ms);
        if throttle_ms > 0 {
            self.recorded(Kind::Fetch, context, -as_f64(bytes), now_ms);
        }
        throttle_ms
    }

    /// The most that one fetch may answer: what the quota allows in all windows but one.
    pub(crate) fn max_fetch_bytes(&self, context: &RequestContext) -> Option<i64> {
        if !self.is_active() {
            return None;
        }
        let (quota, _) = self
            .configs
            .current()
            .find(Kind::Fetch, ANONYMOUS, client_id(context))?;
        let windows =
            f64::from(self.windows.count.saturating_sub(1)) * f64::from(self.windows.size_ms) / 1_000.0;
        #[allow(clippy::cast_possible_truncation)]
        Some((quota * windows) as i64)
    }

    /// Counts time that a request took of a thread, which is percents of it; milliseconds to wait, at most a window.
    pub(crate) fn worked(&self, context: &RequestContext, time: Duration, now_ms: i64) -> i32 {
        let throttle_ms = self.recorded(Kind::Request, context, time.as_secs_f64() * 100.0, now_ms);
        throttle_ms.min(i32::try_from(self.windows.size_ms).unwrap_or(i32::MAX))
    }

    fn recorded(&self, kind: Kind, context: &RequestContext, value: f64, now_ms: i64) -> i32 {
        if !self.is_active() {
            return 0;
        }
        let Some((quota, tags)) = self.configs.current().find(kind, ANONYMOUS, client_id(context)) else {
            return 0;
        };
        self.with_sensor((kind, tags), quota, now_ms, |measure, windows| match measure {
            Measure::Rate(rate) => {
                rate.record(value, windows, now_ms);
                rate.throttle_ms(quota, windows, now_ms)
            }
            Measure::Tokens(_) => 0,
        })
    }

    /// The quota of a request that creates or deletes partitions. A strict one refuses what is above it, for clients that
    /// know that answer; for others it only makes them wait.
    pub(crate) fn mutation(
        &self,
        context: &RequestContext,
        is_strict: bool,
        now_ms: i64,
    ) -> MutationQuota<'_> {
        let configs = self.configs.current();
        MutationQuota {
            quotas: self,
            quota: configs.find(Kind::Mutation, ANONYMOUS, client_id(context)),
            is_strict,
            now_ms,
            throttle_ms: 0,
        }
    }

    /// Counts a new connection of an address; how long to hold one that is too many before it is closed.
    pub(crate) fn connected(&self, ip: IpAddr, now_ms: i64) -> Option<Duration> {
        if !self.is_active() {
            return None;
        }
        let ip = ip.to_canonical();
        let quota = {
            let rates = self
                .connection_rates
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            *rates.get(&Some(ip)).or_else(|| rates.get(&None))?
        };
        let tags = Tags {
            user: ip.to_string(),
            client_id: String::new(),
        };
        let throttle_ms =
            self.with_sensor((Kind::ConnectionRate, tags), quota, now_ms, |measure, windows| {
                let Measure::Rate(rate) = measure else { return 0 };
                rate.record(1.0, windows, now_ms);
                let throttle_ms = rate.throttle_ms(quota, windows, now_ms);
                if throttle_ms > 0 {
                    rate.record(-1.0, windows, now_ms);
                }
                throttle_ms
            });
        let throttle_ms = throttle_ms.min(i32::try_from(self.windows.size_ms).unwrap_or(i32::MAX));
        u64::try_from(throttle_ms)
            .ok()
            .filter(|throttle_ms| *throttle_ms > 0)
            .map(Duration::from_millis)
    }

    fn with_sensor(
        &self,
        key: (Kind, Tags),
        quota: f64,
        now_ms: i64,
        measured: impl FnOnce(&mut Measure, Windows) -> i64,
    ) -> i32 {
        let windows = if key.0 == Kind::Mutation {
            self.mutation_windows
        } else {
            self.windows
        };
        let mut sensors = self.sensors.lock().unwrap_or_else(PoisonError::into_inner);
        if sensors.len() >= MAX_SENSORS && !sensors.contains_key(&key) {
            make_room(&mut sensors, now_ms);
        }
        let sensor = sensors.entry(key.clone()).or_insert_with(|| Sensor {
            measure: match key.0 {
                Kind::Mutation => Measure::Tokens(TokenBucket::new(quota, windows, now_ms)),
                _ => Measure::Rate(Rate::default()),
            },
            used_ms: now_ms,
        });
        sensor.used_ms = now_ms;
        i32::try_from(measured(&mut sensor.measure, windows)).unwrap_or(i32::MAX)
    }
}

/// The addresses of a host, which may be an address itself; none if there is no such host.
pub(crate) async fn resolved(host: &str) -> Vec<IpAddr> {
    match tokio::net::lookup_host((host, 0)).await {
        Ok(addresses) => addresses.map(|address| address.ip().to_canonical()).collect(),
        Err(_) => Vec::new(),
    }
}

/// Forgets what has expired, or what was used longest ago.
fn make_room(sensors: &mut HashMap<(Kind, Tags), Sensor>, now_ms: i64) {
    sensors.retain(|_, sensor| now_ms.saturating_sub(sensor.used_ms) < SENSOR_EXPIRY_MS);
    if sensors.len() >= MAX_SENSORS {
        let oldest = sensors.iter().min_by_key(|(_, sensor)| sensor.used_ms);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            sensors.remove(&key);
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn as_f64(bytes: usize) -> f64 {
    bytes as f64
}

fn client_id(context: &RequestContext) -> &str {
    context.client_id.as_deref().unwrap_or_default()
}

/// The quota of one request that creates or deletes partitions.
#[derive(Debug)]
pub(crate) struct MutationQuota<'a> {
    quotas: &'a Quotas,
    quota: Option<(f64, Tags)>,
    is_strict: bool,
    now_ms: i64,
    throttle_ms: i32,
}

impl MutationQuota<'_> {
    /// Counts partitions.
    ///
    /// # Errors
    /// THROTTLING_QUOTA_EXCEEDED, if the quota is strict and was used up before; then they do not count.
    pub(crate) fn take(&mut self, partitions: usize) -> Result<(), ApiError> {
        let Some((quota, tags)) = &self.quota else {
            return Ok(());
        };
        let (quota, now_ms, is_strict) = (*quota, self.now_ms, self.is_strict);
        let mut refused = false;
        let key = (Kind::Mutation, tags.clone());
        let throttle_ms = self.quotas.with_sensor(key, quota, now_ms, |measure, windows| {
            let Measure::Tokens(bucket) = measure else {
                return 0;
            };
            let before_ms = bucket.throttle_ms(quota, windows, now_ms);
            if is_strict && before_ms > 0 {
                refused = true;
                return before_ms;
            }
            bucket.take(as_f64(partitions));
            if is_strict {
                0
            } else {
                bucket.throttle_ms(quota, windows, now_ms)
            }
        });
        self.throttle_ms = self.throttle_ms.max(throttle_ms);
        if refused {
            return Err(ApiError::new(
                ErrorCode::ThrottlingQuotaExceeded,
                "The throttling quota has been exceeded.",
            ));
        }
        Ok(())
    }

    /// Milliseconds that the client has to wait.
    pub(crate) fn throttle_ms(&self) -> i32 {
        self.throttle_ms
    }
}
