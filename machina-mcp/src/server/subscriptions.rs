//! `subscriptions/listen`: a request of the stateless era that stays open and
//! tells of what its host asked for, and of nothing else.

use machina_core::Era;
use serde_json::{Value, json};

use super::changes::{Feed, Kinds};
use super::gateway::{Answer, Gateway};
use super::protocol::Reply;
use super::rpc::{self, Fault, INVALID_PARAMS, Id, Object, Request, object};

/// The method.
pub(super) const LISTEN: &str = "subscriptions/listen";

const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// The fields of a filter that can be honoured.
const FILTERS: [&str; 3] = ["toolsListChanged", "promptsListChanged", "resourcesListChanged"];

/// One open subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    id: Id,
    feed: Feed,
    acknowledged: bool,
}

impl Subscription {
    /// Whether `request` opens one.
    pub(super) fn is_wanted(request: &Request, era: Era) -> bool {
        era == Era::Modern && request.method == LISTEN
    }

    /// The subscription that `request` asks for.
    pub(super) async fn open(gateway: &Gateway, request: &Request) -> Result<Self, Fault> {
        let wanted = filter(&request.params)?;
        let feed = Feed::open(gateway, wanted, None).await;
        Ok(Self { id: request.id.clone(), feed, acknowledged: false })
    }

    /// The next message: first of all what is honoured. May be dropped and
    /// called again.
    pub(super) async fn next(&mut self) -> String {
        if !self.acknowledged {
            self.acknowledged = true;
            return self.acknowledgement();
        }
        let method = self.feed.next().await;
        rpc::notification(method, &json!({"_meta": self.meta()}))
    }

    /// The answer, which says that the server has ended the subscription.
    pub(super) fn ended(&self) -> Answer {
        let result = object(json!({"_meta": self.meta()}));
        Answer::to(Some(&self.id), Ok(Reply::new(result).dressed(Era::Modern)))
    }

    fn acknowledgement(&self) -> String {
        let Kinds { tools, prompts, resources } = self.feed.kinds();
        let honoured = FILTERS.into_iter().zip([tools, prompts, resources]).filter(|(_, honoured)| *honoured);
        let honoured: Object = honoured.map(|(filter, _)| (filter.to_owned(), true.into())).collect();
        rpc::notification(
            "notifications/subscriptions/acknowledged",
            &json!({"_meta": self.meta(), "notifications": honoured}),
        )
    }

    fn meta(&self) -> Value {
        json!({META_SUBSCRIPTION: self.id.value()})
    }
}

/// What a host wants to be told of.
fn filter(params: &Object) -> Result<Kinds, Fault> {
    let Some(wanted) = params.get("notifications").and_then(Value::as_object) else {
        return Err(Fault::new(
            INVALID_PARAMS,
            "notifications: must be an object such as {\"toolsListChanged\": true}",
        ));
    };
    let flag = |name: &str| match wanted.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(wanted)) => Ok(*wanted),
        Some(_) => Err(Fault::new(INVALID_PARAMS, format!("notifications.{name}: must be true or false"))),
    };
    let [tools, prompts, resources] = FILTERS.map(flag);
    Ok(Kinds { tools: tools?, prompts: prompts?, resources: resources? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_and_what_is_none_is_named() {
        let read = |notifications: Value| filter(&object(json!({"notifications": notifications})));
        assert_eq!(read(json!({})), Ok(Kinds::default()));
        let wanted = read(json!({"toolsListChanged": true, "promptsListChanged": false, "resourcesListChanged": true,
            "resourceSubscriptions": ["file:///a"], "taskIds": ["t"]}));
        assert_eq!(wanted, Ok(Kinds { tools: true, prompts: false, resources: true }));
        let fault = read(json!({"promptsListChanged": 1})).unwrap_err();
        assert!(fault.message.starts_with("notifications.promptsListChanged"), "{}", fault.message);
        for params in [json!({}), json!({"notifications": true})] {
            assert_eq!(filter(&object(params)).unwrap_err().code, INVALID_PARAMS);
        }
    }
}
