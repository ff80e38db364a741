//! Why a record becomes a dead letter, and what becomes of the others (`domain.md sections 3 and 9`).

/// Why a record was refused, in the order in which reasons are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Not JSON, no value, any fault of the envelope, no data, or a field given twice.
    Unreadable,
    /// A type that its topic does not take.
    UnknownType,
    /// A required field is absent.
    MissingField,
    /// A field has a value that it cannot have.
    BadValue,
    /// An end lies before its start.
    EndBeforeStart,
    /// The record's key is not the one it must have, or it lies on another partition than that key gives.
    WrongKey,
    /// Usage begins too long after the record's timestamp.
    TooFarAhead,
    /// Usage began too long before the record's timestamp.
    TooOld,
    /// Something else is known under the same name.
    Conflict,
    /// The bill run is finalized.
    Finalized,
}

impl Reason {
    /// All of them, in the order in which they are told.
    pub const ALL: [Reason; 10] = [
        Reason::Unreadable,
        Reason::UnknownType,
        Reason::MissingField,
        Reason::BadValue,
        Reason::EndBeforeStart,
        Reason::WrongKey,
        Reason::TooFarAhead,
        Reason::TooOld,
        Reason::Conflict,
        Reason::Finalized,
    ];

    /// From its name.
    pub fn from_name(name: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// The name in metrics, stores and lists.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Unreadable => "unreadable",
            Reason::UnknownType => "unknown_type",
            Reason::MissingField => "missing_field",
            Reason::BadValue => "bad_value",
            Reason::EndBeforeStart => "end_before_start",
            Reason::WrongKey => "wrong_key",
            Reason::TooFarAhead => "too_far_ahead",
            Reason::TooOld => "too_old",
            Reason::Conflict => "conflict",
            Reason::Finalized => "finalized",
        }
    }
}

/// A refusal: the reason, and a sentence that names the field and the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The first reason that fits.
    pub reason: Reason,
    /// What is wrong, for a person.
    pub detail: String,
}

impl Refusal {
    /// A refusal with its sentence.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Refusal {
        Refusal { reason, detail: detail.into() }
    }
}

/// What became of a consumed record. Each record ends as exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Usage that counts.
    Counted,
    /// Usage of a closed bill run: kept, and drawn from nothing.
    Held,
    /// Usage, a version or a reversal that is there already.
    Duplicate,
    /// A reversal, a reference fact or usage reversed already that changed what is known.
    Applied,
    /// A lower version than the known one.
    PassedOver,
    /// Refused.
    DeadLetter,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 6] = [
        Outcome::Counted,
        Outcome::Held,
        Outcome::Duplicate,
        Outcome::Applied,
        Outcome::PassedOver,
        Outcome::DeadLetter,
    ];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Counted => "counted",
            Outcome::Held => "held",
            Outcome::Duplicate => "duplicate",
            Outcome::Applied => "applied",
            Outcome::PassedOver => "passed_over",
            Outcome::DeadLetter => "dead_letter",
        }
    }
}
