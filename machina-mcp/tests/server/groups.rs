//! Endpoints of groups: only what the group selects is there, in either mode.

use machina_core::{GroupSpec, Tasks};
use machina_mcp::server::{HttpServerConfig, streamable_http};
use rmcp::service::{ClientServiceExt, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::host::{Client, Host, call, legacy, modern, params, structured};
use crate::library::{Library, Shelf, prompt, resource, template, tool};
use crate::upstream::PATIENCE;

async fn library() -> Library {
    let shelf = || Shelf {
        tools: ["read", "write", "list_all"].map(tool).to_vec(),
        prompts: vec![prompt("p")],
        resources: vec![resource("test://r")],
        templates: vec![template("test://t/{id}")],
        completes: true,
    };
    let library = Library::open(&[("disk", shelf()), ("other", shelf()), ("web", shelf())]).await;
    put(
        &library,
        json!({"name": "few", "title": "A few", "description": "For reading.",
        "members": [{"service": "disk", "tools": ["read", "list_*"]}, {"service": "web"}]}),
    )
    .await;
    put(
        &library,
        json!({"name": "small", "mode": "meta",
        "members": [{"service": "disk", "tools": ["read"]}, {"service": "gone"}]}),
    )
    .await;
    library
}

async fn put(library: &Library, group: Value) {
    library.admin().put_group(GroupSpec::from_value(group).unwrap(), None, false).await.unwrap();
}

struct Served {
    library: Library,
    tasks: Tasks,
    address: String,
}

impl Served {
    async fn new() -> Self {
        let (library, tasks) = (library().await, Tasks::new());
        let scoped = library.scoped();
        let endpoint = streamable_http(move |_| Ok(scoped.clone()), HttpServerConfig::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new()
            .route_service("/mcp", endpoint.clone())
            .route_service("/mcp/{group}", endpoint.of_groups());
        tasks.spawn("serve", async move { axum::serve(listener, router).await.unwrap() });
        Self { library, tasks, address }
    }

    async fn client(&self, path: &str, mode: rmcp::service::ClientLifecycleMode) -> Client {
        let transport = StreamableHttpClientTransport::from_uri(format!("{}{path}", self.address));
        timeout(PATIENCE, Host::default().serve_with_lifecycle(transport, mode)).await.unwrap().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn tools(client: &Client) -> Vec<String> {
    let listed = timeout(PATIENCE, client.list_all_tools()).await.expect("the server answers");
    listed.unwrap().iter().map(|tool| tool.name.to_string()).collect()
}

#[tokio::test]
async fn a_group_lists_and_calls_what_it_selects_and_nothing_else() {
    let served = Served::new().await;
    for mode in [legacy(), modern()] {
        let client = served.client("/mcp/few", mode).await;
        let info = client.peer_info().unwrap();
        assert_eq!(info.server_info.as_ref().unwrap().title.as_deref(), Some("A few"));
        assert!(info.instructions.as_ref().unwrap().starts_with("For reading.\n"));
        let want = ["disk__read", "disk__list_all", "web__read", "web__write", "web__list_all"];
        assert_eq!(tools(&client).await, want);
        assert_eq!(call(&client, "disk__read", json!({})).await["structuredContent"]["service"], "disk");
        for absent in ["disk__write", "other__read", "find_tool"] {
            let refused = client.call_tool(params(absent, &json!({}))).await.unwrap_err();
            assert!(matches!(&refused, ServiceError::McpError(error) if error.code.0 == -32602), "{refused}");
        }
        let prompts = client.list_all_prompts().await.unwrap();
        assert_eq!(prompts.iter().map(|prompt| &*prompt.name).collect::<Vec<_>>(), ["web__p"]);
        let resources = client.list_all_resources().await.unwrap();
        let uris: Vec<&str> = resources.iter().map(|resource| &*resource.uri).collect();
        assert_eq!(uris, ["machina://services/web", "machina://services/web/resources/test://r"]);
        for uri in ["machina://services/disk", "machina://services/disk/resources/test://r"] {
            let read = client.read_resource(rmcp::model::ReadResourceRequestParams::new(uri)).await;
            assert!(read.is_err(), "of a service whose tools are not all selected: {uri}");
        }
    }
}

#[tokio::test]
async fn a_group_in_meta_mode_knows_only_what_it_selects() {
    let served = Served::new().await;
    let client = served.client("/mcp/small", modern()).await;
    assert_eq!(client.peer_info().unwrap().server_info.as_ref().unwrap().title.as_deref(), Some("small"));
    assert!(tools(&client).await.contains(&"find_tool".to_owned()));
    let services = structured(&client, "list_services", json!({})).await["services"].take();
    assert_eq!(services.as_array().unwrap().len(), 1, "{services}");
    assert_eq!((&services[0]["service"], &services[0]["tool_count"]), (&json!("disk"), &json!(1)));
    let listed = structured(&client, "list_tools", json!({"limit": 1})).await;
    assert_eq!(listed["tools"], json!([{"service": "disk", "tool": "read", "description": "Does read."}]));
    let found = structured(&client, "find_tool", json!({"query": "does read write list", "limit": 1})).await;
    assert_eq!((&found["tools"][0]["service"], &found["tools"][0]["tool"]), (&json!("disk"), &json!("read")));
    let all = structured(&client, "find_tool", json!({"query": "does read write list", "limit": 50})).await;
    assert_eq!(all["tools"].as_array().unwrap().len(), 1, "{all}");
    let read = json!({"service": "disk", "tool": "read"});
    assert_eq!(structured(&client, "describe_tool", read.clone()).await["definition"]["name"], "read");
    assert_eq!(call(&client, "call_tool", read).await["structuredContent"]["service"], "disk");
    for (tool, arguments) in [
        ("call_tool", json!({"service": "disk", "tool": "write"})),
        ("call_tool", json!({"service": "web", "tool": "read"})),
        ("describe_tool", json!({"service": "disk", "tool": "write"})),
        ("list_tools", json!({"service": "web"})),
        ("list_tools", json!({"service": "gone"})),
    ] {
        let result = call(&client, tool, arguments.clone()).await;
        assert_eq!(result["structuredContent"]["code"], "not_found", "{tool} {arguments}: {result}");
    }
}

#[tokio::test]
async fn a_group_is_as_its_record_says_now() {
    let served = Served::new().await;
    let client = served.client("/mcp/few", modern()).await;
    assert_eq!(tools(&client).await.len(), 5);
    put(
        &served.library,
        json!({"name": "few", "prefix": "none", "members": [{"service": "other", "tools": ["write"]}]}),
    )
    .await;
    assert_eq!(tools(&client).await, ["write"]);
    assert_eq!(call(&client, "write", json!({})).await["structuredContent"]["service"], "other");
    served.library.admin().remove_group("few", None).await.unwrap();
    let listed = timeout(PATIENCE, client.list_all_tools()).await.expect("the server answers");
    assert!(listed.is_err(), "the group is gone");
    let whole = served.client("/mcp", modern()).await;
    assert!(tools(&whole).await.contains(&"find_tool".to_owned()));
}
