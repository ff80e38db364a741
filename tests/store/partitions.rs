//! What owners of partitions, relays and people at work on them find in a store.

use std::time::{Duration, Instant};

use headroom::domain::Reason;
use headroom::store::{
    AcceptedGap, AlertRow, AlertsOffset, Behind, Commit, CommitError, DeadLetterRow, Gaps, LetterPage, LetterSelection,
    Offsets, OutboxPart, Partitioned, Place, Progress, Published, RepairRequest, Repaired, Side, StoreError,
};
use uuid::Uuid;

use crate::{Scene, commit, settled};

async fn the_identity_stays(scene: Scene) {
    let store = scene.open();
    store.migrate().await.unwrap();
    let first = store.deployment().await.unwrap();
    assert_eq!(first.settled, None);
    store.settle(&settled(2)).await.unwrap();
    store.migrate().await.unwrap();
    let again = scene.open();
    assert_eq!(again.deployment().await.unwrap().store_id, first.store_id);
    assert_eq!(again.settle(&settled(9)).await.unwrap(), settled(2), "what is settled stays");
    again.ping(Side::Writing).await.unwrap();
    again.ping(Side::Reading).await.unwrap();
}

async fn one_owner_writes(scene: Scene) {
    let store = scene.ready().await;
    let old = store.take(1).await.unwrap();
    let new = store.take(1).await.unwrap();
    assert_eq!(new.epoch, old.epoch + 1);
    assert_eq!(store.take(0).await.unwrap().epoch, old.epoch, "each partition has its own");
    let fenced = store.commit(&commit(1, old.epoch, 0, 1..2)).await;
    assert!(matches!(fenced, Err(CommitError::Fenced(1))), "{fenced:?}");
    store.commit(&commit(1, new.epoch, 0, 1..3)).await.unwrap();
    let twice = store.commit(&commit(1, new.epoch, 0, 1..3)).await;
    assert!(matches!(twice, Err(CommitError::Fenced(1))), "{twice:?}");
    // A commit may leave the offsets where they are; a store that lost it all the same is not the one it was.
    let in_place = |commits| Commit { commits, outbox_number: 2, ..commit(1, new.epoch, 0, 0..0) };
    store.commit(&in_place(1)).await.unwrap();
    let lost = store.commit(&in_place(3)).await;
    assert!(matches!(lost, Err(CommitError::Fenced(1))), "{lost:?}");
    let taken = store.take(1).await.unwrap();
    assert_eq!((taken.offsets.usage, taken.outbox_number, taken.commits), (1, 2, 2));
    let all = [OutboxPart { partition: 1, after: 0, rows: 10 }];
    assert_eq!(store.outbox(&all, 1_000).await.unwrap().len(), 2, "nothing came twice");
}

