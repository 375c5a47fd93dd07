//! `/store`: what a Machina reads that follows this one, and what it commits. Off
//! unless `server.remote_stores` is on, since the image holds secrets in place.
//! Refuses web pages, wherever they come from: no browser follows a Machina.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use http::header::{CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, HeaderName};
use machina_core::{Changes, Error, Image, Result, Revision, Scoped};

use super::App;
use super::extract::{Caller, Json, Parameters};
use super::failure::{Failure, Part};
use crate::stored::{Committed, Head, LINES, Line, StoredBatch, StoredChange, StoredDefinitions, StoredGroup};
use crate::stored::{StoredService, Written};

/// How many bytes of lines are gathered before they are sent.
const CHUNK_BYTES: usize = 64 * 1024;

/// Browsers send it with every request that a page makes.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

pub(super) async fn image(
    State(app): State<App>,
    Caller(caller): Caller,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    may_be_followed(&app, &headers)?;
    parameters.none()?;
    let Image { revision, services, definitions, groups, health, heartbeats } = caller.image()?;
    let services = services.into_iter().map(|service| Ok(Line::Service(StoredService::of(&service)?)));
    let definitions = definitions.into_iter().map(|(instance, definitions)| {
        Ok(Line::Definitions { instance, definitions: StoredDefinitions::of(&definitions) })
    });
    let groups = groups.into_iter().map(|group| Ok(Line::Group(StoredGroup::of(&group)?)));
    let health = health.into_iter().map(|(instance, health)| Ok(Line::Health { instance, health: (*health).clone() }));
    let heartbeats = heartbeats.into_iter().map(|(instance, at)| Ok(Line::Heartbeat { instance, at }));
    let lines = services.chain(definitions).chain(groups).chain(health).chain(heartbeats);
    written(&head(&caller, revision)?, lines)
}

pub(super) async fn changes(
    State(app): State<App>,
    Caller(caller): Caller,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    may_be_followed(&app, &headers)?;
    let after: Option<u64> = parameters.only(&["after"])?.parse("after", "a revision, such as 7")?;
    let missing = || Error::invalid_field("after", "must be there: the revision that is known");
    let after = Revision(after.ok_or_else(missing).map_err(Failure::of(Part::Parameters))?);
    // Read first: there may be more in the tail, and never less.
    let head = head(&caller, caller.revision())?;
    let changes = caller.changes_after(after).await?;
    match changes {
        _ if caller.generation()? != head.generation => written(&Head { reload: true, ..head }, std::iter::empty()),
        Changes::Reload => written(&Head { reload: true, ..head }, std::iter::empty()),
        Changes::Tail(tail) => {
            let line = |(revision, change)| Ok(Line::Change { revision, change: StoredChange::of(&change)? });
            written(&head, tail.into_iter().map(line))
        }
    }
}

pub(super) async fn commit(
    State(app): State<App>,
    Caller(caller): Caller,
    parameters: Parameters,
    headers: HeaderMap,
    body: Json,
) -> Result<axum::Json<Committed>, Failure> {
    may_be_followed(&app, &headers)?;
    parameters.none()?;
    let wrong = Failure::of(Part::Record);
    let batch = body.typed::<StoredBatch>()?.into_batch().map_err(&wrong)?;
    let revision = caller.commit_batch(batch).await.map_err(&wrong)?;
    Ok(axum::Json(Committed { revision }))
}

fn may_be_followed(app: &App, headers: &HeaderMap) -> Result<()> {
    if !app.config.remote_stores {
        let message = "this Machina is not to be followed: its store is not served unless `server.remote_stores` is on";
        return Err(Error::forbidden(message));
    }
    if headers.contains_key(ORIGIN) || headers.contains_key(SEC_FETCH_SITE) {
        return Err(Error::forbidden("the store is not served to web pages"));
    }
    Ok(())
}

fn head(caller: &Scoped, revision: Revision) -> Result<Head> {
    Ok(Head { revision, generation: caller.generation()?, reload: false })
}

/// The lines, made as they are taken. A record that cannot be written ends them
/// early, which the reader notices.
fn written(head: &Head, lines: impl Iterator<Item = Result<Line>> + Send + 'static) -> Result<Response, Failure> {
    let written = Written::new(head, lines)?;
    let chunks = stream::unfold(written, async |mut written| {
        let chunk = written.chunk(CHUNK_BYTES)?;
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), written))
    });
    Ok(([(CONTENT_TYPE, LINES)], Body::from_stream(chunks)).into_response())
}
