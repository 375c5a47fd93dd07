//! The form of a whole fleet: 46 servers in one file.

use super::{args, read, read_with};
use crate::formats::{Client, Format, ImportOptions, export};

const FLEET: &str = include_str!("../samples/fleet.json");

#[test]
fn the_fleet_is_read_without_a_word() {
    let import = read(FLEET, Format::McpServers);
    assert_eq!(import.notes, []);
    assert_eq!(import.services.len(), 46);
    assert_eq!(args(import.stdio("filesystem"))[2], "${FLEET_WORK}/filesystem");
    assert_eq!(import.stdio("memory").env["MEMORY_FILE_PATH"].expose(), "${FLEET_WORK}/memory/memory.jsonl");
}

#[test]
fn a_given_value_is_filled_in_at_once() {
    let options = ImportOptions::default().variable("FLEET_WORK", "/srv/fleet");
    let import = read_with(FLEET, Format::McpServers, &options);
    assert_eq!(args(import.stdio("filesystem"))[2], "/srv/fleet/filesystem");
    assert_eq!(import.stdio("memory").env["MEMORY_FILE_PATH"].expose(), "/srv/fleet/memory/memory.jsonl");
    assert!(!format!("{options:?}").contains("/srv"));
}

#[test]
fn the_fleet_goes_out_to_every_host_without_a_secret() {
    let import = read(FLEET, Format::McpServers);
    for client in Client::ALL {
        let export = export(&import.services, *client).unwrap();
        let dummies = export.text.lines().filter(|line| line.contains("\"dummy\"")).count();
        assert_eq!(dummies, 0, "{client}");
        let back = crate::formats::import(&export.text, &ImportOptions::default()).unwrap();
        assert_eq!(back.services.len(), 46, "{client}: {:#?}", back.notes);
    }
}
