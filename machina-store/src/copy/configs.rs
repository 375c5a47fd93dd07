//! The history of each service's configuration, for people. Putting a service into
//! the target writes the first row of a history there by itself; it gives way to
//! those of the source.

use std::collections::{HashMap, HashSet};

use machina_core::{Image, Result, ServiceId};
use serde_json::{Value, json};

use super::content::{Sum, Summing};
use super::declared::other_content;
use super::{CopyOptions, CopyPart, CopyProgress, Count};
use crate::Opened;
use crate::configurations::{Configuration, Configurations, History};

/// Of how many services histories are read at once.
const PAGE: u32 = 20;

/// How many rows are written at once, unless one service has more.
const ROWS: usize = 500;

/// What is to be done with the histories.
#[derive(Debug)]
pub(super) struct Histories {
    sum: Sum,
    count: Count,
    unsupported: bool,
}

/// How many rows a history has, and what they are.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    rows: usize,
    sum: Sum,
}

impl Known {
    fn of(service: ServiceId, rows: &[Configuration]) -> Result<Self> {
        let mut summing = Summing::default();
        rows.iter().try_for_each(|one| summing.add(&record(service, one)))?;
        Ok(Self { rows: rows.len(), sum: summing.finish() })
    }

    /// Whether this is how `whole` begins.
    fn is_beginning(&self, whole: &History) -> Result<bool> {
        let Some(rows) = whole.rows.get(..self.rows) else { return Ok(false) };
        Ok(Self::of(whole.service, rows)? == *self)
    }
}

fn record(service: ServiceId, one: &Configuration) -> Value {
    json!({
        "service": service,
        "service_name": one.service_name,
        "required": one.required,
        "build_priority": one.build_priority,
        "enabled": one.enabled,
        "environment_vars": one.environment_vars,
        "config": one.config,
        "updated_by": one.updated_by,
        "updated_at": one.updated_at.as_millisecond(),
    })
}

/// Reads every history, in the order of the services.
async fn each(of: &dyn Configurations, mut work: impl AsyncFnMut(History) -> Result<()>) -> Result<()> {
    let mut after = None;
    loop {
        let page = of.list(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.service);
        for one in page {
            work(one).await?;
        }
    }
}

async fn known(of: &dyn Configurations) -> Result<HashMap<ServiceId, Known>> {
    let mut known = HashMap::new();
    each(of, async |History { service, rows }| {
        known.insert(service, Known::of(service, &rows)?);
        Ok(())
    })
    .await?;
    Ok(known)
}

impl Histories {
    /// Of the services in `kept`, what the target has stays.
    ///
    /// # Errors
    /// [`Conflict`](machina_core::ErrorKind::Conflict) when the target has another
    /// history of a service, and it is not to be replaced.
    pub(super) async fn plan(
        (from, theirs): (&Opened, &Image),
        to: &Opened,
        kept: &HashSet<ServiceId>,
        replace: bool,
    ) -> Result<Self> {
        let mut plan = Self { sum: Summing::default().finish(), count: Count::default(), unsupported: true };
        let (Some(from), Some(to)) = (&from.configurations, &to.configurations) else { return Ok(plan) };
        let mut ours = known(&**to).await?;
        ours.retain(|service, _| kept.contains(service));
        let (mut summing, mut count) = (Summing::default(), Count::default());
        let mut others = Vec::new();
        each(&**from, async |history| {
            history.rows.iter().try_for_each(|one| summing.add(&record(history.service, one)))?;
            count.total += history.rows.len() as u64;
            if let Some(known) = ours.remove(&history.service) {
                if known.is_beginning(&history)? {
                    count.before += known.rows as u64;
                } else {
                    others.push((history.service, known));
                }
            }
            Ok(())
        })
        .await?;
        others.extend(ours);
        // One row is what putting the service there left.
        let in_the_way = others.iter().find(|(_, known)| known.rows > 1).filter(|_| !replace);
        if let Some((id, _)) = in_the_way {
            let service = theirs.services.iter().find(|service| service.id == *id);
            let name = service.map_or_else(|| id.to_string(), |service| service.name().to_string());
            return Err(other_content(&format!("the history of the configuration of service `{name}`")));
        }
        (plan.sum, plan.count, plan.unsupported) = (summing.finish(), count, false);
        Ok(plan)
    }

    pub(super) async fn carry_out(&self, from: &Opened, to: &Opened, options: CopyOptions<'_>) -> Result<()> {
        let (Some(from), Some(to)) = (&from.configurations, &to.configurations) else { return Ok(()) };
        let mut ours = known(&**to).await?;
        let (mut done, total) = (0, self.count.total);
        let (mut pending, mut rows) = (Vec::new(), 0);
        each(&**from, async |history| {
            done += history.rows.len() as u64;
            if ours.remove(&history.service) == Some(Known::of(history.service, &history.rows)?) {
                return Ok(());
            }
            rows += history.rows.len();
            pending.push(history);
            if rows >= ROWS {
                to.replace(&std::mem::take(&mut pending)).await?;
                rows = 0;
                (options.progress)(CopyProgress { part: CopyPart::Configurations, done, total });
            }
            Ok(())
        })
        .await?;
        pending.extend(ours.into_keys().map(|service| History { service, rows: Vec::new() }));
        if !pending.is_empty() {
            to.replace(&pending).await?;
            (options.progress)(CopyProgress { part: CopyPart::Configurations, done, total });
        }
        Ok(())
    }

    pub(super) const fn sum(&self) -> &Sum {
        &self.sum
    }

    /// The sum of the histories of `of`.
    pub(super) async fn sum_of(&self, of: &Opened) -> Result<Sum> {
        let mut summing = Summing::default();
        if let Some(of) = of.configurations.as_ref().filter(|_| !self.unsupported) {
            each(&**of, async |history| {
                history.rows.iter().try_for_each(|one| summing.add(&record(history.service, one)))
            })
            .await?;
        }
        Ok(summing.finish())
    }

    pub(super) const fn count(&self) -> Count {
        self.count
    }

    pub(super) fn left_out(&self) -> Option<String> {
        let what = "the history of configurations: one of the two stores keeps none";
        self.unsupported.then(|| what.to_owned())
    }
}
