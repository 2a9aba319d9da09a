//! The one writer of the `metadata` shard, and every change of topics and configs.
//!
//! A change holds the writer's lock from its decision to its publication. When the fact store fails
//! in the middle it is unknown what is stored; the lease is given up, and the next change acquires
//! the shard again, reads it, and makes the image agree before it does anything itself.

use std::collections::HashSet;
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use milena_coordinator::TopicImage;
use milena_log::{LogError, LogStore, PartitionId};
use milena_protocol::{ErrorCode, Str, Uuid};
use milena_state::{Change, Lease, Shard, StateError, StateStore};
use tokio::sync::MutexGuard;
use tracing::{error, info, warn};

use super::facts::{self, Stored, StoredTopic, TopicFact};
use super::{Image, Overrides, Topic, Topics};
use crate::api_error::ApiError;
use crate::broker::StartError;
use crate::partitions::Partition;
use crate::settings::{BrokerEntity, Settings, as_invalid_request};

#[derive(Debug)]
pub(super) struct Writer {
    /// `None`: it is unknown what is stored, or another holder took the shard.
    lease: Option<Lease>,
}

/// A topic to create. Name, counts and configs have been validated.
#[derive(Debug, Clone)]
pub(crate) struct NewTopic {
    pub(crate) name: Str,
    pub(crate) partitions: i32,
    pub(crate) overrides: Overrides,
}

/// What comes of a log that cannot be opened.
#[derive(Debug, Clone, Copy)]
enum Failure {
    IsReturned,
    /// A broker that would not start for one bad log would take all the others away, too.
    TakesPartitionOffline,
}

/// What starting the shard gives beside the topics.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) topics: Topics,
    pub(crate) cluster_id: Str,
}

async fn acquire(facts: &Arc<dyn StateStore>) -> Result<(Lease, Stored), StartError> {
    let shard = Shard(facts::SHARD.to_owned());
    let lease = facts.acquire(shard.clone()).await?;
    let rows = facts.scan(shard, Bytes::new()).await?;
    let stored = Stored::from_rows(rows).map_err(|bad| StartError::Invalid(bad.to_string()))?;
    Ok((lease, stored))
}

impl Topics {
    /// Takes the shard and the log directories, counts this start, sets strays aside and opens every
    /// partition. One whose log cannot be opened is answered with KAFKA_STORAGE_ERROR.
    pub(crate) async fn load(
        wanted_cluster_id: Option<&str>,
        facts: Arc<dyn StateStore>,
        logs: Arc<dyn LogStore>,
        settings: Arc<Settings>,
    ) -> Result<Loaded, StartError> {
        let (lease, stored) = acquire(&facts).await?;
        refuse_foreign_logs(&logs, &stored)?;
        let starts = stored.starts.saturating_add(1);
        let known = stored.cluster_id.clone();
        let known = known.or_else(|| logs.cluster_id().map(Str::from));
        let cluster_id = choose_cluster_id(wanted_cluster_id, known)?;
        claim(&logs, &cluster_id, settings.current().node_id)?;
        facts
            .commit(
                &lease,
                vec![facts::starts(starts), facts::cluster_id(&cluster_id)],
            )
            .await?;
        settings
            .load(&stored.broker_configs)
            .map_err(|error| StartError::Invalid(error.to_string()))?;
        logs.update_cleaner(settings.current().cleaner.clone());
        logs.update_moves(settings.current().moves.clone());
        logs.update_cordoned(&settings.current().cordoned_log_dirs);
        set_strays_aside(&logs, &stored).await?;
        let rack = settings.current().broker_rack.clone().map(Str::from);
        let image = Image {
            of_groups: Arc::new(TopicImage::new(rack)),
            ..Image::default()
        };
        let topics = Self {
            image: RwLock::new(image),
            writer: tokio::sync::Mutex::new(Writer { lease: Some(lease) }),
            facts,
            logs,
            settings,
            starts,
        };
        for (name, topic) in &stored.topics {
            let topic = topics.open(name, topic, Failure::TakesPartitionOffline).await?;
            topics.write().put(topic);
        }
        Ok(Loaded { topics, cluster_id })
    }

