//! Where services can be reached right now, for a program that wants to talk to
//! one itself. What the router would not use is not offered; secrets are masked.

use serde::{Deserialize, Serialize};

use super::scoped::Scoped;
use crate::error::Result;
use crate::health::Status;
use crate::model::{ServiceId, ServiceName, Tag};
use crate::query::{Page, Query};
use crate::route::{CallKey, Candidacy, Standing, explain};
use crate::view::ServiceView;

/// A service that can be reached, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Discovered {
    /// The service.
    pub service: ServiceName,
    /// Its identity.
    pub id: ServiceId,
    /// A name for people.
    pub title: Option<String>,
    /// The version that was declared.
    pub version: Option<String>,
    /// Its status, in one word.
    pub status: Status,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// Its capabilities.
    pub capabilities: Vec<String>,
    /// The company or team it belongs to.
    pub tenant: Option<String>,
    /// Where it can be reached, best first.
    pub instances: Vec<Reachable>,
}

/// An instance that takes calls now, and why it is thought to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reachable {
    /// How it is reached: `http`, `stdio`, …
    pub kind: String,
    /// Where it runs, coarsely.
    pub region: Option<String>,
    /// Where it runs, within the region.
    pub zone: Option<String>,
    /// What the router thinks of it.
    #[serde(flatten)]
    pub candidacy: Candidacy,
}

impl Scoped {
    /// One page of the services that `query` asks for and that have an instance
    /// which answers, or of which nothing bad is known, each with those instances.
    /// With `query.region`, only those of the region; with `query.tool`, only
    /// those that offer it. A page may have fewer services than its limit.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a limit out of range or a cursor
    /// of another query.
    pub fn discover(&self, query: &Query) -> Result<Page<Discovered>> {
        let Page { items, next_cursor, revision } = self.services(query)?;
        let items = items.iter().filter_map(|view| self.reachable(view, query)).collect();
        Ok(Page { items, next_cursor, revision })
    }

    fn reachable(&self, view: &ServiceView, query: &Query) -> Option<Discovered> {
        let service = view.service();
        let spec = &service.spec;
        let key = CallKey { ordinal: view.routed_calls(), random: 0 };
        let explained = explain(view, query.tool.as_deref(), key, &self.core.config);
        let found = explained.candidates.into_iter().zip(view.instances());
        let mut instances: Vec<Reachable> = found
            .filter(|(candidacy, (_, seen))| match candidacy.standing {
                Standing::Up => true,
                Standing::Uncertain => seen.cell.health().consecutive_failures == 0,
                Standing::Failing | Standing::Down | Standing::Excluded => false,
            })
            .filter(|(_, (instance, _))| query.region.is_none() || instance.region == query.region)
            .map(|(candidacy, (instance, _))| Reachable {
                kind: instance.endpoint.kind().to_owned(),
                region: instance.region.clone(),
                zone: instance.zone.clone(),
                candidacy,
            })
            .collect();
        instances.sort_by(|a, b| {
            let (a, b) = (&a.candidacy, &b.candidacy);
            a.standing.cmp(&b.standing).then(a.cost.total_cmp(&b.cost))
        });
        (!instances.is_empty()).then(|| Discovered {
            service: spec.name.clone(),
            id: service.id,
            title: spec.title.clone(),
            version: spec.version.clone(),
            status: view.status(),
            tags: spec.tags.clone(),
            capabilities: spec.capabilities.clone(),
            tenant: spec.tenant.clone(),
            instances,
        })
    }
}
