use serde_json::{Value, json};

use super::*;
use crate::error::ErrorKind;
use crate::health::HealthState;
use crate::model::{Instance, StdioEndpoint};
use crate::route::{CallOptions, CallReport};
use crate::testing::registry_suite::call;

async fn all() -> Machina {
    let machina = Machina::builder().open().await.unwrap();
    for one in Builtin::ALL {
        one.serve(&machina).await.unwrap();
    }
    machina
}

async fn ask(machina: &Machina, service: &str, tool: &str, arguments: Value) -> Result<CallReport> {
    machina.call(&call(service, tool, arguments), &CallOptions::default()).await
}

/// What the tool answers: its structured content, or its text.
async fn answer(machina: &Machina, service: &str, tool: &str, arguments: Value) -> Value {
    let report = ask(machina, service, tool, arguments).await.unwrap();
    assert!(!report.result.is_error(), "{report:?}");
    report.result.0.get("structuredContent").cloned().unwrap_or_else(|| report.result.text().into())
}

/// Why the tool says that it failed.
async fn failure(machina: &Machina, service: &str, tool: &str, arguments: Value) -> String {
    let report = ask(machina, service, tool, arguments).await.unwrap();
    assert!(report.result.is_error(), "{report:?}");
    report.result.text()
}

#[tokio::test]
async fn all_are_healthy_and_found_by_what_they_do() {
    let machina = all().await;
    for one in Builtin::ALL {
        let view = machina.get(one.as_str()).unwrap();
        assert_eq!(view.instances().next().unwrap().1.health.state, HealthState::Healthy, "{one}");
        assert!(
            view.tools().iter().all(|offered| offered.tool.hints().read_only && offered.tool.suspicious().is_empty())
        );
        assert_eq!(one.as_str().parse::<Builtin>().unwrap(), *one);
    }
    let found = machina.find_tools("convert csv to json", 1).await.unwrap();
    assert_eq!(found[0].service.as_str(), "transform");
    assert_eq!(machina.find_tools("tool to add numbers", 1).await.unwrap()[0].service.as_str(), "calculator");
    let wrong = "abacus".parse::<Builtin>().unwrap_err();
    assert!(wrong.message().contains("calculator, strings, transform"), "{wrong}");
    machina.close().await;
}

#[tokio::test]
async fn the_calculator_calculates() {
    let machina = all().await;
    let asked = |operation: &str, a: f64, b: f64| json!({"operation": operation, "a": a, "b": b});
    for (operation, value) in [
        ("add", json!(8)),
        ("subtract", json!(2)),
        ("multiply", json!(15)),
        ("divide", json!(5.0 / 3.0)),
        ("remainder", json!(2)),
        ("power", json!(125)),
    ] {
        assert_eq!(
            answer(&machina, "calculator", "calculator", asked(operation, 5.0, 3.0)).await,
            json!({ "value": value })
        );
    }
    for operation in ["divide", "remainder"] {
        assert_eq!(failure(&machina, "calculator", "calculator", asked(operation, 1.0, 0.0)).await, "division by zero");
    }
    let huge = failure(&machina, "calculator", "calculator", asked("power", 10.0, 400.0)).await;
    assert!(huge.contains("not a finite number"), "{huge}");
    let wrong = ask(&machina, "calculator", "calculator", asked("guess", 1.0, 1.0)).await.unwrap_err();
    assert_eq!((wrong.kind(), wrong.context().problems[0].field.as_str()), (ErrorKind::Invalid, "arguments.operation"));

    let value = answer(&machina, "calculator", "evaluate", json!({"expression": "2 * (3 + 4) ^ 2"})).await;
    assert_eq!(value, json!({"value": 98}));
    let why = failure(&machina, "calculator", "evaluate", json!({"expression": "2 * (3"})).await;
    assert_eq!(why, "`)` was expected at the end");
    machina.close().await;
}

#[tokio::test]
async fn strings_are_changed_counted_and_taken_apart() {
    let machina = all().await;
    let strings = async |tool: &str, arguments: Value| answer(&machina, "strings", tool, arguments).await;
    for (case, changed) in [
        ("upper", "SOME HTTPNAME, ÜBER_42"),
        ("lower", "some httpname, über_42"),
        ("title", "Some Httpname, Über_42"),
        ("snake", "some_httpname_über_42"),
        ("kebab", "some-httpname-über-42"),
        ("camel", "someHttpnameÜber42"),
    ] {
        let arguments = json!({"text": "some HTTPName, über_42", "case": case});
        assert_eq!(strings("change_case", arguments).await, json!(changed), "{case}");
    }
    assert_eq!(strings("change_case", json!({"text": "someName", "case": "snake"})).await, json!("some_name"));
    let counted = strings("count", json!({"text": "héllo wörld\nnew"})).await;
    assert_eq!(counted, json!({"characters": 15, "words": 3, "lines": 2, "bytes": 17}));
    let replaced = strings("replace", json!({"text": "a.b.c", "find": ".", "with": "-"})).await;
    assert_eq!(replaced, json!({"text": "a-b-c", "replaced": 2}));
    assert_eq!(strings("reverse", json!({"text": "abç"})).await, json!("çba"));
    assert_eq!(strings("split", json!({"text": " a  b\n"})).await, json!({"pieces": ["a", "b"]}));
    assert_eq!(strings("split", json!({"text": "a,,b", "separator": ","})).await, json!({"pieces": ["a", "", "b"]}));
    let much = json!({"text": "a".repeat(100_000), "find": "a", "with": "b".repeat(1000)});
    assert!(failure(&machina, "strings", "replace", much).await.contains("may have"));
    let many = failure(&machina, "strings", "split", json!({"text": "a ".repeat(10_001)})).await;
    assert!(many.contains("more than 10000 pieces"), "{many}");
    let long = ask(&machina, "strings", "reverse", json!({"text": "a".repeat(TEXT_MAX + 1)})).await.unwrap_err();
    assert_eq!(long.kind(), ErrorKind::Invalid, "{long}");
    machina.close().await;
}

