//! The resources that hosts see: a document about each service, and what the
//! services publish. A uri is a global name, so one that a single service offers
//! stays as it is; one that says too little is written with its service.

use std::collections::HashMap;
use std::sync::Arc;

use machina_core::{Error, Result, ServiceName, ServiceView};
use serde_json::{Map, Value, json};

use super::audience::{Audience, in_use};
use super::documents::MARKDOWN;
use super::exposure::{Exposure, ToolMode, ToolPrefix};
use super::listing::{Listing, Renamed};
use super::published::{Kind, Published, published};
use super::rpc::shown;
use super::tools::first_line;
use super::uris::{self, SERVICE_DOCUMENTATION, SERVICES, Template};

/// The resources that one audience sees at one revision.
#[derive(Debug)]
pub(super) struct ResourceTable {
    pub(super) resources: Arc<Listing>,
    pub(super) templates: Arc<Listing>,
    /// By the uri, or uri template, under which each is listed.
    listed: HashMap<String, Resource>,
    /// The services that offer a uri of their own.
    offered: HashMap<String, Vec<ServiceName>>,
    /// The same, where templates count that can become the same uris.
    by_shape: HashMap<String, Vec<ServiceName>>,
    matching: Vec<(Template, ServiceName)>,
}

/// A resource of a service, or a template of such, under its own uri.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) service: ServiceName,
    pub(super) uri: String,
}

/// What the uri that a host asks for means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meant {
    /// The document about the service of this name.
    Document(String),
    /// What a service publishes.
    Resource(Resource),
}

impl ResourceTable {
    pub(super) fn new(audience: &Audience, services: &[Arc<ServiceView>], exposure: Exposure) -> Self {
        let whole = services.iter().filter(|view| audience.has_all_of(view.service().name()));
        let publishing = |view: &ServiceView| exposure.mode == ToolMode::Flat && in_use(view);
        let all: Vec<Known<'_>> = whole
            .map(|view| {
                let of = |kind| if publishing(view) { published(view, kind) } else { Vec::new() };
                Known { view, resources: of(Kind::Resource), templates: of(Kind::Template) }
            })
            .collect();
        let mut table = Self {
            resources: Listing::new("resources").finished(),
            templates: Listing::new("resourceTemplates").finished(),
            listed: HashMap::new(),
            matching: Vec::new(),
            offered: by(&all, str::to_owned),
            by_shape: by(&all, uris::shape),
        };
        table.resources = table.list(&all, exposure.prefix);
        table.templates = table.list_templates(&all, exposure);
        table
    }

