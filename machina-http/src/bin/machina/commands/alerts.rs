//! `alerts`.

use machina_core::{Alert, AlertsReport, ChannelReport, ChannelTest, Error, Result};
use machina_http::Client;

use crate::App;
use crate::cli::{Alerts, AlertsCommand, Where};
use crate::exit::Ended;
use crate::output::short;
use crate::reach::Reached;

/// How long a text is in a table.
const TEXT_MAX: usize = 200;

/// Which Machina is asked.
pub(crate) fn place(args: &Alerts) -> &Where {
    match &args.command {
        Some(AlertsCommand::List { at } | AlertsCommand::Test { at, .. }) => at,
        None => &args.at,
    }
}

pub(crate) async fn run(app: &App, args: &Alerts, reached: &Reached) -> Result<Ended> {
    match &args.command {
        None | Some(AlertsCommand::List { .. }) => list(app, reached).await,
        Some(AlertsCommand::Test { channel, .. }) => test(app, channel.as_deref(), reached).await,
    }
}

async fn list(app: &App, reached: &Reached) -> Result<Ended> {
    let report = match &reached.local {
        Some(machina) => {
            app.complain("no server runs: alerts are known to the one that watches the services");
            machina.system().alerts()
        }
        None => client(reached)?.alerts().await?,
    };
    let ended = Ended::well_if(report.firing.is_empty());
    if app.output.is_json() {
        app.output.json(&report);
        return Ok(ended);
    }
    show(app, &report);
    Ok(ended)
}

fn show(app: &App, report: &AlertsReport) {
    if report.held {
        app.output.line("Nothing is sent: so much fails at once that the fault may be Machina's own.\n");
    }
    if report.firing.is_empty() {
        app.output.line("No alert fires.");
    } else {
        let mut columns = app.output.columns(&["LEVEL", "SINCE", "SUMMARY"]);
        let row = |alert: &Alert| {
            [alert.level.as_str().to_owned(), format!("{:.0}", alert.since), short(&alert.summary, TEXT_MAX)]
        };
        report.firing.iter().for_each(|alert| columns.row(row(alert)));
        app.output.table(columns);
        if report.omitted > 0 {
            app.output.line(format!("… and {} more", report.omitted));
        }
    }
    if !report.recent.is_empty() {
        app.output.line("");
        let mut columns = app.output.columns(&["OVER", "SUMMARY", "HOW"]);
        for alert in &report.recent {
            let over = alert.resolved_at.map(|at| format!("{at:.0}")).unwrap_or_default();
            let how = alert.resolution.as_deref().unwrap_or_default();
            columns.row([over, short(&alert.summary, TEXT_MAX), short(how, TEXT_MAX)]);
        }
        app.output.table(columns);
    }
    channels(app, &report.channels);
}

fn channels(app: &App, channels: &[ChannelReport]) {
    app.output.line("");
    if channels.is_empty() {
        app.output
            .line("There are no channels: nobody is told. Declare some: [[alerts.channels]] in the configuration");
        return;
    }
    let mut columns = app.output.columns(&["CHANNEL", "KIND", "FROM", "#DELIVERED", "#FAILED", "#HELD", "LAST ERROR"]);
    for channel in channels {
        let error = channel.last_error.as_ref().map(|error| short(&error.message, TEXT_MAX)).unwrap_or_default();
        columns.row([
            channel.name.clone(),
            channel.kind.clone(),
            channel.minimum_level.as_str().to_owned(),
            channel.delivered.to_string(),
            channel.failed.to_string(),
            channel.held.to_string(),
            error,
        ]);
    }
    app.output.table(columns);
}

async fn test(app: &App, channel: Option<&str>, reached: &Reached) -> Result<Ended> {
    let tests = match &reached.local {
        Some(machina) => machina.system().test_alerts(channel).await?,
        None => client(reached)?.test_alerts(channel).await?,
    };
    let all = tests.iter().all(|test| test.delivered);
    if app.output.is_json() {
        app.output.json(&tests);
    } else if tests.is_empty() {
        app.output.line("There are no channels. Declare some: [[alerts.channels]] in the configuration");
    } else {
        tests.iter().for_each(|test| app.output.line(outcome(test)));
    }
    Ok(Ended::well_if(all))
}

fn outcome(test: &ChannelTest) -> String {
    let ChannelTest { channel, kind, duration_ms, error, .. } = test;
    match error {
        None => format!("{channel} ({kind}) took the message in {duration_ms:.0} ms"),
        Some(error) => format!("{channel} ({kind}) did not take it: {}", error.message),
    }
}

fn client(reached: &Reached) -> Result<Client> {
    let url = reached.url.as_deref().ok_or_else(|| Error::internal("there is no server to ask"))?;
    Client::new(url)
}
