//! What is counted: steps on the way of a usage event, each over a stream like a real one: a hundred customers, two
//! assignments each, events in their order.

use std::hint::black_box;

use headroom::domain::{
    Account, Assignment, Calendar, ChargingType, Component, Date, Draw, EventKey, Frequency, Instant, Level,
    Partitioner, Plan, Position, Quantity, Reference, SlotSums, Usage, Waterfall, packed,
};
use headroom::events::{self, Record, Rules};
use headroom::worker::{Batch, Input};

/// A step.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Whether every event takes it.
    pub(crate) fast_path: bool,
    /// Makes so many events, and takes the first of them through the step.
    pub(crate) run: fn(usize, usize),
}

pub(crate) const ALL: &[Case] = &[
    Case { name: "decode", what: "bytes of a record to a fact", fast_path: true, run: decode },
    Case { name: "take in", what: "the same, and into a batch", fast_path: true, run: take_in },
    Case { name: "draw", what: "a packed fact through its account, with the batch's end", fast_path: true, run: draw },
    Case { name: "encode", what: "a fact and its draws packed for the ledger", fast_path: true, run: encode },
    Case { name: "replay", what: "known usage folded again", fast_path: false, run: replay },
];

const CUSTOMERS: usize = 100;
/// Events of a customer in a batch.
const OF_A_BATCH: usize = 3;
/// 2026-11-01T00:00:00Z
const MONTH: i64 = 1_793_491_200_000_000;
const SECOND: i64 = 1_000_000;

const RULES: Rules = Rules {
    partitioner: Partitioner::Murmur2,
    partitions: 1,
    max_future: std::time::Duration::from_secs(86_400),
    retention: std::time::Duration::from_secs(400 * 86_400),
};

/// Event `i` of the stream.
fn usage(i: usize, id: &str) -> Usage<'_> {
    let number = i64::try_from(i).expect("few events");
    let customer = i64::try_from(customer(i)).expect("few customers");
    Usage {
        position: Position {
            start: Instant::from_micros(MONTH + number * SECOND),
            key: EventKey::new("/mediation/gw-3", id),
        },
        site: customer * 10,
        upi: customer * 100,
        product: 1,
        charging_type: if i.is_multiple_of(2) { ChargingType::Duration } else { ChargingType::Megabytes },
        quantity: Quantity::from_millionths(37_500_000),
        price: Quantity::from_millionths(1_250_000),
        timeband: Some("PEAK"),
        charge_group: Some(7),
        charge_group_category: None,
        destination: Some("447700900123"),
        id,
    }
}

/// Whose event `i` is: a few of one customer in turn.
fn customer(i: usize) -> usize {
    i / OF_A_BATCH % CUSTOMERS
}

fn ids(all: usize) -> Vec<String> {
    (0..all).map(|i| format!("cdr-{i:012}")).collect()
}

fn records(all: usize) -> Vec<(String, String)> {
    let ids = ids(all);
    let record = |(i, id): (usize, &String)| {
        let usage = usage(i, id);
        let value = format!(
            "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/mediation/gw-3\",\"type\":\"usage.recorded\",\"data\":\
             {{\"customerId\":{},\"siteId\":{},\"usageProductInventoryId\":{},\"usageProductId\":1,\"startTime\":\"{}\",\
             \"chargingType\":\"{}\",\"quantity\":\"{}\",\"price\":{},\"timeband\":\"PEAK\",\"chargeGroupId\":7,\
             \"destination\":\"447700900123\"}}}}",
            customer(i),
            usage.site,
            usage.upi,
            usage.position.start,
            usage.charging_type.name(),
            usage.quantity,
            usage.price
        );
        (customer(i).to_string(), value)
    };
    ids.iter().enumerate().map(record).collect()
}

type Headers<'a> = std::iter::Copied<std::slice::Iter<'a, (&'a str, Option<&'a [u8]>)>>;

fn record<'a>((key, value): &'a (String, String), headers: Headers<'a>) -> Record<'a, Headers<'a>> {
    let timestamp = Some((MONTH + 3_600 * SECOND) / 1_000);
    Record { partition: 0, timestamp, key: Some(key.as_bytes()), value: Some(value.as_bytes()), headers }
}

