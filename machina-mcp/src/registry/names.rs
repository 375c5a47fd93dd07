//! The names of services in the form that the registry demands: one namespace,
//! one slash, one name. A name that has that form already stays as it is; two
//! services never have one name.

use std::sync::Arc;

use machina_core::{Scoped, ServiceName, ServiceView};
use sha2::{Digest, Sha256};

/// The names, as one principal sees them.
pub(super) struct Names<'a> {
    pub(super) scoped: &'a Scoped,
    pub(super) namespace: &'a str,
}

impl Names<'_> {
    /// The name of a service in the registry.
    pub(super) fn of(&self, name: &ServiceName) -> String {
        match name.as_str().split_once('/') {
            Some((namespace, _)) if !namespace.contains('_') => name.to_string(),
            // The form knows no `_` in a namespace, and another one may have `-` there.
            Some((namespace, last)) => format!("{}/{last}_{}", namespace.replace('_', "-"), mark(name)),
            None => {
                let full = format!("{}/{name}", self.namespace);
                match self.scoped.service(&full) {
                    Ok(_) => format!("{full}_{}", mark(name)),
                    Err(_) => full,
                }
            }
        }
    }

    /// The service that has this name in the registry.
    pub(super) fn find(&self, name: &str) -> Option<Arc<ServiceView>> {
        let bare = name.split_once('/').filter(|(namespace, _)| *namespace == self.namespace).map(|(_, last)| last);
        let direct = [Some(name), bare].into_iter().flatten().find_map(|own| {
            let view = self.scoped.service(own).ok()?;
            (self.of(view.service().name()) == name).then_some(view)
        });
        if direct.is_some() || !has_mark(name) {
            return direct;
        }
        let (_, services) = self.scoped.snapshot();
        services.into_iter().find(|view| self.of(view.service().name()) == name)
    }
}

/// How many digits tell two names apart that would be the same otherwise.
const MARK: usize = 8;

fn mark(name: &ServiceName) -> String {
    Sha256::digest(name.as_str()).iter().take(MARK / 2).map(|byte| format!("{byte:02x}")).collect()
}

fn has_mark(name: &str) -> bool {
    let digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    name.rsplit_once('_').is_some_and(|(_, mark)| mark.len() == MARK && mark.chars().all(digit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use machina_core::{Machina, Principal, Role, ServiceSpec};

    #[tokio::test]
    async fn every_name_has_the_form_and_leads_back() {
        let machina = Machina::builder().without_monitor().open().await.unwrap();
        let tenants = [("time", None), ("io.github.X/y_z", None), ("my_ns/a", None), ("my-ns/a", None), ("disk", None)];
        for (name, tenant) in tenants.into_iter().chain([("local.machina/disk", Some("acme"))]) {
            let mut spec = ServiceSpec::new(name).unwrap();
            spec.tenant = tenant.map(str::to_owned);
            machina.register(spec).await.unwrap();
        }
        let scoped = machina.scoped(Principal::new("x", Role::Viewer));
        let names = Names { scoped: &scoped, namespace: "local.machina" };
        let of = |name: &str| names.of(&ServiceName::new(name).unwrap());
        assert_eq!(of("time"), "local.machina/time");
        assert_eq!(of("io.github.X/y_z"), "io.github.X/y_z");
        assert_eq!(of("my-ns/a"), "my-ns/a");
        assert!(of("my_ns/a").starts_with("my-ns/a_") && of("my_ns/a").len() == 16, "{}", of("my_ns/a"));
        assert_eq!(of("local.machina/disk"), "local.machina/disk");
        assert!(of("disk").starts_with("local.machina/disk_"));
        for view in scoped.snapshot().1 {
            let name = view.service().name();
            assert_eq!(names.find(&of(name.as_str())).unwrap().service().name(), name);
        }
        for unknown in ["time", "disk", "my_ns/a", "local.machina/none", "x/time", "my-ns/a_00000000", ""] {
            assert!(names.find(unknown).is_none(), "{unknown}");
        }
        // Whoever does not see the other one is not told of it by a name.
        let other = machina.scoped(Principal::new("x", Role::Viewer).of_tenant("none"));
        let names = Names { scoped: &other, namespace: "local.machina" };
        assert_eq!(names.of(&ServiceName::new("disk").unwrap()), "local.machina/disk");
    }
}