    /// Creates topics, all in one batch of facts; each answer is for the request at its place.
    pub(crate) async fn create(&self, new: Vec<NewTopic>) -> Vec<Result<Arc<Topic>, ApiError>> {
        let count = new.len();
        let mut writer = match self.begin().await {
            Ok(writer) => writer,
            Err(error) => return vec![Err(error); count],
        };
        let mut planned: Vec<Result<StoredTopic, ApiError>> = Vec::with_capacity(count);
        let mut changes = Vec::new();
        for topic in &new {
            let plan = self.may_create(&topic.name).map(|()| StoredTopic {
                id: new_id(),
                partitions: topic.partitions,
                created_at_start: self.starts,
                overrides: topic.overrides.clone(),
            });
            if let Ok(plan) = &plan {
                changes.push(facts::topic(
                    &topic.name,
                    &TopicFact::new(plan.id, plan.partitions, self.starts),
                ));
                changes.extend(facts::topic_configs(
                    &topic.name,
                    &Overrides::new(),
                    &plan.overrides,
                ));
            }
            planned.push(plan);
        }
        if let Err(error) = self.commit(&mut writer, changes).await {
            return planned
                .into_iter()
                .map(|plan| plan.and(Err(error.clone())))
                .collect();
        }
        let mut results = Vec::with_capacity(count);
        for (topic, plan) in new.iter().zip(planned) {
            results.push(match plan {
                Ok(plan) => self.open_created(&mut writer, &topic.name, &plan).await,
                Err(error) => Err(error),
            });
        }
        results
    }

    fn may_create(&self, name: &str) -> Result<(), ApiError> {
        if self.get(name).is_some() {
            return Err(already_exists(name));
        }
        match self.colliding(name) {
            Some(existing) => Err(collides(name, &existing)),
            None => Ok(()),
        }
    }

    /// Opens the logs of a topic whose facts are committed. If that fails the facts are taken back.
    async fn open_created(
        &self,
        writer: &mut MutexGuard<'_, Writer>,
        name: &Str,
        plan: &StoredTopic,
    ) -> Result<Arc<Topic>, ApiError> {
        match self.open(name, plan, Failure::IsReturned).await {
            Ok(topic) => {
                info!(
                    "created topic {name} with {} partitions and id {}",
                    plan.partitions, plan.id
                );
                self.write().put(topic.clone());
                Ok(topic)
            }
            Err(failure) => {
                error!("cannot create the logs of topic {name}: {failure}");
                self.commit(writer, facts::remove_topic(name, &plan.overrides))
                    .await?;
                self.delete_logs(name, plan.id, 0..plan.partitions).await;
                Err(ApiError::new(ErrorCode::KafkaStorageError, failure.to_string()))
            }
        }
    }

    /// Deletes topics by id; ids that are gone meanwhile are answered so.
    pub(crate) async fn delete(&self, ids: &[Uuid]) -> Vec<Result<Arc<Topic>, ApiError>> {
        let mut writer = match self.begin().await {
            Ok(writer) => writer,
            Err(error) => return vec![Err(error); ids.len()],
        };
        let found: Vec<Option<Arc<Topic>>> = ids.iter().map(|id| self.get_by_id(id)).collect();
        let changes = found
            .iter()
            .flatten()
            .flat_map(|topic| facts::remove_topic(&topic.name, &topic.overrides))
            .collect();
        if let Err(error) = self.commit(&mut writer, changes).await {
            return vec![Err(error); ids.len()];
        }
        let mut results = Vec::with_capacity(ids.len());
        for topic in found {
            let Some(topic) = topic else {
                results.push(Err(ApiError::bare(ErrorCode::UnknownTopicId)));
                continue;
            };
            self.unpublish(&topic).await;
            info!("deleted topic {} with id {}", topic.name, topic.id);
            results.push(Ok(topic));
        }
        results
    }

    /// Takes a topic whose facts are gone out of the image and deletes its logs.
    async fn unpublish(&self, topic: &Arc<Topic>) {
        self.write().remove(&topic.name);
        for partition in &topic.partitions {
            partition.mark_deleted();
        }
        self.delete_logs(&topic.name, topic.id, 0..partition_count(topic))
            .await;
    }

