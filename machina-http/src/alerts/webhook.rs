//! A webhook: the message as JSON, signed if there is a secret.
//!
//! The signature is the HMAC-SHA-256 of `<timestamp>.<body>`, in hexadecimal:
//! whoever has the secret knows that the message is Machina's, and how old it is.

use std::fmt::Write as _;
use std::time::Duration;

use async_trait::async_trait;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use machina_core::{AlertMessage, Error, Notifier, Result, Sensitive, WebhookTarget};
use sha2::Sha256;

use super::Fields;
use super::post::Post;

/// What tells a message from one that was sent before; the same in each attempt.
const ID: HeaderName = HeaderName::from_static("x-machina-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-machina-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("x-machina-signature");

#[derive(Debug)]
pub(super) struct Webhook {
    name: String,
    post: Post,
    headers: HeaderMap,
    secret: Option<Sensitive>,
}

impl Webhook {
    pub(super) fn new(name: &str, target: &WebhookTarget, timeout: Duration, fields: &Fields<'_>) -> Result<Self> {
        let mut headers = HeaderMap::new();
        for (header, value) in &target.headers {
            let field = format!("webhook.headers.{header}");
            let value = HeaderValue::from_str(fields.secret(&field, value)?.expose());
            let (Ok(header), Ok(mut value)) = (header.parse::<HeaderName>(), value) else {
                return Err(fields.wrong(&field, "must be the name and the value of a header"));
            };
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        let secret = target.secret.as_ref().map(|secret| fields.secret("webhook.secret", secret)).transpose()?;
        if secret.as_ref().is_some_and(|secret| secret.expose().len() < 16) {
            return Err(fields.wrong("webhook.secret", "must have at least 16 characters"));
        }
        let post = Post::new("webhook", &target.url, target.ca_file.as_deref(), timeout, fields)?;
        Ok(Self { name: name.to_owned(), post, headers, secret })
    }
}

#[async_trait]
impl Notifier for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &str {
        "webhook"
    }

    async fn notify(&self, message: &AlertMessage) -> Result<()> {
        let unwritable = |error| Error::internal("the message has no JSON form").caused_by(error);
        let body = serde_json::to_vec(message).map_err(unwritable)?;
        let mut headers = self.headers.clone();
        let timestamp = machina_core::now().as_second();
        headers.insert(ID, text(&message.id.to_string())?);
        headers.insert(TIMESTAMP, HeaderValue::from(timestamp));
        if let Some(secret) = &self.secret {
            headers.insert(SIGNATURE, text(&format!("sha256={}", signature(secret, timestamp, &body)))?);
        }
        self.post.send(body, headers).await
    }
}

fn text(value: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(value).map_err(|error| Error::internal("a header cannot be written").caused_by(error))
}

fn signature(secret: &Sensitive, timestamp: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes a key of any length");
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body);
    mac.finalize().into_bytes().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_any_other_program() {
        // printf '1767225600.{"a":1}' | openssl dgst -sha256 -hmac correct-horse-battery
        let secret = Sensitive::secret("correct-horse-battery");
        let expected = "cfff833d23d8ad82b49e3651e148b94baebd4679e97808e351f348cc8b97ead9";
        assert_eq!(signature(&secret, 1_767_225_600, br#"{"a":1}"#), expected);
    }
}
