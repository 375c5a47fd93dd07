//! Every format with a realistic sample, every kind of malformed entry, and the
//! way out and back for every host.

mod diff;
mod export;
mod fleet;
mod hosts;
mod malformed;
mod mutations;
mod registry;
mod server_json_out;

use machina_core::{Endpoint, HttpEndpoint, Sensitive, ServiceSpec, StdioEndpoint};

use super::{Format, Import, ImportOptions, Severity, import};

/// The word that stands for every secret of the samples.
const SECRET: &str = "hunter2";

fn read(text: &str, format: Format) -> Import {
    read_with(text, format, &ImportOptions::default())
}

fn read_with(text: &str, format: Format, options: &ImportOptions) -> Import {
    let import = import(text, options).unwrap();
    assert_eq!(import.format, format);
    for note in &import.notes {
        assert!(!note.to_string().contains(SECRET), "{note}");
    }
    let shown = serde_json::to_string(&import.services).unwrap();
    assert!(!shown.contains(SECRET), "{shown}");
    import
}

/// One server of `mcpServers` called `x`, read with all its notes.
fn read_one(entry: &str) -> Import {
    read(&format!("{{\"mcpServers\": {{\"x\": {entry}}}}}"), Format::McpServers)
}

impl Import {
    fn service(&self, name: &str) -> &ServiceSpec {
        let found = self.services.iter().find(|spec| spec.name.as_str() == name);
        found.unwrap_or_else(|| panic!("no service {name} in {:#?}", self.notes))
    }

    fn stdio(&self, name: &str) -> &StdioEndpoint {
        match &self.service(name).instances[0].endpoint {
            Endpoint::Stdio(stdio) => stdio,
            other => panic!("{name} is {}", other.kind()),
        }
    }

    fn http(&self, name: &str) -> &HttpEndpoint {
        match &self.service(name).instances[0].endpoint {
            Endpoint::Http(http) => http,
            other => panic!("{name} is {}", other.kind()),
        }
    }

    fn sse(&self, name: &str) -> &HttpEndpoint {
        match &self.service(name).instances[0].endpoint {
            Endpoint::Sse(http) => http,
            other => panic!("{name} is {}", other.kind()),
        }
    }

    /// Whether there is a note of this severity at `path` whose message holds `part`.
    #[track_caller]
    fn notes_at(&self, severity: Severity, path: &str, part: &str) {
        let fits = |note: &&super::Note| note.path == path && note.message.contains(part);
        let found = self.notes.iter().find(fits);
        assert_eq!(found.map(|note| note.severity), Some(severity), "{path} / {part} in {:#?}", self.notes);
    }

    #[track_caller]
    fn no_errors(&self) {
        assert_eq!(self.errors().count(), 0, "{:#?}", self.notes);
    }
}

fn args(stdio: &StdioEndpoint) -> Vec<&str> {
    stdio.args.iter().map(Sensitive::expose).collect()
}
