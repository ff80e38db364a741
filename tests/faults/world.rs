//! The stream of records: a few hundred customers over the days, with what goes wrong in real feeds. The same seed gives the
//! same records, however fast they are sent.

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};

use crate::dice::Dice;
use crate::facts::{Assignment, Component, Fact, Fault, Frequency, Name, Plan, Run, Threshold, Usage};
use crate::json::{self, Record, Style};

/// How many customers there are.
const CUSTOMERS: i64 = 200;
/// Time from one record to the next in the records' own time, in microseconds.
const STEP: i64 = 10_000_000;
/// How far back the first record lies, in days.
const DAYS: i64 = 100;
/// How much usage is remembered, to be sent again or reversed.
const REMEMBERED: usize = 20_000;
/// How many records from one turn of a bill run to the next.
const TURN: u64 = 4_000;
/// The bill runs.
const RUNS: i64 = 3;

/// When all records are produced, by their timestamps.
pub(crate) fn produced() -> Timestamp {
    json::PRODUCED.parse().unwrap()
}

/// A record to send, and what it says.
pub(crate) struct Saying {
    pub(crate) fact: Fact,
    pub(crate) record: Record,
}

/// Makes records, for ever.
pub(crate) struct World {
    dice: Dice,
    made: u64,
    /// The time that the newest usage is of.
    now: i64,
    remembered: Vec<Usage>,
    /// What is yet to be said before anything else.
    waiting: Vec<Fact>,
    versions: i64,
    /// Of each bill run, whether it is closed.
    closed: [bool; RUNS as usize],
}

impl World {
    pub(crate) fn new(dice: Dice) -> World {
        let now = produced().as_microsecond() - DAYS * 86_400_000_000;
        let mut world = World {
            dice,
            made: 0,
            now,
            remembered: Vec::new(),
            waiting: Vec::new(),
            versions: 1,
            closed: [false; RUNS as usize],
        };
        let first = (0..RUNS).map(|run| world.bill_run(run)).collect::<Vec<_>>();
        world.waiting.extend(first);
        for customer in 1..=CUSTOMERS {
            for key in keys(customer) {
                let assignment = world.assignment(key);
                world.waiting.push(Fact::Assignment { key, version: 1, assignment: Some(assignment) });
            }
            let cycle = customer % 2;
            world.waiting.push(Fact::Customer { customer, version: 1, cycle, owner: Some(customer % 7) });
        }
        world.waiting.reverse();
        world
    }

    /// The next record.
    pub(crate) fn next(&mut self) -> Saying {
        let fact = match self.waiting.pop() {
            Some(fact) => fact,
            None => self.fact(),
        };
        self.made += 1;
        let style = Style(u16::try_from(self.dice.range(0, 1 << 16)).unwrap());
        Saying { record: json::record(&fact, &format!("record-{}", self.made), style), fact }
    }

    /// The last records: all bill runs are open, so that no usage is held.
    pub(crate) fn last(&mut self) -> Vec<Saying> {
        let closed: Vec<i64> = (0..RUNS).filter(|run| self.closed[*run as usize]).collect();
        for run in closed {
            let opened = self.turn(run);
            self.waiting.push(opened);
        }
        let count = self.waiting.len();
        (0..count).map(|_| self.next()).collect()
    }

    fn fact(&mut self) -> Fact {
        self.now = (self.now + STEP).min(produced().as_microsecond());
        if self.made.is_multiple_of(TURN) {
            let run = self.dice.range(0, RUNS);
            return self.turn(run);
        }
        match self.dice.range(0, 1_000) {
            0..30 => self.again(),
            30..33 => self.conflict(),
            33..60 => self.reversal(),
            60..63 => self.reversal_first(),
            63..66 => Fact::Faulty(self.dice.of(&Fault::ALL)),
            66..68 => self.changed_assignment(),
            68..70 => self.inventory(),
            _ => Fact::Usage(self.usage()),
        }
    }

    fn usage(&mut self) -> Usage {
        let customer = self.dice.range(1, CUSTOMERS + 1);
        let upi = customer * 10 + self.dice.range(0, 3);
        let late = match self.dice.range(0, 100) {
            0..8 => self.dice.range(0, 2 * 86_400_000_000),
            8..10 => self.dice.range(0, 8 * 86_400_000_000),
            _ => 0,
        };
        let unit = self.dice.of(&[0, 0, 0, 1, 1, 2]);
        let number = self.made;
        let usage = Usage {
            name: Name {
                source: format!("switch-{}", number % 5),
                id: format!("call-{number}"),
                start: self.now - late,
            },
            customer,
            site: upi % 2,
            upi,
            product: 1,
            unit,
            quantity: self.dice.range(1, 600) * if self.dice.in_thousand(100) { 1_234_567 } else { 1_000_000 },
            price: self.dice.range(0, 50) * 1_000_000,
            timeband: self.dice.of(&[None, Some("PEAK"), Some("OFF_PEAK")]).map(str::to_owned),
            group: None,
            category: None,
            destination: self.dice.in_thousand(300).then(|| "004420".to_owned()),
        };
        if self.remembered.len() < REMEMBERED {
            self.remembered.push(usage.clone());
        } else {
            let at = usize::try_from(self.dice.range(0, REMEMBERED as i64)).unwrap();
            self.remembered[at] = usage.clone();
        }
        usage
    }

