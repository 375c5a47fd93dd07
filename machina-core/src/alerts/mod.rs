//! Alerts: what a person is told, and when.
//!
//! ```text
//! events ─→ signals ─→ engine (which alerts fire, how grave) ─→ board
//!                                                                 │
//!                      one outlet per channel (what to say now) ←─┘─→ notifier
//! ```
//!
//! The engine and the outlets are pure: what happened and the time come in. An
//! outlet holds no queue: it compares what fires with what its channel was told,
//! so that what is over before it could be said is never said, and a channel that
//! does not answer delays no other.
//!
//! Refuses to decide what is healthy: it reads the view. Refuses to know how a
//! message travels: a [`Notifier`] does.

mod alert;
mod channel;
mod config;
mod engine;
mod follow;
mod hours;
mod memory;
mod message;
mod notifier;
mod outlet;
mod report;
mod signal;

pub use alert::{Alert, AlertRule};
pub use config::{AlertChannel, AlertsConfig, SlackTarget, SmtpTarget, SmtpTls, WebhookTarget};
pub(crate) use follow::Alerts;
pub use hours::{QuietHours, Weekday};
pub use message::{AlertMessage, AlertMessageKind};
pub use notifier::Notifier;
pub use report::{AlertCounts, AlertsReport, ChannelError, ChannelReport, ChannelTest};
