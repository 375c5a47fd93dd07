use std::collections::HashSet;

use super::*;

fn of<'a>(service: &'a str, tool: &'a str) -> Original<'a> {
    Original { service, name: tool }
}

/// The shape of a real fleet: 46 services with 23 tools each, half of them named
/// alike everywhere, some long, some with characters that hosts refuse.
fn fleet() -> Vec<(String, String)> {
    let mut fleet = Vec::new();
    for service in 0..46 {
        let name = match service % 4 {
            0 => format!("io.github.someone-with-a-long-name/mcp-server-number-{service}"),
            1 => format!("service_{service}"),
            2 => format!("svc-{service}"),
            _ => format!("a-service-whose-name-alone-fills-the-sixty-four-characters-of-hosts-{service}"),
        };
        for tool in 0..23 {
            let tool = match tool % 5 {
                0 => format!("search_{tool}"),
                1 => format!("list/{tool}.items"),
                2 => format!("tool with spaces {tool}"),
                3 => format!("{}_{tool}", "very_long_tool_name".repeat(5)),
                _ => format!("own_{service}_{tool}"),
            };
            fleet.push((name.clone(), tool));
        }
    }
    fleet
}

const EVERY: [ToolPrefix; 3] = [ToolPrefix::Always, ToolPrefix::OnCollision, ToolPrefix::None];

#[test]
fn a_whole_fleet_has_names_that_hosts_allow_and_no_two_alike() {
    let fleet = fleet();
    let tools: Vec<Original<'_>> = fleet.iter().map(|(service, tool)| of(service, tool)).collect();
    assert!(tools.len() > 1000);
    for prefix in EVERY {
        let got = names(prefix, &tools);
        assert_eq!(got.iter().collect::<HashSet<_>>().len(), tools.len(), "{prefix:?}");
        for name in &got {
            assert!((1..=64).contains(&name.len()) && name.chars().all(is_allowed), "{name}");
        }
        let reversed: Vec<Original<'_>> = tools.iter().rev().copied().collect();
        let again: Vec<String> = names(prefix, &reversed).into_iter().rev().collect();
        assert_eq!(got, again, "{prefix:?}: a name depends on the order");
    }
}

#[test]
fn a_name_that_fits_is_left_alone() {
    let tools = [of("time", "now"), of("web", "fetch"), of("disk", "fetch")];
    assert_eq!(names(ToolPrefix::Always, &tools), ["time__now", "web__fetch", "disk__fetch"]);
    assert_eq!(names(ToolPrefix::OnCollision, &tools), ["now", "web__fetch", "disk__fetch"]);
    let bare = names(ToolPrefix::None, &tools);
    assert_eq!(bare[0], "now");
    assert!(bare[1].starts_with("fetch_") && bare[2].starts_with("fetch_") && bare[1] != bare[2], "{bare:?}");
}

#[test]
fn neither_of_two_keeps_a_name_that_both_would_have() {
    let tools = [of("a", "b__c"), of("a__b", "c"), of("a", "d")];
    let got = names(ToolPrefix::Always, &tools);
    assert!(got[0].starts_with("a__b__c_") && got[1].starts_with("a__b__c_") && got[0] != got[1], "{got:?}");
    assert_eq!(got[2], "a__d");
}

#[test]
fn a_tool_named_like_the_short_name_of_another_takes_nothing_from_it() {
    let victim = of("io.example/files", "read");
    let name = names(ToolPrefix::None, &[of("x", "read file")]).remove(0);
    let tools = [of("x", "read file"), of("thief", &name), victim];
    let got = names(ToolPrefix::None, &tools);
    assert_eq!(got.iter().collect::<HashSet<_>>().len(), 3);
    assert!(!got.contains(&name), "the name means no tool any more: {got:?}");
}

#[test]
fn a_long_name_keeps_a_part_of_both() {
    let (service, tool) = ("s".repeat(100), "t".repeat(128));
    for (original, start) in [
        (of(&service, "read"), format!("{}__read_", "s".repeat(49))),
        (of("web", &tool), format!("web__{}_", "t".repeat(50))),
        (of(&service, &tool), format!("{}__{}_", "s".repeat(16), "t".repeat(37))),
    ] {
        let name = names(ToolPrefix::Always, &[original]).remove(0);
        assert!(name.starts_with(&start) && name.len() == 64, "{name}");
    }
    let bare = names(ToolPrefix::None, &[of("web", "größe")]).remove(0);
    assert!(bare.starts_with("gr__e_") && bare.len() == 14, "{bare}");
}
