//! What goes wrong, when: a schedule that a seed repeats.

use std::fmt;
use std::time::Duration;

use crate::dice::Dice;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// kill -9 of a process with this role, which is started again.
    Kill(&'static str),
    /// SIGSTOP of a process with this role for longer than its session or lease, then SIGCONT.
    Stop(&'static str),
    /// SIGTERM of a process with this role, which is started again.
    End(&'static str),
    /// kill -9 of Kafka.
    KillBroker,
    /// kill -9 of PostgreSQL.
    KillDatabase,
    /// Workers that come and go.
    Storm,
    /// A process with a role dies or stops at a named place.
    At(&'static Place, Action),
}

/// What happens at a named place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Kill,
    Stop,
}

/// A named place (`src/failpoint.rs`), and how a process is brought there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) name: &'static str,
    pub(crate) role: &'static str,
    pub(crate) way: Way,
}

/// How a process is brought to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// It comes by itself.
    Itself,
    /// By being started again.
    Restart,
    /// By another worker's coming and going.
    Rebalance,
}

const fn place(name: &'static str, role: &'static str, way: Way) -> Place {
    Place { name, role, way }
}

/// All places.
pub(crate) static PLACES: [Place; 14] = [
    place("before-fence", "worker", Way::Itself),
    place("after-fence", "worker", Way::Itself),
    place("before-commit", "worker", Way::Itself),
    place("after-commit", "worker", Way::Itself),
    place("relay-transaction-begun", "relay", Way::Itself),
    place("relay-before-commit", "relay", Way::Itself),
    place("relay-after-commit", "relay", Way::Itself),
    place("relay-begun", "relay", Way::Restart),
    place("relay-topic-read", "relay", Way::Restart),
    place("start", "worker", Way::Restart),
    place("migrated", "worker", Way::Restart),
    place("assigned", "worker", Way::Restart),
    place("taken", "worker", Way::Rebalance),
    place("revoked", "worker", Way::Rebalance),
];

/// A fault: a deed, and perhaps another one before it is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) deed: Deed,
    pub(crate) second: Option<Deed>,
    /// From the end of the one before to its own beginning.
    pub(crate) before: Duration,
    /// From the first deed to the second.
    pub(crate) between: Duration,
    /// How long what was killed stays down, and what was stopped beyond its session.
    pub(crate) down: Duration,
    /// Which of the processes that fit, and other choices while it goes on.
    pub(crate) choice: i64,
}

/// So many faults, of one kind if it is named. Every kind comes once before one comes twice; their order is chance.
pub(crate) fn schedule(mut dice: Dice, count: usize, only: Option<&str>) -> Vec<Fault> {
    let mut deck = Vec::new();
    (0..count)
        .map(|_| {
            if deck.is_empty() {
                deck = kinds();
                deck.retain(|kind| only.is_none_or(|only| only == named(*kind)));
                assert!(!deck.is_empty(), "there is no fault {only:?}");
            }
            let at = usize::try_from(dice.range(0, deck.len() as i64)).unwrap();
            let (deed, second) = match deck.swap_remove(at) {
                Some(deed) => (deed, None),
                None => two(&mut dice),
            };
            Fault {
                deed,
                second,
                before: Duration::from_millis(dice.range(0, 2_000) as u64),
                between: Duration::from_millis(dice.range(0, 1_500) as u64),
                down: Duration::from_millis(dice.range(0, 1_500) as u64),
                choice: dice.range(0, 1_000),
            }
        })
        .collect()
}

/// The name of a kind.
fn named(kind: Option<Deed>) -> String {
    kind.map_or("two at once".to_owned(), |deed| deed.to_string())
}

/// All kinds of faults; none stands for two at once.
fn kinds() -> Vec<Option<Deed>> {
    let mut kinds: Vec<Option<Deed>> = PLACES.iter().map(|place| Some(Deed::At(place, Action::Kill))).collect();
    kinds.extend(PLACES.iter().map(|place| Some(Deed::At(place, Action::Stop))));
    for _ in 0..2 {
        kinds.extend(
            [Deed::Kill("worker"), Deed::Kill("relay"), Deed::Stop("worker"), Deed::Stop("relay"), Deed::End("worker")]
                .map(Some),
        );
        kinds.extend(
            [Deed::KillBroker, Deed::KillDatabase, Deed::Storm, Deed::End("relay"), Deed::Kill("reader")].map(Some),
        );
        kinds.extend([None; 4]);
    }
    kinds
}

/// Two that can be at once.
fn two(dice: &mut Dice) -> (Deed, Option<Deed>) {
    let first = [
        Deed::Kill("worker"),
        Deed::Kill("relay"),
        Deed::Stop("worker"),
        Deed::Stop("relay"),
        Deed::KillBroker,
        Deed::KillDatabase,
    ];
    let deed = dice.of(&first);
    let others: Vec<Deed> = first.into_iter().chain([Deed::Storm]).filter(|other| *other != deed).collect();
    (deed, Some(dice.of(&others)))
}

impl fmt::Display for Deed {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deed::Kill(role) => write!(to, "kill {role}"),
            Deed::Stop(role) => write!(to, "stop {role}"),
            Deed::End(role) => write!(to, "end {role}"),
            Deed::KillBroker => to.write_str("kill broker"),
            Deed::KillDatabase => to.write_str("kill database"),
            Deed::Storm => to.write_str("storm of workers"),
            Deed::At(place, Action::Kill) => write!(to, "kill at {}", place.name),
            Deed::At(place, Action::Stop) => write!(to, "stop at {}", place.name),
        }
    }
}

impl Fault {
    /// Its kind, for figures.
    pub(crate) fn kind(&self) -> String {
        named(self.second.is_none().then_some(self.deed))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "after {:.1} s: {}", self.before.as_secs_f32(), self.deed)?;
        match self.second {
            Some(second) => write!(to, ", and {:.1} s later {second}", self.between.as_secs_f32()),
            None => Ok(()),
        }
    }
}
