//! How a message leaves: the trait that channels implement.

use std::fmt::Debug;

use async_trait::async_trait;

use super::AlertMessage;
use crate::error::Result;

/// A way to tell someone: a webhook, mail, a function of the program that embeds
/// Machina.
///
/// **Behaviour**
/// * `notify` makes one attempt; Machina repeats those that may pass
///   ([`Unreachable`](crate::ErrorKind::Unreachable), [`Lost`](crate::ErrorKind::Lost),
///   [`Timeout`](crate::ErrorKind::Timeout), [`Overloaded`](crate::ErrorKind::Overloaded),
///   [`Unavailable`](crate::ErrorKind::Unavailable)), with the same message: one may
///   arrive twice, and has the same `id` then.
/// * It is dropped when it takes longer than `alerts.delivery_timeout`.
/// * No error and no `Debug` of it shows a secret.
#[async_trait]
pub trait Notifier: Debug + Send + Sync + 'static {
    /// The name of the channel, by which `alerts.channels` and the policies of
    /// services mean it.
    fn name(&self) -> &str;

    /// How it tells, in one word: `webhook`, `smtp`, …
    fn kind(&self) -> &str;

    /// Delivers the message.
    ///
    /// # Errors
    /// Why it was not delivered, or why that is not known.
    async fn notify(&self, message: &AlertMessage) -> Result<()>;
}
