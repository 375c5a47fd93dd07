//! The JSON form of a batch of mutations, which the client writes and the server
//! reads: `{"mutations": [{"register": {…}}, {"deregister": {"name": "a"}}]}`.

use machina_core::{AdminState, Error, InstanceId, Mutation, Pinning, Result, Revision, ServiceName, ServiceSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A batch as it goes over the wire.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutations {
    mutations: Vec<Wire>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wire {
    Register(Value),
    Put(Value),
    Update(Update),
    Deregister(Deregister),
    SetAdminState(SetAdminState),
    PinTools(PinTools),
}

/// The mutations of a batch, as `POST /api/v1/services:bulk` takes it.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid) for the first that is malformed,
/// with the field; the context says which service it is, where that is known.
pub fn mutations_from(batch: Value) -> Result<Vec<Mutation>> {
    let batch: Mutations = serde_path_to_error::deserialize(batch).map_err(|error| {
        let path = error.path().to_string();
        Error::invalid_field(if path == "." { "mutations" } else { &path }, error.into_inner().to_string())
    })?;
    batch.parse()
}

/// Replaces the declaration of a service.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Update {
    name: ServiceName,
    #[schema(value_type = ServiceSpec)]
    spec: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expected: Option<Revision>,
}

/// Removes a service.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deregister {
    name: ServiceName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expected: Option<Revision>,
}

/// Says something about a service, or about one instance of it.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetAdminState {
    name: ServiceName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<InstanceId>,
    admin_state: AdminState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Pins the tools of a service as they are published now.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PinTools {
    name: ServiceName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pinning: Option<Pinning>,
}

impl Mutations {
    /// The batch as it is sent: secrets in clear, for the server is to have them.
    ///
    /// # Errors
    /// [`Unsupported`](machina_core::ErrorKind::Unsupported) for a mutation that
    /// this version cannot send.
    pub(crate) fn of(mutations: Vec<Mutation>) -> Result<Self> {
        let mutations = mutations.into_iter().map(|mutation| match mutation {
            Mutation::Register(spec) => Ok(Wire::Register(spec.exposed())),
            Mutation::Put(spec) => Ok(Wire::Put(spec.exposed())),
            Mutation::Update { name, spec, expected } => {
                Ok(Wire::Update(Update { name, spec: spec.exposed(), expected }))
            }
            Mutation::Deregister { name, expected } => Ok(Wire::Deregister(Deregister { name, expected })),
            Mutation::SetAdminState { name, instance, admin_state, reason } => {
                Ok(Wire::SetAdminState(SetAdminState { name, instance, admin_state, reason }))
            }
            Mutation::PinTools { name, pinning } => Ok(Wire::PinTools(PinTools { name, pinning })),
            _ => Err(Error::unsupported("this mutation cannot be sent to a server")),
        });
        Ok(Self { mutations: mutations.collect::<Result<_>>()? })
    }

    /// The mutations themselves.
    ///
    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid) for the first record that is
    /// malformed. Its fields are relative to the record, as everywhere; the
    /// context says which service it is.
    pub(crate) fn parse(self) -> Result<Vec<Mutation>> {
        self.mutations.into_iter().map(Wire::parse).collect()
    }
}

impl Wire {
    fn parse(self) -> Result<Mutation> {
        Ok(match self {
            Self::Register(spec) => Mutation::Register(record(spec)?),
            Self::Put(spec) => Mutation::Put(record(spec)?),
            Self::Update(Update { name, spec, expected }) => Mutation::Update { name, spec: record(spec)?, expected },
            Self::Deregister(Deregister { name, expected }) => Mutation::Deregister { name, expected },
            Self::SetAdminState(SetAdminState { name, instance, admin_state, reason }) => {
                Mutation::SetAdminState { name, instance, admin_state, reason }
            }
            Self::PinTools(PinTools { name, pinning }) => Mutation::PinTools { name, pinning },
        })
    }
}

fn record(value: Value) -> Result<ServiceSpec> {
    let name = value["name"].as_str().map(str::to_owned);
    ServiceSpec::from_value(value).map_err(|error| error.with(|context| context.service = name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use machina_core::Sensitive;
    use serde_json::json;

    #[test]
    fn every_mutation_arrives_as_it_was_sent() {
        let spec = |name: &str| {
            let record = json!({"name": name, "env": {"TOKEN": "hunter2"}, "instances": [
                {"stdio": {"command": "x", "args": ["--token", "s3cret", "-v"], "env": {"A": "b"}}},
                {"id": InstanceId::generate(), "http": {"url": "https://u:p@x.example/", "headers": {"X-Key": "k"}}}]});
            ServiceSpec::from_value(record).unwrap()
        };
        let name = ServiceName::new("a/b").unwrap();
        let instance = Some(InstanceId::generate());
        let mutations = vec![
            Mutation::Update { name: name.clone(), spec: spec("b"), expected: Some(Revision(7)) },
            Mutation::Deregister { name: name.clone(), expected: None },
            Mutation::SetAdminState { name, instance, admin_state: AdminState::Draining, reason: Some("r".to_owned()) },
            Mutation::PinTools { name: ServiceName::new("p").unwrap(), pinning: Some(Pinning::Strict) },
            Mutation::Register(spec("c")),
            Mutation::Put(spec("d")),
        ];
        let sent = serde_json::to_string(&Mutations::of(mutations.clone()).unwrap()).unwrap();
        assert!(!sent.contains(Sensitive::MASK), "{sent}");
        let received: Mutations = serde_json::from_str(&sent).unwrap();
        let received = received.parse().unwrap();
        assert_eq!(received[1..4], mutations[1..4]);
        for (received, sent) in received.iter().zip(&mutations) {
            assert_eq!(std::mem::discriminant(received), std::mem::discriminant(sent));
        }
        let (Mutation::Put(received), Mutation::Put(sent)) = (&received[5], &mutations[5]) else { unreachable!() };
        assert_eq!(received.env, sent.env);
        assert_eq!(received.instances[0].endpoint, sent.instances[0].endpoint);
        assert_eq!(received.instances[1], sent.instances[1], "a declared identity is kept");
    }

    #[test]
    fn a_malformed_record_says_which_service_it_is() {
        let batch: Mutations =
            serde_json::from_value(json!({"mutations": [{"put": {"name": "a", "colour": 1}}]})).unwrap();
        let error = batch.parse().unwrap_err();
        assert_eq!(error.context().service.as_deref(), Some("a"));
        assert!(error.message().contains("colour"), "{error}");
    }

    #[test]
    fn a_malformed_mutation_is_named() {
        let error = mutations_from(json!({"mutations": [{"register": {"name": "a"}}, {"forget": {}}]})).unwrap_err();
        assert!(error.context().problems[0].field.starts_with("mutations[1]"), "{error}");
        assert_eq!(mutations_from(json!({"mutations": [{"put": {"name": "a"}}]})).unwrap().len(), 1);
        assert_eq!(mutations_from(json!([])).unwrap_err().kind(), machina_core::ErrorKind::Invalid);
    }
}