fn decode(all: usize, events: usize) {
    let records = records(all);
    for of in &records[..events] {
        assert!(black_box(events::decode_usage(&record(of, [].iter().copied()), &RULES)).is_ok());
    }
}

fn take_in(all: usize, events: usize) {
    let records = records(all);
    let mut batch = Batch::new(0);
    for (offset, of) in (0..).zip(&records[..events]) {
        batch.push(Input::Usage, offset, &record(of, [].iter().copied()), &RULES);
    }
    black_box(batch.len());
}

fn component(id: i64, charging_type: ChargingType) -> Component {
    Component {
        id,
        by_value: false,
        charging_type,
        allowance: Quantity::from_millionths(1_000_000_000_000),
        timebands: Vec::new(),
        charge_groups: Vec::new(),
        charge_group_categories: Vec::new(),
        dial_strings: Vec::new(),
    }
}

fn accounts(calendar: &Calendar) -> Vec<Account> {
    let assignment = |id, level, scope, charging_type| {
        Reference::Assignment(Assignment {
            id,
            level,
            scope,
            start_date: Date::from_civil(2026, 1, 1),
            end_date: None,
            plan: Plan {
                id: 10,
                product: None,
                frequency: Frequency::Monthly(1),
                rollover_periods: 0,
                min_qualifying_quantity: None,
                max_per_event_quantity: None,
                components: vec![component(id, charging_type)],
            },
            thresholds: None,
        })
    };
    let account = |customer: i64| {
        let mut account = Account::new(customer);
        account.take(1, assignment(1, Level::Customer, 0, ChargingType::Duration));
        account.take(1, assignment(2, Level::Inventory, customer * 100, ChargingType::Megabytes));
        account.settle(calendar);
        account
    };
    (0..).map(account).take(CUSTOMERS).collect()
}

fn packed_usage(ids: &[String]) -> Vec<(Position, Vec<u8>)> {
    let pack = |(i, id): (usize, &String)| {
        let usage = usage(i, id);
        let mut bytes = Vec::new();
        packed::pack(&usage, &mut bytes);
        (usage.position, bytes)
    };
    ids.iter().enumerate().map(pack).collect()
}

fn draw(all: usize, events: usize) {
    let calendar = Calendar::new("UTC").expect("UTC");
    let (mut accounts, packed) = (accounts(&calendar), packed_usage(&ids(all)));
    let (mut waterfall, mut draws) = (Waterfall::default(), Vec::new());
    for (batch, events) in packed[..events].chunks(OF_A_BATCH).enumerate() {
        let account = &mut accounts[batch % CUSTOMERS];
        for (cause, (position, bytes)) in (0..).zip(events) {
            let usage = packed::unpack(*position, bytes).expect("as packed");
            assert!(account.count(&calendar, &usage, cause, &mut waterfall, &mut draws), "the fast path");
            account.note_usage(position.start);
        }
        let mut changes = headroom::domain::Changes::default();
        account.finish(&calendar, &[], &mut changes);
        black_box(changes);
    }
}

fn encode(all: usize, events: usize) {
    let ids = ids(all);
    let draws = [Draw { slot: 3, amount: Quantity::from_millionths(37_500_000) }];
    let mut out = Vec::new();
    for (i, id) in ids[..events].iter().enumerate() {
        out.clear();
        packed::pack(&usage(i, id), &mut out);
        packed::pack_draws(&draws, &mut out);
        black_box(&out);
    }
}

fn replay(all: usize, events: usize) {
    let calendar = Calendar::new("UTC").expect("UTC");
    let (mut accounts, packed) = (accounts(&calendar), packed_usage(&ids(all)));
    let (mut waterfall, mut draws) = (Waterfall::default(), Vec::new());
    let account = &mut accounts[0];
    account.begin_replay(packed[0].0, &SlotSums::default(), &[]);
    for (position, bytes) in &packed[..events] {
        let usage = packed::unpack(*position, bytes).expect("as packed");
        account.fold(&calendar, &usage, None, &mut waterfall, &mut draws);
        black_box(&draws);
    }
}
