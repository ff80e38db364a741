//! Histories: lifelike and nasty ones, small enough to be understood when one of them shows a fault.
//!
//! Few customers, sites, lines and days, small allowances and many hours that are the same: so that buckets run out,
//! order matters, and things meet.

use headroom::domain::Instant;
use jiff::ToSpan;
use jiff::civil::Date;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::calendar::Calendar;
use crate::facts::{Assignment, Component, Fact, Fault, Frequency, Name, Plan, Run, Threshold, Usage};
use crate::json::Style;

/// Where and when histories take place: the time zone, and the first of the days that most of the usage falls on. Each
/// but the first has a change of clocks in it: at night, at midnight (forth and back), by half an hour.
pub(crate) const PLACES: [(&str, Date); 8] = [
    ("UTC", jiff::civil::date(2025, 2, 26)),
    ("Europe/London", jiff::civil::date(2025, 3, 28)),
    ("Europe/London", jiff::civil::date(2025, 10, 24)),
    ("America/Havana", jiff::civil::date(2025, 3, 7)),
    ("America/Havana", jiff::civil::date(2025, 10, 31)),
    ("America/Santiago", jiff::civil::date(2025, 9, 5)),
    ("America/Santiago", jiff::civil::date(2025, 4, 3)),
    ("Australia/Lord_Howe", jiff::civil::date(2025, 10, 3)),
];

/// How many days most of the usage falls on.
const DAYS: i32 = 6;

/// What happens around a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Around {
    /// Nothing.
    Nothing,
    /// The accounts in memory are forgotten afterwards.
    Forget,
    /// The partition is taken by another process afterwards, and the one before goes on for a while.
    Restart,
    /// The partition is taken by the same process again, which keeps what it has in memory.
    Resume,
    /// The commit is refused, and the partition taken anew.
    Refused,
    /// The commit's answer is lost, and the partition taken anew.
    AnswerLost,
}

/// Records in their order of arrival, and how they are worked off.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) zone: &'static str,
    /// The configured thresholds.
    pub(crate) thresholds: Vec<Threshold>,
    /// Each fact with the way it is written.
    pub(crate) records: Vec<(Fact, Style)>,
    /// How many records a batch takes, and what happens around it; over again until all are worked off.
    pub(crate) batches: Vec<(usize, Around)>,
    /// Bytes of accounts kept in memory.
    pub(crate) cache_bytes: usize,
    /// How many seconds before their latest usage accounts in memory reach back.
    pub(crate) look_back: u64,
    /// What the wall clock shows: usage may be of times to come.
    pub(crate) now: fn() -> Instant,
    /// Ledger rows that a replay reads at once.
    pub(crate) replay_page: usize,
    /// Customers whose rows of a closing run are stored at once, and after how many batches it is done once.
    pub(crate) storing: (usize, usize),
    /// Whether a batch waits for every replay, however long.
    pub(crate) patient: bool,
    /// Steps of catching up after each batch.
    pub(crate) catching: usize,
    /// After which of those steps the partition is taken by another process.
    pub(crate) takings: Vec<usize>,
    /// Bytes of records that wait with customers behind.
    pub(crate) behind_bytes: usize,
}

/// What a history says, before later things find the earlier ones they are about.
#[derive(Debug, Clone)]
enum Saying {
    Fact(Fact),
    /// The same once more.
    Again(Index),
    /// The same name with other data.
    Conflict(Index),
    /// A reversal of usage.
    Reverse(Index),
    /// A later or earlier version of an assignment, with some of it changed.
    Change(Index, i64, Change),
}

#[derive(Debug, Clone)]
enum Change {
    Nothing,
    Remove,
    Allowance(i64),
    Larger(i64),
    Thresholds(Option<Vec<Threshold>>),
    Start(i32),
    End(Option<i32>),
    Rollover(i64),
    Most(Option<i64>),
    Scope(i64),
    FirstComponent(Component),
    DropComponent,
}

/// A saying, how it is written, and how many hours late it comes.
type Told = (Saying, u16, i64);

