//! The index of services: by name, by identity, and by the values that queries
//! filter by. Immutable maps share what did not change, so one change among
//! 10,000 services costs microseconds (hash array mapped tries and B-trees of
//! the `imbl` crate).

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::FixedState;
use imbl::shared_ptr::DefaultSharedPtr;
use imbl::{GenericHashMap, OrdMap, OrdSet};

use crate::error::Result;
use crate::health::Status;
use crate::model::{BuildType, InstanceId, ServiceId, ServiceName, Tag, ToolName};
use crate::query::{Order, Query, SortKey};
use crate::view::ServiceView;

type HashMap<K, V> = GenericHashMap<K, V, FixedState, DefaultSharedPtr>;

/// A value that services are indexed by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Facet {
    BuildType(BuildType),
    Status(Status),
    Tag(Tag),
    Region(String),
}

/// The services that offer a tool: of most tools there is one.
#[derive(Debug, Clone)]
enum Offering {
    One(ServiceName),
    Several(OrdSet<ServiceName>),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Catalog {
    by_name: HashMap<ServiceName, Arc<ServiceView>>,
    ordered: OrdMap<ServiceName, Arc<ServiceView>>,
    names: HashMap<ServiceId, ServiceName>,
    owners: HashMap<InstanceId, ServiceId>,
    facets: HashMap<Facet, OrdSet<ServiceName>>,
    offering: OrdMap<ToolName, Offering>,
}

impl Catalog {
    pub(crate) fn len(&self) -> usize {
        self.ordered.len()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<ServiceView>> {
        self.by_name.get(name)
    }

    pub(crate) fn by_id(&self, id: ServiceId) -> Option<&Arc<ServiceView>> {
        // Within a batch of renames a name may already be another's.
        self.by_name.get(self.names.get(&id)?.as_str()).filter(|view| view.service().id == id)
    }

    /// The service that an instance belongs to.
    pub(crate) fn owner(&self, instance: InstanceId) -> Option<&Arc<ServiceView>> {
        self.by_id(*self.owners.get(&instance)?)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<ServiceView>> {
        self.ordered.values()
    }

    /// Puts `view` in the place of what has its identity.
    pub(crate) fn insert(&mut self, view: Arc<ServiceView>) {
        let service = view.service();
        let (id, name) = (service.id, service.name().clone());
        let before = self.by_id(id).cloned();
        let (old, new) = (before.as_deref().map(facets).unwrap_or_default(), facets(&view));
        let renamed = before.as_ref().is_some_and(|before| *before.service().name() != name);
        let same_tools = before.as_ref().is_some_and(|before| !renamed && std::ptr::eq(before.tools(), view.tools()));
        if let Some(before) = before {
            for (instance, _) in before.instances() {
                self.owners.remove(&instance.id);
            }
            if !same_tools {
                self.withdraw_tools(&before);
            }
            let before = before.service().name();
            for facet in old.iter().filter(|facet| renamed || !new.contains(facet)) {
                self.forget(facet, before);
            }
            if renamed {
                self.by_name.remove(before.as_str());
                self.ordered.remove(before);
            }
        }
        for facet in new {
            if renamed || !old.contains(&facet) {
                self.facets.entry(facet).or_default().insert(name.clone());
            }
        }
        if !same_tools {
            self.offer_tools(&view);
        }
        for (instance, _) in view.instances() {
            self.owners.insert(instance.id, id);
        }
        self.names.insert(id, name.clone());
        self.by_name.insert(name.clone(), Arc::clone(&view));
        self.ordered.insert(name, view);
    }

    pub(crate) fn remove(&mut self, id: ServiceId) {
        let Some(view) = self.by_id(id).cloned() else { return };
        let name = view.service().name();
        for facet in facets(&view) {
            self.forget(&facet, name);
        }
        self.withdraw_tools(&view);
        for (instance, _) in view.instances() {
            self.owners.remove(&instance.id);
        }
        self.names.remove(&id);
        self.by_name.remove(name.as_str());
        self.ordered.remove(name);
    }

    /// Replaces a service by a changed copy of itself.
    pub(crate) fn change(&mut self, id: ServiceId, change: impl FnOnce(&mut ServiceView)) {
        if let Some(view) = self.by_id(id) {
            let mut view = ServiceView::clone(view);
            change(&mut view);
            self.insert(Arc::new(view));
        }
    }

    fn forget(&mut self, facet: &Facet, name: &ServiceName) {
        let Some(names) = self.facets.get_mut(facet) else { return };
        names.remove(name);
        if names.is_empty() {
            self.facets.remove(facet);
        }
    }

    fn offer_tools(&mut self, view: &ServiceView) {
        let name = view.service().name();
        for offered in view.tools() {
            let tool = offered.tool.name();
            match self.offering.get_mut(tool) {
                Some(offering) => offering.add(name),
                None => drop(self.offering.insert(tool.clone(), Offering::One(name.clone()))),
            }
        }
    }

    fn withdraw_tools(&mut self, view: &ServiceView) {
        for offered in view.tools() {
            let tool = offered.tool.name();
            if self.offering.get_mut(tool).is_some_and(|offering| offering.take(view.service().name())) {
                self.offering.remove(tool);
            }
        }
    }

    /// One page, and the cursor of the next.
    pub(crate) fn find(&self, query: &Query) -> Result<(Vec<Arc<ServiceView>>, Option<String>)> {
        let limit = query.limit()?;
        let after = query.after()?;
        let mut found = if query.order == Order::Name && !query.descending {
            self.walk(query, after.as_ref(), limit + 1)
        } else {
            self.sort(query, after.as_ref(), limit + 1)
        };
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|last| query.cursor_after(query.sort_key(last)));
        Ok((found, next))
    }

    /// The first matches in the order of names.
    fn walk(&self, query: &Query, after: Option<&SortKey>, count: usize) -> Vec<Arc<ServiceView>> {
        self.candidates(query)
            .filter(|view| after.is_none_or(|after| query.sort_key(view) > *after))
            .filter(|view| query.matches(view))
            .take(count)
            .cloned()
            .collect()
    }

    /// The first matches in any other order.
    fn sort(&self, query: &Query, after: Option<&SortKey>, count: usize) -> Vec<Arc<ServiceView>> {
        let mut keyed: Vec<(SortKey, &Arc<ServiceView>)> = self
            .candidates(query)
            .filter(|view| query.matches(view))
            .map(|view| (query.sort_key(view), view))
            .filter(|(key, _)| after.is_none_or(|after| if query.descending { key < after } else { key > after }))
            .collect();
        keyed.sort_by(|(a, _), (b, _)| if query.descending { b.cmp(a) } else { a.cmp(b) });
        keyed.into_iter().take(count).map(|(_, view)| Arc::clone(view)).collect()
    }

    /// A superset of the matches, by name: the smallest index that applies.
    fn candidates(&self, query: &Query) -> Box<dyn Iterator<Item = &Arc<ServiceView>> + '_> {
        let mut wanted: Vec<Facet> = query.tags.iter().cloned().map(Facet::Tag).collect();
        wanted.extend(query.region.clone().map(Facet::Region));
        if let [one] = query.build_type[..] {
            wanted.push(Facet::BuildType(one));
        }
        if let [one] = query.status[..] {
            wanted.push(Facet::Status(one));
        }
        let Some(sets) = wanted.iter().map(|facet| self.facets.get(facet)).collect::<Option<Vec<_>>>() else {
            return Box::new(std::iter::empty());
        };
        let several = match query.tool.as_deref().map(|tool| self.offering.get(tool)) {
            Some(None) => return Box::new(std::iter::empty()),
            Some(Some(Offering::One(name))) => return Box::new(self.by_name.get(name.as_str()).into_iter()),
            Some(Some(Offering::Several(names))) => Some(names),
            None => None,
        };
        match sets.into_iter().chain(several).min_by_key(|set| set.len()) {
            None => Box::new(self.ordered.values()),
            Some(names) => Box::new(names.iter().filter_map(|name| self.by_name.get(name.as_str()))),
        }
    }
}

impl Offering {
    fn add(&mut self, name: &ServiceName) {
        match self {
            Self::One(known) if known == name => {}
            Self::One(known) => *self = Self::Several([known.clone(), name.clone()].into_iter().collect()),
            Self::Several(names) => drop(names.insert(name.clone())),
        }
    }

    /// Takes a service away; says whether none is left.
    fn take(&mut self, name: &ServiceName) -> bool {
        match self {
            Self::One(known) => known == name,
            Self::Several(names) => {
                names.remove(name);
                if let (1, Some(last)) = (names.len(), names.get_min().cloned()) {
                    *self = Self::One(last);
                }
                false
            }
        }
    }
}

fn facets(view: &ServiceView) -> HashSet<Facet, FixedState> {
    let spec = &view.service().spec;
    let mut facets = HashSet::default();
    facets.extend([Facet::BuildType(spec.build_type), Facet::Status(view.status())]);
    facets.extend(spec.tags.iter().cloned().map(Facet::Tag));
    facets.extend(spec.instances.iter().filter_map(|instance| instance.region.clone()).map(Facet::Region));
    facets
}