async fn published_alerts_leave(scene: Scene) {
    let store = scene.ready().await;
    let epoch = store.take(0).await.unwrap().epoch;
    store.commit(&commit(0, epoch, 0, 1..6)).await.unwrap();
    let epoch = store.take(1).await.unwrap().epoch;
    store.commit(&commit(1, epoch, 0, 1..3)).await.unwrap();
    let part = |partition, after, rows| OutboxPart { partition, after, rows };
    let numbers = |rows: Vec<Partitioned<AlertRow>>| rows.iter().map(|row| row.value.number).collect::<Vec<_>>();
    let both = store.outbox(&[part(0, 3, 10), part(1, 0, 10), part(2, 0, 10)], 1_000).await.unwrap();
    let places =
        |rows: &[Partitioned<AlertRow>]| rows.iter().map(|row| (row.partition, row.value.number)).collect::<Vec<_>>();
    assert_eq!(places(&both), [(0, 4), (0, 5), (1, 1), (1, 2)]);
    let full = store.outbox(&[part(0, 3, 10), part(1, 0, 10)], 15).await.unwrap();
    assert_eq!(places(&full), [(0, 4), (0, 5), (1, 1)], "bytes are those of all parts");
    assert_eq!(numbers(store.outbox(&[part(0, 0, 3)], 1_000).await.unwrap()), [1, 2, 3]);
    assert_eq!(numbers(store.outbox(&[part(0, 3, 10)], 1_000).await.unwrap()), [4, 5]);
    assert_eq!(numbers(store.outbox(&[part(2, 0, 10)], 1_000).await.unwrap()), [0_i64; 0]);
    // Each takes 7 bytes.
    assert_eq!(numbers(store.outbox(&[part(0, 1, 10)], 15).await.unwrap()), [2, 3, 4]);
    assert_eq!(numbers(store.outbox(&[part(0, 1, 10)], 14).await.unwrap()), [2, 3]);
    assert_eq!(numbers(store.outbox(&[part(0, 1, 10)], 1).await.unwrap()), [2], "one alone may be larger");
    let published = Published {
        numbers: vec![Partitioned { partition: 0, value: 3 }],
        offsets: vec![AlertsOffset { partition: 4, next: 17 }],
        before: Vec::new(),
    };
    assert!(store.published(&published).await.unwrap());
    assert_eq!(numbers(store.outbox(&[part(0, 0, 10)], 1_000).await.unwrap()), [4, 5]);
    let state = store.relay_state().await.unwrap();
    assert!(state.numbers.contains(&Partitioned { partition: 0, value: 3 }), "{state:?}");
    assert!(state.offsets.contains(&AlertsOffset { partition: 4, next: 17 }), "{state:?}");
    let raised = store.outbox_numbers().await.unwrap();
    assert!(raised.contains(&Partitioned { partition: 0, value: 5 }), "{raised:?}");

    // A store that knows otherwise what is on the topic is told nothing, of the other partitions either.
    let offset = |partition, next| AlertsOffset { partition, next };
    let numbers_to = |value| vec![Partitioned { partition: 0, value }];
    for before in [vec![], vec![offset(4, 16)], vec![offset(4, 17), offset(5, 2)]] {
        let offsets = vec![offset(4, 18), offset(5, 3)];
        let published = Published { numbers: numbers_to(5), offsets, before };
        assert!(!store.published(&published).await.unwrap(), "{published:?}");
    }
    assert_eq!(numbers(store.outbox(&[part(0, 0, 10)], 1_000).await.unwrap()), [4, 5]);
    assert_eq!(store.relay_state().await.unwrap(), state);
    // A topic that was made again begins anew.
    let again = Published { numbers: numbers_to(4), offsets: vec![offset(4, 1)], before: vec![offset(4, 17)] };
    assert!(store.published(&again).await.unwrap());
    assert_eq!(store.relay_state().await.unwrap().offsets, [offset(4, 1)]);
}

async fn one_relay_has_the_lease(scene: Scene) {
    let store = scene.ready().await;
    let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
    assert!(store.lease(one, 2).await.unwrap());
    assert!(!store.lease(other, 2).await.unwrap(), "another holds it");
    assert!(store.lease(one, 1).await.unwrap(), "its holder keeps it");
    let begun = Instant::now();
    while !store.lease(other, 60).await.unwrap() {
        assert!(begun.elapsed() < Duration::from_secs(30), "a lease runs out");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!store.lease(one, 60).await.unwrap());
}