    /// A log that cannot be deleted now is a stray that the next start sets aside.
    async fn delete_logs(&self, name: &Str, id: Uuid, partitions: std::ops::Range<i32>) {
        for partition in partitions {
            let id = PartitionId {
                topic: name.clone(),
                topic_id: id,
                partition,
            };
            if let Err(failure) = self.logs.delete(&id).await {
                warn!("cannot delete the log of {id}, the next start sets it aside: {failure}");
            }
        }
    }

    /// Grows a topic to `count` partitions. The caller has checked the request against `topic`; if
    /// another request changed it meanwhile, `check` (given the count as it is now) refuses.
    pub(crate) async fn add_partitions(
        &self,
        name: &str,
        count: i32,
        check: impl FnOnce(&Topic) -> Result<(), ApiError>,
    ) -> Result<Arc<Topic>, ApiError> {
        let mut writer = self.begin().await?;
        let topic = self
            .get(name)
            .ok_or_else(|| ApiError::bare(ErrorCode::UnknownTopicOrPartition))?;
        check(&topic)?;
        let fact = |partitions| {
            vec![facts::topic(
                name,
                &TopicFact::new(topic.id, partitions, topic.created_at_start),
            )]
        };
        self.commit(&mut writer, fact(count)).await?;
        let mut partitions = topic.partitions.clone();
        let before = partition_count(&topic);
        let opened = self
            .open_partitions(
                &topic.name,
                topic.id,
                before..count,
                &topic.overrides,
                topic.leader_epoch,
                Failure::IsReturned,
            )
            .await;
        match opened {
            Ok(added) => partitions.extend(added),
            Err(failure) => {
                error!("cannot create partitions of topic {name}: {failure}");
                self.commit(&mut writer, fact(before)).await?;
                self.delete_logs(&topic.name, topic.id, before..count).await;
                return Err(ApiError::new(ErrorCode::KafkaStorageError, failure.to_string()));
            }
        }
        let grown = Arc::new(Topic {
            partitions,
            ..clone_of(&topic)
        });
        self.write().put(grown.clone());
        info!("topic {name} has {count} partitions now, it had {before}");
        Ok(grown)
    }

    /// Changes a topic's configs to what `change` makes of them (it validates, too). With
    /// `validate_only` nothing is stored.
    pub(crate) async fn alter_topic_configs(
        &self,
        name: &str,
        validate_only: bool,
        change: impl FnOnce(&Overrides) -> Result<Overrides, ApiError>,
    ) -> Result<(), ApiError> {
        let mut writer = self.begin().await?;
        let topic = self
            .get(name)
            .ok_or_else(|| ApiError::bare(ErrorCode::UnknownTopicOrPartition))?;
        let overrides = change(&topic.overrides)?;
        if validate_only || overrides == *topic.overrides {
            return Ok(());
        }
        self.commit(
            &mut writer,
            facts::topic_configs(name, &topic.overrides, &overrides),
        )
        .await?;
        let changed = Arc::new(Topic {
            overrides: Arc::new(overrides),
            ..clone_of(&topic)
        });
        self.write().put(changed.clone());
        self.apply_configs(&changed);
        Ok(())
    }

    /// The same for the configs of this broker, or of all brokers.
    pub(crate) async fn alter_broker_configs(
        &self,
        entity: BrokerEntity,
        validate_only: bool,
        change: impl FnOnce(&Overrides) -> Result<Overrides, ApiError>,
    ) -> Result<(), ApiError> {
        let mut writer = self.begin().await?;
        let old = self.settings.overrides(entity);
        let new = change(&old)?;
        let config = self
            .settings
            .with(entity, new.clone())
            .map_err(|error| as_invalid_request(&error))?;
        if validate_only || new == old {
            return Ok(());
        }
        let name = self.settings.entity_name(entity);
        self.commit(&mut writer, facts::broker_configs(&name, &old, &new))
            .await?;
        self.logs.update_cleaner(config.cleaner.clone());
        self.logs.update_moves(config.moves.clone());
        self.logs.update_cordoned(&config.cordoned_log_dirs);
        self.settings.replace(config);
        for topic in self.list() {
            self.apply_configs(&topic);
        }
        Ok(())
    }

