//! Mail, through lettre. Each message has a connection of its own. What the
//! server says is not repeated in errors, only its code: a server that is not
//! what it seems may say the password again.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use machina_core::{Alert, AlertMessage, Error, ErrorKind, Notifier, Phase, Result, SmtpTarget, SmtpTls};

use super::Fields;

pub(super) struct Smtp {
    name: String,
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
    /// The server, as errors call it.
    server: String,
}

impl Smtp {
    pub(super) fn new(name: &str, target: &SmtpTarget, timeout: Duration, fields: &Fields<'_>) -> Result<Self> {
        let host = fields.text("smtp.host", &target.host)?;
        let tls = tls(&host, target, fields)?;
        let port = target.port.unwrap_or(match target.tls {
            SmtpTls::Starttls => 587,
            SmtpTls::Implicit => 465,
            SmtpTls::None => 25,
        });
        let mut transport =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&host).port(port).tls(tls).timeout(Some(timeout));
        if let (Some(username), Some(password)) = (&target.username, &target.password) {
            let username = fields.text("smtp.username", username)?;
            let password = fields.secret("smtp.password", password)?;
            transport = transport.credentials(Credentials::new(username, password.expose().to_owned()));
        }
        let address = |field: &str, text: &str| {
            let text = fields.text(field, text)?;
            text.parse::<Mailbox>().map_err(|_| fields.wrong(field, "must be an address such as ops@example.com"))
        };
        let from = address("smtp.from", &target.from)?;
        let to = target.to.iter().map(|text| address("smtp.to", text)).collect::<Result<_>>()?;
        Ok(Self { name: name.to_owned(), transport: transport.build(), from, to, server: format!("{host}:{port}") })
    }

    fn mail(&self, message: &AlertMessage) -> Result<Message> {
        let domain = self.from.email.domain();
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        let mut mail = Message::builder()
            .from(self.from.clone())
            .subject(format!("{}: {}", message.source, message.text))
            .message_id(Some(format!("<{}@{domain}>", message.id)))
            // Nobody's absence is to be told to a program.
            .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            mail = mail.to(to.clone());
        }
        mail.body(body(message)).map_err(|error| Error::internal("the mail cannot be written").caused_by(error))
    }

    fn failed(&self, error: &lettre::transport::smtp::Error) -> Error {
        let server = &self.server;
        if let Some(code) = error.status() {
            let code = u16::from(code);
            let (kind, why) = match code {
                530 | 534 | 535 | 538 => (ErrorKind::Forbidden, "it refuses the user name or the password"),
                400..=499 => (ErrorKind::Unavailable, "it says to try again later"),
                _ => (ErrorKind::Rejected, "it refuses the mail"),
            };
            return Error::new(kind, format!("the mail server {server} answered {code}: {why}")).at(Phase::Refused);
        }
        if error.is_timeout() {
            let message = format!("the mail server {server} did not answer in time");
            return Error::timeout(message).at(Phase::MaybeExecuted);
        }
        let cause = deepest(error);
        if error.is_tls() || cause.to_string().contains("certificate") {
            return Error::rejected(format!("there is no TLS with the mail server {server}: {cause}"));
        }
        if error.is_client() || error.is_response() {
            return Error::rejected(format!("the mail server {server} cannot be talked to: {cause}"));
        }
        match cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::HostUnreachable) => {
                Error::unreachable(format!("the mail server {server} cannot be reached: {cause}")).at(Phase::NotSent)
            }
            _ => Error::lost(format!("the exchange with the mail server {server} broke off: {cause}"))
                .at(Phase::MaybeExecuted),
        }
    }
}

fn deepest<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause
}

fn tls(host: &str, target: &SmtpTarget, fields: &Fields<'_>) -> Result<Tls> {
    if target.tls == SmtpTls::None {
        return Ok(Tls::None);
    }
    let mut parameters = TlsParameters::builder(host.to_owned());
    let pem = fields.certificates("smtp.ca_file", target.ca_file.as_deref())?;
    if !pem.is_empty() {
        let wrong = |_| fields.wrong("smtp.ca_file", "must be certificates in PEM form");
        parameters = parameters.add_root_certificate(Certificate::from_pem(&pem).map_err(wrong)?);
    }
    let parameters = parameters
        .build()
        .map_err(|error| fields.wrong("smtp.host", format!("TLS cannot be set up for it: {}", deepest(&error))))?;
    Ok(if target.tls == SmtpTls::Implicit { Tls::Wrapper(parameters) } else { Tls::Required(parameters) })
}

fn body(message: &AlertMessage) -> String {
    let mut text = format!("{}\n", message.text);
    for alert in &message.alerts {
        text += &format!("\n{}\n", paragraph(alert));
    }
    if message.omitted > 0 {
        text += &format!("\n… and {} more\n", message.omitted);
    }
    text + &format!("\n-- \n{}, {}\n", message.source, message.at)
}

fn paragraph(alert: &Alert) -> String {
    let word = if alert.resolved_at.is_some() { "resolved" } else { alert.level.as_str() };
    let mut lines = vec![format!("[{word}] {}", alert.summary), format!("  rule      {}", alert.rule.as_str())];
    lines.extend(alert.service.as_ref().map(|service| format!("  service   {service}")));
    lines.extend(alert.instance.map(|instance| format!("  instance  {instance}")));
    lines.push(format!("  since     {}", alert.since));
    lines.extend(alert.resolved_at.map(|at| format!("  over      {at}")));
    lines.extend(alert.resolution.as_ref().map(|how| format!("  how       {how}")));
    lines.join("\n")
}

#[async_trait]
impl Notifier for Smtp {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &str {
        "smtp"
    }

    async fn notify(&self, message: &AlertMessage) -> Result<()> {
        let mail = self.mail(message)?;
        self.transport.send(mail).await.map(drop).map_err(|error| self.failed(&error))
    }
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smtp").field("name", &self.name).field("server", &self.server).finish_non_exhaustive()
    }
}
