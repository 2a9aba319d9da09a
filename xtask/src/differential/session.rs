//! One broker that is asked: connections, steps before the asked request, variables, and what counts as an answer.

use super::cases::{Api, Case, Step, own_name};
use super::codec::{contains, decode, encode, frame, from_hex};
use super::mask;
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a broker may think before it counts as silent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a broker may take until its coordinators are there, or a topic that it has created.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a broker may answer that it is busy with the request before.
const BUSY_TIMEOUT: Duration = Duration::from_secs(3);
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// CONCURRENT_TRANSACTIONS: ask again.
const BUSY: &[i64] = &[51];
/// COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR: a broker that has just started.
const STARTING: &[i64] = &[14, 15, 16, 51];
/// Larger answers than any that a case asks for.
const MAX_ANSWER_BYTES: usize = 16 << 20;
const API_VERSIONS: i16 = 18;

#[derive(Debug)]
pub(super) struct Session<'a> {
    apis: &'a [Api],
    address: SocketAddr,
    connection: Option<TcpStream>,
    correlation_id: i32,
    /// The cluster's id, when it is known.
    cluster: Option<Value>,
}

enum Answer {
    Bytes(Vec<u8>),
    /// The broker has closed the connection, or has answered the next request only, or nothing at all.
    None(&'static str),
}

impl<'a> Session<'a> {
    pub(super) fn new(apis: &'a [Api], address: SocketAddr) -> Self {
        Self {
            apis,
            address,
            connection: None,
            correlation_id: 0,
            cluster: None,
        }
    }

    /// Makes the broker ready for coordinators, so that no case meets a start that is still going on.
    pub(super) fn warm_up(&mut self) -> Result<()> {
        let mut variables = Map::new();
        let mut requests = vec![
            (
                "JoinGroup",
                json!({"GroupId": "warm-up", "SessionTimeoutMs": 10000, "ProtocolType": "consumer",
                    "Protocols": [{"Name": "range"}]}),
            ),
            (
                "InitProducerId",
                json!({"TransactionalId": null, "TransactionTimeoutMs": 1000}),
            ),
        ];
        if self.advertised()?.iter().any(|(key, ..)| *key == 24) {
            requests.push((
                "InitProducerId",
                json!({"TransactionalId": "warm-up", "TransactionTimeoutMs": 1000}),
            ));
        }
        for kind in [0, 1] {
            let request = json!({"KeyType": kind, "CoordinatorKeys": ["warm-up"]});
            requests.insert(0, ("FindCoordinator", request));
        }
        for (api, request) in requests {
            let step = Step {
                api: api.to_string(),
                request,
                ..Step::default()
            };
            let deadline = Instant::now() + START_TIMEOUT;
            loop {
                let answer = self.step(&step, &mut variables)?;
                if !has_code(&answer, STARTING) {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(Error::new(format!("the broker does not become ready: {answer}")));
                }
                std::thread::sleep(BUSY_PAUSE);
            }
        }
        Ok(())
    }

    /// What the broker says it has: key, lowest and highest version.
    pub(super) fn advertised(&mut self) -> Result<Vec<(i64, i64, i64)>> {
        let step = Step {
            api: "ApiVersions".to_string(),
            version: Some(3),
            request: json!({"ClientSoftwareName": "differential", "ClientSoftwareVersion": "1"}),
            ..Step::default()
        };
        let answer = self.step(&step, &mut Map::new())?;
        let keys = answer["ApiKeys"].as_array().cloned().unwrap_or_default();
        let number = |one: &Value, field: &str| one[field].as_i64().unwrap_or(-1);
        Ok(keys
            .iter()
            .map(|one| {
                (
                    number(one, "ApiKey"),
                    number(one, "MinVersion"),
                    number(one, "MaxVersion"),
                )
            })
            .collect())
    }

    /// What the broker answers to a case in one version, without what no two brokers have in common.
    pub(super) fn run(&mut self, api: &Api, case: &Case, version: i16) -> Result<Value> {
        self.connection = None;
        let me = own_name(api, case, version);
        let mut variables = Map::new();
        variables.insert("me".into(), Value::from(me.clone()));
        variables.insert("cluster".into(), self.cluster()?);
        for topic in &case.topics {
            self.create_topic(topic, &mut variables)?;
        }
        for step in &case.steps {
            let answer = self.step(step, &mut variables)?;
            if !answer.is_object() {
                return Ok(Value::from(format!("{} before it: {answer}", step.api)));
            }
        }
        let mut asked = case.asked.clone();
        asked.version = Some(version);
        let answer = self.step(&asked, &mut variables)?;
        Ok(mask::masked(
            answer,
            self.address,
            &variables,
            case.only_mine.then_some(&me),
        ))
    }

