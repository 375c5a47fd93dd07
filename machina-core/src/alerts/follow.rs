//! The task that follows the registry and asks the engine, and what others ask
//! about alerts.

use std::sync::Arc;

use tokio::sync::{Mutex, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::alert::Alert;
use super::channel::{Channel, now, until};
use super::config::{AlertChannel, AlertsConfig};
use super::engine::{Action, Board, Engine, Input};
use super::memory::{self, Recalled};
use super::message::AlertMessage;
use super::notifier::Notifier;
use super::outlet::Outlet;
use super::report::{AlertCounts, AlertsReport, ChannelError, ChannelTest};
use super::signal::{Signal, look, seen, signals};
use crate::clock;
use crate::core::Core;
use crate::error::{Error, Problem, Result};
use crate::event::Next;
use crate::model::AlertLevel;

/// How many events are taken into account before those who tell are told.
const BATCH_MAX: usize = 512;

/// The alerts of one registry.
#[derive(Debug)]
pub(crate) struct Alerts {
    board: watch::Sender<Board>,
    channels: Vec<Arc<Channel>>,
    /// Held while channels are tried out: one test at a time.
    testing: Mutex<()>,
}

impl Alerts {
    /// The channels that the configuration and the notifiers make together.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a channel without a notifier,
    /// and for two notifiers of one name.
    pub(crate) fn new(config: &AlertsConfig, notifiers: Vec<Arc<dyn Notifier>>) -> Result<Self> {
        let mut problems = Vec::new();
        let mut channels: Vec<Arc<Channel>> = Vec::new();
        for notifier in notifiers {
            let name = notifier.name().to_owned();
            if channels.iter().any(|channel| channel.settings.name == name) {
                let detail = format!("must have unique names, and there are two called `{}`", name.escape_debug());
                problems.push(Problem { field: "alerts.channels".into(), detail });
            }
            let settings = config.channel(&name).cloned().unwrap_or_else(|| AlertChannel::new(name));
            channels.push(Arc::new(Channel::new(settings, notifier)));
        }
        for (index, configured) in config.channels.iter().enumerate() {
            if !channels.iter().any(|channel| channel.settings.name == configured.name) {
                let detail = "must have a webhook, slack or smtp, or a notifier of this name".to_owned();
                problems.push(Problem { field: format!("alerts.channels[{index}]"), detail });
            }
        }
        if !problems.is_empty() {
            return Err(Error::invalid_fields(problems));
        }
        Ok(Self { board: watch::Sender::new(Board::default()), channels, testing: Mutex::new(()) })
    }

    /// What fires, what is over, and how the channels are.
    pub(crate) fn report(&self, visible: impl Fn(&Alert) -> bool) -> AlertsReport {
        let board = self.board.borrow().clone();
        let mut firing: Vec<_> = board.firing.values().filter(|alert| visible(alert)).cloned().collect();
        firing.sort_by_key(|alert| (std::cmp::Reverse(alert.level), alert.since));
        let omitted = firing.len().saturating_sub(AlertsReport::FIRING_MAX);
        firing.truncate(AlertsReport::FIRING_MAX);
        let recent = board.recent.iter().filter(|alert| visible(alert)).cloned().collect();
        let channels = self.channels.iter().map(|channel| channel.report()).collect();
        AlertsReport { firing, omitted, recent, held: board.held, channels }
    }

    /// The same in numbers.
    pub(crate) fn counts(&self) -> AlertCounts {
        let board = self.board.borrow().clone();
        let count = |level| board.firing.values().filter(|alert| alert.level == level).count() as u64;
        AlertCounts {
            firing: AlertLevel::ALL.iter().map(|level| (*level, count(*level))).collect(),
            channels: self.channels.iter().map(|channel| channel.report()).collect(),
        }
    }

    /// Sends a message that says nothing, to one channel or to all, at once.
    pub(crate) async fn test(core: &Arc<Core>, channel: Option<&str>) -> Result<Vec<ChannelTest>> {
        let alerts = &core.alerts;
        let Ok(_testing) = alerts.testing.try_lock() else {
            return Err(Error::overloaded("the channels are being tried out already"));
        };
        let wanted = |one: &&Arc<Channel>| channel.is_none_or(|name| one.settings.name == name);
        let channels: Vec<_> = alerts.channels.iter().filter(wanted).collect();
        if let (Some(name), true) = (channel, channels.is_empty()) {
            let known = alerts.channels.iter().map(|channel| channel.settings.name.as_str()).collect::<Vec<_>>();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let detail = format!("must name a channel, and there is no `{}`; there are: {known}", name.escape_debug());
            return Err(Error::invalid_field("channel", detail));
        }
        let mut running = Vec::new();
        for channel in channels {
            let (done, outcome) = oneshot::channel();
            let (core, channel) = (Arc::clone(core), Arc::clone(channel));
            let tasks = core.tasks.clone();
            tasks.spawn(
                "test alert channel",
                async move { drop(done.send(tried(&channel, &core.config.alerts).await)) },
            );
            running.push(outcome);
        }
        let mut tests = Vec::new();
        for outcome in running {
            tests.push(outcome.await.map_err(|_| Error::unavailable("the registry is closing"))?);
        }
        Ok(tests)
    }
}

async fn tried(channel: &Channel, config: &AlertsConfig) -> ChannelTest {
    let (begun, at) = (Instant::now(), clock::now());
    let message = AlertMessage::test(&config.source, Uuid::now_v7(), at);
    let outcome = channel.attempt(&message, config.delivery_timeout).await;
    ChannelTest {
        channel: channel.settings.name.clone(),
        kind: channel.kind().to_owned(),
        delivered: outcome.is_ok(),
        duration_ms: begun.elapsed().as_secs_f64() * 1000.0,
        error: outcome.err().map(|error| ChannelError::of(&error, clock::now())),
    }
}

impl Core {
    /// Follows what happens and says what is worth saying, until cancelled. Of
    /// several replicas one says it, and the others know what it would say; whoever
    /// begins to goes on where the one before has stopped.
    pub(crate) async fn tell_of_alerts(self: Arc<Self>) {
        loop {
            let tells = self.replicas.tells_people();
            let over = CancellationToken::new();
            let _over = over.clone().drop_guard();
            tokio::select! {
                () = self.follow_alerts(tells.then_some(&over)) => {}
                () = self.replicas.until_another_tells_people(tells) => {}
            }
        }
    }

    /// Follows what happens, and tells the channels, if any are to be told, until
    /// `over` is cancelled.
    async fn follow_alerts(self: &Arc<Self>, over: Option<&CancellationToken>) {
        let config = &self.config.alerts;
        let mut events = self.events.subscribe();
        let recalled = memory::recall(&*self.journal, clock::now()).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "what channels were told before is not known: some of it may be sent again");
            Recalled::new()
        });
        let mut engine = Engine::new(config.clone(), self.config.health.interval);
        engine.restore(memory::firing(&recalled), now());
        self.look_at_all(&mut engine);
        // Before the channels begin: to them, what is not on the board is over.
        self.alerts.board.send_replace(engine.board().clone());
        if let Some(over) = over {
            self.start_channels(recalled, over);
        }
        loop {
            self.alerts.board.send_replace(engine.board().clone());
            tokio::select! {
                next = events.next() => self.take(&next, &mut engine),
                () = until(engine.deadline()) => self.act(&mut engine, Input::Tick),
            }
            for _ in 0..BATCH_MAX {
                let Some(next) = events.try_next() else { break };
                self.take(&next, &mut engine);
            }
        }
    }

    fn start_channels(self: &Arc<Self>, mut recalled: Recalled, over: &CancellationToken) {
        let begun = Instant::now();
        let names: Arc<[String]> = self.alerts.channels.iter().map(|channel| channel.settings.name.clone()).collect();
        for channel in &self.alerts.channels {
            let mut outlet = Outlet::new(&channel.settings, Arc::clone(&names), &self.config.alerts);
            outlet.restore(recalled.remove(&channel.settings.name).unwrap_or_default(), begun);
            let board = self.alerts.board.subscribe();
            let telling = Arc::clone(channel).run(Arc::clone(self), outlet, board);
            let over = over.clone();
            let telling = async move {
                tokio::select! {
                    () = over.cancelled() => {}
                    () = telling => {}
                }
            };
            self.monitor_tasks.spawn("alert channel", telling);
        }
    }

    fn take(&self, next: &Next, engine: &mut Engine) {
        match next {
            Next::Event(event) => {
                for signal in signals(event, &self.view(), &self.config.alerts) {
                    self.act(engine, Input::Signal(signal));
                }
            }
            // Events were dropped: what is so now can still be read.
            Next::Resync => self.look_at_all(engine),
        }
    }

    /// Reads the whole registry.
    fn look_at_all(&self, engine: &mut Engine) {
        let (view, config) = (self.view(), &self.config.alerts);
        let (holds, message) = (self.guard.holds(), String::new());
        self.act(engine, Input::Signal(Signal::SelfPreservation { holds, message }));
        for name in engine.services() {
            self.act(engine, Input::Signal(look(&name, &view, config)));
        }
        for service in view.services() {
            let name = service.service().name().clone();
            self.act(engine, Input::Signal(Signal::Service { name, seen: seen(service, config) }));
        }
    }

    fn act(&self, engine: &mut Engine, input: Input) {
        for action in engine.step(input, now()) {
            match action {
                Action::Fired(alert) | Action::Escalated(alert) => {
                    let (rule, level) = (alert.rule.as_str(), alert.level.as_str());
                    tracing::warn!(rule, level, summary = alert.summary, "alert");
                }
                Action::Resolved(alert) => {
                    tracing::info!(rule = alert.rule.as_str(), summary = alert.summary, "alert is over");
                }
                Action::Reread => self.look_at_all(engine),
            }
        }
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
