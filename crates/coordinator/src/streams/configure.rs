//! A topology beside the topics that there are: whether everything is there that it reads, how many partitions its
//! internal topics have to have, and how many tasks follow.
//!
//! Repartition topics have the partitions that the topology fixes, else as many as the subtopology that writes them has;
//! topics that are joined must have equally many; changelogs have as many as their subtopology has tasks.

use std::collections::{BTreeMap, BTreeSet};

use milena_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use milena_protocol::stored::streams_group_topology_value::{CopartitionGroup, Subtopology, TopicInfo};
use milena_protocol::{ErrorCode, Str};

use super::topology::{Topology, sources, unusable};
use crate::limits::MAX_TASKS_PER_GROUP;
use crate::modern::Refusal;
use crate::topics::TopicImage;

/// The states of a group that a heartbeat tells beside its answer (`Status` of StreamsGroupHeartbeat).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatusCode {
    StaleTopology = 0,
    MissingSourceTopics = 1,
    IncorrectlyPartitionedTopics = 2,
    MissingInternalTopics = 3,
    ShutdownApplication = 4,
    AssignmentDelayed = 5,
}

/// Why no task can be given yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) detail: String,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Configured {
    /// How many tasks each subtopology has; `None` where that is not known for a problem.
    pub(super) tasks: Option<BTreeMap<Str, i32>>,
    /// The partitions of internal topics.
    pub(super) partitions: BTreeMap<Str, i32>,
    /// The internal topics that are not there.
    pub(super) missing: Vec<CreatableTopic>,
    pub(super) problem: Option<Problem>,
}

impl Configured {
    pub(super) fn is_ready(&self) -> bool {
        self.problem.is_none()
    }
}

/// Either the topology is one that cannot be run at all, or there is an obstacle that may pass.
enum Failure {
    Refused(Refusal),
    Hindered(Problem),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn incorrectly_partitioned(detail: String) -> Failure {
    Failure::Hindered(Problem {
        status: StatusCode::IncorrectlyPartitionedTopics,
        detail,
    })
}

fn invalid(sentence: impl Into<String>) -> Failure {
    Failure::Refused(Refusal::new(ErrorCode::StreamsInvalidTopology, sentence))
}

pub(super) fn configure(topology: &Topology, topics: &TopicImage) -> Result<Configured, Refusal> {
    match try_configure(topology, topics) {
        Ok(configured) => Ok(configured),
        Err(Failure::Refused(refusal)) => Err(refusal),
        Err(Failure::Hindered(problem)) => Ok(Configured {
            problem: Some(problem),
            ..Configured::default()
        }),
    }
}

fn try_configure(topology: &Topology, topics: &TopicImage) -> Result<Configured, Failure> {
    let groups = copartition_groups(topology)?;
    let source_topics = topology.subtopologies().iter().flat_map(|one| &one.source_topics);
    let missing: BTreeSet<&Str> = source_topics.filter(|name| topics.get(name).is_none()).collect();
    if !missing.is_empty() {
        return Err(Failure::Hindered(Problem {
            status: StatusCode::MissingSourceTopics,
            detail: format!("Source topics {} are missing.", summary(missing)),
        }));
    }
    let mut counts = Counts {
        topics,
        decided: repartition_counts(topology, topics)?,
    };
    for group in &groups {
        counts.enforce(topology, group)?;
    }
    let mut tasks = BTreeMap::new();
    for subtopology in topology.subtopologies() {
        let count = counts.most(subtopology)?;
        tasks.insert(subtopology.subtopology_id.clone(), count);
        for changelog in &subtopology.state_changelog_topics {
            counts.decided.insert(changelog.name.clone(), count);
        }
    }
    let all: i64 = tasks.values().map(|count| i64::from(*count)).sum();
    let missing = counts.missing(topology)?;
    if missing.is_empty() && all > MAX_TASKS_PER_GROUP {
        return Err(invalid(format!(
            "The topology has more than {MAX_TASKS_PER_GROUP} tasks."
        )));
    }
    let problem = (!missing.is_empty()).then(|| Problem {
        status: StatusCode::MissingInternalTopics,
        detail: format!(
            "Internal topics are missing: {}",
            summary(missing.iter().map(|topic| &topic.name).collect())
        ),
    });
    Ok(Configured {
        tasks: Some(tasks),
        partitions: counts.decided,
        missing,
        problem,
    })
}

/// At most three names, and how many there are besides.
fn summary(names: BTreeSet<&Str>) -> String {
    const MOST: usize = 3;
    let shown: Vec<&str> = names.iter().take(MOST).map(|name| &***name).collect();
    let more = match names.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {more} additional topics"),
    };
    format!("{}{more}", shown.join(", "))
}