#[tokio::test]
async fn tables_go_from_json_to_csv_and_back() {
    let machina = all().await;
    let transform = async |tool: &str, arguments: Value| answer(&machina, "transform", tool, arguments).await;
    let rows = json!([{"name": "a, b", "n": 1}, {"name": "say \"x\"\nthere", "more": {"k": [true]}}, {"n": null}]);
    let csv = transform("json_to_csv", json!({"rows": rows})).await;
    let expected = "name,n,more\n\"a, b\",1,\n\"say \"\"x\"\"\nthere\",,\"{\"\"k\"\":[true]}\"\n,,\n";
    assert_eq!(csv, json!(expected));
    let back = transform("csv_to_json", json!({"csv": csv, "numbers": true})).await;
    assert_eq!(
        back["rows"],
        json!([{"name": "a, b", "n": 1, "more": ""}, {"name": "say \"x\"\nthere", "n": "", "more": "{\"k\":[true]}"},
               {"name": "", "n": "", "more": ""}])
    );
    let plain = transform("csv_to_json", json!({"csv": "a;b\n007;1.5\n", "delimiter": ";"})).await;
    assert_eq!(plain["rows"], json!([{"a": "007", "b": "1.5"}]));
    let numbers = transform("csv_to_json", json!({"csv": "a,b,c,d\n007,1.5,-2,1e9\n", "numbers": true})).await;
    assert_eq!(numbers["rows"], json!([{"a": "007", "b": 1.5, "c": -2, "d": "1e9"}]));
    assert_eq!(transform("json_to_csv", json!({"rows": []})).await, json!(""));
    assert_eq!(transform("csv_to_json", json!({"csv": ""})).await["rows"], json!([]));

    for (csv, said) in [("a,b\n1\n", "record 1"), ("a,a\n1,2\n", "`a` is there twice")] {
        let why = failure(&machina, "transform", "csv_to_json", json!({ "csv": csv })).await;
        assert!(why.contains(said), "{why}");
    }
    let wide = (0..1001).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    assert!(failure(&machina, "transform", "csv_to_json", json!({ "csv": wide })).await.contains("may be 1000"));
    let rows: Vec<_> = (0..1500).map(|n| json!({ (n % 1000).to_string(): 1 })).collect();
    let many = failure(&machina, "transform", "json_to_csv", json!({ "rows": rows })).await;
    assert!(many.contains("more than 1000000 fields"), "{many}");

    let picked = transform("json_value", json!({"json": {"items": [{"name": "x"}]}, "pointer": "/items/0"})).await;
    assert_eq!(picked, json!({"value": {"name": "x"}}));
    let picked = transform("json_value", json!({"json": "{\"a\": 1}", "pointer": "/a"})).await;
    assert_eq!(picked, json!({"value": 1}));
    let nothing = failure(&machina, "transform", "json_value", json!({"json": {}, "pointer": "/a"})).await;
    assert_eq!(nothing, "there is nothing at `/a`");
    machina.close().await;
}

#[tokio::test]
async fn what_an_operator_says_about_them_stays() {
    let machina = all().await;
    let changed = r#"{"name": "calculator", "description": "Ours.", "instances": [{"in_process": {}, "weight": 5}]}"#;
    machina.update("calculator", ServiceSpec::parse(changed).unwrap(), None).await.unwrap();
    Builtin::Calculator.serve(&machina).await.unwrap();
    let view = machina.get("calculator").unwrap();
    assert_eq!((view.service().spec.description.as_str(), view.instances().next().unwrap().0.weight), ("Ours.", 5));
    machina.close().await;
}

#[tokio::test]
async fn a_service_of_someone_else_is_left_alone() {
    let machina = Machina::builder().open().await.unwrap();
    let theirs = Instance::new(StdioEndpoint::new("their-calculator", Vec::<String>::new()));
    machina.register(ServiceSpec::new("calculator").unwrap().instance(theirs)).await.unwrap();
    let refused = Builtin::Calculator.serve(&machina).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert_eq!(machina.get("calculator").unwrap().instances().len(), 1);
    machina.close().await;
}
