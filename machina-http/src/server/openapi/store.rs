//! The store, as followers read and change it.

use serde_json::{Value, json};

use super::operation::Operation;
use super::schemas::of;

const FOLLOWERS: &str = "Followers";

const SAYS: &str = "Only with `server.remote_stores`, for an admin, and never for web pages: secrets are in place. The \
    first line has `revision` and `generation`, and `reload` where the image is to be read instead; the last one is \
    `{\"end\": n}`, where `n` is how many lines were between them. Without it, the answer broke off.";

/// Lines of JSON.
fn lines() -> Value {
    json!({"type": "string", "contentMediaType": "application/x-ndjson"})
}

pub(super) fn operations() -> Vec<Operation> {
    let read = |path: &str, id: &'static str, summary: &'static str| {
        Operation::new("get", path, FOLLOWERS, id, summary).says(SAYS).answers_as(
            200,
            "The lines",
            "application/x-ndjson",
            &lines(),
            &[],
        )
    };
    let revision = json!({"type": "integer", "minimum": 0});
    let example = json!({"preconditions": [{"group_absent": "reading"}], "changes": [{"delete_group": "writing"}]});
    vec![
        read("/api/v1/store/image", "get_store_image", "Everything that the store holds"),
        read("/api/v1/store/changes", "list_store_changes", "What was committed after a revision").required_query(
            "after",
            "The revision that is known",
            revision,
        ),
        Operation::new("post", "/api/v1/store/batches", FOLLOWERS, "commit_store_batch", "Commits a batch")
            .says("Taken exactly as it is, or refused: every record as if it were registered from outside.")
            .takes(of("StoreBatch"), &example)
            .answers(200, "What was committed", &of("StoreCommit"), &[])
            .refuses(&[409, 429, 501, 503]),
    ]
}
