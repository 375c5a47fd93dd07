//! The journal as a principal may read it. Entries stand under the name of a
//! service, and a name may have belonged to another tenant before: refuses to
//! show what was written then.

use jiff::Timestamp;
use serde_json::Value;

use super::principal::Role;
use super::scoped::Scoped;
use crate::error::{Error, Result};
use crate::store::{Entry, EntryKind, JournalPage, JournalQuery, What};
use crate::view::ServiceView;

/// How many entries one page has at most.
const ENTRIES_MAX: u32 = 1000;

impl Scoped {
    /// Reads the journal, newest first. Only an admin sees the arguments of calls, where
    /// they are kept at all.
    ///
    /// # Errors
    /// [`Forbidden`](crate::ErrorKind::Forbidden) for the audit trail unless the
    /// principal is an admin, and for those of one tenant unless a service is
    /// named; whatever the store says.
    pub async fn journal(&self, query: &JournalQuery) -> Result<JournalPage> {
        if query.kind == EntryKind::Audit {
            self.principal.require(Role::Admin, "read the audit trail")?;
        }
        if !(1..=ENTRIES_MAX).contains(&query.limit) {
            return Err(Error::invalid_field("limit", format!("must be 1 to {ENTRIES_MAX}, is {}", query.limit)));
        }
        let own_since = match &query.service {
            Some(service) => self.own_since(&*self.service(service.as_str())?).await?,
            None if self.principal.tenant.is_some() => {
                return Err(Error::forbidden("name a service: the whole journal belongs to all tenants"));
            }
            None => None,
        };
        let since = query.since.max(own_since);
        let mut page = self.core.journal.read(&JournalQuery { since, ..query.clone() }).await?;
        if self.principal.role < Role::Admin {
            page.entries.iter_mut().for_each(without_arguments);
        }
        Ok(page)
    }

    /// Since when the name of a service is one that the principal may know of:
    /// since it was first taken after one that they could not see had let it go.
    /// `None` when there was none such.
    pub(crate) async fn own_since(&self, view: &ServiceView) -> Result<Option<Timestamp>> {
        if self.principal.tenant.is_none() {
            return Ok(None);
        }
        let name = view.service().name().clone();
        let mut query = JournalQuery { service: Some(name), limit: ENTRIES_MAX, ..JournalQuery::of(EntryKind::Audit) };
        let mut since = view.service().created_at;
        loop {
            let page = self.core.journal.read(&query).await?;
            for entry in &page.entries {
                if self.is_of_another(entry) {
                    return Ok(Some(since));
                }
                since = entry.at;
            }
            query.before = page.next;
            if query.before.is_none() {
                return Ok(None);
            }
        }
    }

    /// Whether the entry tells that a service went which the principal could not see.
    fn is_of_another(&self, entry: &Entry) -> bool {
        let What::Audit { action, detail, .. } = &entry.what else { return false };
        let tenant = detail.get("tenant").and_then(Value::as_str);
        matches!(action.as_str(), "deregister" | "rename") && !self.principal.sees(tenant)
    }
}

fn without_arguments(entry: &mut Entry) {
    if let What::Call { arguments, .. } = &mut entry.what {
        *arguments = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use crate::access::{Principal, Role, Scoped};
    use crate::error::ErrorKind;
    use crate::machina::{Machina, Registry};
    use crate::model::ServiceSpec;
    use crate::store::{EntryKind, JournalQuery};
    use crate::write::Mutation;

    async fn put(scoped: &Scoped, spec: Value) {
        scoped.apply(vec![Mutation::Put(ServiceSpec::from_value(spec).unwrap())]).await.unwrap();
        // So that no two entries are of one moment.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }

    async fn who_wrote(scoped: &Scoped, service: &str) -> Vec<String> {
        let service = Some(service.parse().unwrap());
        let page = scoped.journal(&JournalQuery { service, ..JournalQuery::of(EntryKind::Audit) }).await.unwrap();
        let who = page.entries.into_iter().map(|entry| match entry.what {
            crate::store::What::Audit { principal, .. } => principal,
            other => panic!("{other:?}"),
        });
        who.collect()
    }

    #[tokio::test]
    async fn a_name_that_another_tenant_had_brings_nothing_of_its_past() {
        let machina = Machina::builder().without_monitor().open().await.unwrap();
        let of = |tenant: &str| machina.scoped(Principal::new(tenant, Role::Admin).of_tenant(tenant));
        let (acme, other) = (of("acme"), of("other"));
        put(&acme, json!({"name": "old", "tenant": "acme"})).await;
        put(&other, json!({"name": "a", "tenant": "other"})).await;
        put(&other, json!({"name": "a", "tenant": "other", "title": "A"})).await;
        machina.deregister("a").await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        put(&acme, json!({"name": "a", "tenant": "acme"})).await;
        put(&acme, json!({"name": "a", "tenant": "acme", "title": "A"})).await;
        assert_eq!(who_wrote(&acme, "a").await, ["acme", "acme"]);
        assert_eq!(who_wrote(machina.system(), "a").await, ["acme", "acme", "system", "other", "other"]);
        assert_eq!(who_wrote(&acme, "old").await, ["acme"]);
        let again = ServiceSpec::from_value(json!({"name": "b", "tenant": "acme"})).unwrap();
        machina.update("a", again, None).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        put(&acme, json!({"name": "a", "tenant": "acme"})).await;
        assert_eq!(who_wrote(&acme, "a").await, ["acme", "system", "acme", "acme"], "its own past it keeps");
    }

    #[tokio::test]
    async fn the_journal_of_all_is_not_for_one_tenant() {
        let machina = Machina::builder().without_monitor().open().await.unwrap();
        let acme = machina.scoped(Principal::new("a", Role::Admin).of_tenant("acme"));
        let refused = acme.journal(&JournalQuery::of(EntryKind::Call)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Forbidden);
        let too_many = JournalQuery { limit: super::ENTRIES_MAX + 1, ..JournalQuery::of(EntryKind::Call) };
        let refused = machina.journal(&too_many).await.unwrap_err();
        assert_eq!(refused.context().problems[0].field, "limit");
    }
}
