//! JSON objects read in one pass, borrowed: the fields asked for as raw text, all others passed over.
//!
//! Only objects are read (a JSON array is not taken for one), a field given twice is an error, and null is absent.

use serde::de::IgnoredAny;

use super::fields::shown;
use crate::domain::{Reason, Refusal};

/// What is read from the text of an object.
pub(super) trait Object<'a>: Default {
    /// Reads it; the text is unreadable when it is no JSON object or gives a field twice.
    fn read(text: &'a str) -> Result<Self, Refusal>;
}

/// Makes a struct of raw JSON values that is read from an object by its wire names.
macro_rules! raw_object {
    ($(#[$meta:meta])* $name:ident { $($field:ident = $wire:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Default, Clone, Copy)]
        pub(super) struct $name<'a> {
            $(pub(super) $field: Option<&'a str>,)*
        }

        impl<'a> $crate::events::object::Object<'a> for $name<'a> {
            fn read(text: &'a str) -> Result<$name<'a>, $crate::domain::Refusal> {
                let mut object = $name::default();
                let mut twice = None;
                let read = $crate::events::json::members(text, |name, value| {
                    let (field, wire) = match name {
                        $($wire => (&mut object.$field, $wire),)*
                        _ => return ::std::ops::ControlFlow::Continue(()),
                    };
                    if field.replace(value).is_none() {
                        return ::std::ops::ControlFlow::Continue(());
                    }
                    twice = Some(wire);
                    ::std::ops::ControlFlow::Break(())
                });
                if read.is_none() {
                    return Err($crate::events::object::unreadable(text, twice));
                }
                $(object.$field = object.$field.filter(|value| *value != "null");)*
                Ok(object)
            }
        }
    };
}

pub(super) use raw_object;

/// Why a text could not be read as an object.
pub(super) fn unreadable(text: &str, twice: Option<&str>) -> Refusal {
    let detail = match (twice, serde_json::from_str::<IgnoredAny>(text)) {
        (Some(field), _) => format!("{field} is given twice"),
        (None, Err(error)) => format!("not readable JSON: {error}"),
        (None, Ok(_)) => format!("{} is no object", shown(text)),
    };
    Refusal::new(Reason::Unreadable, detail)
}