/// Topics whose partitions have to be equally many.
fn copartition_groups(topology: &Topology) -> Result<Vec<BTreeSet<Str>>, Failure> {
    let subtopologies = topology.subtopologies().iter();
    subtopologies
        .flat_map(|subtopology| {
            let groups = subtopology.copartition_groups.iter();
            groups.map(|group| copartition_group(subtopology, group))
        })
        .collect()
}

fn copartition_group(subtopology: &Subtopology, group: &CopartitionGroup) -> Result<BTreeSet<Str>, Failure> {
    let at = |index: &i16| usize::try_from(*index).ok();
    let source = |index: &i16| subtopology.source_topics.get(at(index)?).cloned();
    let repartition = |index: &i16| {
        let topic = subtopology.repartition_source_topics.get(at(index)?)?;
        Some(topic.name.clone())
    };
    let sources = group.source_topics.iter().map(source);
    let all = sources.chain(group.repartition_source_topics.iter().map(repartition));
    let all: Option<BTreeSet<Str>> = all.collect();
    all.ok_or_else(|| {
        unusable(format!(
            "A copartition group of subtopology {} names a topic that is not there.",
            subtopology.subtopology_id
        ))
        .into()
    })
}

/// How many partitions repartition topics have by what is written to them.
fn repartition_counts(topology: &Topology, topics: &TopicImage) -> Result<BTreeMap<Str, i32>, Failure> {
    let subtopologies = topology.subtopologies();
    let mut counts: BTreeMap<Str, i32> = BTreeMap::new();
    for topic in subtopologies
        .iter()
        .flat_map(|one| &one.repartition_source_topics)
    {
        if topic.partitions < 0 {
            return Err(unusable("Number of partitions must be at least 1.").into());
        }
        if topic.partitions != 0 {
            counts.insert(topic.name.clone(), topic.partitions);
        }
    }
    // A subtopology may read what another one writes, so that its count is known only after that one's.
    loop {
        let (mut waits, mut moves) = (false, false);
        for subtopology in subtopologies {
            for sink in &subtopology.repartition_sink_topics {
                if counts.contains_key(sink) {
                    continue;
                }
                match count_of_writer(subtopology, &counts, topics) {
                    Some(count) => {
                        counts.insert(sink.clone(), count);
                        moves = true;
                    }
                    None => waits = true,
                }
            }
        }
        if !waits {
            break;
        }
        if !moves {
            return Err(invalid(
                "Failed to compute number of partitions for all repartition topics. There may be loops in the topology \
                 that cannot be resolved.",
            ));
        }
    }
    let mut sources = subtopologies
        .iter()
        .flat_map(|one| &one.repartition_source_topics);
    if sources.any(|topic| !counts.contains_key(&topic.name)) {
        return Err(invalid(
            "Failed to compute number of partitions for all repartition topics, because a repartition source topic is \
             never used as a sink topic.",
        ));
    }
    Ok(counts)
}

/// As many as the largest topic that it reads and that is known by now.
fn count_of_writer(
    subtopology: &Subtopology,
    counts: &BTreeMap<Str, i32>,
    topics: &TopicImage,
) -> Option<i32> {
    let repartition = subtopology.repartition_source_topics.iter();
    let repartition = repartition.filter_map(|topic| counts.get(&topic.name).copied());
    let sources = subtopology.source_topics.iter();
    let sources = sources.filter_map(|name| topics.get(name).map(|topic| topic.partitions));
    repartition.chain(sources).max()
}

/// The partitions of topics: as they are where they are there, else as decided.
struct Counts<'a> {
    topics: &'a TopicImage,
    decided: BTreeMap<Str, i32>,
}