async fn a_gap_stays_until_it_is_accepted(scene: Scene) {
    let store = scene.ready().await;
    let epoch = store.take(1).await.unwrap().epoch;
    let letter = |topic: &str, offset: i64| DeadLetterRow {
        topic: topic.to_owned(),
        offset,
        timestamp: None,
        key: None,
        value: None,
        headers: vec![],
        reason: "unreadable",
        detail: "why".to_owned(),
        customer: None,
    };
    let dead_letters = vec![letter("u", 3), letter("u", 4), letter("a", 5)];
    let offsets = Offsets { usage: 6, assignments: 0 };
    store.commit(&Commit { dead_letters, next: offsets, ..commit(1, epoch, 0, 0..0) }).await.unwrap();
    let usage = Gaps { usage: true, assignments: false };
    assert!(!store.note_gaps(1, epoch - 1, usage).await.unwrap(), "of an owner that was");
    assert!(!store.take(1).await.unwrap().gaps.any());
    let epoch = epoch + 1;
    assert!(store.note_gaps(1, epoch, usage).await.unwrap());
    assert!(store.note_gaps(1, epoch, Gaps { usage: false, assignments: true }).await.unwrap());
    let both = Gaps { usage: true, assignments: true };
    assert_eq!(store.take(1).await.unwrap().gaps, both, "until it is accepted");
    let epoch = epoch + 1;
    let rows = store.progress().await.unwrap();
    assert_eq!(rows[1], Progress { partition: 1, epoch, offsets, outbox_number: 0, commits: 1, gaps: both });
    assert_eq!((rows.len(), rows[0].partition, rows[0].gaps), (2, 0, Gaps::default()));

    // The topic was made again, and begins at 4.
    let offsets = Offsets { usage: 4, assignments: 0 };
    let gaps = Gaps { usage: false, assignments: true };
    let accepted = AcceptedGap {
        partition: 1,
        epoch,
        seen: Offsets { usage: 6, assignments: 0 },
        offsets,
        gaps,
        topic: "u".to_owned(),
        next: 4,
    };
    assert!(!store.accept_gap(&AcceptedGap { epoch: epoch - 1, ..accepted.clone() }).await.unwrap());
    let elsewhere = Offsets { usage: 2, assignments: 0 };
    assert!(!store.accept_gap(&AcceptedGap { seen: elsewhere, ..accepted.clone() }).await.unwrap(), "it moved");
    assert!(store.accept_gap(&accepted).await.unwrap());
    assert!(!store.accept_gap(&accepted).await.unwrap(), "once");
    let fenced = store.commit(&commit(1, epoch, 4, 0..0)).await;
    assert!(matches!(fenced, Err(CommitError::Fenced(1))), "the owner notices: {fenced:?}");
    let taken = store.take(1).await.unwrap();
    assert_eq!((taken.epoch, taken.offsets, taken.gaps), (epoch + 2, offsets, gaps));
    // The topic may have another record at a place of which there is a dead letter.
    let again = Commit { dead_letters: vec![letter("u", 4)], commits: 1, ..commit(1, epoch + 2, 4, 0..0) };
    store.commit(&again).await.unwrap();
    let page = LetterPage { newest_first: false, after: None, limit: 9 };
    let letters = store.list_dead_letters(&LetterSelection::default(), &page).await.unwrap();
    let mut places: Vec<String> = letters.iter().map(|letter| letter.place.to_string()).collect();
    places.sort();
    let former = format!("u~{}/1/4", epoch + 1);
    assert_eq!(places, ["a/1/5", "u/1/3", "u/1/4", &former]);
    let of_former = letters.iter().find(|letter| letter.place.to_string() == former).unwrap();
    assert_eq!(of_former.place.topic_now(), "u");

    // Retention passed what a customer behind waits for: the partition itself stays where it is, and so do its letters.
    let behind = |usage| Behind { customer: 7, offsets: Offsets { usage, assignments: 0 }, unfinished: None };
    store.commit(&Commit { behind: vec![behind(2)], commits: 2, ..commit(1, epoch + 2, 5, 0..0) }).await.unwrap();
    assert_eq!(store.progress().await.unwrap()[1].offsets.usage, 2, "from where on records are needed");
    let offsets = Offsets { usage: 3, assignments: 0 };
    let accepted = AcceptedGap {
        partition: 1,
        epoch: epoch + 2,
        seen: Offsets { usage: 2, assignments: 0 },
        offsets,
        gaps,
        topic: "u".to_owned(),
        next: 3,
    };
    assert!(store.accept_gap(&accepted).await.unwrap());
    let taken = store.take(1).await.unwrap();
    assert_eq!((taken.offsets.usage, taken.behind), (6, vec![behind(3)]));
    let letters = store.list_dead_letters(&LetterSelection::default(), &page).await.unwrap();
    assert_eq!(letters.iter().filter(|letter| letter.place.topic == "u").count(), 2);
}

