//! `/services/{service}/history`: what the journal says about a service.

use machina_core::{Entry, EntryKind, JournalPage, JournalQuery};
use serde::Serialize;
use serde_json::Value;

use super::extract::{Caller, InPath, Named, Parameters};
use super::failure::{Failure, Part};
use super::services::named;

/// Some entries, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct History {
    items: Vec<Entry>,
    next_cursor: Option<String>,
}

pub(super) async fn read(
    Caller(caller): Caller,
    InPath(service): InPath<String>,
    parameters: Parameters,
) -> Result<axum::Json<History>, Failure> {
    let mut parameters = parameters.only(&["kind", "instance", "since", "cursor", "limit"])?;
    let mut query = JournalQuery::of(kind(&mut parameters)?);
    query.service = Some(named(&caller, &service)?);
    query.instance = parameters.parse("instance", "the id of an instance")?;
    query.since = parameters.parse("since", "a time such as 2026-01-31T12:00:00Z")?;
    query.before = parameters.parse("cursor", "`next_cursor` of the page before")?;
    query.limit = parameters.parse("limit", "a number")?.unwrap_or(query.limit);
    let JournalPage { entries, next } = caller.journal(&query).await.map_err(Failure::of(Part::Parameters))?;
    Ok(axum::Json(History { items: entries, next_cursor: next.map(|next| next.to_string()) }))
}

/// Health transitions, unless another kind is asked for.
fn kind(parameters: &mut Named) -> Result<EntryKind, Failure> {
    let Some(word) = parameters.take("kind") else { return Ok(EntryKind::Transition) };
    serde_json::from_value(Value::String(word)).map_err(|_| {
        let words = "transition, sample, call, alert or audit";
        Failure::of(Part::Parameters)(machina_core::Error::invalid_field("kind", format!("must be {words}")))
    })
}