impl Counts<'_> {
    fn of(&self, name: &Str) -> Result<i32, Failure> {
        let existing = self.topics.get(name).map(|topic| topic.partitions);
        let count = existing.or_else(|| self.decided.get(name).copied());
        count.ok_or_else(|| unusable(format!("Number of partitions is not set for topic: {name}")).into())
    }

    /// Of the largest topic that a subtopology reads.
    fn most(&self, subtopology: &Subtopology) -> Result<i32, Failure> {
        let mut most = None;
        for name in sources(subtopology) {
            most = most.max(Some(self.of(name)?));
        }
        most.ok_or_else(|| {
            invalid(format!(
                "No source topics found for subtopology {}",
                subtopology.subtopology_id
            ))
        })
    }

    /// Gives the repartition topics among topics that are joined the same number of partitions.
    fn enforce(&mut self, topology: &Topology, group: &BTreeSet<Str>) -> Result<(), Failure> {
        if group.is_empty() {
            return Ok(());
        }
        let all = topology.subtopologies().iter();
        let all = || all.clone().flat_map(|one| &one.repartition_source_topics);
        let fixed: BTreeSet<&Str> = all()
            .filter(|topic| topic.partitions != 0)
            .map(|topic| &topic.name)
            .collect();
        let flexible: BTreeSet<&Str> = all()
            .filter(|topic| topic.partitions == 0)
            .map(|topic| &topic.name)
            .collect();
        let (mut repartition, mut external) = (BTreeMap::new(), BTreeMap::new());
        for name in group {
            let is_repartition = fixed.contains(name) || flexible.contains(name);
            let to = if is_repartition {
                &mut repartition
            } else {
                &mut external
            };
            to.insert(name.clone(), self.of(name)?);
        }
        let count = if !external.is_empty() {
            same_count(&external, &external)?
        } else if fixed.is_empty() {
            repartition.values().copied().max().unwrap_or(0)
        } else {
            let mut of_fixed = BTreeMap::new();
            for name in &fixed {
                of_fixed.insert((*name).clone(), self.of(name)?);
            }
            same_count(&of_fixed, &repartition)?
        };
        for (name, has) in &repartition {
            if fixed.contains(name) && *has != count {
                return Err(incorrectly_partitioned(format!(
                    "Number of partitions [{has}] of repartition topic [{name}] doesn't match number of partitions \
                     [{count}] of the source topic."
                )));
            }
        }
        let decided = repartition.into_keys().map(|name| (name, count));
        self.decided.extend(decided);
        Ok(())
    }

    /// The internal topics that are not there; those that are have to be as large as decided.
    fn missing(&self, topology: &Topology) -> Result<Vec<CreatableTopic>, Failure> {
        let mut expected: BTreeMap<&Str, CreatableTopic> = BTreeMap::new();
        for subtopology in topology.subtopologies() {
            let internal = subtopology.repartition_source_topics.iter();
            for topic in internal.chain(&subtopology.state_changelog_topics) {
                let partitions = match topic.partitions {
                    0 => self.decided.get(&topic.name).copied().unwrap_or(0),
                    fixed => fixed,
                };
                expected.insert(&topic.name, creatable(topic, partitions));
            }
        }
        let mut missing = Vec::new();
        for (name, topic) in expected {
            match self.topics.get(name) {
                None => missing.push(topic),
                Some(existing) if existing.partitions != topic.num_partitions => {
                    return Err(incorrectly_partitioned(format!(
                        "Existing topic {name} has different number of partitions: expected {}, found {}",
                        topic.num_partitions, existing.partitions
                    )));
                }
                Some(_) => {}
            }
        }
        Ok(missing)
    }
}

/// The count that all have.
fn same_count(counts: &BTreeMap<Str, i32>, to_tell: &BTreeMap<Str, i32>) -> Result<i32, Failure> {
    let mut all = counts.values().copied();
    let first = all.next().unwrap_or(0);
    if all.all(|count| count == first) {
        return Ok(first);
    }
    let told: Vec<String> = to_tell
        .iter()
        .map(|(name, count)| format!("{name}={count}"))
        .collect();
    Err(incorrectly_partitioned(format!(
        "Following topics do not have the same number of partitions: [{{{}}}]",
        told.join(", ")
    )))
}

fn creatable(topic: &TopicInfo, partitions: i32) -> CreatableTopic {
    let configs: BTreeMap<&Str, &Str> = topic
        .topic_configs
        .iter()
        .map(|config| (&config.key, &config.value))
        .collect();
    let configs = configs.into_iter().map(|(name, value)| CreatableTopicConfig {
        name: name.clone(),
        value: Some(value.clone()),
        ..CreatableTopicConfig::default()
    });
    CreatableTopic {
        name: topic.name.clone(),
        num_partitions: partitions,
        replication_factor: match topic.replication_factor {
            0 => -1,
            factor => factor,
        },
        configs: configs.collect(),
        ..CreatableTopic::default()
    }
}
