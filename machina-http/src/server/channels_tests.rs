use machina_core::{Machina, Principal, Registry as _, Role, ServiceSpec};

use super::*;

async fn teller(machina: &Machina, channel: Channel) -> Teller {
    let caller = machina.scoped(Principal::new("reader", Role::Viewer));
    let events = caller.watch(None).await.unwrap();
    Teller { channel, caller, events, anew: true }
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_is_let_go_and_not_before() {
    let machina = Machina::builder().without_monitor().open().await.unwrap();
    let teller = teller(&machina, Channel::Config).await;
    for number in 0..QUEUE_MAX {
        machina.register(ServiceSpec::new(&format!("s{number}")).unwrap()).await.unwrap();
    }
    let (queue, mut queued) = mpsc::channel(QUEUE_MAX);
    let started = tokio::time::Instant::now();
    let ending = teller.tell(&queue);
    tokio::pin!(ending);
    // The greeting and as many events fill the queue but for the last event.
    let early = tokio::time::timeout(SLOW_AFTER - Duration::from_millis(1), &mut ending).await;
    assert!(early.is_err() && queued.len() == QUEUE_MAX, "{early:?}");
    assert_eq!(ending.await, End::Slow);
    assert_eq!(started.elapsed(), SLOW_AFTER);
    let Message::Text(first) = queued.recv().await.unwrap() else { panic!("text") };
    assert!(first.contains("\"hello\""), "{first}");
    assert_eq!(End::Slow.last_word().map(code), Some(1013));
    assert_eq!(End::Stopping.last_word().map(code), Some(1012));
    machina.close().await;
}

fn code(message: Message) -> u16 {
    let Message::Close(Some(frame)) = message else { panic!("a close frame") };
    frame.code
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_pinged_and_one_that_says_nothing_is_gone() {
    let (mut sink, mut pings) = futures_util_channel();
    let (_queue, queued) = mpsc::channel(1);
    let started = tokio::time::Instant::now();
    tokio::select! {
        () = write(&mut sink, queued) => panic!("the reader is there"),
        () = listen(futures_util::stream::pending()) => {}
    }
    assert_eq!(started.elapsed(), SILENCE_MAX);
    let mut count = 0;
    while let Ok(message) = pings.try_recv() {
        assert!(matches!(message, Message::Ping(_)), "{message:?}");
        count += 1;
    }
    assert!((2..=3).contains(&count), "{count} pings in 45 seconds");
}

/// A sink whose messages can be looked at.
fn futures_util_channel() -> (impl Sink<Message, Error = axum::Error> + Unpin, mpsc::Receiver<Message>) {
    let (sender, receiver) = mpsc::channel(16);
    let sink = futures_util::sink::unfold(sender, async |sender: mpsc::Sender<Message>, message| {
        sender.send(message).await.map_err(axum::Error::new)?;
        Ok(sender)
    });
    (Box::pin(sink), receiver)
}
