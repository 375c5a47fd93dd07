//! Rules about the text of the repository.

use machina_core::ErrorKind;

use super::{Source, assert_clean, sources};

/// The most lines that a source file may have.
const LINES_MAX: usize = 450;

/// The files of the core that are pure: time and chance come in as arguments.
const PURE: [&str; 8] = [
    "machina-core/src/alerts/engine.rs",
    "machina-core/src/alerts/hours.rs",
    "machina-core/src/alerts/outlet.rs",
    "machina-core/src/catalog.rs",
    "machina-core/src/query.rs",
    "machina-core/src/health/state.rs",
    "machina-core/src/route/balance.rs",
    "machina-core/src/route/classify.rs",
];

/// What a pure file does not contain outside of its tests.
const IMPURE: [&str; 8] =
    ["Instant::now", "clock::now", "Timestamp::now", "Mutex", "RwLock", "Tasks", "tokio::spawn", "tokio::sync"];

/// Directories that exist on one machine only.
const PLACES: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/tm", "p/"), concat!("/ro", "ot/"), concat!("/home/", "runner/")];

/// Endings of host names that nobody else can resolve.
const PRIVATE_HOSTS: [&str; 5] = [".internal", ".corp", ".lan", ".intranet", ".local"];

/// Tests that do not run, and code that is not there.
const UNFINISHED: [&str; 4] =
    [concat!("#[ig", "nore"), concat!("to", "do!("), concat!("unimple", "mented!("), concat!("FIX", "ME")];

fn found<'a>(source: &'a Source, wrong: impl Fn(&str) -> Option<String> + 'a) -> impl Iterator<Item = String> + 'a {
    source
        .text
        .lines()
        .enumerate()
        .filter_map(move |(number, line)| Some(format!("{}:{}: {}", source.path.display(), number + 1, wrong(line)?)))
}

fn too_long(sources: &[Source]) -> Vec<String> {
    let code = sources.iter().filter(|source| source.has_extension(&["rs", "py"]));
    let written = code.filter(|source| !source.text.lines().take(3).any(|line| line.contains("@generated")));
    written
        .filter_map(|source| {
            let lines = source.text.lines().count();
            (lines > LINES_MAX).then(|| format!("{} has {lines} lines; {LINES_MAX} are allowed", source.path.display()))
        })
        .collect()
}

fn unfinished(sources: &[Source]) -> Vec<String> {
    let code = sources.iter().filter(|source| source.has_extension(&["rs", "py", "mjs", "js", "ts", "go"]));
    let has = |line: &str| UNFINISHED.iter().find(|word| line.contains(*word)).map(|word| format!("contains `{word}`"));
    code.flat_map(|source| found(source, has)).collect()
}

fn names_a_machine(sources: &[Source]) -> Vec<String> {
    let place = |line: &str| PLACES.iter().find(|place| line.contains(*place)).map(|place| format!("names {place}"));
    let host = |line: &str| private_host(line).map(|host| format!("names the host {host}"));
    sources.iter().flat_map(|source| found(source, place).chain(found(source, host))).collect()
}

/// The host of an address in `line` that only a private network knows.
fn private_host(line: &str) -> Option<&str> {
    let hosts = line.split("://").skip(1).map(|rest| {
        let authority =
            rest.split(|c: char| c == '/' || c.is_whitespace() || "\"'`)>,".contains(c)).next().unwrap_or("");
        let host = authority.rsplit('@').next().unwrap_or(authority);
        host.split(':').next().unwrap_or(host)
    });
    let private = |host: &&str| {
        let address = host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_private());
        address || PRIVATE_HOSTS.iter().any(|ending| host.ends_with(ending))
    };
    hosts.into_iter().find(private)
}

fn foreign_registries(lock: &str) -> Vec<String> {
    const OFFICIAL: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    let foreign = lock.lines().filter(|line| line.starts_with("source = ") && *line != OFFICIAL);
    foreign.map(|line| format!("Cargo.lock: {line}")).collect()
}