    fn cluster(&mut self) -> Result<Value> {
        if let Some(id) = &self.cluster {
            return Ok(id.clone());
        }
        let describe = Step {
            api: "DescribeCluster".to_string(),
            request: json!({}),
            ..Step::default()
        };
        let id = self.step(&describe, &mut Map::new())?["ClusterId"].clone();
        Ok(self.cluster.insert(id).clone())
    }

    /// Creates a topic, waits until it can be used and keeps its id as `id` or `id:NAME`.
    fn create_topic(&mut self, topic: &Value, variables: &mut Map<String, Value>) -> Result<()> {
        let name = if topic.is_string() { topic } else { &topic["name"] };
        let partitions = topic["partitions"].as_i64().unwrap_or(1);
        let configs = topic["configs"].as_array().cloned().unwrap_or_default();
        let id = match name.as_str() {
            Some("{me}") => "id".to_string(),
            other => format!("id:{}", other.unwrap_or_default()),
        };
        let create = Step {
            api: "CreateTopics".to_string(),
            request: json!({"timeoutMs": 10000, "Topics": [
                {"Name": name, "NumPartitions": partitions, "ReplicationFactor": 1, "Configs": configs}]}),
            capture: Map::from_iter([(id, Value::from("Topics.0.TopicId"))]),
            ..Step::default()
        };
        let answer = self.step(&create, variables)?;
        if answer["Topics"][0]["ErrorCode"] != 0 {
            return Err(Error::new(format!(
                "the topic {name} cannot be created: {answer}"
            )));
        }
        // Kafka's brokers hear of a topic later than its creator, and lead its partitions later still.
        let of_partition = |index| json!({"PartitionIndex": index, "Timestamp": -1});
        let all: Vec<Value> = (0..partitions).map(of_partition).collect();
        let led = (0..partitions).map(|index| {
            let path = format!("Topics.0.Partitions.{index}.ErrorCode");
            (path, Value::from(0))
        });
        let ask = Step {
            api: "ListOffsets".to_string(),
            request: json!({"ReplicaId": -1, "Topics": [{"Name": name, "Partitions": all}]}),
            until: led.collect(),
            ..Step::default()
        };
        self.step(&ask, variables)?;
        let known = Step {
            api: "Metadata".to_string(),
            request: json!({"Topics": [{"Name": name}]}),
            until: Map::from_iter([("Topics.0.ErrorCode".to_string(), Value::from(0))]),
            ..Step::default()
        };
        self.step(&known, variables).map(|_| ())
    }

    /// Asks once, and again while the broker says that it is busy.
    fn step(&mut self, step: &Step, variables: &mut Map<String, Value>) -> Result<Value> {
        let api = self
            .apis
            .iter()
            .find(|api| api.name == step.api)
            .ok_or_else(|| Error::new(format!("there is no API {}", step.api)))?;
        let version = step.version.unwrap_or(api.versions.max);
        let request = filled_in(&step.request, variables)?;
        let mut body = encode(&api.request, version, &request)?;
        if let Some(bytes) = &step.mangle.body {
            body = from_hex(bytes)?;
        }
        body.truncate(body.len().saturating_sub(step.mangle.cut));
        if let Some(bytes) = &step.mangle.append {
            body.extend(from_hex(bytes)?);
        }
        let begin = Instant::now();
        let deadline = begin + BUSY_TIMEOUT;
        loop {
            let answer = match self.ask(api, version, step.mangle.version_offset, &body)? {
                Answer::None(why) => {
                    self.connection = None;
                    Value::from(why)
                }
                Answer::Bytes(bytes) => understood(api, version, &bytes),
            };
            if has_code(&answer, BUSY) && Instant::now() < deadline {
                std::thread::sleep(BUSY_PAUSE);
                continue;
            }
            let is_as_wanted = |(path, wanted): (&String, &Value)| at_path(&answer, path) == wanted;
            if !step.until.iter().all(is_as_wanted) {
                if begin.elapsed() > START_TIMEOUT {
                    return Err(Error::new(format!("{}: never as wanted, but {answer}", step.api)));
                }
                std::thread::sleep(BUSY_PAUSE);
                continue;
            }
            for (name, path) in &step.capture {
                let found = at_path(&answer, path.as_str().unwrap_or_default());
                variables.insert(name.clone(), found.clone());
            }
            return Ok(answer);
        }
    }

