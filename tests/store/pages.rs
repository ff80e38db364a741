//! What the query reads: rows of open and closed runs, at one moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use headroom::domain::standing::{Pruning, Shelf, StandingLine};
use headroom::domain::{
    Assignment, AssignmentRow, BillRun, BillRunRow, BucketRow, Calendar, ChargingType, Component, Date, Frequency,
    Instant, Level, Plan, Quantity, RunStatus, StandingRow, StoredPart, StoredRow,
};
use headroom::store::{Commit, Filters, OfCustomer, Question, SortKey, Store, StoredAhead};

use crate::{Scene, commit, customers_of};

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

async fn rows_come_from_all_partitions(scene: Scene) {
    let store = scene.ready().await;
    let mut must = Vec::new();
    for partition in [0, 1] {
        let epoch = store.take(partition).await.unwrap().epoch;
        let mut first = commit(partition, epoch, 0, 1..1);
        first.bill_runs = vec![bill_run(RunStatus::Open)];
        for customer in customers_of(partition).take(3) {
            let row = StandingRow { upi: 100 - customer, site: Some(customer * 10), ..standing() };
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
    // Every third run has nobody, every fifth one is not known to one partition.
    let cycle = |run: i64| if run % 3 == 0 { 4 } else { 3 };
    let is_known = |partition: i32, run: i64| partition == 0 || run % 5 != 0;
    let mut all = Vec::new();
    for (partition, lines) in [(0, [13, 11, 12]), (1, [12, 10, 14])] {
        let epoch = store.take(partition).await.unwrap().epoch;
        let mut first = commit(partition, epoch, 0, 1..1);
        let open = bill_run(RunStatus::Open);
        let known = || (1..=RUNS).filter(|run| is_known(partition, *run));
        first.bill_runs = known()
            .map(|id| BillRunRow { run: BillRun { id, billing_cycle: cycle(id), ..open.run }, ..open })
            .collect();
        for (customer, upi) in customers_of(partition).zip(lines) {
            first.standing.push(OfCustomer { customer, row: StandingRow { upi, ..standing() } });
            all.extend(known().filter(|run| cycle(*run) == 3).map(|run| (run, upi, customer)));
        }
        store.commit(&first).await.unwrap();
    }
    let calendar = Calendar::new("UTC").unwrap();
    let read = async |sort: &[(SortKey, bool)], skip: usize, counted| {
        let (filters, limit, sort, skip) = (Filters::default(), 700, sort.to_vec(), i64::try_from(skip).unwrap());
        let question =
            Question { calendar: &calendar, filters, owners: None, sort, skip, limit, counted, nested: false };
        let answer = store.read(&question).await.unwrap();
        assert_eq!(answer.total, counted.then(|| i64::try_from(all.len()).unwrap()));
        let rows: Vec<(i64, i64, i64)> = answer.rows.iter().map(|row| (row.bill_run, row.upi, row.customer)).collect();
        (rows, answer.further)
    };
    let (run, line) = (SortKey::BillRunId, SortKey::UsageProductInventoryId);
    for sort in [&[][..], &[(run, true)], &[(line, false), (run, true)], &[(line, true)], &[(run, true), (line, true)]]
    {
        let turned = |key| sort.contains(&(key, true));
        let by_line = sort.first().is_some_and(|(key, _)| *key == line);
        let mut must = all.clone();
        must.sort_unstable_by_key(|(run, upi, customer)| {
            let run_key = if turned(SortKey::BillRunId) { -run } else { *run };
            let line_key = if turned(line) { -upi } else { *upi };
            if by_line { (line_key, run_key, *customer) } else { (run_key, line_key, *customer) }
        });
        for (skip, counted) in [(0, false), (1, true), (1_700, false), (3_000, true), (all.len() - 700, false)] {
            let further = skip + 700 < all.len();
            let until = all.len().min(skip + 700);
            assert_eq!(read(sort, skip, counted).await, (must[skip..until].to_vec(), further), "{sort:?} {skip}");
        }
        assert_eq!(read(sort, all.len() + 5, false).await, (Vec::new(), false), "{sort:?}");
    }
}

/// A row that stands in every run of cycle 3.
fn standing() -> StandingRow {
    StandingRow {
        upi: 0,
        from: Instant::MIN,
        until: Instant::MAX,
        after: None,
        site: None,
        product: None,
        cycle: 3,
        contract_owner: None,
    }
}

/// Rows of a plan are found whether they stand at the beginning of the order or far behind in it, and however many customers
/// have it.
async fn rows_of_a_plan_of_many(scene: Scene) {
    const HOLDERS: usize = 750;
    const OTHERS: i64 = 31_000;
    let store = scene.ready().await;
    let closed =
        BillRunRow { run: BillRun { id: 8, ..bill_run(RunStatus::Closed).run }, ..bill_run(RunStatus::Closed) };
    let stored = |customer, upi, parts| StoredRow {
        bill_run: 8,
        customer,
        upi,
        site: None,
        contract_owner: None,
        period_start: Date::from_days(20_000),
        period_end: Date::from_days(20_030),
        entries: "[]".to_owned(),
        parts,
    };
    let mut must = Vec::new();
    for partition in [0, 1] {
        let epoch = store.take(partition).await.unwrap().epoch;
        let mut first = commit(partition, epoch, 0, 1..1);
        first.bill_runs = vec![bill_run(RunStatus::Open), closed];
        let mut customers = customers_of(partition);
        // So many lines without the plan between some with it and the rest of those.
        let other = customers.next().unwrap();
        for upi in (100..100 + OTHERS).filter(|_| partition == 0) {
            first.standing.push(OfCustomer { customer: other, row: StandingRow { upi, ..standing() } });
            first.stored_rows.push(stored(other, upi, Vec::new()));
        }
        for (upi, customer) in (0..50).chain(100 + OTHERS..).zip(customers.take(HOLDERS)) {
            first.standing.push(OfCustomer { customer, row: StandingRow { upi, ..standing() } });
            let assignment = given(customer);
            first.assignment_spans.push(assignment.drawable(&Calendar::new("UTC").unwrap()));
            let part = StoredPart { assignment: customer, plan: 1, component: 1 };
            first.stored_rows.push(stored(customer, upi, vec![part]));
            let row = AssignmentRow { key: assignment.key(), version: 1, assignment: Some(assignment) };
            first.assignments.push(OfCustomer { customer, row });
            must.push((upi, customer));
        }
        store.commit(&first).await.unwrap();
    }
    let calendar = Calendar::new("UTC").unwrap();
    let read = async |runs: &[i64], turned, skip: usize, limit, counted: Option<usize>| {
        let filters = Filters { plans: Some(vec![1]), bill_runs: Some(runs.to_vec()), ..Filters::default() };
        let sort = vec![(SortKey::UsageProductInventoryId, turned)];
        let (skip, is_counted) = (i64::try_from(skip).unwrap(), counted.is_some());
        let question = Question {
            calendar: &calendar,
            filters,
            owners: None,
            sort,
            skip,
            limit,
            counted: is_counted,
            nested: false,
        };
        let answer = store.read(&question).await.unwrap();
        assert_eq!(answer.total, counted.map(|count| i64::try_from(count).unwrap()));
        answer.rows.iter().map(|row| (row.upi, row.customer)).collect::<Vec<_>>()
    };
    for turned in [false, true] {
        must.sort_unstable_by_key(|(upi, customer)| (if turned { -upi } else { *upi }, *customer));
        for (skip, limit) in [(0, 20), (20, 20), (90, 30), (1_400, 200)] {
            let until = must.len().min(skip + usize::try_from(limit).unwrap());
            for counted in [None, Some(must.len())] {
                assert_eq!(read(&[7], turned, skip, limit, counted).await, must[skip..until], "{turned} {skip}");
                assert_eq!(
                    read(&[8], turned, skip, limit, counted).await,
                    must[skip..until],
                    "{turned} {skip}, stored"
                );
            }
        }
        // Each line's rows of both runs, by run and then by customer.
        let mut both = Vec::new();
        for of_line in must.chunk_by(|one, other| one.0 == other.0) {
            both.extend_from_slice(of_line);
            both.extend_from_slice(of_line);
        }
        assert_eq!(read(&[7, 8], turned, 150, 100, Some(both.len())).await, both[150..250], "{turned}, both runs");
    }
}

fn bill_run(status: RunStatus) -> BillRunRow {
    let day = Date::from_days(20_000);
    let (period_start, period_end, usage_from, usage_until) = (day, day, day, day);
    let run = BillRun { id: 7, billing_cycle: 3, period_start, period_end, usage_from, usage_until, status };
    BillRunRow { version: 1, run, storing: None, letting_in: None }
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
    first.bill_runs = vec![BillRunRow { storing: Some(customers[1]), ..bill_run(RunStatus::Closed) }];
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

/// A plan that a customer has.
fn given(customer: i64) -> Assignment {
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
    Assignment {
        id: customer,
        level: Level::Customer,
        scope: 0,
        start_date: Date::from_days(19_000),
        end_date: None,
        plan,
        thresholds: None,
    }
}

/// What one commit makes of twenty customers: that so much is left in each one's bucket, and which lines stand.
fn state(epoch: i64, number: i64) -> Commit {
    let calendar = Calendar::new("UTC").unwrap();
    let mut commit = commit(0, epoch, number, 1..1);
    for customer in customers_of(0).take(20) {
        let assignment = given(customer);
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
        commit.bill_runs = vec![bill_run(RunStatus::Open)];
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

on_both!(
    rows_come_from_all_partitions,
    rows_of_many_runs_mingle,
    rows_of_a_plan_of_many,
    closed_runs_are_read_from_their_rows,
    a_page_is_one_moment
);
