//! Where services may be, said when they are registered: an address that no
//! connector will ever dial is refused at once, with the field that names it and
//! the setting that would allow it. What a name leads to shows only when it is
//! dialled, and is checked again there.

use url::Url;

use super::Principal;
use crate::egress::{EgressConfig, Reach};
use crate::error::{Error, Problem, Result};
use crate::model::{Endpoint, Instance, Service};
use crate::view::{Delta, View};

/// # Errors
/// [`Forbidden`](crate::ErrorKind::Forbidden), naming every field, for an instance
/// that is new or has another address where it can never be reached, and when a
/// remote principal has something looked at that is no part of the service.
pub(super) fn refuse_unreachable(
    before: &View,
    deltas: &[Delta],
    principal: &Principal,
    config: &EgressConfig,
) -> Result<()> {
    for delta in deltas {
        let Delta::Put(service) = delta else { continue };
        let known = before.by_id(service.id).map(|view| &**view.service());
        let mut problems = Vec::new();
        for (index, instance) in service.spec.instances.iter().enumerate().filter(|(_, one)| is_new(known, one)) {
            let reach = if instance.from_outside { Reach::outside(config) } else { Reach::inside() };
            for (field, url) in addresses(&instance.endpoint) {
                let Some(Err(barred)) = url.host().map(|host| reach.check_host(&host)) else { continue };
                problems.push(Problem { field: format!("instances[{index}].{field}"), detail: barred.to_string() });
            }
        }
        if principal.remote {
            problems.extend(elsewhere(known, service));
        }
        if !problems.is_empty() {
            return Err(refusal(service, problems));
        }
    }
    Ok(())
}

fn refusal(service: &Service, problems: Vec<Problem>) -> Error {
    let said: Vec<_> = problems.iter().map(|problem| format!("{}: {}", problem.field, problem.detail)).collect();
    Error::forbidden(format!("`{}` is not taken: {}", service.name(), said.join("; "))).with(|context| {
        context.service = Some(service.name().to_string());
        context.problems = problems;
    })
}

/// Whether an instance was not there before, or was there with another address.
fn is_new(before: Option<&Service>, instance: &Instance) -> bool {
    let known = before.and_then(|before| before.instance(instance.id));
    known.is_none_or(|known| known.endpoint != instance.endpoint || known.from_outside != instance.from_outside)
}

/// The addresses of an endpoint that can be read as they stand, with their fields.
fn addresses(endpoint: &Endpoint) -> Vec<(&'static str, Url)> {
    let texts = match endpoint {
        Endpoint::Http(http) => vec![("http.url", http.url.expose())],
        Endpoint::Sse(http) => vec![("sse.url", http.url.expose())],
        Endpoint::WebSocket(socket) => vec![("websocket.url", socket.url.expose())],
        Endpoint::OpenApi(api) => {
            vec![("openapi.document", api.document.as_str()), ("openapi.base_url", api.base_url.as_str())]
        }
        Endpoint::Stdio(_) | Endpoint::InProcess => Vec::new(),
    };
    texts.into_iter().filter_map(|(field, text)| Some((field, Url::parse(text).ok()?))).collect()
}

/// What this change from outside has looked at besides MCP that is no path: that
/// is not bound to the instances, and would be dialled with their reach.
fn elsewhere(before: Option<&Service>, after: &Service) -> Vec<Problem> {
    let known = before.map(|before| before.spec.health_policy.endpoints.as_slice()).unwrap_or_default();
    let all = after.spec.health_policy.endpoints.iter().enumerate();
    let new = all.filter(|(_, endpoint)| !known.contains(endpoint) && endpoint.address().is_some());
    new.map(|(index, _)| Problem {
        field: format!("health_policy.endpoints[{index}]"),
        detail: "must be a path such as /healthz when it is declared from outside; or declare it in a file that the \
                 server imports"
            .to_owned(),
    })
    .collect()
}

#[cfg(test)]
#[path = "egress_tests.rs"]
mod tests;