pub(crate) fn history() -> impl Strategy<Value = History> {
    (select(&PLACES[..]), any::<bool>(), any::<bool>()).prop_flat_map(|((zone, base), lifelike, dense)| {
        let told = (saying(zone, base), any::<u16>(), prop_oneof![6 => Just(0), 2 => 0..6i64, 1 => -200..200i64]);
        let configured = prop_oneof![
            2 => Just(vec![Threshold::Percent(20_000_000), Threshold::Percent(0)]),
            1 => thresholds(),
        ];
        // 1970, the last of the days that most usage in the first of the places falls on, and 9999.
        let clocks: [fn() -> Instant; 3] = [
            || Instant::from_micros(0),
            || Instant::from_micros(1_740_960_000_000_000),
            || Instant::from_micros(253_402_214_400_000_000),
        ];
        let cache = (select(vec![0, 1_000, 1 << 20]), select(vec![0, 0, 86_400, 1 << 30]), select(clocks.to_vec()));
        let page = prop_oneof![2 => Just(1usize), 1 => 2..8usize];
        let reading = (page, (1..3usize, 1..4usize));
        let behind = (
            any::<bool>(),
            prop_oneof![Just(0usize), Just(1), 2..6usize],
            vec(2..12usize, 0..6),
            select(vec![0, 2_000, 1 << 20]),
        );
        (vec(told, 1..60), configured, batches(), cache, reading, behind).prop_map(
            move |(
                told,
                thresholds,
                batches,
                (cache_bytes, look_back, now),
                (replay_page, storing),
                (patient, catching, takings, behind_bytes),
            )| {
                let mut records = resolve(told, zone, base, lifelike);
                if dense {
                    records.iter_mut().for_each(|(fact, _)| make_dense(fact));
                }
                History {
                    zone,
                    thresholds,
                    records,
                    batches,
                    cache_bytes,
                    look_back,
                    now,
                    replay_page,
                    storing,
                    patient,
                    catching,
                    takings,
                    behind_bytes,
                }
            },
        )
    })
}

/// How many records a batch takes, and what happens around it.
pub(crate) fn batches() -> impl Strategy<Value = Vec<(usize, Around)>> {
    let around = prop_oneof![
        8 => Just(Around::Nothing), 1 => Just(Around::Forget), 1 => Just(Around::Restart),
        1 => Just(Around::Resume), 1 => Just(Around::Refused), 1 => Just(Around::AnswerLost),
    ];
    let size = prop_oneof![4 => Just(1usize), 3 => 2..6usize, 1 => 6..40usize];
    vec((size, around), 1..12)
}

fn saying(zone: &'static str, base: Date) -> impl Strategy<Value = Saying> {
    prop_oneof![
        12 => usage(zone, base).prop_map(|usage| Saying::Fact(Fact::Usage(usage))),
        5 => (key(), -1..5i64, assignment(base)).prop_map(|(key, version, assignment)| {
            let scope = if key.1 == 2 { 0 } else { assignment.scope };
            Saying::Fact(Fact::Assignment { key, version, assignment: Some(Assignment { scope, ..assignment }) })
        }),
        2 => any::<Index>().prop_map(Saying::Again),
        1 => any::<Index>().prop_map(Saying::Conflict),
        4 => any::<Index>().prop_map(Saying::Reverse),
        5 => (any::<Index>(), -1..4i64, change()).prop_map(|(at, by, change)| Saying::Change(at, by, change)),
        1 => (customer(), -1..4i64, 1..4i64, 1..3i64, 1..3i64).prop_map(|(customer, version, upi, site, product)| {
            Saying::Fact(Fact::Inventory { customer, version, upi, site, product })
        }),
        2 => (customer(), -1..4i64, 0..3i64, option::of(1..3i64)).prop_map(|(customer, version, cycle, owner)| {
            Saying::Fact(Fact::Customer { customer, version, cycle, owner })
        }),
        3 => bill_run(base),
        1 => reversal(zone, base),
        1 => select(&Fault::ALL[..]).prop_map(|fault| Saying::Fact(Fact::Faulty(fault))),
    ]
}

/// Few runs that close, open and overlap, over some of the days that matter and before.
fn bill_run(base: Date) -> impl Strategy<Value = Saying> {
    let status = prop_oneof![5 => Just(0u8), 5 => Just(1u8), 1 => Just(2u8)];
    let arrears = option::weighted(0.3, 1..30i32);
    (1..3i64, -1..6i64, prop_oneof![3 => Just(0i64), 1 => 1..3i64], (-3..DAYS, 0..8i32, arrears), status).prop_map(
        move |(id, version, cycle, (first, length, arrears), status)| {
            let period = (day_after(base, first), day_after(base, first + length));
            let back = arrears.unwrap_or(0);
            let usage = (day_after(period.0, -back), day_after(period.1, -back));
            Saying::Fact(Fact::BillRun { id, version, run: Run { cycle, period, usage, status } })
        },
    )
}

