//! Transactions and offset commits on plain sockets: what a coordinator's decision costs, without a client's own work.
//!
//! Several clients at once, each with a transactional id or a group of its own, one request at a time. A transaction is one
//! record and its end, as clients of `transaction.version` 2 send them; what is answered with CONCURRENT_TRANSACTIONS is asked
//! again after the pause that Java's producer makes.

use super::clients::Shape;
use super::wire::{Connection, NOT_YET, PAUSE, TIMEOUT};
use super::{Values, sampling};
use crate::differential::{Api, codec};
use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Instant;

const CLIENTS: u64 = 8;
/// Its partitions have no leader yet, its coordinator is not there or still loads, or the transaction before is being ended.
const ASK_AGAIN: [i64; 4] = [14, 15, 16, 51];

/// What each client does, and where.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deed {
    Transactions,
    Commits,
}

impl Deed {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Transactions => "transactions",
            Self::Commits => "commits",
        }
    }
}

/// Shares the shape's records out among the clients.
#[allow(clippy::cast_precision_loss)]
pub(super) fn load(deed: Deed, address: SocketAddr, topic: &str, shape: Shape) -> Result<Values> {
    let apis = crate::differential::apis()?;
    let each = shape.records / CLIENTS;
    let ready: Vec<Client<'_>> = (0..CLIENTS)
        .map(|number| Client::start(&apis, deed, address, topic, number))
        .collect::<Result<_>>()?;
    let begin = Instant::now();
    let times_ms = std::thread::scope(|scope| {
        let running: Vec<_> = ready
            .into_iter()
            .map(|client| scope.spawn(move || client.run(deed, each, shape.size)))
            .collect();
        let ended = running
            .into_iter()
            .map(|thread| thread.join().map_err(|_| Error::new("a client panicked"))?);
        ended.collect::<Result<Vec<_>>>()
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    let mut values = sampling::percentiles(times_ms.concat());
    values.insert("records_per_second", (each * CLIENTS) as f64 / seconds);
    Ok(values)
}

pub(super) const GROUP_COORDINATOR: i8 = 0;

struct Client<'a> {
    asker: Asker<'a>,
    /// The transactional id or the group.
    name: String,
    topic: String,
    partition: u64,
    producer_id: i64,
    producer_epoch: i64,
}

impl<'a> Client<'a> {
    /// Waits until the coordinator is there, and the partition's leader.
    fn start(apis: &'a [Api], deed: Deed, address: SocketAddr, topic: &str, number: u64) -> Result<Self> {
        let mut client = Self {
            asker: Asker::open(apis, address)?,
            name: format!("{topic}-{number}"),
            topic: topic.to_string(),
            partition: number % super::loads::PARTITIONS,
            producer_id: -1,
            producer_epoch: -1,
        };
        let key_type = match deed {
            Deed::Commits => GROUP_COORDINATOR,
            Deed::Transactions => 1,
        };
        client.asker.find_coordinator(key_type, &client.name)?;
        if matches!(deed, Deed::Transactions) {
            let init = json!({"TransactionalId": client.name.as_str(), "TransactionTimeoutMs": 60_000});
            let given = client
                .asker
                .ask("InitProducerId", 4, &init, |answer| answer["ErrorCode"].as_i64())?;
            client.goes_on_as(&given);
        }
        Ok(client)
    }

    fn goes_on_as(&mut self, answer: &Value) {
        self.producer_id = answer["ProducerId"].as_i64().unwrap_or(-1);
        self.producer_epoch = answer["ProducerEpoch"].as_i64().unwrap_or(-1);
    }

    /// Milliseconds of each.
    fn run(mut self, deed: Deed, count: u64, size: u64) -> Result<Vec<f64>> {
        let mut times_ms = Vec::new();
        for number in 0..count {
            let begin = Instant::now();
            match deed {
                Deed::Transactions => self.transaction(size)?,
                Deed::Commits => self.commit(number)?,
            }
            times_ms.push(begin.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(times_ms)
    }

    fn transaction(&mut self, size: u64) -> Result<()> {
        let now_ms = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0));
        let value = "v".repeat(usize::try_from(size).unwrap_or(0));
        let batch = json!({
            "records": [{"value": value}], "attributes": 16, "base_timestamp": now_ms, "max_timestamp": now_ms,
            "producer_id": self.producer_id, "producer_epoch": self.producer_epoch, "base_sequence": 0,
        });
        let produce = json!({
            "TransactionalId": self.name.as_str(), "Acks": -1, "TimeoutMs": 30_000,
            "TopicData": [{"Name": self.topic.as_str(), "PartitionData": [{"Index": self.partition, "Records": [batch]}]}],
        });
        self.asker.ask("Produce", 12, &produce, |answer| {
            answer["Responses"][0]["PartitionResponses"][0]["ErrorCode"].as_i64()
        })?;
        let end = json!({
            "TransactionalId": self.name.as_str(), "ProducerId": self.producer_id,
            "ProducerEpoch": self.producer_epoch, "Committed": true,
        });
        let ended = self
            .asker
            .ask("EndTxn", 5, &end, |answer| answer["ErrorCode"].as_i64())?;
        self.goes_on_as(&ended);
        Ok(())
    }

    fn commit(&mut self, offset: u64) -> Result<()> {
        let commit = json!({
            "GroupId": self.name.as_str(), "GenerationIdOrMemberEpoch": -1, "MemberId": "",
            "Topics": [{"Name": self.topic.as_str(), "Partitions": [
                {"PartitionIndex": self.partition, "CommittedOffset": offset, "CommittedMetadata": ""}]}],
        });
        self.asker.ask("OffsetCommit", 9, &commit, |answer| {
            answer["Topics"][0]["Partitions"][0]["ErrorCode"].as_i64()
        })?;
        Ok(())
    }
}

/// A connection by which requests are sent as the schemas name their fields.
pub(super) struct Asker<'a> {
    apis: &'a [Api],
    connection: Connection,
}