fn impure(sources: &[Source]) -> Vec<String> {
    let pure = sources.iter().filter(|source| PURE.iter().any(|path| source.path.as_os_str() == *path));
    pure.flat_map(|source| {
        let code = source.text.split("#[cfg(test)]").next().unwrap_or_default();
        let code = Source { path: source.path.clone(), text: code.to_owned() };
        let wrong = |line: &str| {
            let code = line.split("//").next().unwrap_or_default();
            IMPURE.iter().find(|word| code.contains(*word)).map(|word| format!("is to be pure, and uses `{word}`"))
        };
        found(&code, wrong).collect::<Vec<_>>()
    })
    .collect()
}

/// The first column of the table in `page` whose first column is `code`.
fn documented_codes(page: &str) -> Vec<String> {
    let table = page.lines().skip_while(|line| !line.starts_with("| code |")).take_while(|line| line.starts_with('|'));
    let codes = table.filter_map(|row| row.strip_prefix("| `")?.split_once('`'));
    codes.map(|(code, _)| code.to_owned()).collect()
}

fn source<'a>(sources: &'a [Source], path: &str) -> &'a Source {
    sources.iter().find(|source| source.path.as_os_str() == path).unwrap_or_else(|| panic!("there is no {path}"))
}

#[test]
fn files_are_short() {
    assert_clean(too_long(&sources()));
}

#[test]
fn nothing_is_unfinished() {
    assert_clean(unfinished(&sources()));
}

#[test]
fn nothing_names_one_machine() {
    let sources = sources();
    assert_clean(names_a_machine(&sources));
    assert_clean(foreign_registries(&source(&sources, "Cargo.lock").text));
}

#[test]
fn pure_files_are_pure() {
    let sources = sources();
    for path in PURE {
        source(&sources, path);
    }
    assert_clean(impure(&sources));
}

#[test]
fn the_error_table_lists_every_kind() {
    let codes: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.code().to_owned()).collect();
    assert_eq!(documented_codes(&source(&sources(), "docs/reference/errors.md").text), codes);
}

#[test]
fn a_wrong_text_is_found() {
    let rust = |text: &str| [Source::new("machina-core/src/route/classify.rs", text)];
    assert_eq!(too_long(&rust(&"\n".repeat(LINES_MAX))), Vec::<String>::new());
    assert_eq!(too_long(&rust(&"\n".repeat(LINES_MAX + 1))).len(), 1);
    assert_eq!(too_long(&rust(&format!("// @generated\n{}", "\n".repeat(LINES_MAX)))).len(), 0);
    for word in UNFINISHED {
        assert_eq!(
            unfinished(&rust(&format!("fn f() {{}}\n{word}")))[0].split(": ").next().unwrap(),
            "machina-core/src/route/classify.rs:2"
        );
    }
    for place in PLACES {
        assert_eq!(names_a_machine(&rust(&format!("let p = \"{place}x\";"))).len(), 1, "{place}");
    }
    for address in [
        concat!("https://npm.example", ".corp/x"),
        concat!("http://u:p@10.", "1.2.3:80"),
        concat!("'ftp://a", ".internal'"),
    ] {
        assert_eq!(names_a_machine(&rust(address)).len(), 1, "{address}");
    }
    assert_eq!(
        names_a_machine(&rust("https://localhost.example http://127.0.0.1:1 https://crates.io/a.local")).len(),
        0
    );
    assert_eq!(foreign_registries("source = \"git+https://example.com/a\"\n").len(), 1);
    for word in IMPURE {
        assert_eq!(impure(&rust(&format!("// {word}\nuse x::{word};\n#[cfg(test)]\n{word}"))).len(), 1, "{word}");
    }
    assert_eq!(documented_codes("| code | x |\n|---|---|\n| `a` | x |\n| `c_d` | z |\n\n| `e` |"), ["a", "c_d"]);
}