/// Most often the first.
fn customer() -> impl Strategy<Value = i64> {
    prop_oneof![6 => Just(1i64), 1 => Just(2), 1 => Just(3)]
}

fn key() -> impl Strategy<Value = (i64, usize, i64)> {
    (customer(), 0..3usize, 1..4i64)
}

/// Millionths of a decimal: small ones, with and without a fraction, nothing, and rarely the greatest.
fn decimal(most: i64) -> impl Strategy<Value = i64> {
    prop_oneof![
        12 => (0..=most).prop_map(|units| units * 1_000_000),
        2 => 0..=most * 1_000_000,
        1 => Just(0),
        1 => Just(1),
        1 => select(vec![i64::MAX, i64::MAX - 1, i64::MAX / 2]),
    ]
}

/// An hour of the days that matter, often the same, and often just where a day begins or ends.
fn moment(zone: &'static str, base: Date) -> impl Strategy<Value = i64> {
    let day = prop_oneof![8 => 0..DAYS, 1 => -40..40i32];
    (day, prop_oneof![1 => Just(0), 1 => Just(-1), 4 => (0..6i64).prop_map(|part| part * 4 * 3_600_000_000)])
        .prop_map(move |(day, into)| Calendar::of(zone).start_of(day_after(base, day)) + into)
}

fn usage(zone: &'static str, base: Date) -> impl Strategy<Value = Usage> {
    let name = (moment(zone, base), select(vec!["a", "b", "c"]), 0..5000u32);
    let line = (customer(), prop_oneof![9 => Just(0i64), 1 => 1..3i64], 1..4i64, 1..3i64);
    let kinds = (unit(), option::weighted(0.5, select(vec!["PEAK", "OFF_PEAK"])));
    let qualifiers = (option::of(1..4i64), option::of(1..3i64), option::of(select(vec!["0", "0044", "00441", "1"])));
    (name, line, kinds, decimal(30), decimal(1_000), qualifiers).prop_map(
        |((start, source, id), (customer, moved, upi, product), (unit, timeband), quantity, price, qualifiers)| Usage {
            name: Name { source: format!("switch/{source}"), id: format!("call-{id}"), start },
            customer,
            site: if moved == 0 { upi % 2 + 1 } else { moved },
            upi,
            product,
            unit,
            quantity,
            price,
            timeband: timeband.map(str::to_owned),
            group: qualifiers.0,
            category: qualifiers.1,
            destination: qualifiers.2.map(str::to_owned),
        },
    )
}

/// A reversal of usage that never comes.
fn reversal(zone: &'static str, base: Date) -> impl Strategy<Value = Saying> {
    (customer(), moment(zone, base), 0..5000u32).prop_map(|(customer, start, id)| {
        let name = Name { source: "switch/a".to_owned(), id: format!("call-{id}"), start };
        Saying::Fact(Fact::Reversed(customer, name))
    })
}

fn unit() -> impl Strategy<Value = usize> {
    prop_oneof![6 => Just(0usize), 1 => Just(1), 1 => Just(2)]
}

fn assignment(base: Date) -> impl Strategy<Value = Assignment> {
    let start = prop_oneof![3 => -40..0i32, 2 => 0..DAYS, 3 => select(vec![-31, -1, 0])];
    let length = option::weighted(0.5, prop_oneof![0..8i32, 0..80i32]);
    let limits = (option::weighted(0.3, decimal(10)), option::weighted(0.4, decimal(20)));
    let components = vec(component(), 0..4);
    let plan = (option::weighted(0.3, 1..3i64), frequency(base), rollover(), limits, components);
    (1..4i64, start, length, plan, option::weighted(0.4, thresholds())).prop_map(
        move |(scope, start, length, (product, frequency, rollover, (least, most), mut components), thresholds)| {
            let mut ids = std::collections::HashSet::new();
            components.retain(|component| ids.insert(component.id));
            let start = day_after(base, start);
            let plan = Plan { id: 10 + scope, product, frequency, rollover, least, most, components };
            Assignment { scope, start, end: length.map(|days| day_after(start, days)), plan, thresholds }
        },
    )
}

fn rollover() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0i64), 2 => 1..4i64, 1 => Just(120)]
}

