//! A Machina that is followed by another: killed and started again, and as the
//! command line names it.

use std::time::Duration;

use machina_core::{ErrorKind, Machina, Mutation, Registry as _, ServiceSpec};
use machina_http::Client;
use machina_http::assemble::{self, AssembleOptions};
use tokio::process::Command;

use crate::world::{Served, World};

fn may_be_followed(command: &mut Command) {
    command.env("MACHINA_SERVER__REMOTE_STORES", "true");
}

fn put(name: &str) -> Mutation {
    Mutation::Put(ServiceSpec::new(name).unwrap())
}

async fn follower(url: &str) -> Machina {
    let opened = assemble::open(&format!("follow+{url}"), AssembleOptions::of_this_process()).await.unwrap();
    opened.here().unwrap().clone()
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..1500 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came: {what}");
}

#[tokio::test]
async fn a_follower_outlives_the_central_one_and_finds_it_again() {
    let world = World::new();
    let central = Served::start_with(&world, &[], may_be_followed).await;
    let (url, client) = (central.url.clone(), Client::new(&central.url).unwrap());
    client.apply(vec![put("a")]).await.unwrap();
    let follower = follower(&url).await;
    assert!(follower.get("a").is_some());
    client.apply(vec![put("b")]).await.unwrap();
    until("b", async || follower.get("b").is_some()).await;

    central.signal("KILL").await;
    central.ended().await;
    let refused = follower.apply(vec![put("c")]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert!(follower.get("a").is_some() && follower.get("b").is_some() && follower.get("c").is_none());

    let address = url.strip_prefix("http://").unwrap();
    let again = Served::start_again(&world, address, &["--store", "sqlite:here.db"], may_be_followed).await;
    until("it is back", async || client.check_version().await.is_ok()).await;
    follower.apply(vec![put("c")]).await.unwrap();
    client.apply(vec![put("d")]).await.unwrap();
    until("d", async || follower.get("d").is_some()).await;
    assert_eq!(client.get("c").await.unwrap().name(), "c");
    follower.close().await;
    again.signal("KILL").await;
    again.ended().await;
}

#[tokio::test]
async fn commands_take_the_address_of_a_store_that_is_followed() {
    let world = World::new();
    let central = Served::start_with(&world, &[], may_be_followed).await;
    Client::new(&central.url).unwrap().apply(vec![put("far-away")]).await.unwrap();
    let followed = format!("follow+{}", central.url);
    world.run(&["services", "--store", &followed]).await.ended(0).says(&["far-away"]);
    world.run(&["services", "--store", &central.url]).await.ended(2).complains(&["follow+", "--url"]);
}

#[tokio::test]
async fn who_is_not_to_be_followed_says_what_would_let_them() {
    let world = World::new();
    let central = Served::start(&world, &[]).await;
    let refused = world.run(&["services", "--store", &format!("follow+{}", central.url)]).await;
    refused.complains(&["server.remote_stores"]);
}
