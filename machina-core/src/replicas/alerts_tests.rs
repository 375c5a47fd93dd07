//! Of several replicas one tells people, and whoever follows it goes on from there.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::cluster::{Cluster, Line};
use crate::error::Result;
use crate::{AlertMessage, Config, HttpEndpoint, Instance, Notifier, ServiceSpec};

const SECOND: Duration = Duration::from_secs(1);

/// Keeps what each replica says.
#[derive(Debug)]
struct Megaphone {
    replica: usize,
    said: Arc<Mutex<Vec<(usize, String)>>>,
}

#[async_trait]
impl Notifier for Megaphone {
    fn name(&self) -> &'static str {
        "people"
    }

    fn kind(&self) -> &'static str {
        "kept"
    }

    async fn notify(&self, message: &AlertMessage) -> Result<()> {
        self.said.lock().unwrap().push((self.replica, message.text.clone()));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn people_are_told_once_though_the_one_that_tells_them_dies() {
    let mut cluster = Cluster::empty(Config::default());
    let said: Arc<Mutex<Vec<(usize, String)>>> = Arc::default();
    for replica in 0..3 {
        let megaphone = Arc::new(Megaphone { replica, said: Arc::clone(&said) });
        let line = Line::to(&cluster.store);
        let machina = cluster.open(replica, &line, |builder| builder.notifier(megaphone)).await;
        cluster.replicas.push(machina);
        cluster.lines.push(line);
    }
    let instance = Instance::new(HttpEndpoint::new("http://i.x/mcp"));
    let spec = ServiceSpec::new("s0").unwrap().instance(instance.clone());
    cluster.replicas[0].register(spec).await.unwrap();
    cluster.instances.push(instance.clone());
    cluster.settle().await;

    cluster.world.set_down(instance.id, true);
    tokio::time::sleep(SECOND * 120).await;
    let told = std::mem::take(&mut *said.lock().unwrap());
    assert_eq!(told.len(), 1, "{told:?}");
    let firing = cluster.replicas.iter().map(|machina| machina.system().alerts().firing.len());
    assert_eq!(firing.collect::<Vec<_>>(), [1, 1, 1], "every replica knows");

    let teller = told[0].0;
    cluster.kill(teller);
    tokio::time::sleep(SECOND * 120).await;
    assert_eq!(*said.lock().unwrap(), [], "whoever follows does not say it again");

    cluster.world.set_down(instance.id, false);
    tokio::time::sleep(SECOND * 120).await;
    let told = said.lock().unwrap().clone();
    assert!(told.len() == 1 && told[0].0 != teller, "{told:?}");
}
