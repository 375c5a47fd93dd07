//! A first look: services are registered and found, a tool is called, mistakes are
//! told apart, changes are watched. The same program as `quickstart.py` and
//! `quickstart.mjs`; all three print `quickstart.txt`.
//!
//! ```text
//! cargo run -p machina-examples --bin quickstart
//! ```

#![allow(clippy::print_stdout, reason = "it is there to show something")]

use machina_core::{
    CallContext, CallOptions, CallReport, EventKind, EventStream, Machina, NativeTool, Next, Query, Registry, Result,
    ServiceSpec, ToolCall, ToolQuery,
};
use serde_json::{Value, json};

#[derive(serde::Deserialize)]
struct Quote {
    amount: i64,
}

#[tokio::main]
async fn main() -> Result<()> {
    // "sqlite:machina.db" keeps what is registered; PostgreSQL goes by its address too.
    let backend = machina_store::open("memory:").await?;
    let machina = Machina::builder().backend(backend).open().await?;
    let mut events = machina.watch();

    // A function of this program becomes a tool of the service `pricing`.
    let schema = json!({"type": "object", "required": ["amount"], "properties": {"amount": {"type": "integer"}}});
    let quote = NativeTool::new("quote", schema, |quote: Quote, _: CallContext| async move {
        Ok::<_, String>(json!({"price": quote.amount + quote.amount / 5}))
    });
    let pricing = machina.native("pricing")?;
    pricing.put(quote.description("What an amount costs with tax."))?;
    pricing.register().await?;

    // Any MCP server stands beside it. This one would be started, were it not switched off.
    let notes = r#"{"name": "notes", "tags": ["demo"], "admin_state": "disabled",
        "instances": [{"stdio": {"command": "uvx", "args": ["mcp-server-notes"]}}]}"#;
    machina.register(ServiceSpec::parse(notes)?).await?;

    for service in machina.find(&Query::default())?.items {
        println!("{}: {}", service.service().name(), service.status().as_str());
    }
    let tagged = machina.find(&Query::from_pairs([("tag", "demo")])?)?;
    println!("tagged demo: {}", tagged.items[0].service().name());
    println!("tools: {}", machina.tools(&ToolQuery::default()).await?.items.len());

    let found = machina.find_tools("what does it cost with tax", 1).await?;
    println!("found: {} of {}", found[0].definition["name"].as_str().unwrap_or_default(), found[0].service);

    let answer = call(&machina, "pricing", json!({"amount": 100})).await?;
    println!("a quote of 100: {}", answer.result.0["structuredContent"]["price"]);
    let why = machina.explain("pricing", Some("quote")).await?;
    println!("it goes to: {}", why.candidates[0].location);

    if let Err(error) = call(&machina, "pricing", json!({"amount": "much"})).await {
        println!("a wrong argument: {}, {}", error.kind(), error.context().problems[0].field);
    }
    if let Err(error) = call(&machina, "nobody", json!({})).await {
        println!("an unknown service: {}", error.kind());
    }

    println!("offered: {}", offered(&mut events).await.join(", "));
    machina.deregister("pricing").await?;
    println!("left: {}", machina.find(&Query::default())?.items.len());
    machina.close().await;
    Ok(())
}

async fn call(machina: &Machina, service: &str, arguments: Value) -> Result<CallReport> {
    let call = json!({"service": service, "tool": "quote", "arguments": arguments});
    let call: ToolCall = serde_json::from_value(call).expect("the names are valid");
    machina.call(&call, &CallOptions::default()).await
}

/// The tools that the next service brings.
async fn offered(events: &mut EventStream) -> Vec<String> {
    loop {
        if let Next::Event(event) = events.next().await
            && let EventKind::DefinitionsChanged { added, .. } = &event.kind
        {
            return added.clone();
        }
    }
}
