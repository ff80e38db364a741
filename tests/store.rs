//! What both stores do for relay and query, and at the start; what they keep of a partition's work is held by `laws`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use headroom::domain::standing::{Pruning, Shelf, StandingLine};
use headroom::domain::{
    Assignment, AssignmentRow, BillRun, BillRunRow, BucketRow, Calendar, ChargingType, Component, Date, EventKey,
    Frequency, Instant as Moment, Level, Partitioner, Plan, Position, Quantity, Reason, RunStatus, StandingRow,
    StoredPart, StoredRow, UsageState,
};
use headroom::store::{
    AcceptedGap, AlertRow, AlertsOffset, Behind, Commit, CommitError, DeadLetterRow, Filters, Gaps, LedgerKey,
    LetterPage, LetterSelection, NewUsage, OfCustomer, Offsets, Options, Partitioned, Place, Progress, Published,
    Question, RepairRequest, Repaired, Settled, Side, SortKey, Store, StoreError, StoredAhead, connect,
};
use uuid::Uuid;

/// A store of its own for a test.
struct Scene {
    url: String,
    _folder: Option<tempfile::TempDir>,
}

impl Scene {
    async fn sqlite() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("headroom.db").display());
        Scene { url, _folder: Some(folder) }
    }

    async fn postgres() -> Scene {
        use sqlx::Connection as _;
        let server = std::env::var("HEADROOM_TEST_POSTGRES").expect(
            "HEADROOM_TEST_POSTGRES is not set: run `make test`, or `scripts/services up` and \
             `eval \"$(scripts/services env)\"`",
        );
        let name = format!("store-{}", Uuid::new_v4());
        let mut connection = sqlx::PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
        let statement = format!("create database \"{name}\"");
        sqlx::raw_sql(&statement).execute(&mut connection).await.unwrap();
        Scene { url: format!("{server}/{name}"), _folder: None }
    }

    fn open(&self) -> Arc<dyn Store> {
        self.open_with(3)
    }

    /// A store with so many connections for worker and relay.
    fn open_with(&self, connections: u32) -> Arc<dyn Store> {
        let options = Options {
            url: self.url.clone(),
            read_url: None,
            connections,
            read_connections: 2,
            timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
        };
        connect(&options).unwrap()
    }

    /// A store of two partitions.
    async fn ready(&self) -> Arc<dyn Store> {
        let store = self.open();
        store.migrate().await.unwrap();
        assert_eq!(store.settle(&settled(2)).await.unwrap(), settled(2));
        store
    }

    async fn execute(&self, statement: &str) {
        use sqlx::Connection as _;
        if self.url.starts_with("sqlite") {
            let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        } else {
            let mut connection = sqlx::PgConnection::connect(&self.url).await.unwrap();
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        }
    }
}

fn settled(partitions: i32) -> Settled {
    Settled { partitions, partitioner: Partitioner::Murmur2, time_zone: "Europe/London".to_owned() }
}

/// The next commit of a partition, with alerts of these numbers.
fn commit(partition: i32, epoch: i64, from: i64, alerts: std::ops::Range<i64>) -> Commit {
    let alerts: Vec<AlertRow> =
        alerts.map(|number| AlertRow { number, customer: 7, body: format!("{{\"n\":{number}}}") }).collect();
    Commit {
        partition,
        epoch,
        commits: from,
        next: Offsets { usage: from + 1, assignments: 0 },
        outbox_number: alerts.last().map_or(0, |alert| alert.number),
        alerts,
        ..Commit::default()
    }
}

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
    assert_eq!(store.outbox(1, 0, 10, 1_000).await.unwrap().len(), 2, "nothing came twice");
}