    /// What the topic's configs and the broker's defaults come to reaches its logs.
    fn apply_configs(&self, topic: &Topic) {
        let config = self.settings.log_config(&topic.overrides);
        for partition in &topic.partitions {
            partition.update_config(config.clone());
        }
    }

    async fn open(&self, name: &Str, stored: &StoredTopic, failure: Failure) -> Result<Arc<Topic>, LogError> {
        let leader_epoch = i32::try_from(self.starts.saturating_sub(stored.created_at_start))
            .unwrap_or(i32::MAX)
            .max(0);
        let partitions = self
            .open_partitions(
                name,
                stored.id,
                0..stored.partitions,
                &stored.overrides,
                leader_epoch,
                failure,
            )
            .await?;
        Ok(Arc::new(Topic {
            name: name.clone(),
            id: stored.id,
            partitions,
            overrides: Arc::new(stored.overrides.clone()),
            leader_epoch,
            created_at_start: stored.created_at_start,
        }))
    }

    async fn open_partitions(
        &self,
        name: &Str,
        id: Uuid,
        indexes: std::ops::Range<i32>,
        overrides: &Overrides,
        leader_epoch: i32,
        failure: Failure,
    ) -> Result<Vec<Arc<Partition>>, LogError> {
        let config = self.settings.log_config(overrides);
        let mut partitions = Vec::with_capacity(indexes.len());
        for partition in indexes {
            let id = PartitionId {
                topic: name.clone(),
                topic_id: id,
                partition,
            };
            let opened = Partition::open(&self.logs, id.clone(), config.clone(), leader_epoch).await;
            partitions.push(match (opened, failure) {
                (Err(error), Failure::TakesPartitionOffline) => {
                    error!("the log of {id} cannot be opened, the partition is offline until the next start: {error}");
                    Partition::offline(id, config.clone(), leader_epoch, error)
                }
                (opened, _) => opened?,
            });
            // Opening works on the disk; thousands of partitions must not hold up who else is here.
            tokio::task::yield_now().await;
        }
        Ok(partitions)
    }

    /// The right to change something, with an image that agrees with what is stored.
    async fn begin(&self) -> Result<MutexGuard<'_, Writer>, ApiError> {
        let mut writer = self.writer.lock().await;
        if writer.lease.is_none() {
            let (lease, stored) = acquire(&self.facts).await.map_err(|error| {
                ApiError::new(
                    ErrorCode::KafkaStorageError,
                    format!("the metadata cannot be read: {error}"),
                )
            })?;
            self.reconcile(&stored).await?;
            writer.lease = Some(lease);
        }
        Ok(writer)
    }

    async fn commit(
        &self,
        writer: &mut MutexGuard<'_, Writer>,
        changes: Vec<Change>,
    ) -> Result<(), ApiError> {
        if changes.is_empty() {
            return Ok(());
        }
        let Some(lease) = &writer.lease else {
            return Err(StateError::Unavailable("the metadata has to be read again first".to_owned()).into());
        };
        let committed = self.facts.commit(lease, changes).await;
        if let Err(failure) = &committed {
            error!("a change of metadata failed: {failure}");
            writer.lease = None;
        }
        Ok(committed?)
    }

    /// Makes the image agree with the facts after a failed commit, whatever became of it.
    async fn reconcile(&self, stored: &Stored) -> Result<(), ApiError> {
        for topic in self.list() {
            if stored
                .topics
                .get(&topic.name)
                .is_none_or(|fact| fact.id != topic.id)
            {
                self.unpublish(&topic).await;
            }
        }
        for (name, fact) in &stored.topics {
            let same = self.get(name).is_some_and(|topic| {
                partition_count(&topic) == fact.partitions && *topic.overrides == fact.overrides
            });
            if !same {
                let topic = self.open_again(name, fact).await?;
                self.write().put(topic.clone());
                self.apply_configs(&topic);
            }
        }
        self.settings.load(&stored.broker_configs)?;
        for topic in self.list() {
            self.apply_configs(&topic);
        }
        Ok(())
    }

    /// Opens what is not open of a topic, keeping the partitions that are.
    async fn open_again(&self, name: &Str, fact: &StoredTopic) -> Result<Arc<Topic>, LogError> {
        let Some(topic) = self.get(name) else {
            return self.open(name, fact, Failure::IsReturned).await;
        };
        let mut partitions = topic.partitions.clone();
        let before = partition_count(&topic);
        let added = self
            .open_partitions(
                name,
                fact.id,
                before..fact.partitions,
                &fact.overrides,
                topic.leader_epoch,
                Failure::IsReturned,
            )
            .await?;
        partitions.extend(added);
        Ok(Arc::new(Topic {
            partitions,
            overrides: Arc::new(fact.overrides.clone()),
            ..clone_of(&topic)
        }))
    }
}

