//! Changes that come while another is committed wait, and are committed together
//! then: one batch, one transaction, one revision. Each has its own answer, and
//! what cannot be done of one takes no other down.
//!
//! Delays nothing: where nobody waits, a change is committed at once. Two changes
//! about one thing are never together, since the later one is planned on what the
//! earlier one made. Decides nothing about what may be changed.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::access::{Principal, Scoped};
use crate::config::LimitsConfig;
use crate::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::machina::Applied;
use crate::model::{InstanceId, Revision, ServiceName, ServiceSpec};
use crate::store::Batch;
use crate::view::{Delta, ServiceView, View};
use crate::write::{Mutation, Plan};

/// How many changes are committed together at most, if they are not of one caller.
const CHANGES_MAX: usize = 500;

/// How many callers may wait.
const WAITING_MAX: usize = 10_000;

/// What came of the changes of one caller.
type Outcome = Result<Applied<Arc<ServiceView>>>;

/// Those who wait for their turn to commit.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Writer>,
    last: u64,
}

/// One who waits.
#[derive(Debug)]
struct Writer {
    number: u64,
    principal: Arc<Principal>,
    mutations: Vec<Mutation>,
    answer: oneshot::Sender<Outcome>,
}

/// A place in the line; whoever goes away gives it up.
struct Place<'a> {
    writers: &'a Writers,
    number: u64,
}

/// What one of them asks for, and what it comes to.
struct Planned {
    plan: Plan,
    answer: oneshot::Sender<Outcome>,
}

/// What a change is about.
#[derive(PartialEq, Eq, Hash)]
enum Subject {
    Service(ServiceName),
    Instance(InstanceId),
}

impl Writers {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(
        &self,
        principal: Arc<Principal>,
        mutations: Vec<Mutation>,
    ) -> Result<(Place<'_>, oneshot::Receiver<Outcome>)> {
        let (answer, outcome) = oneshot::channel();
        let mut line = self.line();
        if line.waiting.len() >= WAITING_MAX {
            return Err(Error::overloaded(format!("{WAITING_MAX} changes wait to be committed: try again later")));
        }
        line.last += 1;
        let number = line.last;
        line.waiting.push_back(Writer { number, principal, mutations, answer });
        Ok((Place { writers: self, number }, outcome))
    }

    /// Takes those out of the line that may be committed together: the first, and
    /// those behind it up to one that has to come later.
    fn next(&self, services: usize, limits: &LimitsConfig) -> Vec<Writer> {
        let mut line = self.line();
        let (mut together, mut known) = (Vec::new(), HashSet::new());
        let (mut changes, mut services) = (0, services);
        while let Some(next) = line.waiting.front() {
            changes += next.mutations.len();
            services += next.mutations.iter().filter(|mutation| may_add(mutation)).count();
            let about = subjects(&next.mutations);
            let fits = changes <= CHANGES_MAX && services <= limits.services_max as usize && known.is_disjoint(&about);
            if !together.is_empty() && !fits {
                break;
            }
            known.extend(about);
            together.extend(line.waiting.pop_front());
        }
        together
    }
}

impl Line {
    /// Where the writer of this number stands: each stands behind those who came before.
    fn place(&self, number: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&number, |writer| writer.number).ok()
    }
}

