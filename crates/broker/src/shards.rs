//! One shard of a coordinator: its state machine, its lease on the facts, and the queue between
//! decision and reply.
//!
//! Promises:
//! - a reply leaves, and a task begins, only after the facts of its own decision, and of every decision
//!   before it, are stored; what is read was stored too;
//! - when storing fails, the state in memory is ahead of what is stored: everybody who waits is
//!   told to look for the coordinator again, and the shard is acquired and loaded anew. Until then
//!   requests are answered with COORDINATOR_LOAD_IN_PROGRESS;
//! - timers fire when they are due; nothing polls.
//!
//! What waits here is bounded by the requests in flight, which the connections bound, and by
//! [`MAX_UNSTORED_DECISIONS`].

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use milena_coordinator::{Effects, EndTransaction, LoadError, Reply, Ticket};
use milena_protocol::ErrorCode;
use milena_state::{Change, Lease, Row, Shard as FactShard, StateError, StateStore};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::broker::StartError;
use crate::clock::Clock;
use crate::outcome::BoxFuture;
use crate::stop::Stop;

/// Decisions of one shard whose facts are not stored yet. Beyond it, requests are answered with
/// COORDINATOR_NOT_AVAILABLE, on which clients try again.
const MAX_UNSTORED_DECISIONS: usize = 10_000;
/// The pause before a shard that could not be loaded is tried again; doubled each time.
const FIRST_RELOAD_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_RELOAD_PAUSE: Duration = Duration::from_secs(10);

type Answer = oneshot::Sender<Result<Reply, ErrorCode>>;
/// What is sent when everything decided up to here is stored, or cannot be.
type Release = Box<dyn FnOnce(Result<(), ErrorCode>) + Send>;

/// A decision on its way to being stored.
struct Unstored {
    /// Of the load of the shard that it was made on.
    load: u64,
    /// `None`: nothing to store, only to wait for what is before it.
    commit: Option<milena_state::BoxFuture<'static, Result<(), StateError>>>,
    releases: Vec<Release>,
}

/// A coordinator's pure state machine, of which each shard has one.
pub(crate) trait Machine: Send + 'static {
    /// Takes the place of what it held with what is stored; gives what was left to be done. `epoch` grows
    /// with every load.
    fn load(&mut self, now_ms: i64, epoch: i32, rows: Vec<Row>) -> Result<Effects, LoadError>;
    /// Forgets everything, and answers everybody who waits.
    fn unload(&mut self) -> Effects;
    fn tick(&mut self, now_ms: i64) -> Effects;
    fn next_deadline_ms(&self) -> Option<i64>;
}

/// Takes what is to be done once it is stored that it was decided.
pub(crate) type Tasks = mpsc::UnboundedSender<EndTransaction>;

struct State<M> {
    machine: M,
    /// `None`: the shard is being loaded.
    lease: Option<Lease>,
    /// Counts loads, so that what was decided on an earlier one is known.
    load: u64,
    waiting: HashMap<Ticket, Answer>,
    next_ticket: u64,
    unstored: usize,
    /// When the timer task will wake by itself.
    armed_ms: i64,
    closed: bool,
}

pub(crate) struct Shard<M> {
    name: FactShard,
    facts: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    state: Mutex<State<M>>,
    tasks: Option<Tasks>,
    queue: mpsc::UnboundedSender<Unstored>,
    /// Taken by the task that stores.
    queued: Mutex<Option<mpsc::UnboundedReceiver<Unstored>>>,
    /// The earliest deadline became earlier.
    deadline_moved: Notify,
    /// The queue became empty.
    drained: Notify,
}

impl<M> fmt::Debug for Shard<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<M: Machine> Shard<M> {
    /// `name` is the shard's in the fact store.
    pub(crate) fn new(
        name: String,
        machine: M,
        facts: Arc<dyn StateStore>,
        clock: Arc<dyn Clock>,
        tasks: Option<Tasks>,
    ) -> Arc<Self> {
        let (queue, queued) = mpsc::unbounded_channel();
        Arc::new(Self {
            name: FactShard(name),
            facts,
            clock,
            state: Mutex::new(State {
                machine,
                lease: None,
                load: 0,
                waiting: HashMap::new(),
                next_ticket: 0,
                unstored: 0,
                armed_ms: i64::MAX,
                closed: false,
            }),
            tasks,
            queue,
            queued: Mutex::new(Some(queued)),
            deadline_moved: Notify::new(),
            drained: Notify::new(),
        })
    }

    /// Asks for the shard at once; the future loads it.
    pub(crate) fn start_load(self: &Arc<Self>) -> BoxFuture<Result<(), StartError>> {
        let acquired = self.facts.acquire(self.name.clone());
        let shard = Arc::clone(self);
        Box::pin(async move {
            let lease = acquired.await?;
            let rows = shard.facts.scan(shard.name.clone(), Bytes::new()).await?;
            shard.loaded(lease, rows).map_err(StartError::Invalid)
        })
    }