async fn published_alerts_leave(scene: Scene) {
    let store = scene.ready().await;
    let epoch = store.take(0).await.unwrap().epoch;
    store.commit(&commit(0, epoch, 0, 1..6)).await.unwrap();
    let numbers = |rows: Vec<AlertRow>| rows.iter().map(|row| row.number).collect::<Vec<_>>();
    assert_eq!(numbers(store.outbox(0, 0, 3, 1_000).await.unwrap()), [1, 2, 3]);
    assert_eq!(numbers(store.outbox(0, 3, 10, 1_000).await.unwrap()), [4, 5]);
    assert_eq!(numbers(store.outbox(1, 0, 10, 1_000).await.unwrap()), [0_i64; 0]);
    // Each takes 7 bytes.
    assert_eq!(numbers(store.outbox(0, 1, 10, 15).await.unwrap()), [2, 3, 4]);
    assert_eq!(numbers(store.outbox(0, 1, 10, 14).await.unwrap()), [2, 3]);
    assert_eq!(numbers(store.outbox(0, 1, 10, 1).await.unwrap()), [2], "one alone may be larger");
    let published = Published {
        numbers: vec![Partitioned { partition: 0, value: 3 }],
        offsets: vec![AlertsOffset { partition: 4, next: 17 }],
        before: Vec::new(),
    };
    assert!(store.published(&published).await.unwrap());
    assert_eq!(numbers(store.outbox(0, 0, 10, 1_000).await.unwrap()), [4, 5]);
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
    assert_eq!(numbers(store.outbox(0, 0, 10, 1_000).await.unwrap()), [4, 5]);
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

/// The customers and lines of the rows that a question brings, on all pages.
async fn read(store: &Arc<dyn Store>, filters: Filters) -> Vec<(i64, i64)> {
    let calendar = Calendar::new("UTC").unwrap();
    let question = |skip| Question {
        calendar: &calendar,
        filters: filters.clone(),
        owners: None,
        sort: Vec::new(),
        skip,
        limit: 2,
        counted: true,
        nested: true,
    };
    let mut rows = Vec::new();
    loop {
        let answer = store.read(&question(i64::try_from(rows.len()).unwrap())).await.unwrap();
        rows.extend(answer.rows.iter().map(|row| (row.customer, row.upi)));
        assert!(answer.total.unwrap() >= i64::try_from(rows.len()).unwrap());
        if !answer.further {
            assert_eq!(answer.total, Some(i64::try_from(rows.len()).unwrap()));
            return rows;
        }
    }
}

/// Customers of each of two partitions, in order.
fn customers_of(partition: i32) -> impl Iterator<Item = i64> {
    (1..).filter(move |customer| Partitioner::Murmur2.partition_of(*customer, 2) == partition)
}

async fn rows_come_from_all_partitions(scene: Scene) {
    let store = scene.ready().await;
    let mut must = Vec::new();
    for partition in [0, 1] {
        let epoch = store.take(partition).await.unwrap().epoch;
        let mut first = commit(partition, epoch, 0, 1..1);
        first.bill_runs = vec![(bill_run(RunStatus::Open), true)];
        for customer in customers_of(partition).take(3) {
            let row = StandingRow {
                upi: 100 - customer,
                from: headroom::domain::Instant::MIN,
                until: headroom::domain::Instant::MAX,
                after: None,
                site: Some(customer * 10),
                product: None,
                cycle: 3,
                contract_owner: None,
            };
            first.standing.push(OfCustomer { customer, row });
            must.push((customer, row.upi));
        }
        store.commit(&first).await.unwrap();
    }
    must.sort_unstable_by_key(|row| row.1);
    assert_eq!(read(&store, Filters::default()).await, must);
    let some = || Some(vec![must[1].0, must[4].0, 1_000]);
    assert_eq!(read(&store, Filters { customers: some(), ..Filters::default() }).await, [must[1], must[4]]);
    let sites = Some(vec![must[2].0 * 10]);
    assert_eq!(read(&store, Filters { sites, ..Filters::default() }).await, [must[2]]);
    assert_eq!(read(&store, Filters { lines: Some(vec![must[3].1]), ..Filters::default() }).await, [must[3]]);
    assert_eq!(read(&store, Filters { customers: Some(vec![]), ..Filters::default() }).await, []);
    assert_eq!(read(&store, Filters { bill_runs: Some(vec![8]), ..Filters::default() }).await, []);
}

async fn rows_of_many_runs_mingle(scene: Scene) {
    const RUNS: i64 = 1_100;
    let store = scene.ready().await;
    let epoch = store.take(0).await.unwrap().epoch;
    let mut first = commit(0, epoch, 0, 1..1);
    let open = bill_run(RunStatus::Open);
    first.bill_runs = (1..=RUNS).map(|id| (BillRunRow { run: BillRun { id, ..open.run }, ..open }, true)).collect();
    for (customer, upi) in customers_of(0).zip([13, 11, 12]) {
        let (from, until) = (headroom::domain::Instant::MIN, headroom::domain::Instant::MAX);
        let row =
            StandingRow { upi, from, until, after: None, site: None, product: None, cycle: 3, contract_owner: None };
        first.standing.push(OfCustomer { customer, row });
    }
    store.commit(&first).await.unwrap();
    let calendar = Calendar::new("UTC").unwrap();
    let read = async |turned, skip| {
        let sort = vec![(SortKey::UsageProductInventoryId, turned), (SortKey::BillRunId, true)];
        let (filters, limit) = (Filters::default(), 700);
        let question =
            Question { calendar: &calendar, filters, owners: None, sort, skip, limit, counted: true, nested: false };
        let answer = store.read(&question).await.unwrap();
        assert_eq!(answer.total, Some(3 * RUNS));
        answer.rows.iter().map(|row| (row.upi, row.bill_run)).collect::<Vec<_>>()
    };
    let mut all: Vec<(i64, i64)> =
        [11, 12, 13].into_iter().flat_map(|upi| (1..=RUNS).rev().map(move |run| (upi, run))).collect();
    for skip in [0, 1_000, 3_000, 3_300] {
        assert_eq!(read(false, skip as i64).await, all[skip..all.len().min(skip + 700)]);
    }
    all.sort_by_key(|(upi, _)| -upi);
    assert_eq!(read(true, 1_500).await, all[1_500..2_200]);
}

fn bill_run(status: RunStatus) -> BillRunRow {
    let day = Date::from_days(20_000);
    let (period_start, period_end, usage_from, usage_until) = (day, day, day, day);
    let run = BillRun { id: 7, billing_cycle: 3, period_start, period_end, usage_from, usage_until, status };
    BillRunRow { version: 1, run, closings: i32::from(status != RunStatus::Open), storing: None, letting_in: None }
}

async fn closed_runs_are_read_from_their_rows(scene: Scene) {
    let store = scene.ready().await;
    let epoch = store.take(0).await.unwrap().epoch;
    let customers: Vec<i64> = customers_of(0).take(3).collect();
    let part = |assignment, plan, component| StoredPart { assignment, plan, component };
    let row = |at: usize| StoredRow {
        bill_run: 7,
        customer: customers[at],
        upi: 11 + i64::try_from(at).unwrap(),
        site: Some(4),
        contract_owner: None,
        period_start: Date::from_days(20_000),
        period_end: Date::from_days(20_030),
        entries: "[]".to_owned(),
        parts: vec![part(5, 6, 9), part(5, 6, 7), part(8, 6, i64::try_from(at).unwrap())],
    };
    let ahead = StoredAhead { bill_run: 7, customer: customers[2] };
    let mut first = commit(0, epoch, 0, 1..1);
    first.bill_runs = vec![(BillRunRow { storing: Some(customers[1]), ..bill_run(RunStatus::Closed) }, true)];
    first.stored_rows = vec![row(0), row(1), row(2)];
    first.stored_ahead = vec![ahead];
    store.commit(&first).await.unwrap();
    assert_eq!(store.take(0).await.unwrap().stored_ahead, [ahead]);
    let of_run = |id: i64| Filters { bill_runs: Some(vec![id]), ..Filters::default() };
    let all = [(customers[0], 11), (customers[1], 12), (customers[2], 13)];
    assert_eq!(read(&store, of_run(7)).await, all);
    assert_eq!(read(&store, Filters { lines: Some(vec![12]), ..of_run(7) }).await, all[1..2]);
    // What is asked for must be found together, in one assignment.
    for (assignments, plans, components, found) in [
        (Some(vec![5]), None, None, &all[..]),
        (Some(vec![6]), None, None, &all[..0]),
        (None, Some(vec![6, 7]), None, &all[..]),
        (None, None, Some(vec![0, 2, 3]), &[all[0], all[2]]),
        (None, Some(vec![6]), Some(vec![1]), &all[1..2]),
        (Some(vec![5]), None, Some(vec![1]), &all[..0]),
        (Some(vec![8, 9]), Some(vec![6]), Some(vec![1, 7]), &all[1..2]),
    ] {
        let filters = Filters { customers: Some(customers.clone()), assignments, plans, components, ..of_run(7) };
        assert_eq!(read(&store, filters.clone()).await, found, "{filters:?}");
    }
    assert_eq!(read(&store, Filters { sites: Some(vec![4]), ..of_run(7) }).await, all);
    assert_eq!(read(&store, Filters { customers: Some(vec![customers[2]]), ..of_run(7) }).await, all[2..]);
    assert_eq!(read(&store, of_run(8)).await, []);
    assert_eq!(read(&store, Filters::default()).await, []);
    let mut second = commit(0, epoch + 1, 1, 1..1);
    second.reopened_runs = vec![7];
    store.commit(&second).await.unwrap();
    assert_eq!(read(&store, of_run(7)).await, []);
    assert_eq!(store.take(0).await.unwrap().stored_ahead, []);
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

/// What one commit makes of twenty customers: that so much is left in each one's bucket, and which lines stand.
fn state(epoch: i64, number: i64) -> Commit {
    let calendar = Calendar::new("UTC").unwrap();
    let mut commit = commit(0, epoch, number, 1..1);
    for customer in customers_of(0).take(20) {
        let component = Component {
            id: 1,
            by_value: false,
            charging_type: ChargingType::Duration,
            allowance: Quantity::from_millionths(1_000_000_000),
            timebands: Vec::new(),
            charge_groups: Vec::new(),
            charge_group_categories: Vec::new(),
            dial_strings: Vec::new(),
        };
        let plan = Plan {
            id: 1,
            product: None,
            frequency: Frequency::Monthly(1),
            rollover_periods: 0,
            min_qualifying_quantity: None,
            max_per_event_quantity: None,
            components: vec![component],
        };
        let assignment = Assignment {
            id: customer,
            level: Level::Customer,
            scope: 0,
            start_date: Date::from_days(19_000),
            end_date: None,
            plan,
            thresholds: None,
        };
        let (from, until) = assignment.drawable(&calendar).unwrap();
        let day = calendar.start_of(Date::from_days(20_000));
        let window = assignment.windows_open_at(&calendar, day).next().unwrap();
        let key = assignment.key();
        let bucket = BucketRow {
            slot: 0,
            assignment: key,
            component: 1,
            window_start: window.start,
            charging_type: ChargingType::Duration,
            by_value: false,
            allowance: Quantity::from_millionths(1_000_000_000),
            remaining: Quantity::from_millionths(number),
            mark: None,
        };
        let line = |of: i64| customer * 2 + of.rem_euclid(2);
        let standing = StandingRow {
            upi: line(number),
            from,
            until,
            after: None,
            site: None,
            product: None,
            cycle: 3,
            contract_owner: None,
        };
        commit.standing.push(OfCustomer { customer, row: standing });
        if number == 0 {
            commit
                .assignments
                .push(OfCustomer { customer, row: AssignmentRow { key, version: 1, assignment: Some(assignment) } });
            commit.assignment_spans.push(Some((from, until)));
            commit.new_buckets.push(OfCustomer { customer, row: bucket });
        } else {
            commit.removed_standing.push((customer, line(number - 1), from));
            commit.changed_buckets.push(OfCustomer { customer, row: bucket });
        }
    }
    if number == 0 {
        commit.bill_runs = vec![(bill_run(RunStatus::Open), true)];
    }
    commit
}

/// Pages are read while commits are written: each is a state between two of them, of lines and of what is left alike.
async fn a_page_is_one_moment(scene: Scene) {
    const READS: usize = 60;
    let store = scene.ready().await;
    let epoch = store.take(0).await.unwrap().epoch;
    store.commit(&state(epoch, 0)).await.unwrap();
    let is_read = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (store, is_read) = (store.clone(), is_read.clone());
        async move {
            let mut number = 1;
            while !is_read.load(Ordering::Relaxed) {
                store.commit(&state(epoch, number)).await.unwrap();
                number += 1;
            }
        }
    });
    let calendar = Calendar::new("UTC").unwrap();
    let span = (calendar.start_of(Date::from_days(20_000)), calendar.start_of(Date::from_days(20_001)));
    let mut seen = std::collections::BTreeSet::new();
    let mut reads = 0;
    while reads < READS || seen.len() < 2 {
        reads += 1;
        assert!(reads < 100_000, "nothing is written meanwhile");
        let question = Question {
            calendar: &calendar,
            filters: Filters::default(),
            owners: None,
            sort: Vec::new(),
            skip: 7,
            limit: 7,
            counted: true,
            nested: true,
        };
        let answer = store.read(&question).await.unwrap();
        assert_eq!((answer.rows.len(), answer.further, answer.total), (7, true, Some(20)));
        let mut states = std::collections::BTreeSet::new();
        for row in &answer.rows {
            let account = answer.accounts.iter().find(|of| of.value.customer == row.customer).unwrap();
            let line = StandingLine { upi: row.upi, site: None, product: None };
            let entries = Shelf::new(&account.value).entries(line, &calendar, span, &Pruning::default());
            let left = entries[0].components[0].remaining.millionths();
            assert_eq!(row.upi, row.customer * 2 + left % 2, "the line that stood when so much was left");
            states.insert(left);
        }
        assert_eq!(states.len(), 1, "{states:?} are of several commits");
        seen.extend(states);
    }
    is_read.store(true, Ordering::Relaxed);
    writing.await.unwrap();
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

macro_rules! on_both {
    ($($law:ident),+) => {
        mod sqlite {
            $(#[tokio::test] async fn $law() { super::$law(super::Scene::sqlite().await).await; })+
        }
        mod postgres {
            $(#[tokio::test] async fn $law() { super::$law(super::Scene::postgres().await).await; })+
        }
    };
}

on_both!(
    the_identity_stays,
    one_owner_writes,
    published_alerts_leave,
    one_relay_has_the_lease,
    rows_come_from_all_partitions,
    rows_of_many_runs_mingle,
    closed_runs_are_read_from_their_rows,
    a_page_is_one_moment,
    dead_letters_are_found_and_marked,
    repairs_are_asked_for_and_answered,
    a_gap_stays_until_it_is_accepted,
    a_newer_schema_is_refused
);

/// A commit that nobody waits for any more, since its partition was taken away, leaves nothing on its connection that the
/// next one takes for his own answer.
#[tokio::test]
async fn a_commit_that_is_cut_off_spoils_no_connection() {
    use sqlx::Connection as _;
    let scene = Scene::postgres().await;
    scene.ready().await;
    let store = scene.open_with(1);
    let epoch = store.take(0).await.unwrap().epoch;
    let customer = customers_of(0).next().unwrap();
    let with_usage = |commits: i64, start: i64| {
        let position = Position { start: Moment::from_micros(start), key: EventKey(9) };
        let key = LedgerKey { customer, position };
        let usage = NewUsage { key, state: UsageState::Counted, source: 0, body: 0..4, draws: 4..4 };
        Commit { usage: vec![usage], bytes: b"body".to_vec(), ..commit(0, epoch, commits, 1..1) }
    };
    store.commit(&with_usage(0, 1_000_000)).await.unwrap();
    // While another session is about to write the same event, COPY waits for it at its end.
    let mut other = sqlx::PgConnection::connect(&scene.url).await.unwrap();
    let same = "BEGIN; INSERT INTO ledger (customer_id, start_time, event_key, partition, source, state, body, draws) \
                SELECT customer_id, start_time + interval '1 second', event_key, partition, source, state, body, draws \
                FROM ledger";
    sqlx::raw_sql(same).execute(&mut other).await.unwrap();
    let cut_off = with_usage(1, 2_000_000);
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.commit(&cut_off).await }
    });
    let stuck = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(stuck).fetch_one(&mut other).await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    for _ in 0..5 {
        let rows = store.usage_after(0, customer, None, 10).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.position.start.micros()).collect::<Vec<i64>>(), [1_000_000]);
        assert_eq!(store.progress().await.unwrap().len(), 2);
    }
    store.commit(&with_usage(1, 2_000_000)).await.unwrap();
    assert_eq!(store.usage_after(0, customer, None, 10).await.unwrap().len(), 2);
}

