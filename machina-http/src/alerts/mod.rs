//! How alerts leave: webhooks, Slack and what takes the same, mail.
//!
//! Each makes one attempt and says what came of it. Refuses to decide what is
//! said, when, and how often it is tried: `machina-core` does. Refuses to follow
//! redirects and to use proxies: a message goes where the configuration says.
//! No error names more of an address than its host: the path may be a secret.

mod post;
mod slack;
mod smtp;
mod webhook;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use machina_core::{AlertChannel, AlertMessage, AlertsConfig, Error, Notifier, Problem, Result, Sensitive};

use slack::Slack;
use smtp::Smtp;
use webhook::Webhook;

/// Fills in the placeholders, such as `${env:TOKEN}`, of a field with this name.
pub type Resolve<'a> = &'a dyn Fn(&str, &str) -> Result<String>;

/// The channels of the configuration, for
/// [`Builder::notifier`](machina_core::Builder::notifier). Those without webhook,
/// slack and smtp are left to the program.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid) with everything that is wrong:
/// a placeholder that cannot be filled in, an address, a file of certificates.
pub fn notifiers(config: &AlertsConfig, resolve: Resolve<'_>) -> Result<Vec<Arc<dyn Notifier>>> {
    let (mut notifiers, mut problems) = (Vec::new(), Vec::new());
    for (index, channel) in config.channels.iter().enumerate() {
        match notifier(channel, config, &Fields { index, resolve }) {
            Ok(notifier) => notifiers.extend(notifier),
            Err(error) if error.context().problems.is_empty() => {
                problems.push(Problem { field: format!("alerts.channels[{index}]"), detail: error.message().into() });
            }
            Err(error) => problems.extend(error.context().problems.iter().cloned()),
        }
    }
    if problems.is_empty() { Ok(notifiers) } else { Err(Error::invalid_fields(problems)) }
}

/// The same for a program that tells nobody: a channel that is not as it should
/// be says why when it is tried.
pub fn notifiers_if_possible(config: &AlertsConfig, resolve: Resolve<'_>) -> Vec<Arc<dyn Notifier>> {
    let made = |(index, channel): (usize, &AlertChannel)| match notifier(channel, config, &Fields { index, resolve }) {
        Ok(notifier) => notifier,
        Err(error) => Some(Arc::new(Unusable { name: channel.name.clone(), error }) as Arc<dyn Notifier>),
    };
    config.channels.iter().enumerate().filter_map(made).collect()
}

fn notifier(channel: &AlertChannel, config: &AlertsConfig, fields: &Fields<'_>) -> Result<Option<Arc<dyn Notifier>>> {
    let (name, timeout) = (&channel.name, config.delivery_timeout);
    Ok(if let Some(target) = &channel.webhook {
        Some(Arc::new(Webhook::new(name, target, timeout, fields)?))
    } else if let Some(target) = &channel.slack {
        Some(Arc::new(Slack::new(name, target, timeout, fields)?))
    } else if let Some(target) = &channel.smtp {
        Some(Arc::new(Smtp::new(name, target, timeout, fields)?))
    } else {
        None
    })
}

/// The fields of one channel.
struct Fields<'a> {
    index: usize,
    resolve: Resolve<'a>,
}

impl Fields<'_> {
    fn path(&self, field: &str) -> String {
        format!("alerts.channels[{}].{field}", self.index)
    }

    fn wrong(&self, field: &str, detail: impl Into<String>) -> Error {
        Error::invalid_field(self.path(field), detail)
    }

    fn text(&self, field: &str, text: &str) -> Result<String> {
        (self.resolve)(&self.path(field), text)
    }

    fn secret(&self, field: &str, secret: &Sensitive) -> Result<Sensitive> {
        // What a reference stands for is a secret whatever it looks like.
        Ok(Sensitive::secret(self.text(field, secret.expose())?))
    }

    /// The certificates in a PEM file; nothing without one.
    fn certificates(&self, field: &str, file: Option<&Path>) -> Result<Vec<u8>> {
        let Some(file) = file else { return Ok(Vec::new()) };
        let unreadable = |error| self.wrong(field, format!("{} cannot be read: {error}", file.display()));
        std::fs::read(file).map_err(unreadable)
    }
}

/// A channel that is not as it should be.
#[derive(Debug)]
struct Unusable {
    name: String,
    error: Error,
}

#[async_trait]
impl Notifier for Unusable {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &str {
        "unusable"
    }

    async fn notify(&self, _: &AlertMessage) -> Result<()> {
        Err(self.error.clone())
    }
}
