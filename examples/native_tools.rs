//! Functions of a program as tools: those that come with Machina (calculator,
//! string utilities, JSON and CSV), and some of one's own.
//!
//! ```text
//! cargo run -p machina-examples --bin native_tools
//! ```

#![allow(clippy::print_stdout, reason = "it is there to show something")]

use std::time::Duration;

use machina_core::{
    Builtin, CallContext, CallOptions, Machina, NativeTool, Progress, Result, ServiceSpec, ToolCall, ToolResult,
};
use serde_json::{Map, Value, json};

#[derive(serde::Deserialize)]
struct Wait {
    steps: u32,
}

#[tokio::main]
async fn main() -> Result<()> {
    let machina = Machina::builder().open().await?;

    // What comes with Machina.
    for builtin in Builtin::ALL {
        builtin.serve(&machina).await?;
    }
    show(&machina, "calculator", "calculator", json!({"operation": "add", "a": 5, "b": 3})).await;
    show(&machina, "calculator", "evaluate", json!({"expression": "2 * (3 + 4) ^ 2"})).await;
    show(&machina, "strings", "change_case", json!({"text": "some words", "case": "camel"})).await;
    let rows = json!([{"name": "tea", "price": 3}, {"name": "milk, fresh", "price": 2}]);
    show(&machina, "transform", "json_to_csv", json!({ "rows": rows })).await;

    // One's own: a future, a function that blocks, and one that tells how far it is.
    let own = machina.native("own")?;
    let nothing = json!({"type": "object", "additionalProperties": false});
    let steps = json!({"type": "object", "required": ["steps"],
        "properties": {"steps": {"type": "integer", "minimum": 1, "maximum": 10}}});
    own.put(NativeTool::new("wait", steps, wait).description("Waits step by step."))?;
    own.put(
        NativeTool::blocking("size", nothing.clone(), |_: Map<String, Value>, _: CallContext| {
            // Reading files would block other calls in a future; here it has a thread.
            std::fs::metadata("Cargo.toml").map(|file| json!({"is_file": file.is_file()}))
        })
        .description("Looks at a file.")
        .read_only()
        .executions_max(4),
    )?;
    own.put(NativeTool::new("never", nothing, |_: Map<String, Value>, _: CallContext| async {
        std::future::pending::<Result<(), String>>().await
    }))?;
    // As any service, with policies: here, how long a call of one tool may take.
    let spec = r#"{"name": "own", "description": "Functions of this program.", "tags": ["example"],
        "routing_policy": {"tool_timeouts": {"never": "100ms"}}}"#;
    own.register_as(ServiceSpec::parse(spec)?).await?;
    show(&machina, "own", "wait", json!({"steps": 2})).await;
    show(&machina, "own", "wait", json!({"steps": 11})).await;
    show(&machina, "own", "size", json!({})).await;
    show(&machina, "own", "never", json!({})).await;

    // They come and go while the program runs.
    own.remove("never");
    own.register().await?;
    let left: Vec<_> = own.tools().iter().map(|tool| tool.name().to_string()).collect();
    println!("left: {}", left.join(", "));
    machina.close().await;
    Ok(())
}

/// Returns what happened; an error would become an answer that says it failed.
async fn wait(wait: Wait, context: CallContext) -> Result<ToolResult, String> {
    for step in 1..=wait.steps {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if let Some(tell) = &context.progress {
            tell(Progress { progress: step.into(), total: Some(wait.steps.into()), message: None });
        }
    }
    Ok(format!("waited {} steps", wait.steps).into())
}

/// Calls a tool, and prints what came of it.
async fn show(machina: &Machina, service: &str, tool: &str, arguments: Value) {
    let call = json!({"service": service, "tool": tool, "arguments": arguments});
    let call: ToolCall = serde_json::from_value(call).expect("the names are valid");
    match machina.call(&call, &CallOptions::default()).await {
        Ok(report) => println!("{service}/{tool}: {}", report.result.text().trim_end().replace('\n', " | ")),
        Err(error) => println!("{service}/{tool}: {error}"),
    }
}
