//! Query strings. A parameter is declared once, in [`query!`](crate::query!); reading, writing, flags,
//! help and `/openapi.json` follow from the declaration.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use pba_types::SplitName;
use serde_json::Value;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};

/// An invalid parameter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{parameter}={value:?}: {reason}; allowed: {allowed}")]
pub struct ParameterError {
    /// The parameter.
    pub parameter: String,
    /// The value that was given.
    pub value: String,
    /// Why it is invalid.
    pub reason: String,
    /// The allowed values.
    pub allowed: String,
}

impl ParameterError {
    /// An error about one parameter.
    pub fn new(
        parameter: impl Into<String>,
        value: impl Into<String>,
        reason: impl Into<String>,
        allowed: impl Into<String>,
    ) -> ParameterError {
        ParameterError {
            parameter: parameter.into(),
            value: value.into(),
            reason: reason.into(),
            allowed: allowed.into(),
        }
    }

    /// A parameter that does not exist, with the nearest one that does.
    pub fn unknown(parameter: &str, value: &str, known: &[&str]) -> ParameterError {
        let nearest = nearest(parameter, known.iter().copied());
        let hint = nearest.map(|name| format!(", did you mean {name:?}?")).unwrap_or_default();
        ParameterError::new(parameter, value, format!("unknown parameter{hint}"), known.join(", "))
    }
}

/// The known name most similar to a mistyped one, if any is similar.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&name, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
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
            return Err(ParameterError::new(parameter, value, "given twice", "each parameter once"));
        }
        pairs.push((parameter, value));
    }
    Ok(pairs)
}

/// How the value of a parameter is written.
pub trait Form {
    /// What is written.
    type Value;

    /// Reads a value.
    ///
    /// # Errors
    /// When the text is not such a value, or is not allowed.
    fn read(&self, parameter: &str, text: &str) -> Result<Self::Value, ParameterError>;

    /// Writes a value; nothing if it is omitted.
    fn write(&self, value: &Self::Value) -> Option<String>;

    /// Its schema in `/openapi.json`.
    fn schema(&self) -> ObjectBuilder;
}

/// An integer of a range.
pub struct Integer<T>(pub RangeInclusive<T>);

impl<T: FromStr + PartialOrd + fmt::Display> Form for Integer<T> {
    type Value = T;

    fn read(&self, parameter: &str, text: &str) -> Result<T, ParameterError> {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<T>() {
            Ok(number) if digits(text) && self.0.contains(&number) => Ok(number),
            _ => {
                let is_integer = digits(text.strip_prefix('-').unwrap_or(text));
                let reason = if is_integer { "out of range" } else { "not an integer" };
                let allowed = format!("an integer in {}..={}", self.0.start(), self.0.end());
                Err(ParameterError::new(parameter, text, reason, allowed))
            }
        }
    }

    fn write(&self, value: &T) -> Option<String> {
        Some(value.to_string())
    }

    fn schema(&self) -> ObjectBuilder {
        let bound = |bound: &T| bound.to_string().parse::<f64>().ok();
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(bound(self.0.start()))
            .maximum(bound(self.0.end()))
    }
}

/// `true` or `false`.
pub struct Boolean;

impl Form for Boolean {
    type Value = bool;

    fn read(&self, parameter: &str, text: &str) -> Result<bool, ParameterError> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(ParameterError::new(parameter, text, "not a truth value", "true or false")),
        }
    }

    fn write(&self, value: &bool) -> Option<String> {
        Some(value.to_string())
    }

    fn schema(&self) -> ObjectBuilder {
        ObjectBuilder::new().schema_type(Type::Boolean)
    }
}

/// Any text; its user checks it.
pub struct Text;

impl Form for Text {
    type Value = String;

    fn read(&self, _: &str, text: &str) -> Result<String, ParameterError> {
        Ok(text.to_owned())
    }

    fn write(&self, value: &String) -> Option<String> {
        Some(value.clone())
    }

    fn schema(&self) -> ObjectBuilder {
        ObjectBuilder::new().schema_type(Type::String)
    }
}

/// The name of a split.
pub struct SplitOf;

impl Form for SplitOf {
    type Value = SplitName;

    fn read(&self, parameter: &str, text: &str) -> Result<SplitName, ParameterError> {
        text.parse().map_err(|_| ParameterError::new(parameter, text, "not a split", "train, val or test"))
    }

    fn write(&self, value: &SplitName) -> Option<String> {
        Some(value.to_string())
    }

    fn schema(&self) -> ObjectBuilder {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(SplitName::ALL.map(SplitName::as_str)))
    }
}

/// One job's part of an epoch, as `i/n`.
pub struct ShardOf;

impl Form for ShardOf {
    type Value = (u32, u32);

    fn read(&self, parameter: &str, text: &str) -> Result<(u32, u32), ParameterError> {
        let error = |reason| {
            let allowed = "i/n, for example 0/8, with n at least 1 and i in 0..n";
            ParameterError::new(parameter, text, reason, allowed)
        };
        let (index, count) = text.split_once('/').ok_or_else(|| error("not a shard"))?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(index) || !digits(count) {
            return Err(error("not a shard"));
        }
        match (index.parse(), count.parse()) {
            (Ok(index), Ok(count)) if index < count => Ok((index, count)),
            _ => Err(error("out of range")),
        }
    }

    fn write(&self, (index, count): &(u32, u32)) -> Option<String> {
        Some(format!("{index}/{count}"))
    }

    fn schema(&self) -> ObjectBuilder {
        ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9]+/[1-9][0-9]*$"))
    }
}

/// A parameter that may be omitted, which has a meaning of its own.
pub struct Optional<F>(pub F);

impl<F: Form> Form for Optional<F> {
    type Value = Option<F::Value>;

    fn read(&self, parameter: &str, text: &str) -> Result<Option<F::Value>, ParameterError> {
        self.0.read(parameter, text).map(Some)
    }

    fn write(&self, value: &Option<F::Value>) -> Option<String> {
        self.0.write(value.as_ref()?)
    }

    fn schema(&self) -> ObjectBuilder {
        self.0.schema()
    }
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
        let default = self.default.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)));
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
    /// Their names.
    fn names() -> Vec<&'static str>;

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
                return Err(ParameterError::unknown(name, value, &Self::names()));
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
    fn names() -> Vec<&'static str> {
        [A::names(), B::names()].concat()
    }

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
            fn names() -> Vec<&'static str> {
                vec![$(stringify!($name)),*]
            }

            fn set(&mut self, name: &str, value: &str) -> Result<bool, $crate::query::ParameterError> {
                match name {
                    $(stringify!($name) => self.$name = $crate::query::Form::read(&$form, name, value)?,)*
                    _ => return Ok(false),
                }
                Ok(true)
            }

            fn about() -> Vec<$crate::query::About> {
                vec![$($crate::query::About {
                    name: stringify!($name),
                    help: concat!($($help),+).trim_start(),
                    default: $crate::query::Form::write(&$form, &$default),
                    schema: $crate::query::Form::schema(&$form),
                }),*]
            }

            fn to_pairs(&self) -> Vec<(&'static str, String)> {
                let mut pairs = Vec::new();
                $(if self.$name != $default && let Some(value) = $crate::query::Form::write(&$form, &self.$name) {
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
