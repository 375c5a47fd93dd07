//! What answers at the address of the server, and is none, or none of this version.

use machina_core::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::ports;
use crate::world::{Ran, World};

/// A server at an address of its own that answers everything with this.
async fn answering(body: &'static str) -> (String, Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tasks = Tasks::new();
    let answer = async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    };
    drop(tasks.spawn("answer", answer));
    (address, tasks)
}

/// Runs a command where `server.listen` is this address and no store is named.
async fn beside(world: &World, address: &str, args: &[&str]) -> Ran {
    let mut command = world.command(args);
    let output = command.env("MACHINA_SERVER__LISTEN", address).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[tokio::test]
async fn another_program_is_not_taken_for_machina() {
    for body in ["<html>", "{}", r#"{"name": "another", "version": "0.1.0"}"#] {
        let (world, (address, _tasks)) = (World::new(), answering(body).await);
        let ran = beside(&world, &address, &["services"]).await.ended(0).says(&["There are no services yet"]);
        ran.complains(&[&address, "is no Machina"]);
        let asked = world.run(&["services", "--url", &format!("http://{address}")]).await;
        assert_ne!(asked.code, 0, "{asked:?}");
        asked.complains(&["not as a server of this version"]);
    }
}

#[tokio::test]
async fn a_machina_of_another_version_is_said_to_be_one() {
    let body = r#"{"name": "machina", "version": "7.0.0", "services": 0}"#;
    let (world, (address, _tasks)) = (World::new(), answering(body).await);
    let url = format!("http://{address}");
    for ran in [beside(&world, &address, &["services"]).await, world.run(&["services", "--url", &url]).await] {
        assert_ne!(ran.code, 0, "{ran:?}");
        ran.complains(&["7.0.0", env!("CARGO_PKG_VERSION"), &address]);
    }
}

#[tokio::test]
async fn where_nothing_answers_the_store_is_asked() {
    let closed = ports::closed();
    let address = closed.local_addr().unwrap().to_string();
    let ran = beside(&World::new(), &address, &["services"]).await.ended(0);
    assert!(!ran.stderr.contains(&address), "{ran:?}");
}