    fn known(&mut self) -> Option<Usage> {
        let most = self.remembered.len();
        (most > 0).then(|| self.remembered[usize::try_from(self.dice.range(0, most as i64)).unwrap()].clone())
    }

    fn again(&mut self) -> Fact {
        Fact::Usage(self.known().unwrap_or_else(|| self.usage()))
    }

    fn conflict(&mut self) -> Fact {
        let mut usage = self.known().unwrap_or_else(|| self.usage());
        usage.quantity += 1;
        Fact::Usage(usage)
    }

    fn reversal(&mut self) -> Fact {
        let usage = self.known().unwrap_or_else(|| self.usage());
        Fact::Reversed(usage.customer, usage.name)
    }

    fn reversal_first(&mut self) -> Fact {
        let usage = self.usage();
        let reversed = Fact::Reversed(usage.customer, usage.name.clone());
        self.waiting.push(Fact::Usage(usage));
        reversed
    }

    fn changed_assignment(&mut self) -> Fact {
        let customer = self.dice.range(1, CUSTOMERS + 1);
        let key = self.dice.of(&keys(customer));
        self.versions += 1;
        // Sometimes one that is older than what is known.
        let version = if self.dice.in_thousand(100) { 0 } else { self.versions };
        Fact::Assignment { key, version, assignment: Some(self.assignment(key)) }
    }

    fn inventory(&mut self) -> Fact {
        let customer = self.dice.range(1, CUSTOMERS + 1);
        self.versions += 1;
        let upi = customer * 10 + self.dice.range(0, 4);
        Fact::Inventory { customer, version: self.versions, upi, site: upi % 2, product: 1 }
    }

    /// Of each level one form, with an allowance of chance.
    fn assignment(&mut self, (customer, level, _): (i64, usize, i64)) -> Assignment {
        let size = self.dice.range(8, 13) * 1_000_000;
        let component = |id, by_value, unit, allowance: i64| Component {
            id,
            by_value,
            unit,
            allowance: allowance * size / 10,
            timebands: Vec::new(),
            groups: Vec::new(),
            categories: Vec::new(),
            dial_strings: Vec::new(),
        };
        let (frequency, rollover, most, components) = match level {
            0 => (Frequency::Daily, 0, Some(400_000_000), vec![component(1, false, 0, 1_800)]),
            1 => {
                let peak = Component { timebands: vec!["PEAK".to_owned()], ..component(2, false, 1, 6_000) };
                (Frequency::Monthly(7), 1, None, vec![component(1, false, 1, 24_000), peak])
            }
            _ => {
                let abroad = Component { dial_strings: vec![("0044".to_owned(), false)], ..component(2, true, 0, 400) };
                (Frequency::Weekly(4), 1, None, vec![component(1, false, 0, 18_000), abroad])
            }
        };
        let thresholds = (level == 1).then(|| vec![Threshold::Percent(50_000_000), Threshold::Remaining(100_000_000)]);
        let scope = [customer * 10, 1, 0][level];
        let plan = Plan { id: 10 + level as i64, product: None, frequency, rollover, least: None, most, components };
        Assignment { scope, start: first_day(), end: None, plan, thresholds }
    }

    fn turn(&mut self, run: i64) -> Fact {
        self.closed[run as usize] ^= true;
        self.bill_run(run)
    }

    /// Each covers two weeks of the usage that comes, of one cycle.
    fn bill_run(&mut self, run: i64) -> Fact {
        self.versions += 1;
        let from = first_day() + (5 * run).days();
        let days = (from, from + 30.days());
        let status = u8::from(self.closed[run as usize]);
        Fact::BillRun {
            id: run + 1,
            version: self.versions,
            run: Run { cycle: run % 2, period: days, usage: days, status },
        }
    }
}

/// The assignments of a customer.
fn keys(customer: i64) -> [(i64, usize, i64); 3] {
    [0, 1, 2].map(|level| (customer, level, 5 + level as i64))
}

/// When everything begins.
fn first_day() -> Date {
    produced().to_zoned_datetime(jiff::tz::TimeZone::UTC).date() - (DAYS + 9).days()
}
