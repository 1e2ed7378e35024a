//! Query strings. A parameter is declared once, in [`query!`](crate::query!); reading, writing, flags,
//! help and `/openapi.json` follow from the declaration.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use pba_types::{NAME_SHOWN, SplitName, VALUE_SHOWN, shortened};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};

/// An invalid parameter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{}={:?}: {reason}; allowed: {allowed}",
    shortened(parameter, NAME_SHOWN),
    shortened(value, VALUE_SHOWN)
)]
#[allow(missing_docs, reason = "the message says what the fields are")]
pub struct ParameterError {
    pub parameter: String,
    pub value: String,
    pub reason: String,
    pub allowed: String,
}

impl ParameterError {
    /// An error about one parameter.
    pub fn new(parameter: &str, value: &str, reason: &str, allowed: &str) -> ParameterError {
        let [parameter, value, reason, allowed] = [parameter, value, reason, allowed].map(str::to_owned);
        ParameterError { parameter, value, reason, allowed }
    }
}

/// The known name most similar to a mistyped one, if any is similar.
///
/// Only names of similar length and letters are compared, which is what takes time: anybody may ask for any name.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // No known name is longer than this, and no mistyped one is much longer than the name that it was meant to be.
    const COMPARED_BYTES_MAX: usize = 128;
    if name.len() > COMPARED_BYTES_MAX {
        return None;
    }
    let name = name.to_lowercase();
    known
        .into_iter()
        .filter_map(|candidate| {
            let distance_max = 1 + candidate.len() / 3;
            let other = candidate.to_lowercase();
            if other.len() > COMPARED_BYTES_MAX || distance_min(&name, &other) > distance_max {
                return None;
            }
            let distance = strsim::damerau_levenshtein(&name, &other);
            (distance <= distance_max).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A lower bound of the edits between two texts: letters that one has and the other lacks.
fn distance_min(one: &str, other: &str) -> usize {
    if !one.is_ascii() || !other.is_ascii() {
        return 0;
    }
    let mut surplus = [0i16; 128];
    one.bytes().for_each(|byte| surplus[usize::from(byte)] += 1);
    other.bytes().for_each(|byte| surplus[usize::from(byte)] -= 1);
    let sum = |sign: i16| surplus.iter().map(|count| (count * sign).max(0) as usize).sum::<usize>();
    sum(1).max(sum(-1))
}

/// Splits a query string into decoded pairs, refusing a parameter given twice.
///
/// # Errors
/// When a parameter occurs twice, with both of its values.
pub fn pairs(query: &str) -> Result<Vec<(String, String)>, ParameterError> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (parameter, value) in form_urlencoded::parse(query.as_bytes()).into_owned() {
        if let Some((_, first)) = pairs.iter().find(|(known, _)| *known == parameter) {
            let value = format!("{first} and {value}");
            return Err(ParameterError::new(&parameter, &value, "given twice", "each parameter once"));
        }
        pairs.push((parameter, value));
    }
    Ok(pairs)
}

/// How the value of a parameter is written, and its schema in `/openapi.json`.
pub struct Form<T> {
    read: Box<Read<T>>,
    write: Box<Write<T>>,
    schema: ObjectBuilder,
}

/// Why a text is no value of a parameter, and the allowed ones.
type Wrong = (&'static str, String);
type Read<T> = dyn Fn(&str) -> Result<T, Wrong>;
type Write<T> = dyn Fn(&T) -> Option<String>;

impl<T> Form<T> {
    fn new(
        schema: ObjectBuilder,
        write: impl Fn(&T) -> String + 'static,
        read: impl Fn(&str) -> Result<T, Wrong> + 'static,
    ) -> Form<T> {
        Form { read: Box::new(read), write: Box::new(move |value| Some(write(value))), schema }
    }

    /// Reads a value.
    ///
    /// # Errors
    /// When the text is not such a value, or is not allowed.
    pub fn read(&self, parameter: &str, text: &str) -> Result<T, ParameterError> {
        (self.read)(text).map_err(|(reason, allowed)| ParameterError::new(parameter, text, reason, &allowed))
    }

    /// Writes a value; nothing if it is omitted.
    pub fn write(&self, value: &T) -> Option<String> {
        (self.write)(value)
    }

    /// Its schema in `/openapi.json`.
    pub fn schema(self) -> ObjectBuilder {
        self.schema
    }
}

/// An integer of a range.
pub fn integer<T>(range: RangeInclusive<T>) -> Form<T>
where
    T: FromStr + PartialOrd + fmt::Display + 'static,
{
    // A larger one would be written rounded up.
    let bound = |bound: &T| bound.to_string().parse().ok().filter(|bound: &f64| *bound < f64::exp2(53.0));
    let schema = of_type(Type::Integer).minimum(bound(range.start())).maximum(bound(range.end()));
    Form::new(schema, T::to_string, move |text| match text.parse() {
        Ok(number) if is_digits(text) && range.contains(&number) => Ok(number),
        _ => {
            let is_integer = is_digits(text.strip_prefix('-').unwrap_or(text));
            let reason = if is_integer { "out of range" } else { "not an integer" };
            Err((reason, format!("an integer in {}..={}", range.start(), range.end())))
        }
    })
}

/// `true` or `false`.
pub fn boolean() -> Form<bool> {
    Form::new(of_type(Type::Boolean), bool::to_string, |text| {
        text.parse().map_err(|_| ("not a boolean", "true or false".to_owned()))
    })
}

/// Any text; its user checks it.
pub fn text() -> Form<String> {
    Form::new(of_type(Type::String), String::clone, |text| Ok(text.to_owned()))
}

/// The name of a split.
pub fn split() -> Form<SplitName> {
    let schema = of_type(Type::String).enum_values(Some(SplitName::ALL.map(SplitName::name)));
    Form::new(schema, SplitName::to_string, |text| {
        SplitName::named(text).ok_or_else(|| ("not a split", "train, val or test".to_owned()))
    })
}

/// One job's part of an epoch, as `i/n`.
pub fn shard() -> Form<(u32, u32)> {
    let schema = of_type(Type::String).pattern(Some("^[0-9]+/[1-9][0-9]*$"));
    Form::new(
        schema,
        |(index, count)| format!("{index}/{count}"),
        |text| {
            let allowed = "i/n, for example 0/8, with n at least 1 and i in 0..n".to_owned();
            match text.split_once('/').filter(|(index, count)| is_digits(index) && is_digits(count)) {
                None => Err(("not a shard", allowed)),
                Some((index, count)) => match (index.parse(), count.parse()) {
                    (Ok(index), Ok(count)) if index < count => Ok((index, count)),
                    _ => Err(("out of range", allowed)),
                },
            }
        },
    )
}

/// A parameter that may be omitted, which has a meaning of its own.
pub fn optional<T: 'static>(Form { read, write, schema }: Form<T>) -> Form<Option<T>> {
    Form {
        read: Box::new(move |text| read(text).map(Some)),
        write: Box::new(move |value| write(value.as_ref()?)),
        schema,
    }
}

fn of_type(of_type: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(of_type)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The documentation of a parameter.
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// Its meaning.
    pub help: &'static str,
    /// Its default, if that is a value.
    pub default: Option<String>,
    /// Its schema in `/openapi.json`.
    pub schema: ObjectBuilder,
}

impl About {
    /// The parameter as `/openapi.json` describes it.
    pub fn openapi(self) -> Parameter {
        let default = self.default.map(|text| serde_json::from_str(&text).unwrap_or_else(|_| text.into()));
        ParameterBuilder::new()
            .name(self.name)
            .parameter_in(ParameterIn::Query)
            .description(Some(self.help))
            .schema(Some(self.schema.default(default).build()))
            .build()
    }
}

/// The parameters of a route.
pub trait Query: Sized + Default {
    /// Sets a parameter; false if there is none of this name.
    ///
    /// # Errors
    /// When the value is not allowed.
    fn set(&mut self, name: &str, value: &str) -> Result<bool, ParameterError>;

    /// The documentation of each.
    fn about() -> Vec<About>;

    /// The decoded pairs: only what differs from the defaults.
    fn to_pairs(&self) -> Vec<(&'static str, String)>;

    /// Reads decoded pairs.
    ///
    /// # Errors
    /// At the first parameter that is unknown, of the wrong type or out of range.
    fn from_pairs(pairs: &[(String, String)]) -> Result<Self, ParameterError> {
        let mut query = Self::default();
        for (name, value) in pairs {
            if !query.set(name, value)? {
                let known: Vec<&str> = Self::about().iter().map(|about| about.name).collect();
                let hint =
                    nearest(name, known.iter().copied()).map(|name| format!(", did you mean {name:?}?"));
                let reason = format!("unknown parameter{}", hint.unwrap_or_default());
                return Err(ParameterError::new(name, value, &reason, &known.join(", ")));
            }
        }
        Ok(query)
    }

    /// Reads a query string.
    ///
    /// # Errors
    /// As [`Query::from_pairs`], and when a parameter is given twice.
    fn from_query(query: &str) -> Result<Self, ParameterError> {
        Self::from_pairs(&pairs(query)?)
    }

    /// Writes the query string: only what differs from the defaults.
    fn to_query(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(self.to_pairs()).finish()
    }
}

/// The parameters of two queries, on one route.
impl<A: Query, B: Query> Query for (A, B) {
    fn set(&mut self, name: &str, value: &str) -> Result<bool, ParameterError> {
        Ok(self.0.set(name, value)? || self.1.set(name, value)?)
    }

    fn about() -> Vec<About> {
        A::about().into_iter().chain(B::about()).collect()
    }

    fn to_pairs(&self) -> Vec<(&'static str, String)> {
        [self.0.to_pairs(), self.1.to_pairs()].concat()
    }
}

/// Declares the parameters of a route: help, name, type, default and [`Form`] of each, once.
#[macro_export]
macro_rules! query {
    (
        $(#[$meta:meta])*
        pub struct $query:ident {
            $($(#[doc = $help:literal])+ $name:ident: $type:ty = $default:expr, $form:expr;)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $query {
            $($(#[doc = $help])+ pub $name: $type,)*
        }

        impl Default for $query {
            fn default() -> $query {
                $query { $($name: $default,)* }
            }
        }

        impl $crate::query::Query for $query {
            fn set(&mut self, name: &str, value: &str) -> Result<bool, $crate::query::ParameterError> {
                match name {
                    $(stringify!($name) => self.$name = $form.read(name, value)?,)*
                    _ => return Ok(false),
                }
                Ok(true)
            }

            fn about() -> Vec<$crate::query::About> {
                vec![$($crate::query::About {
                    name: stringify!($name),
                    help: concat!($($help),+).trim_start(),
                    default: $form.write(&$default),
                    schema: $form.schema(),
                }),*]
            }

            fn to_pairs(&self) -> Vec<(&'static str, String)> {
                let mut pairs = Vec::new();
                $(if self.$name != $default && let Some(value) = $form.write(&self.$name) {
                    pairs.push((stringify!($name), value));
                })*
                pairs
            }
        }

        impl ::utoipa::IntoParams for $query {
            fn into_params(
                _: impl Fn() -> Option<::utoipa::openapi::path::ParameterIn>,
            ) -> Vec<::utoipa::openapi::path::Parameter> {
                <$query as $crate::query::Query>::about().into_iter().map($crate::query::About::openapi).collect()
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_only_if_they_can_be_similar() {
        let words = [
            "",
            "a",
            "ab",
            "ba",
            "shapes",
            "shape",
            "sahpes",
            "hspaes",
            "cifar10-pba",
            "cifar10_pba",
            "pba-cifar10",
            "svhn-pba",
            "SVHN-PBA",
            "randaugment:2:9",
            "ä",
            "shäpes",
            "xxxxxxxx",
        ];
        let simple = |name: &str| {
            let close = words
                .iter()
                .map(|word| (strsim::damerau_levenshtein(&name.to_lowercase(), &word.to_lowercase()), *word));
            let close = close.filter(|(distance, word)| *distance <= 1 + word.len() / 3);
            close.min_by_key(|(distance, _)| *distance).map(|(_, word)| word)
        };
        for name in words {
            for other in words {
                let distance = strsim::damerau_levenshtein(name, other);
                assert!(distance_min(name, other) <= distance, "{name:?} {other:?}");
            }
            assert_eq!(nearest(name, words), simple(name), "{name:?}");
        }
        assert_eq!(nearest(&"x".repeat(60_000), words), None);
        assert_eq!(nearest("shapes", [&*"x".repeat(60_000), "shape"]), Some("shape"));
    }
}