impl<'a> Asker<'a> {
    pub(super) fn open(apis: &'a [Api], address: SocketAddr) -> Result<Self> {
        let connection = Connection::open(address)?;
        Ok(Self { apis, connection })
    }

    /// Waits until there is one.
    pub(super) fn find_coordinator(&mut self, key_type: i8, key: &str) -> Result<()> {
        let find = json!({"KeyType": key_type, "CoordinatorKeys": [key]});
        self.ask("FindCoordinator", 4, &find, |answer| {
            answer["Coordinators"][0]["ErrorCode"].as_i64()
        })?;
        Ok(())
    }

    /// Asks until the answer has no error that goes away by itself.
    pub(super) fn ask(
        &mut self,
        name: &str,
        version: i16,
        request: &Value,
        error: impl Fn(&Value) -> Option<i64>,
    ) -> Result<Value> {
        let begin = Instant::now();
        loop {
            let answer = self.ask_once(name, version, request)?;
            match error(&answer) {
                Some(0) => return Ok(answer),
                Some(code)
                    if (ASK_AGAIN.contains(&code) || NOT_YET.iter().any(|one| i64::from(*one) == code))
                        && begin.elapsed() < TIMEOUT =>
                {
                    std::thread::sleep(PAUSE);
                }
                _ => return Err(Error::new(format!("{name} was answered {answer}"))),
            }
        }
    }

    fn ask_once(&mut self, name: &str, version: i16, request: &Value) -> Result<Value> {
        let api = self
            .apis
            .iter()
            .find(|api| api.name == name)
            .ok_or_else(|| Error::new(format!("there is no API {name}")))?;
        let body = codec::encode(&api.request, version, request)?;
        let flexible = codec::contains(api.request.flexible, version);
        self.connection
            .send_frame(&codec::frame(api.key, version, flexible, 7, &body))?;
        let answer = self.connection.receive()?;
        // A flexible answer's header ends with its tags, of which there are none.
        let body = answer.get(usize::from(flexible)..).unwrap_or_default();
        codec::decode(&api.response, version, body).map_err(Error::new)
    }
}
