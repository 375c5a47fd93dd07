//! Configuration for a host, written out of service records: each service
//! directly, or Machina itself as the one server that stands for all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use machina_core::{Error, Result, ServiceSpec};
use serde::Serialize;

use super::host_entry::{HostEntry, Secrets, Way};
use super::note::{Note, Notes};
use super::render;

/// A host that configuration can be written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Client {
    /// Claude Code: `.mcp.json`.
    ClaudeCode,
    /// Claude Desktop: `claude_desktop_config.json`.
    ClaudeDesktop,
    /// Cursor: `.cursor/mcp.json`.
    Cursor,
    /// VS Code: `.vscode/mcp.json`.
    #[serde(rename = "vscode")]
    VsCode,
    /// Zed: `settings.json`.
    Zed,
    /// Codex: `.codex/config.toml`.
    Codex,
    /// Gemini CLI: `.gemini/settings.json`.
    Gemini,
    /// Windsurf: `mcp_config.json`.
    Windsurf,
    /// opencode: `opencode.json`.
    #[serde(rename = "opencode")]
    OpenCode,
}

impl Client {
    /// Every host, in order.
    pub const ALL: &'static [Self] = &[
        Self::ClaudeCode,
        Self::ClaudeDesktop,
        Self::Cursor,
        Self::VsCode,
        Self::Zed,
        Self::Codex,
        Self::Gemini,
        Self::Windsurf,
        Self::OpenCode,
    ];

    /// The word on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude-code",
            Self::ClaudeDesktop => "claude-desktop",
            Self::Cursor => "cursor",
            Self::VsCode => "vscode",
            Self::Zed => "zed",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
            Self::Windsurf => "windsurf",
            Self::OpenCode => "opencode",
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Client {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|client| client.as_str() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|client| client.as_str()).collect();
            Error::invalid_field("client", format!("must be one of {}", known.join(", ")))
        })
    }
}

/// How a host is to reach Machina.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gateway {
    /// It starts this program, such as `machina mcp`, and speaks to it on its
    /// standard streams.
    Stdio {
        /// The program.
        command: String,
        /// Its arguments.
        args: Vec<String>,
    },
    /// It connects to a running Machina at this address, which ends with `/mcp`.
    Http {
        /// The address.
        url: String,
    },
}

/// A configuration for a host, and what is to be said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The whole text of the file, with a line end.
    pub text: String,
    /// What could not be written, and which secrets have to be set.
    pub notes: Vec<Note>,
}

/// Configuration by which `client` reaches each of `services` itself, at its
/// first usable instance. No secret is written: a reference stands in its place,
/// in the form that the host fills in, and a note names it. A service that the
/// host cannot reach is left out, with an error note.
///
/// # Errors
/// [`Internal`](machina_core::ErrorKind::Internal) if the text cannot be made.
pub fn export(services: &[ServiceSpec], client: Client) -> Result<Export> {
    let mut notes = Notes::default();
    let mut secrets = Secrets::default();
    let found = services.iter().filter_map(|spec| HostEntry::of(spec, &mut secrets, &mut notes)).collect();
    let entries = rename(found, &mut notes);
    let text = render::render(client, &entries, &secrets, &mut notes)?;
    Ok(Export { text, notes: notes.into_vec() })
}

/// Configuration by which `client` reaches Machina itself, under the name `machina`.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid) for an empty command and an
/// address that is not one of `http` or `https`.
pub fn export_gateway(client: Client, gateway: &Gateway) -> Result<Export> {
    let way = match gateway {
        Gateway::Stdio { command, .. } if command.trim().is_empty() => {
            return Err(Error::invalid_field("command", "must name the program to start, such as `machina`"));
        }
        Gateway::Stdio { command, args } => {
            Way::Program { command: command.clone(), args: args.clone(), env: BTreeMap::new(), cwd: None }
        }
        Gateway::Http { url } => {
            let parsed = url::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            if !parsed.is_some_and(|url| url.has_host()) {
                let detail = "must be an address such as http://127.0.0.1:8000/mcp";
                return Err(Error::invalid_field("url", detail));
            }
            Way::Address { sse: false, url: url.clone(), headers: BTreeMap::new() }
        }
    };
    let name = "machina".to_owned();
    let entry = HostEntry { name, disabled: false, call_timeout: None, startup_timeout: None, way };
    let mut notes = Notes::default();
    if client == Client::ClaudeCode {
        notes.info("machina", format!("the same by command: {}", claude_mcp_add(gateway)));
    }
    let text = render::render(client, &[entry], &Secrets::default(), &mut notes)?;
    Ok(Export { text, notes: notes.into_vec() })
}

fn claude_mcp_add(gateway: &Gateway) -> String {
    match gateway {
        Gateway::Stdio { command, args } => {
            let words: Vec<_> = std::iter::once(command).chain(args).map(|word| quoted(word)).collect();
            format!("claude mcp add machina -- {}", words.join(" "))
        }
        Gateway::Http { url } => format!("claude mcp add --transport http machina {}", quoted(url)),
    }
}

/// `word` as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Hosts make tool names out of a server's name, so it has letters, digits, `-`
/// and `_` only there.
fn rename(mut entries: Vec<HostEntry>, notes: &mut Notes) -> Vec<HostEntry> {
    let mut taken = BTreeSet::new();
    for entry in &mut entries {
        let keep = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
        let base: String = entry.name.chars().map(keep).collect();
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        let name = std::iter::once(base.clone()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or(base);
        if name != entry.name {
            notes.info(&entry.name, format!("is called `{name}` there"));
        }
        taken.insert(name.clone());
        entry.name = name;
    }
    entries
}