/// A worker that stopped in the middle of a COPY is busy to PostgreSQL, so that nothing ends its transaction but its
/// partition's next owner. Whoever else holds the row is named.
#[tokio::test]
async fn a_stopped_owner_in_a_copy_holds_nobody_up() {
    use sqlx::postgres::{PgConnectOptions, PgPoolCopyExt as _, PgPoolOptions};
    use std::str::FromStr as _;
    let scene = Scene::postgres().await;
    let store = scene.ready().await;
    let epoch = store.take(1).await.unwrap().epoch;
    let hold = async |application: &str| {
        let options = PgConnectOptions::from_str(&scene.url).unwrap().application_name(application);
        let options = options.options([("idle_in_transaction_session_timeout", "5s")]);
        let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        let fence = "BEGIN; UPDATE progress SET usage_offset = 7 WHERE partition = 1";
        sqlx::raw_sql(fence).execute(&pool).await.unwrap();
        pool
    };
    let worker = hold("headroom").await;
    let mut copy = worker.copy_in_raw("COPY source FROM STDIN").await.unwrap();
    copy.send(&b"1\t1\tab"[..]).await.unwrap();
    let taken = store.take(1).await.unwrap();
    assert_eq!((taken.epoch, taken.offsets.usage), (epoch + 1, 0), "nothing of it was written");
    assert!(copy.finish().await.is_err(), "its session is over");

    let person = hold("psql").await;
    let mut copy = person.copy_in_raw("COPY source FROM STDIN").await.unwrap();
    copy.send(&b"1\t1\tab"[..]).await.unwrap();
    let Err(StoreError::Unavailable(why)) = store.take(1).await else { panic!("taken from a person") };
    assert!(why.contains("application_name \"psql\" holds its row in progress"), "{why}");
    copy.abort("enough").await.unwrap();
}