    fn loaded(&self, lease: Lease, rows: Vec<Row>) -> Result<(), String> {
        let now_ms = self.clock.now_ms();
        let mut state = lock(&self.state);
        let effects = state
            .machine
            .load(now_ms, i32::try_from(lease.epoch).unwrap_or(i32::MAX), rows)
            .map_err(|error| error.to_string())?;
        state.lease = Some(lease);
        self.carry_out(&mut state, effects, None);
        drop(state);
        self.deadline_moved.notify_one();
        Ok(())
    }

    pub(crate) fn start_tasks(self: &Arc<Self>, stop: &Stop) {
        if let Some(queued) = lock(&self.queued).take() {
            tokio::spawn(Arc::clone(self).store(queued));
        }
        let (shard, stopped) = (Arc::clone(self), stop.stopped());
        tokio::spawn(async move {
            tokio::select! {
                () = shard.fire_timers() => {}
                () = stopped => {}
            }
        });
    }

    pub(crate) fn ask(
        self: &Arc<Self>,
        request: impl FnOnce(&mut M, i64, Ticket) -> Effects,
    ) -> BoxFuture<Result<Reply, ErrorCode>> {
        let now_ms = self.clock.now_ms();
        let mut state = lock(&self.state);
        if let Err(error) = state.ready() {
            return Box::pin(async move { Err(error) });
        }
        let ticket = Ticket(state.next_ticket);
        state.next_ticket += 1;
        let (answer, reply) = oneshot::channel();
        state.waiting.insert(ticket, answer);
        let effects = request(&mut state.machine, now_ms, ticket);
        self.carry_out(&mut state, effects, None);
        drop(state);
        Box::pin(async move { reply.await.unwrap_or(Err(ErrorCode::NotCoordinator)) })
    }