    /// Sends a request and, behind it, ApiVersions: whichever is answered first tells whether the request has an answer.
    fn ask(&mut self, api: &Api, version: i16, version_offset: i16, body: &[u8]) -> Result<Answer> {
        let own = self.correlation_id + 1;
        let probe = own + 1;
        self.correlation_id = probe;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT)?;
                connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
                connection.set_nodelay(true)?;
                connection
            }
        };
        let flexible = contains(api.request.flexible, version);
        let mut out = Vec::new();
        for frame in [
            frame(api.key, version + version_offset, flexible, own, body),
            frame(API_VERSIONS, 0, false, probe, &[]),
        ] {
            out.extend((frame.len() as u32).to_be_bytes());
            out.extend(frame);
        }
        // A broker that has closed shows so when it is read from.
        let _ = connection.write_all(&out);
        let first = match read_frame(&mut connection) {
            Ok(frame) => frame,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(Answer::None("silent"));
            }
            Err(_) => return Ok(Answer::None("closed")),
        };
        let (id, rest) = first.split_at_checked(4).unwrap_or_default();
        if id == probe.to_be_bytes() {
            self.connection = Some(connection);
            return Ok(Answer::None("no answer"));
        }
        if id != own.to_be_bytes() {
            return Ok(Answer::None("an answer to something else"));
        }
        // The probe's answer must not be taken for the next one's; a broker may also close instead.
        if read_frame(&mut connection).is_ok() {
            self.connection = Some(connection);
        }
        Ok(Answer::Bytes(rest.to_vec()))
    }
}

fn read_frame(connection: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0u8; 4];
    connection.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_ANSWER_BYTES {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut frame = vec![0u8; length];
    connection.read_exact(&mut frame)?;
    Ok(frame)
}

/// The answer without the rest of its header. ApiVersions is answered in version 0 where its version is unknown, and
/// always with the first form of the header.
fn understood(api: &Api, version: i16, bytes: &[u8]) -> Value {
    let mut body = bytes;
    if contains(api.response.flexible, version) && api.key != API_VERSIONS {
        match bytes.split_first() {
            Some((0, rest)) => body = rest,
            _ => return Value::from("an answer whose header has tags"),
        }
    }
    let unsupported = api.key == API_VERSIONS && body.starts_with(&35i16.to_be_bytes());
    decode(&api.response, if unsupported { 0 } else { version }, body)
        .unwrap_or_else(|why| Value::from(format!("undecodable: {why}")))
}

fn has_code(answer: &Value, codes: &[i64]) -> bool {
    match answer {
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            let code = value.as_i64().filter(|_| name == "ErrorCode");
            code.is_some_and(|code| codes.contains(&code)) || has_code(value, codes)
        }),
        Value::Array(elements) => elements.iter().any(|one| has_code(one, codes)),
        _ => false,
    }
}

fn at_path<'v>(value: &'v Value, path: &str) -> &'v Value {
    path.split('.')
        .fold(value, |value, key| match key.parse::<usize>() {
            Ok(index) => &value[index],
            Err(_) => &value[key],
        })
}

/// Puts variables in the place of `{name}`; a text that is nothing else becomes the value itself, a number for example.
fn filled_in(value: &Value, variables: &Map<String, Value>) -> Result<Value> {
    Ok(match value {
        Value::String(text) => {
            let whole = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            if let Some(found) = whole.and_then(|name| variables.get(name)) {
                return Ok(found.clone());
            }
            let mut text = text.clone();
            for (name, value) in variables {
                let shown = value.as_str().map_or_else(|| value.to_string(), str::to_string);
                text = text.replace(&format!("{{{name}}}"), &shown);
            }
            if text.starts_with('{') && text.ends_with('}') && !text.contains('"') {
                return Err(Error::new(format!("nothing is known as {text}")));
            }
            Value::String(text)
        }
        Value::Array(elements) => Value::Array(
            elements
                .iter()
                .map(|one| filled_in(one, variables))
                .collect::<Result<_>>()?,
        ),
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, value)| Ok((name.clone(), filled_in(value, variables)?)))
                .collect::<Result<_>>()?,
        ),
        other => other.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_keeps_its_type_and_an_unknown_one_is_refused() {
        let variables = Map::from_iter([("pid".to_string(), json!(7)), ("me".to_string(), json!("x"))]);
        let value = json!({"ProducerId": "{pid}", "Name": "{me}-a"});
        assert_eq!(
            filled_in(&value, &variables).unwrap(),
            json!({"ProducerId": 7, "Name": "x-a"})
        );
        assert!(filled_in(&json!("{other}"), &variables).is_err());
    }

    #[test]
    fn a_path_leads_through_lists() {
        assert_eq!(at_path(&json!({"a": [1, {"b": 2}]}), "a.1.b"), &json!(2));
    }
}
