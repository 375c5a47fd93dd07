use std::path::PathBuf;
use std::time::Duration;

use machina_core::ErrorKind;
use machina_mcp::server::{ToolMode, ToolPrefix};

use super::*;

fn variables(pairs: &[(&str, &str)]) -> Variables {
    let all = [("HOME", "/h"), ("LOCALAPPDATA", "C:\\h")];
    all.iter().chain(pairs).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A file of its own for each test.
fn file(name: &str, text: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("machina-settings-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn problems(flags: &Flags<'_>, pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let error = load(flags, &variables(pairs)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    error.context().problems.iter().map(|p| (p.field.clone(), p.detail.clone())).collect()
}

#[test]
fn each_layer_wins_over_the_one_before() {
    let text = "[health]\ninterval = \"10s\"\ntimeout = \"2s\"\n[server]\nlisten = \"127.0.0.1:1\"\n";
    let path = file("layers.toml", text);
    let pairs = [("MACHINA_HEALTH__TIMEOUT", "3s"), ("MACHINA_SERVER__LISTEN", "127.0.0.1:2")];
    let flags = Flags { config: Some(&path), listen: Some("127.0.0.1:3"), ..Flags::default() };
    let effective = load(&flags, &variables(&pairs)).unwrap();
    assert_eq!(effective.settings.health.interval, Duration::from_secs(10));
    assert_eq!(effective.settings.health.timeout, Duration::from_secs(3));
    assert_eq!(effective.settings.server.listen.port(), 3);
    let source = |path: &str| effective.entries().into_iter().find(|(key, ..)| key == path).unwrap().2;
    assert!(source("health.interval").ends_with("layers.toml:2"), "{}", source("health.interval"));
    assert_eq!(source("health.timeout"), "MACHINA_HEALTH__TIMEOUT");
    assert_eq!(source("server.listen"), "--listen");
    assert_eq!(source("health.fast_interval"), "default");
}

#[test]
fn every_wrong_key_is_named_with_its_place() {
    let text = "[helth]\ninterval = \"1s\"\n[health]\nintervall = \"1s\"\ntimeout = 5\n[[services]]\nname = \"A B\"\n";
    let path = file("wrong.toml", text);
    let found = problems(
        &Flags { config: Some(&path), ..Flags::default() },
        &[("MACHINA_LIMITS__SERVICES", "1"), ("MACHINA_ROUTING__BALANCER", "dice")],
    );
    let detail = |field: &str| found.iter().find(|(name, _)| name == field).map(|(_, detail)| detail.as_str());
    assert!(detail("helth").unwrap().contains("wrong.toml:1"), "{found:?}");
    let misspelt = detail("health.intervall").unwrap();
    assert!(misspelt.contains("did you mean `health.interval`?") && misspelt.contains("wrong.toml:4"), "{misspelt}");
    assert!(detail("health.timeout").unwrap().contains("wrong.toml:5"), "{found:?}");
    assert!(detail("services[0].name").unwrap().contains("wrong.toml:6"), "{found:?}");
    assert!(detail("limits.services").unwrap().contains("MACHINA_LIMITS__SERVICES"), "{found:?}");
    assert!(detail("routing.balancer").unwrap().contains("peak_ewma"), "{found:?}");
    assert_eq!(found.len(), 6, "{found:?}");
}

#[test]
fn values_out_of_range_are_named_with_their_place() {
    let pairs = [("MACHINA_HEALTH__INTERVAL", "0s"), ("MACHINA_SERVER__ALLOWED_HOSTS", "[\"a:1\"]")];
    let found = problems(&Flags::default(), &pairs);
    assert_eq!(found[0].0, "server.allowed_hosts[0]");
    assert!(found[0].1.contains("MACHINA_SERVER__ALLOWED_HOSTS"), "{found:?}");
    assert_eq!(found[1].0, "health.interval");
    assert!(found[1].1.contains("MACHINA_HEALTH__INTERVAL"), "{found:?}");
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    for (name, text, says) in
        [("broken.toml", "a = \n", "not TOML"), ("broken.json", "{", "not a JSON"), ("list.json", "[]", "not a JSON")]
    {
        let path = file(name, text);
        let found = problems(&Flags { config: Some(&path), ..Flags::default() }, &[]);
        assert!(found[0].1.contains(says) && found[0].1.contains(name), "{found:?}");
    }
    let path = PathBuf::from("no/such.toml");
    let found = problems(&Flags { config: Some(&path), ..Flags::default() }, &[]);
    assert!(found[0].1.contains("cannot be read"), "{found:?}");
}

#[test]
fn json_is_read_too_and_its_paths_are_relative_to_it() {
    let path = file("settings.json", r#"{"store": {"url": "sqlite:m.db"}, "import": ["a.json"]}"#);
    let more = [PathBuf::from("b.json")];
    let flags = Flags { config: Some(&path), import: &more, ..Flags::default() };
    let settings = load(&flags, &variables(&[])).unwrap().settings;
    let directory = path.parent().unwrap();
    assert_eq!(settings.store.url.unwrap(), format!("sqlite:{}", directory.join("m.db").display()));
    assert_eq!(settings.import, [directory.join("a.json"), PathBuf::from("b.json")]);
}

#[test]
fn secrets_of_services_are_masked() {
    let text = "[[services]]\nname = \"a\"\nenv = { TOKEN = \"hunter2\" }\n";
    let path = file("secret.toml", text);
    let effective = load(&Flags { config: Some(&path), ..Flags::default() }, &variables(&[])).unwrap();
    let printed = format!("{:?} {effective:?}", effective.entries());
    assert_eq!(effective.settings.services[0].env["TOKEN"].expose(), "hunter2");
    assert!(printed.contains("********") && !printed.contains("hunter2"), "{printed}");
    let path = file("misplaced.toml", "[[services]]\nname = \"a\"\nenv = \"hunter2\"\n");
    let found = problems(&Flags { config: Some(&path), ..Flags::default() }, &[]);
    assert!(found[0].0 == "services[0].env" && !found[0].1.contains("hunter2"), "{found:?}");
}

#[test]
fn the_password_of_redis_is_never_shown() {
    let pairs = [("MACHINA_STORE__REDIS", "redis://:hunter2@h:1/2")];
    let effective = load(&Flags::default(), &variables(&pairs)).unwrap();
    assert_eq!(effective.settings.store.redis.as_deref(), Some("redis://:hunter2@h:1/2"));
    let printed = format!("{:?} {effective:?}", effective.entries());
    assert!(printed.contains("redis://********@h:1/2") && !printed.contains("hunter2"), "{printed}");
    let flag = Flags { redis: Some("rediss://h"), ..Flags::default() };
    assert_eq!(load(&flag, &variables(&pairs)).unwrap().settings.store.redis.as_deref(), Some("rediss://h"));
    let found = problems(&Flags { redis: Some("http://:hunter2@h"), ..Flags::default() }, &pairs);
    assert_eq!(found[0].0, "store.redis");
    assert!(found[0].1.contains("rediss://") && found[0].1.ends_with("(--redis)"), "{found:?}");
    assert!(!format!("{found:?}").contains("hunter2"), "{found:?}");
}

#[test]
fn the_secret_of_the_job_is_text_and_never_shown() {
    let pairs = [("MACHINA_SERVER__JOB_SECRET", "0123456789012345")];
    let effective = load(&Flags::default(), &variables(&pairs)).unwrap();
    assert_eq!(effective.settings.server.http.job_secret.as_ref().unwrap().expose(), "0123456789012345");
    let printed = format!("{:?} {effective:?}", effective.entries());
    assert!(printed.contains("********") && !printed.contains("01234567"), "{printed}");
    let path = file("number.toml", "[server]\njob_secret = 8123456789012345\n");
    let found = problems(&Flags { config: Some(&path), ..Flags::default() }, &[]);
    assert!(found[0].1.contains("in quotes") && !found[0].1.contains("8123"), "{found:?}");
    assert_eq!(problems(&Flags::default(), &[("MACHINA_SERVER__JOB_SECRET", "short")])[0].0, "server.job_secret");
}

#[test]
fn the_list_of_keys_is_that_of_the_types() {
    let mut keys: Vec<_> = keys::KEYS.iter().map(|key| key.path.to_owned()).collect();
    let mut paths = layers::default_paths();
    // The MCP endpoint is asked under the names of the server.
    paths.retain(|path| path != "mcp.allowed_hosts");
    keys.sort();
    paths.sort();
    assert_eq!(keys, paths);
}

#[test]
fn every_choice_can_be_made() {
    for key in keys::KEYS.iter().filter(|key| !key.choices.is_empty()) {
        for choice in key.choices {
            let name = format!("MACHINA_{}", key.path.to_uppercase().replace('.', "__"));
            load(&Flags::default(), &variables(&[(&name, choice)])).unwrap();
        }
    }
}

#[test]
fn every_key_is_documented_with_its_default() {
    let page = include_str!("../../../../../docs/reference/configuration.md");
    for key in keys::KEYS.iter() {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", key.path)));
        let row = row.unwrap_or_else(|| panic!("configuration.md does not list `{}`", key.path));
        let default = match key.default() {
            Value::Array(items) => {
                items.iter().map(|item| format!("`{}`", item.as_str().unwrap_or_default())).collect()
            }
            Value::String(text) => vec![format!("`{text}`")],
            Value::Null => Vec::new(),
            other => vec![format!("`{other}`")],
        };
        for part in default {
            assert!(row.contains(&part), "the row of `{}` does not say {part}: {row}", key.path);
        }
    }
}

#[test]
fn the_schema_lists_every_key() {
    let schema = schema();
    for key in keys::KEYS.iter() {
        let pointer = format!("/properties/{}", key.path.replace('.', "/properties/"));
        assert_eq!(schema.pointer(&pointer).unwrap()["description"], *key.doc, "{}", key.path);
    }
}

#[test]
fn the_flag_of_the_mode_wins_and_a_wrong_one_says_what_there_is() {
    let environment = variables(&[("MACHINA_MCP__MODE", "meta"), ("MACHINA_MCP__PREFIX", "on_collision")]);
    let flat = Flags { mode: Some("flat"), ..Flags::default() };
    let exposure = load(&flat, &environment).unwrap().settings.mcp.exposure();
    assert_eq!((exposure.mode, exposure.prefix), (ToolMode::Flat, ToolPrefix::OnCollision));
    let error = load(&Flags { mode: Some("none"), ..Flags::default() }, &environment).unwrap_err();
    let problem = &error.context().problems[0];
    assert!(problem.field == "mcp.mode" && problem.detail.contains("one of meta, flat"), "{problem:?}");
    assert!(problem.detail.ends_with("(--mode)"), "{problem:?}");
}

#[test]
fn groups_are_read_as_the_api_reads_them() {
    let text = "[[groups]]\nname = \"g\"\nmembers = [{ service = \"a\", tools = [\"b*\"] }]\n";
    let path = file("groups.toml", text);
    let effective = load(&Flags { config: Some(&path), ..Flags::default() }, &variables(&[])).unwrap();
    assert!(effective.settings.groups[0].members[0].tools.is_some());
    let path = file("wrong_groups.toml", "[[groups]]\nname = \"g\"\nmembers = [{ service = \"A b\" }]\n");
    let found = problems(&Flags { config: Some(&path), ..Flags::default() }, &[]);
    assert!(found[0].0 == "groups[0].members[0].service" && found[0].1.contains("wrong_groups.toml:1"), "{found:?}");
}

#[test]
fn the_flag_of_the_built_in_tools_wins_and_a_wrong_one_says_what_there_is() {
    let path = file("builtin.toml", "builtin = [\"strings\"]\n");
    let from_file = Flags { config: Some(&path), ..Flags::default() };
    assert_eq!(load(&from_file, &variables(&[])).unwrap().settings.builtin, [Builtin::Strings]);
    let named = ["calculator".to_owned(), "transform".to_owned()];
    let settings = load(&Flags { builtin: &named, ..from_file }, &variables(&[])).unwrap().settings;
    assert_eq!(settings.builtin, [Builtin::Calculator, Builtin::Transform]);
    let found = problems(&Flags { builtin: &["abacus".to_owned()], ..Flags::default() }, &[]);
    assert_eq!(found[0].0, "builtin");
    assert!(found[0].1.contains("calculator, strings, transform") && found[0].1.ends_with("(--builtin)"), "{found:?}");
}
