//! How many connections there may be: `max.connections`, `max.connections.per.ip` and its
//! overrides, `max.connection.creation.rate`.
//!
//! As in Kafka, a full broker (or one that is asked for connections too fast) leaves new ones
//! waiting in the listener's backlog, and a connection too many from one address is closed at once.
//! All of these can change while the broker runs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use crate::config::BrokerConfig;

/// How often a full broker looks whether `max.connections` was raised.
const LIMIT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The limits in force, as numbers and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConnectionLimits {
    pub(super) max: usize,
    pub(super) per_ip: usize,
    pub(super) overrides: HashMap<IpAddr, usize>,
    /// New connections per second; `None`: no limit.
    pub(super) rate: Option<u32>,
}

impl ConnectionLimits {
    /// From the settings; `descriptors` is what the process can afford.
    pub(super) async fn new(config: &BrokerConfig, descriptors: usize) -> Self {
        let mut overrides = HashMap::new();
        for (host, limit) in &config.max_connections_per_ip_overrides {
            let limit = usize::try_from(*limit).unwrap_or(0);
            match tokio::net::lookup_host((host.as_str(), 0)).await {
                Ok(addresses) => {
                    overrides.extend(addresses.map(|address| (address.ip().to_canonical(), limit)))
                }
                Err(error) => warn!("max.connections.per.ip.overrides: cannot resolve {host}: {error}"),
            }
        }
        let rate = u32::try_from(config.max_connection_creation_rate).unwrap_or(0);
        Self {
            max: usize::try_from(config.max_connections)
                .unwrap_or(0)
                .min(descriptors),
            per_ip: usize::try_from(config.max_connections_per_ip).unwrap_or(0),
            overrides,
            rate: Some(rate).filter(|rate| *rate != i32::MAX.unsigned_abs()),
        }
    }
}

#[derive(Debug)]
struct Counts {
    limits: ConnectionLimits,
    total: usize,
    /// Only addresses with connections have an entry.
    by_ip: HashMap<IpAddr, usize>,
    /// When the rate allows the next connection.
    next_at: Instant,
}

#[derive(Debug)]
pub(super) struct ConnectionQuotas {
    counts: Mutex<Counts>,
    room: Notify,
}

/// The right to accept one connection; dropping it makes room.
#[derive(Debug)]
pub(super) struct Slot(Arc<ConnectionQuotas>);

/// One connection's place; dropping it makes room.
#[derive(Debug)]
pub(super) struct Place {
    slot: Slot,
    ip: IpAddr,
}

impl ConnectionQuotas {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        let counts = Counts {
            limits,
            total: 0,
            by_ip: HashMap::new(),
            next_at: Instant::now(),
        };
        Arc::new(Self {
            counts: Mutex::new(counts),
            room: Notify::new(),
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_limits(&self, limits: ConnectionLimits) {
        self.counts().limits = limits;
        self.room.notify_waiters();
    }

    /// Waits until one more connection may be accepted.
    pub(super) async fn slot(self: &Arc<Self>) -> Slot {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if let Some(slot) = self.try_slot() {
                self.pace().await;
                return slot;
            }
            let _ = tokio::time::timeout(LIMIT_CHECK_INTERVAL, room).await;
        }
    }

    fn try_slot(self: &Arc<Self>) -> Option<Slot> {
        let mut counts = self.counts();
        if counts.total >= counts.limits.max {
            return None;
        }
        counts.total += 1;
        Some(Slot(self.clone()))
    }

    /// Holds the next connection back as far as `max.connection.creation.rate` asks.
    async fn pace(&self) {
        let until = {
            let mut counts = self.counts();
            let Some(rate) = counts.limits.rate else { return };
            let now = Instant::now();
            let until = counts.next_at.max(now);
            counts.next_at = until + Duration::from_secs(1) / rate.max(1);
            until
        };
        tokio::time::sleep_until(until).await;
    }

    /// Whether a connection would have to wait in the backlog now.
    pub(super) fn is_full(&self) -> bool {
        let counts = self.counts();
        counts.total >= counts.limits.max
    }

    /// `max.connections`, or as many as the process has descriptors for.
    pub(super) fn max(&self) -> usize {
        self.counts().limits.max
    }

    /// `Err` is the limit that the address has reached.
    pub(super) fn enter(&self, ip: IpAddr, slot: Slot) -> Result<Place, usize> {
        let ip = ip.to_canonical();
        let entered = {
            let mut counts = self.counts();
            let limit = counts
                .limits
                .overrides
                .get(&ip)
                .copied()
                .unwrap_or(counts.limits.per_ip);
            if counts.by_ip.get(&ip).copied().unwrap_or(0) >= limit {
                Err(limit)
            } else {
                *counts.by_ip.entry(ip).or_insert(0) += 1;
                Ok(())
            }
        };
        entered.map(|()| Place { slot, ip })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.counts().total -= 1;
        self.0.room.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.slot.0.counts();
        if let Some(count) = counts.by_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.by_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max: usize, per_ip: usize) -> ConnectionLimits {
        ConnectionLimits {
            max,
            per_ip,
            overrides: HashMap::new(),
            rate: None,
        }
    }

    #[tokio::test]
    async fn an_address_has_at_most_its_limit_and_gets_room_back() {
        let one: IpAddr = "10.0.0.1".parse().unwrap();
        let other: IpAddr = "10.0.0.2".parse().unwrap();
        let quotas = ConnectionQuotas::new(ConnectionLimits {
            overrides: HashMap::from([(other, 2)]),
            ..limits(10, 1)
        });
        let first = quotas.enter(one, quotas.slot().await).unwrap();
        assert_eq!(quotas.enter(one, quotas.slot().await).err(), Some(1));
        let _a = quotas.enter(other, quotas.slot().await).unwrap();
        let _b = quotas.enter(other, quotas.slot().await).unwrap();
        assert_eq!(quotas.enter(other, quotas.slot().await).err(), Some(2));
        drop(first);
        assert!(quotas.enter(one, quotas.slot().await).is_ok());
    }

    #[tokio::test]
    async fn a_full_broker_has_no_slot_until_a_connection_ends_or_the_limit_grows() {
        let quotas = ConnectionQuotas::new(limits(1, 10));
        let place = quotas.enter("::1".parse().unwrap(), quotas.slot().await).unwrap();
        assert!(quotas.is_full());
        assert!(quotas.try_slot().is_none());
        quotas.set_limits(limits(2, 10));
        let second = quotas.slot().await;
        assert!(quotas.is_full());
        drop(place);
        assert!(!quotas.is_full());
        drop(second);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_come_no_faster_than_the_creation_rate() {
        let quotas = ConnectionQuotas::new(ConnectionLimits {
            rate: Some(10),
            ..limits(100, 100)
        });
        let start = Instant::now();
        let mut slots = Vec::new();
        for _ in 0..11 {
            slots.push(quotas.slot().await);
        }
        assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    }
}