/// Tables that nobody analyzed since they were small are, so that plans fit their sizes; those that did not grow are left.
#[tokio::test]
async fn statistics_follow_tables_that_grow() {
    use sqlx::Row as _;
    let scene = Scene::postgres().await;
    let store = scene.ready().await;
    let database = sqlx::PgPool::connect(&scene.url).await.unwrap();
    let known = async || {
        let sql = "SELECT reltuples FROM pg_class WHERE relname IN ('customer', 'line') ORDER BY relname";
        let rows = sqlx::query(sql).fetch_all(&database).await.unwrap();
        rows.iter().map(|row| row.get::<f32, _>(0)).collect::<Vec<_>>()
    };
    let grow = async |from: i64, until: i64| {
        let sql =
            "INSERT INTO customer (customer_id, partition, next_slot) SELECT c, 0, 0 FROM generate_series($1, $2) c";
        sqlx::query(sql).bind(from).bind(until).execute(&database).await.unwrap();
    };
    let mut there = 0;
    for (customers, analyzed) in [(1, -1.0), (10_000, 10_000.0), (20_000, 10_000.0), (100_000, 100_000.0)] {
        grow(there + 1, customers).await;
        there = customers;
        store.keep_statistics().await.unwrap();
        assert_eq!(known().await, [analyzed, -1.0], "at {customers} customers");
    }
}
