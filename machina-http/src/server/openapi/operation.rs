//! One operation of the document, put together from what operations have in
//! common. Refuses an operation without an answer.

use serde_json::{Map, Value, json};

use super::schemas::of;

/// What a client may be told about a request that was refused, by status.
pub(super) const PROBLEMS: [(u16, &str); 18] = [
    (400, "A parameter, a header or the path is malformed, or the body is not JSON"),
    (401, "Who asks did not say who they are"),
    (403, "Who asks may not do this, or the server does not know the host or origin"),
    (404, "There is no such thing"),
    (405, "The path does not take this method"),
    (406, "None of the types that the client takes can be sent"),
    (408, "The body did not arrive in time"),
    (409, "Something with this name exists, or stands in the way, or a request with the same key is being done"),
    (412, "`If-Match` names an older revision"),
    (413, "The body is too long: `server.body_max`"),
    (415, "The body is of another media type"),
    (422, "The body says something wrong, or the key belongs to another request"),
    (429, "Too much at once; `Retry-After` says when to come back"),
    (500, "A bug, or a broken store"),
    (501, "This server, its store or its connectors cannot do it"),
    (502, "The instance could not be reached, broke off, or answered with an error of the protocol"),
    (503, "Nothing can take the request now; `Retry-After` says when to come back"),
    (504, "No answer came in time"),
];

/// An operation that is being described.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: String,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    description: Option<&'static str>,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: Map<String, Value>,
}

/// Names in paths that mean the same everywhere.
const IN_PATHS: [&str; 4] = ["service", "instance", "group", "tool"];

impl Operation {
    pub(super) fn new(
        method: &'static str,
        path: &str,
        tag: &'static str,
        id: &'static str,
        summary: &'static str,
    ) -> Self {
        let named = IN_PATHS.iter().filter(|name| path.contains(&format!("{{{name}}}")));
        let parameters = named.map(|name| parameter_ref(name)).collect();
        let new = Self {
            method,
            path: path.to_owned(),
            id,
            tag,
            summary,
            description: None,
            parameters,
            body: None,
            answers: Map::new(),
        };
        let new = new.refuses(&[400, 403, 500]);
        if path.contains('{') { new.refuses(&[404]) } else { new }
    }

    /// What else is to be said.
    pub(super) fn says(self, description: &'static str) -> Self {
        Self { description: Some(description), ..self }
    }