/// With anchors near the days that matter.
fn frequency(base: Date) -> impl Strategy<Value = Frequency> {
    let near = (0..DAYS).prop_map(move |day| day_after(base, day));
    prop_oneof![
        3 => Just(Frequency::Daily),
        2 => near.clone().prop_map(|day| Frequency::Weekly(day.weekday().to_monday_one_offset())),
        2 => near.prop_map(|day| Frequency::Monthly(day.day().min(28))),
        1 => Just(Frequency::Monthly(1)),
    ]
}

fn component() -> impl Strategy<Value = Component> {
    let timebands = prop_oneof![4 => Just(vec![]), 1 => vec(select(vec!["PEAK".to_owned(), "NIGHT".to_owned()]), 1..3)];
    let groups = prop_oneof![4 => Just(vec![]), 1 => vec(1..4i64, 1..3)];
    let categories = prop_oneof![5 => Just(vec![]), 1 => vec(1..3i64, 1..2)];
    let digits = (select(vec!["0", "0044", "00441"]), any::<bool>()).prop_map(|(text, whole)| (text.to_owned(), whole));
    let dial_strings = prop_oneof![2 => Just(vec![]), 1 => vec(digits, 1..3)];
    (1..5i64, proptest::bool::weighted(0.25), unit(), decimal(60), (timebands, groups, categories, dial_strings))
        .prop_map(|(id, by_value, unit, allowance, (timebands, groups, categories, dial_strings))| Component {
            id,
            by_value,
            unit,
            allowance: if by_value { allowance.min(i64::MAX / 20) * 20 } else { allowance },
            timebands,
            groups,
            categories,
            dial_strings,
        })
}

fn thresholds() -> impl Strategy<Value = Vec<Threshold>> {
    let units = |list: &[i64]| list.iter().map(|units| units * 1_000_000).collect::<Vec<i64>>();
    let percent = prop_oneof![8 => select(units(&[0, 20, 50, 80, 100, 150])), 1 => Just(i64::MAX)];
    let remaining = prop_oneof![8 => select(units(&[0, 1, 5, 10, 30])), 1 => Just(i64::MAX)];
    vec(prop_oneof![percent.prop_map(Threshold::Percent), remaining.prop_map(Threshold::Remaining)], 0..4)
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => Just(Change::Nothing),
        2 => Just(Change::Remove),
        2 => decimal(60).prop_map(Change::Allowance),
        3 => (1..60i64).prop_map(Change::Larger),
        2 => option::weighted(0.8, thresholds()).prop_map(Change::Thresholds),
        1 => (-3..3i32).prop_map(Change::Start),
        4 => option::weighted(0.8, 0..8i32).prop_map(Change::End),
        1 => rollover().prop_map(Change::Rollover),
        1 => option::weighted(0.7, decimal(20)).prop_map(Change::Most),
        1 => (1..4i64).prop_map(Change::Scope),
        1 => component().prop_map(Change::FirstComponent),
        1 => Just(Change::DropComponent),
    ]
}

/// Leaves out what keeps usage and buckets apart, so that most usage meets others in a bucket.
fn make_dense(fact: &mut Fact) {
    match fact {
        Fact::Usage(usage) => {
            usage.customer = 1;
            usage.unit = 0;
            usage.quantity = usage.quantity.min(30_000_000);
        }
        Fact::Reversed(customer, _) | Fact::Customer { customer, .. } | Fact::Inventory { customer, .. } => {
            *customer = 1
        }
        Fact::Assignment { key, assignment, .. } => {
            let common = key.2 < 3;
            (key.0, key.1) = (1, if common { 2 } else { key.1 });
            let Some(assignment) = assignment else { return };
            let plan = &mut assignment.plan;
            (plan.product, plan.least) = (None, None);
            if common {
                // Some still end, but most stand beside each other with the same dates.
                assignment.end = assignment.end.filter(|_| assignment.scope == 1);
                assignment.scope = 0;
                plan.rollover = plan.rollover.min(1);
                plan.frequency = Frequency::Monthly(1);
                assignment.start = assignment.start.first_of_month();
            }
            for component in &mut plan.components {
                component.unit = 0;
                component.timebands.clear();
                component.groups.clear();
                component.categories.clear();
                component.dial_strings.clear();
            }
        }
        Fact::BillRun { .. } | Fact::Faulty(_) => {}
    }
}

