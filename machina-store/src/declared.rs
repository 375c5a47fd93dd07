//! What was declared, read from its rows: the declaration whole, and what the
//! store adds to it. The columns for people are not read.

use std::collections::{BTreeMap, HashMap};

use machina_core::{Group, GroupSpec, Result, Service, ServiceId, ServiceSpec};

use crate::record::{Columns, get_json, get_parsed, get_revision};

/// The secrets of services by their place.
#[derive(Debug, Default)]
pub(crate) struct Secrets(HashMap<ServiceId, BTreeMap<String, String>>);

impl Secrets {
    /// Those in rows of `service_id`, `place` and `value`.
    pub(crate) fn of<R: Columns>(rows: &[R]) -> Result<Self> {
        let mut all = Self::default();
        for row in rows {
            let of_service = all.0.entry(get_parsed(row, "service_id")?).or_default();
            of_service.insert(row.text("place")?.to_owned(), row.text("value")?.to_owned());
        }
        Ok(all)
    }
}

/// The service of a row.
pub(crate) fn service(row: &impl Columns, secrets: &Secrets) -> Result<Service> {
    let id = get_parsed(row, "id")?;
    let mut spec: ServiceSpec = get_json(row, "body")?;
    if let Some(secrets) = secrets.0.get(&id) {
        spec.restore_secrets(secrets);
    }
    Ok(Service {
        id,
        spec,
        revision: get_revision(row, "revision")?,
        created_at: get_parsed(row, "created_at")?,
        updated_at: get_parsed(row, "updated_at")?,
        updated_by: row.text("updated_by")?.to_owned(),
    })
}

/// The group of a row.
pub(crate) fn group(row: &impl Columns) -> Result<Group> {
    let spec: GroupSpec = get_json(row, "body")?;
    let mut group = Group::new(spec, get_parsed(row, "created_at")?, row.text("updated_by")?);
    group.updated_at = get_parsed(row, "updated_at")?;
    group.revision = get_revision(row, "revision")?;
    Ok(group)
}
