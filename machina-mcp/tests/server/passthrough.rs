//! Prompts, resources and completions on their way to services and back.

use machina_core::{AdminState, Tasks};
use machina_mcp::server::{Exposure, ToolPrefix};
use rmcp::model::{GetPromptRequestParams, ReadResourceRequestParams};
use rmcp::service::ClientServiceExt;
use serde_json::json;
use tokio::time::timeout;

use crate::host::{Bare, Host, legacy, modern};
use crate::library::{Asking, Library, Shelf, flat, of_service, prompt, resource, served, template, tool};
use crate::upstream::PATIENCE;

async fn library() -> Library {
    let disk = Shelf {
        tools: vec![tool("read")],
        prompts: vec![prompt("review"), prompt("asking"), prompt("missing"), json!({"title": "malformed"})],
        resources: vec![
            resource("test://shared"),
            resource("test://disk/a"),
            resource("test://asking"),
            resource("test://gone"),
            json!({"uri": 7}),
        ],
        templates: vec![template("test://disk/{id}/data"), template("test://either/{id}")],
        completes: true,
    };
    let web = Shelf {
        prompts: vec![prompt("review"), prompt("summary")],
        resources: vec![resource("test://shared"), resource("machina://services/disk")],
        templates: vec![template("test://either/{name}")],
        ..Shelf::default()
    };
    Library::open(&[("disk", disk), ("web", web)]).await
}

#[tokio::test]
async fn rmcp_lists_and_uses_prompts_and_resources_in_both_eras() {
    let (library, tasks) = (library().await, Tasks::new());
    for mode in [legacy(), modern()] {
        let stream = served(&library, &tasks, flat(ToolPrefix::Always));
        let client = timeout(PATIENCE, Host::default().serve_with_lifecycle(stream, mode)).await.unwrap().unwrap();
        let capabilities = &client.peer_info().unwrap().capabilities;
        assert!(
            capabilities.prompts.is_some() && capabilities.resources.is_some() && capabilities.completions.is_some()
        );
        let prompts = client.list_all_prompts().await.unwrap();
        let names: Vec<&str> = prompts.iter().map(|prompt| prompt.name.as_str()).collect();
        assert_eq!(names, ["disk__review", "disk__asking", "disk__missing", "web__review", "web__summary"]);
        let got = client.get_prompt(GetPromptRequestParams::new("web__review")).await.unwrap();
        assert_eq!(got.description.as_deref(), Some("review"), "its server's own name");
        let resources = client.list_all_resources().await.unwrap();
        assert!(resources.iter().any(|resource| resource.uri == of_service("disk", "test://disk/a")));
        let uri = of_service("web", "test://shared");
        let read = client.read_resource(ReadResourceRequestParams::new(uri)).await.unwrap();
        assert_eq!(serde_json::to_value(&read.contents).unwrap()[0]["text"], "from web");
    }
    tasks.cancel();
}