fn clone_of(topic: &Topic) -> Topic {
    Topic {
        name: topic.name.clone(),
        id: topic.id,
        partitions: topic.partitions.clone(),
        overrides: topic.overrides.clone(),
        leader_epoch: topic.leader_epoch,
        created_at_start: topic.created_at_start,
    }
}

fn partition_count(topic: &Topic) -> i32 {
    i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)
}

pub(crate) fn already_exists(name: &str) -> ApiError {
    ApiError::new(
        ErrorCode::TopicAlreadyExists,
        format!("Topic '{name}' already exists."),
    )
}

pub(crate) fn collides(name: &str, existing: &str) -> ApiError {
    let sentence = format!("Topic '{name}' collides with existing topic: {existing}");
    ApiError::new(ErrorCode::InvalidTopicException, sentence)
}

/// A random id whose text does not start with a dash, so that tools do not take it for an option.
pub(crate) fn new_id() -> Uuid {
    loop {
        let mut bytes: [u8; 16] = rand::random();
        // RFC 9562: version 4, variant 1, as java.util.UUID.randomUUID makes them.
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let id = Uuid::from_bytes(bytes);
        if !id.to_string().starts_with('-') {
            return id;
        }
    }
}

fn choose_cluster_id(wanted: Option<&str>, stored: Option<Str>) -> Result<Str, StartError> {
    match (wanted, stored) {
        (Some(wanted), Some(stored)) if *stored != *wanted => Err(StartError::Invalid(format!(
            "the cluster id {wanted} does not match the stored one, {stored}: these data belong to another cluster. Set \
             log.dirs to another directory, or leave the cluster id out"
        ))),
        (_, Some(stored)) => Ok(stored),
        (Some(wanted), None) => Ok(Str::from(wanted.to_owned())),
        (None, None) => Ok(Str::from(new_id().to_string())),
    }
}

/// Logs without any facts are somebody's data whose facts were lost, never strays of ours.
fn refuse_foreign_logs(logs: &Arc<dyn LogStore>, stored: &Stored) -> Result<(), StartError> {
    let found = if stored.starts == 0 {
        logs.stored()?.len()
    } else {
        0
    };
    if found == 0 {
        return Ok(());
    }
    Err(StartError::Invalid(format!(
        "the log directories hold {found} partitions, but the metadata that belongs to them is missing: bring the \
         metadata file back, or set log.dirs to an empty directory"
    )))
}

/// The log directories are this node's of this cluster, or are made so.
fn claim(logs: &Arc<dyn LogStore>, cluster_id: &str, node_id: i32) -> Result<(), StartError> {
    logs.claim(cluster_id, node_id).map_err(|error| match error {
        LogError::Storage(sentence) => StartError::Invalid(sentence),
        other => StartError::Log(other),
    })
}

/// A crash between the removal of a topic's facts and of its logs leaves these; so does metadata that
/// is older than the logs. Nobody can tell which it was, so nothing is deleted.
async fn set_strays_aside(logs: &Arc<dyn LogStore>, stored: &Stored) -> Result<(), StartError> {
    let known: HashSet<(Uuid, &str, i32)> = stored
        .topics
        .iter()
        .flat_map(|(name, topic)| (0..topic.partitions).map(move |partition| (topic.id, &**name, partition)))
        .collect();
    for stray in logs.stored()? {
        if !known.contains(&(stray.topic_id, &*stray.topic, stray.partition)) {
            logs.set_aside(&stray).await?;
        }
    }
    Ok(())
}