    pub(crate) fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&M) -> T,
    ) -> BoxFuture<Result<T, ErrorCode>> {
        let mut state = lock(&self.state);
        if let Err(error) = state.ready() {
            return Box::pin(async move { Err(error) });
        }
        let seen = look(&state.machine);
        if state.unstored == 0 {
            return Box::pin(async move { Ok(seen) });
        }
        let (answer, stored) = oneshot::channel();
        let release: Release = Box::new(move |result| {
            // The reader may be gone.
            let _ = answer.send(result);
        });
        self.carry_out(&mut state, Effects::default(), Some(release));
        drop(state);
        Box::pin(async move {
            match stored.await {
                Ok(Ok(())) => Ok(seen),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(ErrorCode::NotCoordinator),
            }
        })
    }

    /// Has something changed that nobody is answered about; resolves when that is stored.
    pub(crate) fn change(
        &self,
        change: impl FnOnce(&mut M, i64) -> Effects,
    ) -> BoxFuture<Result<(), ErrorCode>> {
        let now_ms = self.clock.now_ms();
        let mut state = lock(&self.state);
        if let Err(error) = state.ready() {
            return Box::pin(async move { Err(error) });
        }
        let effects = change(&mut state.machine, now_ms);
        let (answer, stored) = oneshot::channel();
        let release: Release = Box::new(move |result| {
            let _ = answer.send(result);
        });
        self.carry_out(&mut state, effects, Some(release));
        drop(state);
        Box::pin(async move { stored.await.unwrap_or(Err(ErrorCode::NotCoordinator)) })
    }

    /// Everybody who waits is told to look for another coordinator; what was decided is stored.
    pub(crate) async fn close(&self) {
        {
            let mut state = lock(&self.state);
            state.closed = true;
            // Nothing of it is stored: the next start goes on where this one stands.
            let effects = state.machine.unload();
            self.carry_out(&mut state, effects, None);
            state.lease = None;
        }
        loop {
            let drained = self.drained.notified();
            if lock(&self.state).unstored == 0 {
                return;
            }
            drained.await;
        }
    }

    /// Stores what was decided and sends the replies, or sends them at once when nothing has to be
    /// stored first. Called under the lock, so decisions are stored in their order.
    fn carry_out(&self, state: &mut State<M>, effects: Effects, also: Option<Release>) {
        if state
            .machine
            .next_deadline_ms()
            .is_some_and(|deadline_ms| deadline_ms < state.armed_ms)
        {
            self.deadline_moved.notify_one();
        }
        let Effects {
            facts,
            replies,
            tasks,
        } = effects;
        let answers = replies
            .into_iter()
            .filter_map(|(ticket, reply)| state.waiting.remove(&ticket).map(|answer| (answer, reply)));
        if facts.is_empty() && state.unstored == 0 {
            for (answer, reply) in answers {
                // The client may be gone.
                let _ = answer.send(Ok(reply));
            }
            if let Some(release) = also {
                release(Ok(()));
            }
            self.begin(tasks);
            return;
        }
        let mut releases: Vec<Release> = answers
            .map(|(answer, reply)| {
                let release: Release = Box::new(move |result| {
                    let _ = answer.send(result.map(|()| reply));
                });
                release
            })
            .collect();
        releases.extend(also);
        if let Some(sender) = self.tasks.clone().filter(|_| !tasks.is_empty()) {
            releases.push(Box::new(move |result| {
                if result.is_ok() {
                    for task in tasks {
                        // The broker is stopping; the next start goes on.
                        let _ = sender.send(task);
                    }
                }
            }));
        }
        let commit = match &state.lease {
            Some(lease) if !facts.is_empty() => {
                let changes = facts
                    .into_iter()
                    .map(|fact| Change {
                        key: fact.key,
                        value: fact.value,
                    })
                    .collect();
                Some(self.facts.commit(lease, changes))
            }
            _ => None,
        };
        state.unstored += 1;
        // The receiver lives as long as the shard's task; without it the releases are dropped, and
        // whoever waits sees that.
        let _ = self.queue.send(Unstored {
            load: state.load,
            commit,
            releases,
        });
    }

    fn begin(&self, tasks: Vec<EndTransaction>) {
        if let Some(sender) = &self.tasks {
            for task in tasks {
                let _ = sender.send(task);
            }
        }
    }

    async fn store(self: Arc<Self>, mut queued: mpsc::UnboundedReceiver<Unstored>) {
        while let Some(Unstored {
            load,
            commit,
            releases,
        }) = queued.recv().await
        {
            let stored = match commit {
                Some(commit) => commit.await,
                None => Ok(()),
            };
            let result = {
                let mut state = lock(&self.state);
                state.unstored -= 1;
                match stored {
                    _ if state.load != load => Err(ErrorCode::NotCoordinator),
                    Ok(()) => Ok(()),
                    Err(error) => {
                        tracing::error!(shard = %self.name, %error, "facts could not be stored; loading again");
                        self.give_up(&mut state);
                        Err(ErrorCode::CoordinatorNotAvailable)
                    }
                }
            };
            for release in releases {
                release(result);
            }
            if lock(&self.state).unstored == 0 {
                self.drained.notify_waiters();
            }
        }
    }

    /// Forgets what is in memory, and loads what is stored.
    fn give_up(self: &Arc<Self>, state: &mut State<M>) {
        state.load += 1;
        state.lease = None;
        let _ = state.machine.unload();
        for (_, answer) in state.waiting.drain() {
            let _ = answer.send(Err(ErrorCode::NotCoordinator));
        }
        let shard = Arc::clone(self);
        tokio::spawn(async move {
            let mut pause = FIRST_RELOAD_PAUSE;
            while let Err(error) = shard.start_load().await {
                if lock(&shard.state).closed {
                    return;
                }
                tracing::error!(shard = %shard.name, %error, "the shard could not be loaded; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_RELOAD_PAUSE);
            }
        });
    }

    async fn fire_timers(self: Arc<Self>) {
        loop {
            let moved = self.deadline_moved.notified();
            let deadline_ms = {
                let mut state = lock(&self.state);
                let deadline_ms = state
                    .lease
                    .as_ref()
                    .and_then(|_| state.machine.next_deadline_ms());
                state.armed_ms = deadline_ms.unwrap_or(i64::MAX);
                deadline_ms
            };
            match deadline_ms {
                None => moved.await,
                Some(deadline_ms) => {
                    let left_ms = u64::try_from(deadline_ms.saturating_sub(self.clock.now_ms())).unwrap_or(0);
                    tokio::select! {
                        () = moved => continue,
                        () = tokio::time::sleep(Duration::from_millis(left_ms)) => self.tick(),
                    }
                }
            }
        }
    }

    fn tick(&self) {
        let now_ms = self.clock.now_ms();
        let mut state = lock(&self.state);
        if state.lease.is_none() {
            return;
        }
        let effects = state.machine.tick(now_ms);
        self.carry_out(&mut state, effects, None);
    }
}

impl<M> State<M> {
    fn ready(&self) -> Result<(), ErrorCode> {
        if self.closed {
            Err(ErrorCode::NotCoordinator)
        } else if self.lease.is_none() {
            Err(ErrorCode::CoordinatorLoadInProgress)
        } else if self.unstored >= MAX_UNSTORED_DECISIONS {
            Err(ErrorCode::CoordinatorNotAvailable)
        } else {
            Ok(())
        }
    }
}

/// Which of `shards` shards a name belongs to, for ever: its facts are found there.
pub(crate) fn hash(name: &str, shards: usize) -> usize {
    // FNV-1a, 64 bits.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    usize::try_from(hash % shards as u64).unwrap_or(0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