async fn a_newer_schema_is_refused(scene: Scene) {
    scene.ready().await;
    let now = if scene.url.starts_with("sqlite") { "datetime('now')" } else { "now()" };
    let blob = if scene.url.starts_with("sqlite") { "x'00'" } else { "'\\x00'" };
    scene
        .execute(&format!(
            "insert into _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) \
             values (9999, 'of a later version', {now}, true, {blob}, 0)"
        ))
        .await;
    let refused = scene.open().migrate().await;
    let Err(StoreError::Failed(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("newer") && !why.contains('\n'), "{why}");
}

async fn dead_letters_are_found_and_marked(scene: Scene) {
    let store = scene.ready().await;
    let letter = |topic: &str, offset: i64, key: Option<&[u8]>, reason| DeadLetterRow {
        topic: topic.to_owned(),
        offset,
        timestamp: Some(-1),
        key: key.map(<[u8]>::to_vec),
        value: None,
        headers: vec![("a".to_owned(), Some(vec![0, 255])), ("a".to_owned(), None)],
        reason,
        detail: "why".to_owned(),
        customer: key.and_then(|key| std::str::from_utf8(key).unwrap().parse().ok()),
    };
    let letters = [
        vec![letter("u", 0, Some(b"7"), "conflict"), letter("u", 1, None, "unreadable")],
        vec![letter("a", 0, Some(b"7"), "unreadable"), letter("u", 2, Some(b"77"), "conflict")],
    ];
    for (from, letters) in letters.iter().enumerate() {
        let epoch = store.take(1).await.unwrap().epoch;
        let from = i64::try_from(from).unwrap();
        store.commit(&Commit { dead_letters: letters.clone(), ..commit(1, epoch, from, 0..0) }).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let place = |topic: &str, offset| Place { topic: topic.to_owned(), partition: 1, offset };
    let all = LetterSelection::default();
    let page = |newest_first, after, limit| LetterPage { newest_first, after, limit };
    let places = async |selection: &LetterSelection, page: LetterPage| -> Vec<String> {
        let found = store.list_dead_letters(selection, &page).await.unwrap();
        assert!(store.count_dead_letters(selection).await.unwrap() >= i64::try_from(found.len()).unwrap());
        found.into_iter().map(|letter| letter.place.to_string()).collect()
    };
    let oldest = places(&all, page(false, None, 3)).await;
    assert_eq!(oldest, ["u/1/0", "u/1/1", "a/1/0"]);
    assert_eq!(places(&all, page(false, Some(place("a", 0)), 3)).await, ["u/1/2"]);
    assert_eq!(places(&all, page(true, Some(place("a", 0)), 9)).await, ["u/1/1", "u/1/0"]);
    let of = |change: fn(&mut LetterSelection)| {
        let mut selection = LetterSelection::default();
        change(&mut selection);
        selection
    };
    let every = || page(false, None, 9);
    assert_eq!(places(&of(|s| s.customer = Some(7)), every()).await, ["u/1/0", "a/1/0"]);
    assert_eq!(places(&of(|s| s.reason = Some(Reason::Conflict)), every()).await, ["u/1/0", "u/1/2"]);
    assert_eq!(places(&of(|s| s.topic = Some("a".to_owned())), every()).await, ["a/1/0"]);
    let second = store.dead_letter(&place("a", 0)).await.unwrap().unwrap();
    assert_eq!((second.partition, second.put_back_at, &second.row), (1, None, &letters[1][0]));
    let since = LetterSelection { from: Some(second.refused_at), ..all.clone() };
    assert_eq!(places(&since, every()).await, ["a/1/0", "u/1/2"]);
    let before = LetterSelection { until: Some(second.refused_at), ..all.clone() };
    assert_eq!(places(&before, every()).await, ["u/1/0", "u/1/1"]);
    store.dead_letters_put_back(&[place("u", 0), place("a", 0)]).await.unwrap();
    assert_eq!(places(&of(|s| s.put_back = Some(true)), every()).await, ["u/1/0", "a/1/0"]);
    assert_eq!(places(&of(|s| s.put_back = Some(false)), every()).await, ["u/1/1", "u/1/2"]);
    assert!(store.dead_letter(&place("a", 0)).await.unwrap().unwrap().put_back_at.is_some());
    assert_eq!(store.dead_letter(&place("a", 9)).await.unwrap(), None);
}

async fn repairs_are_asked_for_and_answered(scene: Scene) {
    let store = scene.ready().await;
    let epoch = store.take(1).await.unwrap().epoch;
    let request = |partition, customer| RepairRequest { id: Uuid::new_v4(), partition, customer };
    let (one, other) = (request(1, Some(7)), request(0, None));
    store.request_repair(&one).await.unwrap();
    store.request_repair(&other).await.unwrap();
    let open = async || {
        let mut open = store.repair_requests().await.unwrap();
        open.sort_by_key(|request| request.partition);
        open
    };
    assert_eq!(open().await, [other, one]);
    assert_eq!(store.repaired(&one).await.unwrap(), None);
    let repaired = Repaired { buckets: 3, usage: 2, lines: 1 };
    let answer = Commit { repaired: Some((one, repaired)), ..commit(1, epoch, 0, 1..1) };
    store.commit(&answer).await.unwrap();
    assert_eq!(open().await, [other]);
    assert_eq!(store.repaired(&one).await.unwrap(), Some(repaired));
}

on_both!(
    the_identity_stays,
    one_owner_writes,
    published_alerts_leave,
    one_relay_has_the_lease,
    a_gap_stays_until_it_is_accepted,
    a_newer_schema_is_refused,
    dead_letters_are_found_and_marked,
    repairs_are_asked_for_and_answered
);
