use super::*;

fn publish(events: &Events, count: u64) {
    for revision in 1..=count {
        events.publish(Revision(revision), ServiceName::new("a").ok(), EventKind::ServiceUpdated);
    }
}

fn sequence(next: Option<Next>) -> Option<u64> {
    match next {
        Some(Next::Event(event)) => Some(event.sequence),
        _ => None,
    }
}

#[tokio::test]
async fn a_reader_gets_each_event_once_and_in_order() {
    let events = Arc::new(Events::new(8));
    let mut reader = events.subscribe();
    publish(&events, 3);
    for expected in 1..=3 {
        assert_eq!(sequence(Some(reader.next().await)), Some(expected));
    }
    assert_eq!(reader.try_next(), None);
}

#[test]
fn a_reader_that_fell_behind_is_told() {
    let events = Arc::new(Events::new(2));
    let mut reader = events.subscribe();
    publish(&events, 3);
    assert_eq!(reader.try_next(), Some(Next::Resync));
    publish(&events, 1);
    assert_eq!(sequence(reader.try_next()), Some(4));
}

#[test]
fn replay_from_a_revision() {
    let events = Arc::new(Events::new(8));
    publish(&events, 5);
    assert_eq!(sequence(events.subscribe_since(Revision(3)).try_next()), Some(4));
    assert_eq!(events.subscribe_since(Revision(5)).try_next(), None);
}

#[test]
fn replay_from_a_forgotten_revision_is_a_resync() {
    let events = Arc::new(Events::new(2));
    publish(&events, 5);
    assert_eq!(events.subscribe_since(Revision(1)).try_next(), Some(Next::Resync));
    assert_eq!(sequence(events.subscribe_since(Revision(4)).try_next()), Some(5));
}

#[test]
fn health_at_the_revision_that_was_read_is_told() {
    let events = Arc::new(Events::new(8));
    publish(&events, 3);
    let health = EventKind::HealthChanged {
        instance: InstanceId::generate(),
        from: HealthState::Healthy,
        to: HealthState::Suspect,
        reason: Reason::default(),
    };
    events.publish(Revision(3), ServiceName::new("a").ok(), health);
    assert_eq!(sequence(events.subscribe_since(Revision(3)).try_next()), Some(4));
}

#[test]
fn what_was_before_the_process_is_a_resync() {
    let events = Arc::new(Events::new(8));
    events.begin(Revision(7));
    assert_eq!(events.subscribe_since(Revision(6)).try_next(), Some(Next::Resync));
    assert_eq!(events.subscribe_since(Revision(7)).try_next(), None);
    assert_eq!(events.subscribe().cursor().unwrap().revision, Revision(7));
}

#[test]
fn a_cursor_goes_on_without_gap_and_repetition() {
    let events = Arc::new(Events::new(8));
    publish(&events, 5);
    let mut reader = events.subscribe_since(Revision(1));
    reader.try_next();
    reader.try_next();
    let cursor = reader.cursor().unwrap();
    assert_eq!(cursor.revision, Revision(3));
    let read_back: EventCursor = cursor.to_string().parse().unwrap();
    assert_eq!(read_back, cursor);
    assert_eq!(sequence(events.subscribe_after(&read_back).try_next()), Some(4));
    publish(&events, 10);
    assert_eq!(events.subscribe_after(&cursor).try_next(), Some(Next::Resync), "it was dropped meanwhile");
}

#[test]
fn a_cursor_of_another_process_is_a_resync() {
    let (events, other) = (Arc::new(Events::new(8)), Arc::new(Events::new(8)));
    publish(&events, 5);
    publish(&other, 5);
    let foreign = EventCursor { stream: events.stream + 1, ..other.subscribe().cursor().unwrap() };
    let mut reader = events.subscribe_after(&foreign);
    assert_eq!(reader.cursor(), None);
    assert_eq!(reader.try_next(), Some(Next::Resync));
    assert_eq!(reader.cursor(), events.subscribe().cursor());
    let ahead = EventCursor { sequence: 99, ..events.subscribe().cursor().unwrap() };
    assert_eq!(events.subscribe_after(&ahead).try_next(), Some(Next::Resync));
}

#[test]
fn what_is_no_cursor_is_said_to_be_none() {
    for wrong in ["", "7", "7.1", "7.1.", "7.1.g", "7.1.a.b", "a.1.a", "7.-1.a", "7.1.a."] {
        assert!(wrong.parse::<EventCursor>().is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn a_fed_stream_hands_on_what_is_put_in() {
    let (feed, mut stream) = EventStream::fed(1);
    assert_eq!((stream.try_next(), stream.cursor()), (None, None));
    let cursor: EventCursor = "7.1.a".parse().unwrap();
    assert!(feed.send(Next::Resync, Some(cursor.clone())).await);
    assert_eq!((stream.next().await, stream.cursor()), (Next::Resync, Some(cursor)));
    drop(stream);
    feed.closed().await;
    assert!(!feed.send(Next::Resync, None).await);
}
