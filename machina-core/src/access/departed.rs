//! Services that are gone, for whoever keeps a copy of the registry: what of the
//! audit trail everyone may know who could see the services themselves. Says
//! which and when, and never who removed them or why.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::scoped::Scoped;
use crate::error::Result;
use crate::model::ServiceName;
use crate::store::{EntryKind, JournalQuery, What};

/// How many entries of the audit trail one look reads at most: as many as it has
/// unless the configuration lets it have more.
const ENTRIES_MAX: usize = 100_000;
/// How many are read at a time.
const PAGE: u32 = 1000;

/// A service that was removed, or that has another name now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departed {
    /// The name that it had.
    pub name: ServiceName,
    /// The version that it had.
    pub version: Option<String>,
    /// When it went.
    pub at: Timestamp,
}

impl Scoped {
    /// The services that went at or after `since`, as far as the principal could
    /// see them, each with the last time that it went; at most `most`, the latest
    /// ones. A name may have been taken again meanwhile. The memory reaches back
    /// as far as the audit trail.
    ///
    /// # Errors
    /// Whatever the store says.
    pub async fn departed(&self, since: Timestamp, most: usize) -> Result<Vec<Departed>> {
        let mut query = JournalQuery { since: Some(since), limit: PAGE, ..JournalQuery::of(EntryKind::Audit) };
        let mut found: BTreeMap<ServiceName, Departed> = BTreeMap::new();
        let mut read = 0;
        loop {
            let page = self.core.journal.read(&query).await?;
            read += page.entries.len();
            for entry in page.entries {
                let (Some(name), What::Audit { action, detail, .. }) = (entry.service, entry.what) else { continue };
                let text = |key: &str| detail.get(key).and_then(Value::as_str);
                let goes = matches!(action.as_str(), "deregister" | "rename");
                if !goes || !self.principal.sees(text("tenant")) || found.contains_key(&name) {
                    continue;
                }
                let departed =
                    Departed { name: name.clone(), version: text("version").map(str::to_owned), at: entry.at };
                found.insert(name, departed);
                if found.len() == most {
                    return Ok(found.into_values().collect());
                }
            }
            query.before = page.next;
            if query.before.is_none() || read >= ENTRIES_MAX {
                return Ok(found.into_values().collect());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::access::{Principal, Role};
    use crate::error::Result;
    use crate::machina::Machina;
    use crate::model::ServiceSpec;

    #[tokio::test]
    async fn what_went_is_told_to_those_who_saw_it() -> Result<()> {
        let machina = Machina::builder().without_monitor().open().await?;
        for (name, tenant) in [("a", json!(null)), ("b", json!("acme")), ("c", json!("acme")), ("d", json!("other"))] {
            machina
                .register(ServiceSpec::from_value(json!({"name": name, "tenant": tenant, "version": "1.0"}))?)
                .await?;
        }
        for name in ["a", "b", "d"] {
            machina.deregister(name).await?;
        }
        let renamed = ServiceSpec::from_value(json!({"name": "e", "tenant": "acme"}))?;
        machina.update("c", renamed, None).await?;
        let began = jiff::Timestamp::UNIX_EPOCH;
        let names = async |principal: Principal, most| {
            let departed = machina.scoped(principal).departed(began, most).await.unwrap();
            departed.iter().map(|departed| departed.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(Principal::new("x", Role::Viewer), 9).await, ["a", "b", "c", "d"]);
        assert_eq!(names(Principal::new("x", Role::Viewer).of_tenant("acme"), 9).await, ["b", "c"]);
        assert_eq!(names(Principal::new("x", Role::Viewer), 1).await, ["c"], "the latest");
        let departed = machina.system().departed(began, 9).await?;
        assert_eq!(departed[0].version.as_deref(), Some("1.0"));
        let later = departed.iter().map(|departed| departed.at).max().unwrap_or_default();
        let later = later + std::time::Duration::from_secs(1);
        assert_eq!(machina.system().departed(later, 9).await?, []);
        Ok(())
    }
}