#[tokio::test]
async fn a_prompt_is_word_for_word_its_servers_but_for_its_name_and_reaches_it() {
    let (library, tasks) = (library().await, Tasks::new());
    for (prefix, want) in [
        (ToolPrefix::Always, ["disk__review", "disk__asking", "disk__missing", "web__review", "web__summary"]),
        (ToolPrefix::OnCollision, ["disk__review", "asking", "missing", "web__review", "summary"]),
        (ToolPrefix::None, ["review_", "asking", "missing", "review_", "summary"]),
    ] {
        let mut host = Asking::new(&library, &tasks, flat(prefix));
        let listed = host.result("prompts/list", json!({})).await;
        let prompts = listed["prompts"].as_array().unwrap();
        assert_eq!(prompts.len(), want.len(), "the malformed one is left out, and no other: {listed}");
        for (index, (listed, want)) in prompts.iter().zip(want).enumerate() {
            let name = listed["name"].as_str().unwrap();
            assert!(name == want || want.ends_with('_') && name.starts_with(want), "{name}");
            let own = ["review", "asking", "missing", "review", "summary"][index];
            let mut definition = prompt(own);
            definition["name"] = name.into();
            assert_eq!(listed.to_string(), definition.to_string(), "the order of keys included");
            if ["asking", "missing"].contains(&own) {
                continue;
            }
            let got = host.result("prompts/get", json!({"name": name, "arguments": {"language": "py"}, "x": 1})).await;
            let seen = &got["_meta"]["seen"];
            assert_eq!(seen["service"], ["disk", "web"][index / 3]);
            assert_eq!(seen["params"], json!({"name": own, "arguments": {"language": "py"}}));
            assert_eq!(
                (got["x-more"].to_string(), &got["resultType"]),
                (r#"{"z":1,"a":2}"#.to_owned(), &json!("complete"))
            );
            assert_eq!(got["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "machina");
        }
    }
    tasks.cancel();
}

#[tokio::test]
async fn a_uri_stays_as_it_is_where_that_says_enough() {
    let (library, tasks) = (library().await, Tasks::new());
    let shared = |service| of_service(service, "test://shared");
    let own = of_service("web", "machina://services/disk");
    let plain = ["test://disk/a", "test://asking", "test://gone"].map(str::to_owned);
    let documents = ["machina://services/disk", "machina://services/web"].map(str::to_owned);
    for prefix in [ToolPrefix::None, ToolPrefix::OnCollision] {
        let mut host = Asking::new(&library, &tasks, flat(prefix));
        let want =
            [&[documents[0].clone(), shared("disk")][..], &plain, &[documents[1].clone(), shared("web"), own.clone()]];
        assert_eq!(host.uris().await, want.concat());
        let templates = host.keys("resources/templates/list", "resourceTemplates", "uriTemplate").await;
        assert_eq!(
            templates,
            [
                "machina://services/{+name}",
                "machina://service_documentation/{+service}",
                "test://disk/{id}/data",
                &of_service("disk", "test://either/{id}"),
                &of_service("web", "test://either/{name}"),
            ],
        );
    }
    let mut host = Asking::new(&library, &tasks, flat(ToolPrefix::Always));
    let want = ["test://shared", "test://disk/a", "test://asking", "test://gone"].map(|uri| of_service("disk", uri));
    assert_eq!(host.uris().await[1..5], want);
    let listed = host.result("resources/list", json!({})).await;
    let mut definition = resource("");
    definition["uri"] = want[1].clone().into();
    assert_eq!(listed["resources"][2].to_string(), definition.to_string(), "but for the uri, word for word");
    tasks.cancel();
}

#[tokio::test]
async fn a_read_goes_to_the_one_service_that_its_uri_means() {
    let (library, tasks) = (library().await, Tasks::new());
    for prefix in [ToolPrefix::None, ToolPrefix::Always] {
        let mut host = Asking::new(&library, &tasks, flat(prefix));
        for (uri, service, own) in [
            (of_service("disk", "test://shared"), "disk", "test://shared"),
            (of_service("web", "test://shared"), "web", "test://shared"),
            (of_service("web", "machina://services/disk"), "web", "machina://services/disk"),
            ("test://disk/a".to_owned(), "disk", "test://disk/a"),
            ("test://disk/7/data".to_owned(), "disk", "test://disk/7/data"),
            (of_service("disk", "test://disk/a%20b/data?x#y"), "disk", "test://disk/a%20b/data?x#y"),
            (of_service("web", "test://nowhere/listed"), "web", "test://nowhere/listed"),
        ] {
            let result = host.result("resources/read", json!({"uri": uri, "x": 1})).await;
            assert_eq!(result["contents"], json!([{"uri": own, "text": format!("from {service}")}]), "{uri}");
            assert_eq!(result["_meta"]["seen"]["params"], json!({"uri": own}));
            assert_eq!((&result["ttlMs"], &result["cacheScope"]), (&json!(0), &json!("private")));
        }
        for (uri, said) in [
            ("test://shared", "2 services offer"),
            ("test://either/1", "2 services offer"),
            ("test://disk/7/8/data", "there is no resource"),
            ("machina://services/gone/resources/test://x", "there is no resource"),
            ("machina://other", "there is no resource"),
        ] {
            let answer = host.ask("resources/read", json!({"uri": uri})).await;
            let error = &answer["error"];
            assert_eq!((&error["code"], &error["data"]["uri"]), (&json!(-32602), &json!(uri)), "{answer}");
            assert!(error["message"].as_str().unwrap().contains(said), "{answer}");
        }
    }
    tasks.cancel();
}

#[tokio::test]
async fn both_names_of_a_services_document_lead_to_it_in_every_mode() {
    let (library, tasks) = (library().await, Tasks::new());
    for exposure in [Exposure::default(), flat(ToolPrefix::None)] {
        let mut host = Asking::new(&library, &tasks, exposure);
        let text = async |host: &mut Asking, uri: &str| {
            let result = host.result("resources/read", json!({"uri": uri})).await;
            assert_eq!(result["contents"][0]["uri"], uri);
            result["contents"][0]["text"].as_str().unwrap().to_owned()
        };
        let document = text(&mut host, "machina://services/disk").await;
        assert_eq!(document, text(&mut host, "machina://service_documentation/disk").await);
        assert!(document.contains("# disk") && document.contains("- `review`: Asks."), "{document}");
        assert!(document.contains(&of_service("disk", "test://disk/a")), "{document}");
    }
    tasks.cancel();
}

#[tokio::test]
async fn meta_mode_lists_documents_only_and_reads_what_a_service_has() {
    let (library, tasks) = (library().await, Tasks::new());
    for aliases in [true, false] {
        let mut host = Asking::new(&library, &tasks, Exposure { aliases, ..Exposure::default() });
        assert_eq!(host.uris().await, ["machina://services/disk", "machina://services/web"]);
        let templates = host.keys("resources/templates/list", "resourceTemplates", "name").await;
        let want: &[&str] = if aliases { &["service", "service_documentation"] } else { &["service"] };
        assert_eq!(templates, want);
        let uri = of_service("disk", "test://disk/a");
        assert_eq!(host.result("resources/read", json!({"uri": uri})).await["contents"][0]["text"], "from disk");
        assert_eq!(host.code("resources/read", json!({"uri": "test://disk/a"})).await, -32602);
        assert_eq!(host.code("prompts/list", json!({})).await, -32601);
        assert_eq!(host.code("prompts/get", json!({"name": "disk__review"})).await, -32601);
        let reference = json!({"type": "ref/prompt", "name": "disk__review"});
        assert_eq!(host.code("completion/complete", json!({"ref": reference})).await, -32601);
    }
    tasks.cancel();
}

#[tokio::test]
async fn arguments_are_completed_by_the_service_that_asks_for_them() {
    let (library, tasks) = (library().await, Tasks::new());
    let mut host = Asking::new(&library, &tasks, flat(ToolPrefix::Always));
    let either = of_service("disk", "test://either/{id}");
    for (reference, own) in [
        (
            json!({"type": "ref/prompt", "name": "disk__review", "title": "t"}),
            json!({"type": "ref/prompt", "name": "review", "title": "t"}),
        ),
        (json!({"type": "ref/resource", "uri": either}), json!({"type": "ref/resource", "uri": "test://either/{id}"})),
        (
            json!({"type": "ref/resource", "uri": "test://disk/{id}/data"}),
            json!({"type": "ref/resource", "uri": "test://disk/{id}/data"}),
        ),
    ] {
        let argument = json!({"name": "id", "value": "7"});
        let params = json!({"ref": reference, "argument": argument, "context": {"arguments": {"a": "b"}}, "x": 1});
        let result = host.result("completion/complete", params).await;
        assert_eq!(result["completion"]["values"], json!(["disk"]));
        let want = json!({"ref": own, "argument": argument, "context": {"arguments": {"a": "b"}}});
        assert_eq!(result["_meta"]["seen"]["params"], want);
    }
    // Its service completes nothing, or there is none.
    for reference in [
        json!({"type": "ref/prompt", "name": "web__review"}),
        json!({"type": "ref/resource", "uri": "machina://services/{+name}"}),
    ] {
        let answer = host.ask("completion/complete", json!({"ref": reference})).await;
        let nothing = answer["result"]["completion"]["values"] == json!([]) || answer["error"]["code"] == -32602;
        assert!(nothing, "{answer}");
    }
    for reference in [
        json!(null),
        json!({"type": "ref/prompt", "name": "gone"}),
        json!({"type": "ref/odd"}),
        json!({"type": "ref/prompt"}),
        json!({"type": "ref/resource", "uri": "test://nowhere"}),
    ] {
        assert_eq!(host.code("completion/complete", json!({"ref": reference})).await, -32602, "{reference}");
    }
    let silent = Library::open(&[("web", Shelf { prompts: vec![prompt("p")], ..Shelf::default() })]).await;
    let mut host = Asking::new(&silent, &tasks, flat(ToolPrefix::Always));
    assert!(host.result("server/discover", json!({})).await["capabilities"].get("completions").is_none());
    let reference = json!({"type": "ref/prompt", "name": "web__p"});
    assert_eq!(host.code("completion/complete", json!({"ref": reference})).await, -32601);
    tasks.cancel();
}

#[tokio::test]
async fn the_errors_of_a_service_are_told_in_the_language_of_the_host() {
    let (library, tasks) = (library().await, Tasks::new());
    let mut host = Asking::new(&library, &tasks, flat(ToolPrefix::None));
    assert_eq!(host.code("prompts/get", json!({"name": "missing"})).await, -32602);
    assert_eq!(host.code("prompts/get", json!({"name": "no_such"})).await, -32602);
    assert_eq!(host.code("prompts/get", json!({})).await, -32602);
    assert_eq!(host.code("resources/read", json!({"uri": "test://gone"})).await, -32602);
    let mut older = Bare::new(served(&library, &tasks, flat(ToolPrefix::None)));
    older.initialize().await;
    let gone = older.request(json!(1), "resources/read", json!({"uri": "test://gone"})).await;
    assert_eq!((&gone["error"]["code"], &gone["error"]["data"]["uri"]), (&json!(-32002), &json!("test://gone")));
    library.machina.set_admin_state("disk", None, AdminState::Disabled).await.unwrap();
    assert_eq!(host.code("prompts/get", json!({"name": "missing"})).await, -32602);
    assert_eq!(host.code("resources/read", json!({"uri": of_service("disk", "test://disk/a")})).await, -32602);
    tasks.cancel();
}
