//! Services out of files: read them, say what is to be said, declare them. A bad
//! entry never stops the others.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use machina_core::{AdminState, Error, ErrorKind, Mutation, Registry, Result, Revision, ServiceSpec};
use machina_mcp::formats::{self, ImportOptions, Note, Severity};

use crate::App;

/// What was found in a file.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) import: formats::Import,
}

/// Reads the files at `paths`; `-` is stdin.
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid) for a file that cannot be read at all.
pub(crate) fn read(app: &App, paths: &[PathBuf]) -> Result<Vec<File>> {
    paths.iter().map(|path| one(app, path)).collect()
}

fn one(app: &App, path: &Path) -> Result<File> {
    let place = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
    let wrong = |detail: String| Error::invalid_field("import", format!("{place}: {detail}"));
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let import = formats::import(&text, &options(app, path)).map_err(|error| wrong(details(&error)))?;
    Ok(File { path: path.to_owned(), import })
}

/// What is wrong with a text as a whole: there is only the one field.
fn details(error: &Error) -> String {
    match error.context().problems.as_slice() {
        [] => error.message().to_owned(),
        problems => problems.iter().map(|problem| problem.detail.as_str()).collect::<Vec<_>>().join("; "),
    }
}

/// What hosts fill in by themselves: where the file lies, and whose it is.
fn options(app: &App, path: &Path) -> ImportOptions {
    let mut options = ImportOptions::default();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(directory) = std::path::absolute(directory) {
        let directory = directory.to_string_lossy();
        options = options.variable("workspaceFolder", &*directory).variable("__dirname", &*directory);
    }
    match app.variables.get("HOME").or_else(|| app.variables.get("USERPROFILE")) {
        Some(home) => options.variable("userHome", home),
        None => options,
    }
}

/// The services of all files, each name once: a later file replaces an earlier.
pub(crate) fn services(app: &App, files: Vec<File>) -> Vec<ServiceSpec> {
    let mut found: BTreeMap<String, (PathBuf, ServiceSpec)> = BTreeMap::new();
    for File { path, import } in files {
        for spec in import.services {
            let name = spec.name.to_string();
            if let Some((first, _)) = found.insert(name.clone(), (path.clone(), spec)) {
                let message = format!("`{name}` is in {}, too; this one counts", first.display());
                app.remark(&Note { severity: Severity::Warning, path: path.display().to_string(), message });
            }
        }
    }
    found.into_values().map(|(_, spec)| spec).collect()
}

/// Prints what there is to say about `files`; says whether an entry was left out.
pub(crate) fn remarks(app: &App, files: &[File], least: Severity) -> bool {
    for file in files {
        for note in file.import.notes.iter().filter(|note| note.severity >= least) {
            app.remark(&Note { path: format!("{}: {}", file.path.display(), note.path), ..note.clone() });
        }
    }
    files.iter().any(|file| file.import.errors().next().is_some())
}

/// What came of declaring services.
#[derive(Debug)]
pub(crate) struct Declared {
    /// The revision at which they are all visible.
    pub(crate) revision: Revision,
    /// Those that the registry does not take, and why.
    pub(crate) refused: Vec<(String, Error)>,
}

/// Declares `specs` in one batch, without those that the registry does not take.
/// What an operator said about a service stays said: a file that does not switch
/// it off does not switch it on either.
///
/// # Errors
/// An error that is about no single service.
pub(crate) async fn declare(registry: &dyn Registry, mut specs: Vec<ServiceSpec>) -> Result<Declared> {
    for spec in specs.iter_mut().filter(|spec| spec.admin_state == AdminState::Enabled) {
        if let Some(current) = current(registry, spec.name.as_str()).await? {
            spec.admin_state = current.admin_state;
        }
    }
    let mut refused = Vec::new();
    loop {
        let mutations = specs.iter().cloned().map(Mutation::Put).collect();
        let error = match registry.apply(mutations).await {
            Ok(applied) => return Ok(Declared { revision: applied.revision, refused }),
            Err(error) => error,
        };
        let about = error.context().service.clone();
        let Some(index) = specs.iter().position(|spec| Some(spec.name.as_str()) == about.as_deref()) else {
            return Err(error);
        };
        refused.push((specs.remove(index).name.to_string(), error));
    }
}

/// The declaration of a service as it is now, secrets masked.
pub(crate) async fn current(registry: &dyn Registry, name: &str) -> Result<Option<ServiceSpec>> {
    match registry.get(name).await {
        Ok(report) => ServiceSpec::from_value(serde_json::to_value(report).unwrap_or_default()).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
