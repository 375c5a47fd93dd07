//! Carries the steps out, some at a time. One that this registry does not take
//! does not stop the others: its batch is halved until it stands alone.

use machina_core::{Error, Mutation, Registry, Result};

use super::plan::Step;
use super::{SyncOutcome, Synced};

/// How many changes are sent at once.
const BATCH: usize = 100;

/// What came of each step; with `dry_run`, what would come of it.
pub(super) async fn apply(registry: &dyn Registry, mut steps: Vec<Step>, dry_run: bool) -> Result<Vec<Synced>> {
    steps.sort_by(|a, b| a.synced.server.cmp(&b.synced.server));
    if !dry_run {
        let todo: Vec<_> =
            steps.iter().enumerate().filter_map(|(index, step)| Some((index, step.mutation.clone()?))).collect();
        for batch in todo.chunks(BATCH) {
            for (index, error) in carry_out(registry, batch).await? {
                let why = error.message().to_owned();
                steps[index].synced.outcome = SyncOutcome::Refused { code: error.kind().code(), why };
            }
        }
    }
    Ok(steps.into_iter().map(|step| step.synced).collect())
}

/// The steps that are refused, and why.
///
/// # Errors
/// An error that is about no single service.
async fn carry_out(registry: &dyn Registry, batch: &[(usize, Mutation)]) -> Result<Vec<(usize, Error)>> {
    let mut refused = Vec::new();
    let mut waiting = vec![batch];
    while let Some(batch) = waiting.pop() {
        let mutations = batch.iter().map(|(_, mutation)| mutation.clone()).collect();
        let Err(error) = registry.apply(mutations).await else { continue };
        match batch {
            _ if error.context().service.is_none() => return Err(error),
            [(index, _)] => refused.push((*index, error)),
            _ => {
                let (first, second) = batch.split_at(batch.len() / 2);
                waiting.extend([second, first]);
            }
        }
    }
    Ok(refused)
}
