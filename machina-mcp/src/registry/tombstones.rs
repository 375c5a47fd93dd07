//! Services that are gone, kept at hand: the audit trail is read whole once, and
//! afterwards only where it has grown.

use std::collections::BTreeMap;
use std::time::Duration;

use machina_core::{Departed, Result, Revision, Scoped, ServiceName, Timestamp};
use tokio::sync::Mutex;

/// How many are remembered, the latest ones.
const TOMBSTONES_MAX: usize = 10_000;
/// Entries may stand in the trail a little out of order.
const OVERLAP: Duration = Duration::from_secs(60);

/// The memory, which is that of one tenant at a time.
#[derive(Debug, Default)]
pub(super) struct Tombstones(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    tenant: Option<String>,
    /// The revision up to which it is complete.
    revision: Option<Revision>,
    /// The latest entry that was read.
    latest: Option<Timestamp>,
    gone: BTreeMap<ServiceName, Departed>,
}

impl Tombstones {
    /// What is gone, as far as `scoped` may know, names that are taken again included.
    pub(super) async fn of(&self, scoped: &Scoped) -> Result<Vec<Departed>> {
        let mut known = self.0.lock().await;
        let tenant = &scoped.principal().tenant;
        if known.tenant != *tenant {
            *known = Known { tenant: tenant.clone(), ..Known::default() };
        }
        let revision = scoped.revision();
        if known.revision != Some(revision) {
            let since = known.latest.and_then(|latest| latest.checked_sub(OVERLAP).ok());
            let found = scoped.departed(since.unwrap_or(Timestamp::UNIX_EPOCH), TOMBSTONES_MAX).await?;
            known.learn(found);
            known.revision = Some(revision);
        }
        Ok(known.gone.values().cloned().collect())
    }
}

impl Known {
    fn learn(&mut self, found: Vec<Departed>) {
        for departed in found {
            self.latest = self.latest.max(Some(departed.at));
            self.gone.insert(departed.name.clone(), departed);
        }
        let excess = self.gone.len().saturating_sub(TOMBSTONES_MAX);
        if excess > 0 {
            let mut times: Vec<_> = self.gone.values().map(|departed| departed.at).collect();
            times.sort_unstable();
            let oldest = times[excess];
            self.gone.retain(|_, departed| departed.at >= oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machina_core::{Machina, Principal, Role, ServiceSpec};

    #[tokio::test]
    async fn what_went_is_known_at_once_and_to_those_who_saw_it() {
        let machina = Machina::builder().without_monitor().open().await.unwrap();
        let mut spec = ServiceSpec::new("a").unwrap();
        spec.tenant = Some("acme".to_owned());
        machina.register(spec).await.unwrap();
        let tombstones = Tombstones::default();
        let count = async |principal: Principal| tombstones.of(&machina.scoped(principal)).await.unwrap().len();
        let (all, acme) =
            (|| Principal::new("x", Role::Viewer), || Principal::new("x", Role::Viewer).of_tenant("acme"));
        assert_eq!(count(all()).await, 0);
        machina.deregister("a").await.unwrap();
        assert_eq!(count(all()).await, 1);
        assert_eq!(count(acme()).await, 1);
        assert_eq!(count(all().of_tenant("other")).await, 0);
        machina.register(ServiceSpec::new("b").unwrap()).await.unwrap();
        machina.deregister("b").await.unwrap();
        assert_eq!((count(all()).await, count(acme()).await), (2, 1));
    }

    #[test]
    fn the_oldest_make_way() {
        let mut known = Known::default();
        let departed = |number: i64| Departed {
            name: ServiceName::new(&format!("s{number}")).unwrap(),
            version: None,
            at: Timestamp::from_second(number).unwrap(),
        };
        known.learn((0..TOMBSTONES_MAX as i64 + 5).map(departed).collect());
        assert_eq!(known.gone.len(), TOMBSTONES_MAX);
        assert!(!known.gone.contains_key("s4") && known.gone.contains_key("s5"));
    }
}
