//! `groups`.

use machina_core::{GroupReport, Result};

use crate::App;
use crate::exit::Ended;
use crate::output::short;
use crate::reach::Reached;

pub(crate) async fn list(app: &App, reached: &Reached) -> Result<Ended> {
    let groups = reached.registry.groups().await?;
    if app.output.is_json() {
        app.output.json(&groups);
        return Ok(Ended::Well);
    }
    if groups.is_empty() {
        app.output
            .line("There are no groups yet. Declare some: [[groups]] in the configuration, or POST /api/v1/groups");
        return Ok(Ended::Well);
    }
    let mut columns = app.output.columns(&["GROUP", "ENDPOINT", "#TOOLS", "SERVICES"]);
    for group in &groups {
        let name = &group.declared.name;
        columns.row([name.to_string(), format!("/mcp/{name}"), group.tool_count.to_string(), services(group)]);
    }
    app.output.table(columns);
    Ok(Ended::Well)
}

/// The services of a group; those that do not exist are said to be missing.
fn services(group: &GroupReport) -> String {
    let members = group.declared.members.iter().map(|member| {
        let missing = group.missing.contains(&member.service);
        if missing { format!("{} (missing)", member.service) } else { member.service.to_string() }
    });
    short(&members.collect::<Vec<_>>().join(", "), 200)
}