impl Place<'_> {
    fn is_waiting(&self) -> bool {
        self.writers.line().place(self.number).is_some()
    }

    /// Says whether it was still waiting: otherwise it is being committed, or was.
    fn leave(&self) -> bool {
        let mut line = self.writers.line();
        let place = line.place(self.number);
        place.and_then(|place| line.waiting.remove(place)).is_some()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Core {
    /// Commits what `principal` asks for, and what others ask for who wait.
    ///
    /// # Errors
    /// The first mutation that cannot be; whatever the store says.
    pub(crate) async fn commit_together(
        self: &Arc<Self>,
        principal: &Arc<Principal>,
        mutations: Vec<Mutation>,
    ) -> Outcome {
        let arrived = Instant::now();
        let (place, outcome) = self.writers.enter(Arc::clone(principal), mutations)?;
        match self.wait_for_turn().await {
            // Otherwise one before has taken it along.
            Ok(_committing) if place.is_waiting() => {
                self.be_current_since(arrived).await?;
                while place.is_waiting() {
                    self.commit_next().await;
                }
            }
            Err(error) if place.leave() => return Err(error),
            Ok(_) | Err(_) => {}
        }
        outcome.await.unwrap_or_else(|_| Err(Error::unavailable("the registry is closing")))
    }

    /// Commits those who are first in the line, and answers them. The caller holds
    /// `committing`.
    async fn commit_next(self: &Arc<Self>) {
        let before = self.view();
        let next = self.writers.next(before.len(), &self.config.limits);
        let mut parts = vec![next.into_iter().filter_map(|writer| self.planned(&before, writer)).collect::<Vec<_>>()];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let (batch, deltas) = joined(&part);
            let committed = self.commit(&batch, deltas).await;
            drop(batch);
            match committed {
                Ok(revision) => {
                    let view = self.view();
                    part.into_iter().for_each(|planned| planned.applied(revision, &view));
                }
                Err(error) if part.len() > 1 && self.is_refusal(error.kind()) => {
                    let second = part.split_off(part.len() / 2);
                    parts.extend([second, part]);
                }
                Err(error) => {
                    part.into_iter().for_each(|planned| planned.answer(Err(error.clone())));
                    if !self.is_refusal(error.kind()) {
                        let untried = Error::unavailable("the store was not asked, since it failed just before");
                        parts.drain(..).flatten().for_each(|planned| planned.answer(Err(untried.clone())));
                    }
                }
            }
        }
    }

    /// Whether the store has said that it does not take a batch, and it is sure that
    /// nothing has changed: then a part of it may be taken.
    fn is_refusal(&self, kind: ErrorKind) -> bool {
        match kind {
            ErrorKind::Conflict | ErrorKind::Invalid | ErrorKind::Forbidden | ErrorKind::Unsupported => true,
            // One that is far away may have failed after it was done.
            ErrorKind::Internal => !self.is_follower,
            _ => false,
        }
    }

    /// What a writer asks for comes to; nothing where it is answered already.
    fn planned(self: &Arc<Self>, view: &View, writer: Writer) -> Option<Planned> {
        let Writer { principal, mutations, answer, .. } = writer;
        let scoped = Scoped { core: Arc::clone(self), principal };
        match scoped.plan(view, mutations) {
            Ok(plan) if plan.batch.changes.is_empty() => {
                Planned { plan, answer }.applied(view.revision(), view);
                None
            }
            Ok(plan) => Some(Planned { plan, answer }),
            Err(error) => {
                drop(answer.send(Err(error)));
                None
            }
        }
    }
}

impl Planned {
    fn applied(self, revision: Revision, view: &View) {
        let services = self.plan.put.iter().filter_map(|name| view.get(name.as_str()).cloned()).collect();
        self.answer(Ok(Applied { revision, services }));
    }

    /// Whoever asked may be gone.
    fn answer(self, outcome: Outcome) {
        drop(self.answer.send(outcome));
    }
}

/// One batch for all of them.
fn joined(part: &[Planned]) -> (Cow<'_, Batch>, Vec<Delta>) {
    let deltas = part.iter().flat_map(|planned| &planned.plan.deltas).cloned().collect();
    if let [only] = part {
        return (Cow::Borrowed(&only.plan.batch), deltas);
    }
    let mut batch = Batch::default();
    for Batch { preconditions, changes, entries } in part.iter().map(|planned| &planned.plan.batch) {
        batch.preconditions.extend_from_slice(preconditions);
        batch.changes.extend_from_slice(changes);
        batch.entries.extend_from_slice(entries);
    }
    (Cow::Owned(batch), deltas)
}

/// Everything that mutations name: others about any of it have to wait.
fn subjects(mutations: &[Mutation]) -> HashSet<Subject> {
    let of_spec = |spec: &ServiceSpec| {
        let instances = spec.instances.iter().map(|instance| Subject::Instance(instance.id));
        [Subject::Service(spec.name.clone())].into_iter().chain(instances).collect::<Vec<_>>()
    };
    let mut subjects = HashSet::new();
    for mutation in mutations {
        subjects.insert(Subject::Service(mutation.service().clone()));
        if let Mutation::Register(spec) | Mutation::Put(spec) | Mutation::Update { spec, .. } = mutation {
            subjects.extend(of_spec(spec));
        }
    }
    subjects
}

/// Whether there may be one service more after it.
fn may_add(mutation: &Mutation) -> bool {
    matches!(mutation, Mutation::Register(_) | Mutation::Put(_))
}

#[cfg(test)]
#[path = "together_tests.rs"]
mod tests;
