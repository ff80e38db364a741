//! The roles of a process.

use std::fmt;

/// A part of the work; one process may do any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Kafka to balances.
    Worker,
    /// Alerts to Kafka.
    Relay,
    /// The query.
    Reader,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Worker, Role::Relay, Role::Reader];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Worker => "worker",
            Role::Relay => "relay",
            Role::Reader => "reader",
        }
    }
}

/// The roles of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles([bool; 3]);

impl Roles {
    /// Every role.
    pub const ALL: Roles = Roles([true; 3]);

    /// These roles, in any order; named twice is named once.
    pub fn of(roles: &[Role]) -> Roles {
        Roles(Role::ALL.map(|role| roles.contains(&role)))
    }

    /// Whether the process has this one.
    pub fn has(self, role: Role) -> bool {
        self.0[role as usize]
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Role::ALL.into_iter().filter(|role| self.has(*role)).map(Role::name).collect();
        f.write_str(&names.join(", "))
    }
}
