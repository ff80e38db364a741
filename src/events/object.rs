//! JSON objects read in one pass, borrowed: the fields asked for as raw text, all others passed over.
//!
//! Only objects are read (a JSON array is not taken for one), a field given twice is an error, and null is absent.

use std::ops::ControlFlow;

use serde::de::IgnoredAny;

use super::fields::shown;
use super::json;
use crate::domain::{Reason, Refusal};

/// What is read from the members of an object.
pub(super) trait Object<'a>: Default {
    /// Takes a member. Breaks with its name when it is one of the fields and was taken before.
    fn take(&mut self, name: &str, value: &'a str) -> ControlFlow<&'static str>;

    /// Takes fields that are null for absent.
    fn drop_nulls(&mut self);
}

/// Reads an object; the text is unreadable when it is no JSON object or gives a field twice.
pub(super) fn read<'a, T: Object<'a>>(text: &'a str) -> Result<T, Refusal> {
    let (mut object, mut twice) = (T::default(), None);
    let read = json::members(text, |name, value| object.take(name, value).map_break(|field| twice = Some(field)));
    read.ok_or_else(|| unreadable(text, twice))?;
    object.drop_nulls();
    Ok(object)
}

/// Reads an object, and the one that its member `name` is, if it is one.
pub(super) fn read_both<'a, T: Object<'a>, U: Object<'a>>(text: &'a str, name: &str) -> Result<(T, U), Refusal> {
    let (mut outer, mut inner) = (T::default(), U::default());
    let (mut twice, mut inner_twice) = (None, None);
    let read = json::members_and_inner(
        text,
        name,
        |name, value| outer.take(name, value).map_break(|field| twice = Some(field)),
        |name, value| inner.take(name, value).map_break(|field| inner_twice = Some(field)),
    );
    read.ok_or_else(|| unreadable(text, twice.or(inner_twice)))?;
    outer.drop_nulls();
    inner.drop_nulls();
    Ok((outer, inner))
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
            #[inline]
            fn take(&mut self, name: &str, value: &'a str) -> ::std::ops::ControlFlow<&'static str> {
                let (field, wire) = match name {
                    $($wire => (&mut self.$field, $wire),)*
                    _ => return ::std::ops::ControlFlow::Continue(()),
                };
                if field.replace(value).is_some() {
                    return ::std::ops::ControlFlow::Break(wire);
                }
                ::std::ops::ControlFlow::Continue(())
            }

            fn drop_nulls(&mut self) {
                $(self.$field = self.$field.filter(|value| *value != "null");)*
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
