//! One MCP server of the farm: its address, what it does now, and what it has in
//! flight. To be killed means that its listener is closed for real: whoever
//! connects is refused by the kernel.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use machina_core::Tasks;
use machina_tests::farm::{Behaviour, Class, InFlight};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::connection;
use crate::ledger::Ledger;
use crate::mcp::Speaker;

/// How long a listener waits after a failed accept, and between two attempts to listen again.
const PAUSE: Duration = Duration::from_millis(20);

/// One server.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) address: SocketAddr,
    pub(crate) speaker: Speaker,
    /// Whether calls are answered by a stream of events.
    pub(crate) events: bool,
    pub(crate) ledger: Arc<Ledger>,
    state: Mutex<State>,
    /// Whether its listener is to be open; and whether it is.
    wanted: watch::Sender<bool>,
    listening: watch::Sender<bool>,
    generation: AtomicU64,
    in_flight: [AtomicU32; Class::ALL.len()],
}

#[derive(Debug)]
struct State {
    behaviour: Behaviour,
    /// Ends the connections that are open.
    cut: CancellationToken,
    /// Ends the turns of one that flaps.
    turns: CancellationToken,
}

/// A call that is counted as in flight until this is dropped.
pub(crate) struct Flying<'a>(&'a AtomicU32);

impl Drop for Flying<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Instance {
    pub(crate) fn new(address: SocketAddr, speaker: Speaker, events: bool, ledger: Arc<Ledger>) -> Self {
        let state =
            State { behaviour: Behaviour::Good, cut: CancellationToken::new(), turns: CancellationToken::new() };
        Self {
            address,
            speaker,
            events,
            ledger,
            state: Mutex::new(state),
            wanted: watch::Sender::new(true),
            listening: watch::Sender::new(true),
            generation: AtomicU64::new(1),
            in_flight: Default::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it does now.
    pub(crate) fn behaviour(&self) -> Behaviour {
        self.state().behaviour
    }

    /// A token that ends the connections that are open now.
    pub(crate) fn cut(&self) -> CancellationToken {
        self.state().cut.clone()
    }

    /// The name of a new session; of those before its last death, none is known.
    pub(crate) fn session(&self) -> String {
        format!("session-{}", self.generation.load(Ordering::Acquire))
    }

    /// Counts a call as in flight.
    pub(crate) fn fly(&self, class: Class) -> Flying<'_> {
        let counter = &self.in_flight[class as usize];
        counter.fetch_add(1, Ordering::AcqRel);
        Flying(counter)
    }

    /// Does `behaviour` from now on; returns when it does, with what was in flight.
    pub(crate) async fn obey(self: &Arc<Self>, behaviour: Behaviour, tasks: &Tasks) -> InFlight {
        let count = |class: Class| self.in_flight[class as usize].load(Ordering::Acquire);
        let in_flight = Class::ALL.into_iter().map(|class| (class, count(class))).collect();
        self.state().turns.cancel();
        self.turn(behaviour).await;
        if let Behaviour::Flap { up_ms, down_ms } = behaviour {
            let turns = CancellationToken::new();
            self.state().turns = turns.clone();
            let flapping = Arc::clone(self);
            tasks.spawn("flap", async move {
                let both = [(Behaviour::Good, up_ms), (Behaviour::Refuse, down_ms)];
                let take_turns = async {
                    for (behaviour, ms) in both.into_iter().cycle() {
                        flapping.turn(behaviour).await;
                        tokio::time::sleep(Duration::from_millis(ms)).await;
                    }
                };
                tokio::select! {
                    () = take_turns => {}
                    () = turns.cancelled() => {}
                }
            });
        }
        in_flight
    }

    async fn turn(&self, behaviour: Behaviour) {
        let refuses = behaviour == Behaviour::Refuse;
        {
            let mut state = self.state();
            let silent = matches!(state.behaviour, Behaviour::Hang | Behaviour::Mute | Behaviour::Flood);
            state.behaviour = behaviour;
            // What was left unanswered is never answered: the process that held it is gone.
            if refuses || silent {
                self.generation.fetch_add(1, Ordering::AcqRel);
                std::mem::take(&mut state.cut).cancel();
            }
        }
        self.wanted.send_replace(!refuses);
        let mut listening = self.listening.subscribe();
        // An error means that the farm is closing.
        let _ = listening.wait_for(|is| *is != refuses).await;
    }

    /// Takes connections at `listener`, and at others in its place, for ever.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener, tasks: Tasks) {
        let mut wanted = self.wanted.subscribe();
        let mut listener = Some(listener);
        loop {
            let Some(open) = &listener else {
                if wanted.wait_for(|is| *is).await.is_err() {
                    return;
                }
                match listen(self.address) {
                    Ok(again) => {
                        listener = Some(again);
                        self.listening.send_replace(true);
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
                continue;
            };
            tokio::select! {
                biased;
                over = async { wanted.wait_for(|is| !*is).await.is_err() } => {
                    if over {
                        return;
                    }
                    listener = None;
                    self.listening.send_replace(false);
                }
                accepted = open.accept() => match accepted {
                    Ok((stream, _)) => {
                        let instance = Arc::clone(&self);
                        tasks.spawn("connection", async move { connection::serve(&instance, stream).await });
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
            }
        }
    }
}

/// A listener whose address can be taken again at once.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}