    fn list(&mut self, all: &[Known<'_>], prefix: ToolPrefix) -> Arc<Listing> {
        let mut listing = Listing::new("resources");
        for Known { view, resources, .. } in all {
            let service = view.service().name();
            listing.push_own(service.as_str(), 0, &document(view));
            for (place, resource) in resources.iter().enumerate() {
                self.push(&mut listing, (service, place + 1), *resource, Kind::Resource, prefix);
            }
        }
        listing.finished()
    }

    fn list_templates(&mut self, all: &[Known<'_>], exposure: Exposure) -> Arc<Listing> {
        let mut listing = Listing::new("resourceTemplates");
        for (place, template) in own_templates(exposure.aliases).iter().enumerate() {
            listing.push_own("", place, template);
        }
        for Known { view, templates, .. } in all {
            let service = view.service().name();
            for (place, template) in templates.iter().enumerate() {
                self.push(&mut listing, (service, place), *template, Kind::Template, exposure.prefix);
                self.matching.extend(Template::parse(template.key).map(|parsed| (parsed, service.clone())));
            }
        }
        listing.finished()
    }

    fn push(
        &mut self,
        listing: &mut Listing,
        (service, place): (&ServiceName, usize),
        Published { key: uri, definition }: Published<'_>,
        kind: Kind,
        prefix: ToolPrefix,
    ) {
        let alone = self.by_shape.get(&uris::shape(uri)).is_some_and(|services| services.len() == 1);
        let plain = prefix != ToolPrefix::Always && alone && !uris::is_own(uri);
        let shown = if plain { uri.to_owned() } else { uris::of_service(service.as_str(), uri) };
        listing.push(service, place, &Renamed { definition, key: kind.key(), value: &shown });
        self.listed.insert(shown, Resource { service: service.clone(), uri: uri.to_owned() });
    }

    /// What `uri` means.
    ///
    /// # Errors
    /// [`NotFound`](machina_core::ErrorKind::NotFound), also when several services offer it.
    pub(super) fn meant(&self, audience: &Audience, uri: &str) -> Result<Meant> {
        if let Some(resource) = self.listed.get(uri) {
            return Ok(Meant::Resource(resource.clone()));
        }
        if uris::is_own(uri) {
            return own(audience, uri).ok_or_else(|| missing(uri));
        }
        // As it stands in a result of the service.
        let services = self.offered.get(uri).cloned().unwrap_or_else(|| self.matching(uri));
        match &*services {
            [] => Err(missing(uri)),
            [service] => Ok(Meant::Resource(Resource { service: service.clone(), uri: uri.to_owned() })),
            several => Err(ambiguous(uri, several)),
        }
    }

    /// The services that have a template of `uri`.
    fn matching(&self, uri: &str) -> Vec<ServiceName> {
        let matching = self.matching.iter().filter(|(template, _)| template.matches(uri));
        let mut services: Vec<ServiceName> = matching.map(|(_, service)| service.clone()).collect();
        services.dedup();
        services
    }
}

/// A service, and what of it is listed.
struct Known<'a> {
    view: &'a ServiceView,
    resources: Vec<Published<'a>>,
    templates: Vec<Published<'a>>,
}

/// Which services have something under what `key` makes of its uri.
fn by(all: &[Known<'_>], key: impl Fn(&str) -> String) -> HashMap<String, Vec<ServiceName>> {
    let mut offered: HashMap<String, Vec<ServiceName>> = HashMap::new();
    for Known { view, resources, templates } in all {
        for Published { key: uri, .. } in resources.iter().chain(templates) {
            let services = offered.entry(key(uri)).or_default();
            if services.last() != Some(view.service().name()) {
                services.push(view.service().name().clone());
            }
        }
    }
    offered
}

/// What a uri of Machina's own means.
fn own(audience: &Audience, uri: &str) -> Option<Meant> {
    let seen = |service: &str| audience.scoped().service(service).ok();
    let whole = |view: &Arc<ServiceView>| audience.has_all_of(view.service().name());
    for (service, own) in uris::split(uri) {
        if let Some(view) = seen(service).filter(|view| whole(view) && in_use(view)) {
            return Some(Meant::Resource(Resource { service: view.service().name().clone(), uri: own.to_owned() }));
        }
    }
    let name = uri.strip_prefix(SERVICES).or_else(|| uri.strip_prefix(SERVICE_DOCUMENTATION))?;
    seen(name).filter(whole).map(|_| Meant::Document(name.to_owned()))
}

fn missing(uri: &str) -> Error {
    let (uri, service) = (shown(uri), "{name}");
    Error::not_found(format!("there is no resource `{uri}`; {SERVICES}{service} documents a service"))
}

fn ambiguous(uri: &str, services: &[ServiceName]) -> Error {
    let ways: Vec<String> =
        services.iter().take(3).map(|service| uris::of_service(service.as_str(), &shown(uri))).collect();
    Error::not_found(format!("{} services offer `{}`: ask for {}", services.len(), shown(uri), ways.join(" or ")))
}

/// The entry of the document about a service.
fn document(view: &ServiceView) -> Map<String, Value> {
    let spec = &view.service().spec;
    let mut resource = Map::from_iter([
        ("uri".to_owned(), json!(format!("{SERVICES}{}", spec.name))),
        ("name".to_owned(), json!(spec.name)),
        ("mimeType".to_owned(), json!(MARKDOWN)),
    ]);
    if let Some(title) = &spec.title {
        resource.insert("title".to_owned(), json!(title));
    }
    if !spec.description.is_empty() {
        resource.insert("description".to_owned(), json!(first_line(&spec.description)));
    }
    resource
}

/// The templates of the documents about services.
fn own_templates(aliases: bool) -> Vec<Value> {
    let template = json!({
        "uriTemplate": format!("{SERVICES}{{+name}}"),
        "name": "service",
        "title": "Documentation of a service",
        "description": "Description, status, instances and tools of one service",
        "mimeType": MARKDOWN,
    });
    let alias = json!({
        "uriTemplate": format!("{SERVICE_DOCUMENTATION}{{+service}}"),
        "name": "service_documentation",
        "description": format!("Same as {SERVICES}{{+name}}"),
        "mimeType": MARKDOWN,
    });
    if aliases { vec![template, alias] } else { vec![template] }
}