    /// A name in the path that only this operation has.
    pub(super) fn in_path(mut self, name: &str, description: &str, schema: Value) -> Self {
        let place = json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema});
        self.parameters.push(place);
        self
    }

    /// A parameter after `?`.
    pub(super) fn query(mut self, name: &str, description: &str, schema: Value) -> Self {
        let mut parameter = json!({"name": name, "in": "query", "description": description, "schema": schema});
        if schema_is_list(&parameter["schema"]) {
            parameter["explode"] = false.into();
            parameter["style"] = "form".into();
        }
        self.parameters.push(parameter);
        self
    }

    /// The same, which must be there.
    pub(super) fn required_query(mut self, name: &str, description: &str, schema: Value) -> Self {
        self = self.query(name, description, schema);
        if let Some(last) = self.parameters.last_mut() {
            last["required"] = true.into();
        }
        self
    }

    /// Parameters that several operations have.
    pub(super) fn with(mut self, names: &[&str]) -> Self {
        self.parameters.extend(names.iter().map(|name| parameter_ref(name)));
        self
    }

    /// It is only done at the revision that `If-Match` names.
    pub(super) fn at_revision(self) -> Self {
        self.with(&["If-Match"]).refuses(&[409, 412])
    }

    /// It is done once where it has a key.
    pub(super) fn once(self) -> Self {
        self.with(&["Idempotency-Key"]).refuses(&[409, 422, 429, 502])
    }

    /// It is only answered in full to those who do not have it already.
    pub(super) fn unless_known(mut self) -> Self {
        let description = "It is what `If-None-Match` names";
        self.answers.insert("304".to_owned(), json!({"description": description, "headers": headers(&["ETag"])}));
        self.with(&["If-None-Match"])
    }

    /// A body of JSON.
    pub(super) fn takes(self, schema: Value, example: &Value) -> Self {
        self.takes_as(&["application/json"], schema, example)
    }

    /// A body of one of these types.
    pub(super) fn takes_as(mut self, types: &[&str], schema: Value, example: &Value) -> Self {
        let media = json!({"schema": schema, "example": example});
        let content: Map<String, Value> = types.iter().map(|name| ((*name).to_owned(), media.clone())).collect();
        self.body = Some(json!({"required": true, "content": content}));
        self.refuses(&[408, 413, 415, 422])
    }

    /// A body of JSON that may be left out.
    pub(super) fn may_take(self, schema: Value, example: &Value) -> Self {
        let mut taking = self.takes(schema, example);
        if let Some(body) = &mut taking.body {
            body["required"] = false.into();
        }
        taking
    }

    /// No body, or one that says nothing.
    pub(super) fn takes_nothing(self) -> Self {
        self.refuses(&[408, 413, 422])
    }

    /// An answer of JSON.
    pub(super) fn answers(self, status: u16, description: &str, schema: &Value, with: &[&str]) -> Self {
        self.answers_as(status, description, "application/json", schema, with)
    }

    /// An answer of another type.
    pub(super) fn answers_as(
        mut self,
        status: u16,
        description: &str,
        media: &str,
        schema: &Value,
        with: &[&str],
    ) -> Self {
        let content = json!({media: {"schema": schema}});
        let answer = json!({"description": description, "headers": headers(with), "content": content});
        self.answers.insert(status.to_string(), answer);
        self
    }

    /// An answer without a body.
    pub(super) fn answers_bare(mut self, status: u16, description: &str, with: &[&str]) -> Self {
        self.answers.insert(status.to_string(), json!({"description": description, "headers": headers(with)}));
        self
    }

    /// Problems that it can have.
    pub(super) fn refuses(mut self, statuses: &[u16]) -> Self {
        for status in statuses {
            let reference = json!({"$ref": format!("#/components/responses/Problem{status}")});
            self.answers.entry(status.to_string()).or_insert(reference);
        }
        self
    }

    /// The same problems, which it may also say in a form of its own.
    pub(super) fn in_its_own_form(mut self, form: &Value) -> Self {
        for (status, what) in PROBLEMS {
            if let Some(answer) = self.answers.get_mut(&status.to_string()) {
                *answer = problem(status, what);
                answer["content"]["application/json"] = json!({"schema": form});
            }
        }
        self
    }

    /// The operation as the document has it.
    pub(super) fn document(mut self) -> Value {
        self.answers.sort_keys();
        let mut operation = json!({"operationId": self.id, "tags": [self.tag], "summary": self.summary});
        let parameters = (!self.parameters.is_empty()).then_some(Value::Array(self.parameters));
        for (key, value) in [
            ("description", self.description.map(Value::from)),
            ("parameters", parameters),
            ("requestBody", self.body),
            ("responses", Some(Value::Object(self.answers))),
        ] {
            if let Some(value) = value {
                operation[key] = value;
            }
        }
        operation
    }
}

fn parameter_ref(name: &str) -> Value {
    json!({"$ref": format!("#/components/parameters/{name}")})
}

fn schema_is_list(schema: &Value) -> bool {
    schema["type"] == "array"
}

fn headers(more: &[&str]) -> Map<String, Value> {
    let names = std::iter::once("X-Request-Id").chain(more.iter().copied());
    names.map(|name| (name.to_owned(), json!({"$ref": format!("#/components/headers/{name}")}))).collect()
}

/// The answer to a request that was refused like this.
pub(super) fn problem(status: u16, description: &str) -> Value {
    let mut with = headers(&[]);
    if matches!(status, 409 | 429 | 503) {
        with.extend(headers(&["Retry-After"]));
    }
    let content = json!({crate::problem::MEDIA_TYPE: {"schema": of("Problem")}});
    json!({"description": description, "headers": with, "content": content})
}