/// Finds what sayings are about, and puts them in their order of arrival.
fn resolve(told: Vec<Told>, zone: &str, base: Date, lifelike: bool) -> Vec<(Fact, Style)> {
    let calendar = Calendar::of(zone);
    let mut facts: Vec<Fact> = Vec::new();
    let mut arriving = Vec::new();
    for (saying, style, late) in told {
        let Some(fact) = about(saying, &facts) else { continue };
        let since = match &fact {
            Fact::Usage(usage) => usage.name.start,
            Fact::Reversed(_, name) => name.start + 8 * 3_600_000_000,
            Fact::BillRun { version, .. } if *version > 0 => {
                calendar.start_of(day_after(base, i32::try_from(*version).unwrap_or(0)))
            }
            Fact::Assignment { version, .. } if *version > 2 => calendar.start_of(day_after(base, 2)),
            _ => calendar.start_of(day_after(base, -1)),
        };
        arriving.push((since + late * 3_600_000_000, facts.len(), style));
        facts.push(fact);
    }
    if lifelike {
        arriving.sort_unstable();
    }
    arriving.into_iter().map(|(_, at, style)| (facts[at].clone(), Style(style))).collect()
}

fn about(saying: Saying, facts: &[Fact]) -> Option<Fact> {
    let all = |at: Index| (!facts.is_empty()).then(|| at.get(facts).clone());
    let usage: Vec<&Usage> =
        facts.iter().filter_map(|f| if let Fact::Usage(usage) = f { Some(usage) } else { None }).collect();
    match saying {
        Saying::Fact(fact) => Some(fact),
        Saying::Again(at) => all(at),
        Saying::Conflict(at) => all(at).map(twisted),
        Saying::Reverse(at) if usage.is_empty() => all(at),
        Saying::Reverse(at) => {
            let usage = at.get(&usage);
            Some(Fact::Reversed(usage.customer, usage.name.clone()))
        }
        Saying::Change(at, by, change) => {
            let given: Vec<&Fact> =
                facts.iter().filter(|fact| matches!(fact, Fact::Assignment { assignment: Some(_), .. })).collect();
            let Fact::Assignment { key, version, assignment: Some(assignment) } =
                (!given.is_empty()).then(|| at.get(&given))?
            else {
                return None;
            };
            Some(Fact::Assignment {
                key: *key,
                version: version + by,
                assignment: changed(assignment.clone(), key.1, change),
            })
        }
    }
}

/// The same name with other data.
fn twisted(fact: Fact) -> Fact {
    match fact {
        Fact::Usage(usage) => Fact::Usage(Usage { quantity: usage.quantity ^ 1, ..usage }),
        Fact::Assignment { key, version, assignment } => {
            let assignment = assignment.map(|mut other| {
                other.plan.id += 1;
                other
            });
            Fact::Assignment { key, version, assignment }
        }
        Fact::Inventory { customer, version, upi, site, product } => {
            Fact::Inventory { customer, version, upi, site: site + 1, product }
        }
        Fact::Customer { customer, version, cycle, owner } => {
            Fact::Customer { customer, version, cycle: cycle + 1, owner }
        }
        Fact::BillRun { id, version, run } => Fact::BillRun { id, version, run: Run { cycle: run.cycle + 1, ..run } },
        other => other,
    }
}

fn changed(mut given: Assignment, level: usize, change: Change) -> Option<Assignment> {
    match change {
        Change::Nothing => {}
        Change::Remove => return None,
        Change::Larger(by) => {
            given.plan.components.iter_mut().for_each(|c| c.allowance = c.allowance.saturating_add(by * 1_000_000));
        }
        Change::Allowance(allowance) => given.plan.components.iter_mut().for_each(|c| c.allowance = allowance),
        Change::Thresholds(thresholds) => given.thresholds = thresholds,
        Change::Start(by) => {
            given.start = day_after(given.start, by);
            given.end = given.end.map(|end| end.max(given.start));
        }
        Change::End(days) => given.end = days.map(|days| day_after(given.start, days)),
        Change::Rollover(periods) => given.plan.rollover = periods,
        Change::Most(most) => given.plan.most = most,
        Change::Scope(scope) => given.scope = if level == 2 { 0 } else { scope },
        Change::FirstComponent(component) => {
            given.plan.components.retain(|known| known.id != component.id);
            given.plan.components.insert(0, component);
        }
        Change::DropComponent => {
            given.plan.components.pop();
        }
    }
    Some(given)
}

fn day_after(day: Date, days: i32) -> Date {
    day.checked_add(days.days()).expect("a day of our time")
}
