//! The fields of a spec, as they arrive: a JSON object in which every field is optional.
//!
//! An invalid value is refused with a [`SpecError`] that names the field, the value and the allowed values.

use std::fmt;
use std::ops::RangeInclusive;

use pba_types::{NAME_SHOWN, Sound, VALUE_SHOWN, check_name, names_allowed, shortened};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::model::ModelName;
use crate::preset::Preset;

/// Most bytes of a text; texts that are only passed on are bounded too.
const TEXT_LENGTH_MAX: usize = 1024;

/// An invalid field, with its value as JSON and the allowed values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is {}; allowed: {allowed}", shortened(field, NAME_SHOWN), shortened(value, VALUE_SHOWN))]
#[allow(missing_docs, reason = "the message says what the fields are")]
pub struct SpecError {
    pub field: String,
    pub value: String,
    pub allowed: String,
}

impl SpecError {
    /// An invalid `value` in `field`.
    pub fn new(field: &str, value: impl fmt::Display, allowed: impl Into<String>) -> SpecError {
        SpecError { field: field.to_owned(), value: value.to_string(), allowed: allowed.into() }
    }
}

/// The fields of a spec from its JSON object.
///
/// # Errors
/// When the text is no JSON object, or a key is there twice, at any depth.
pub fn read_fields(text: &str) -> Result<Map<String, Value>, serde_json::Error> {
    // Of two values for a key, a map keeps one.
    serde_json::from_str::<Sound>(text)?;
    serde_json::from_str(text)
}

/// The fields of a spec as they arrived. Each is removed once read; the remaining ones are unknown.
pub(crate) struct Fields {
    left: Map<String, Value>,
    known: Vec<&'static str>,
    preset: Option<Preset>,
}

impl Fields {
    pub(crate) fn new(left: Map<String, Value>) -> Fields {
        Fields { left, known: Vec::new(), preset: None }
    }

    /// Fills what is left out with the fields of the preset that is asked for, if one is; those may depend on
    /// the model that is asked for. To be called before anything is read.
    pub(crate) fn fill(
        &mut self,
        allowed: &[Preset],
        fields_of: impl Fn(Preset, Option<ModelName>) -> Map<String, Value>,
    ) -> Result<(), SpecError> {
        let known = self.known.len();
        self.preset = self.parsed("preset", None, |name| {
            let preset = Preset::named(name).filter(|preset| allowed.contains(preset));
            let names = || allowed.iter().map(|preset| preset.name()).collect::<Vec<_>>().join(", ");
            preset.map(Some).ok_or_else(names)
        })?;
        // Told of where it is taken.
        self.known.truncate(known);
        let Some(preset) = self.preset else { return Ok(()) };
        // A model that there is not is refused when it is read.
        let model = self.left.get("model").and_then(Value::as_str).and_then(|name| name.parse().ok());
        for (field, value) in fields_of(preset, model) {
            let given = self.left.entry(field).or_insert(Value::Null);
            if given.is_null() {
                *given = value;
            }
        }
        Ok(())
    }

    /// The preset that filled what was left out.
    pub(crate) fn preset(&mut self) -> Option<Preset> {
        self.known.push("preset");
        self.preset
    }

    pub(crate) fn take(&mut self, field: &'static str) -> Option<Value> {
        self.known.push(field);
        self.left.remove(field).filter(|value| !value.is_null())
    }

    pub(crate) fn close(self) -> Result<(), SpecError> {
        let Some((field, value)) = self.left.into_iter().next() else { return Ok(()) };
        let allowed = format!("no such field; the fields are {}", self.known.join(", "));
        Err(SpecError::new(&field, value, allowed))
    }

    /// A number that `is_allowed`.
    pub(crate) fn number<T: DeserializeOwned>(
        &mut self,
        field: &'static str,
        allowed: &str,
        is_allowed: impl Fn(&T) -> bool,
    ) -> Result<Option<T>, SpecError> {
        let Some(value) = self.take(field) else { return Ok(None) };
        match T::deserialize(&value) {
            Ok(number) if is_allowed(&number) => Ok(Some(number)),
            _ => Err(SpecError::new(field, value, allowed)),
        }
    }

    pub(crate) fn integer<T: DeserializeOwned + PartialOrd + fmt::Display>(
        &mut self,
        field: &'static str,
        range: RangeInclusive<T>,
    ) -> Result<Option<T>, SpecError> {
        let allowed = format!("an integer in {}..={}", range.start(), range.end());
        self.number(field, &allowed, |integer| range.contains(integer))
    }

    /// A text that `parse` accepts; otherwise `parse` returns the allowed values.
    pub(crate) fn parsed<T>(
        &mut self,
        field: &'static str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, SpecError> {
        let Some(value) = self.take(field) else { return Ok(default) };
        let parsed = value.as_str().ok_or_else(|| "a text".to_owned()).and_then(|text| match text.len() {
            0..=TEXT_LENGTH_MAX => parse(text),
            _ => Err(format!("a text of at most {TEXT_LENGTH_MAX} bytes")),
        });
        parsed.map_err(|allowed| SpecError::new(field, value, allowed))
    }

    /// A truth; false where it is missing.
    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, SpecError> {
        let Some(value) = self.take(field) else { return Ok(false) };
        value.as_bool().ok_or_else(|| SpecError::new(field, value, "true or false"))
    }

    /// Any text.
    pub(crate) fn text(&mut self, field: &'static str, default: &str) -> Result<String, SpecError> {
        self.parsed(field, default.to_owned(), |text| Ok(text.to_owned()))
    }

    pub(crate) fn name(&mut self, default: &str) -> Result<String, SpecError> {
        self.parsed("name", default.to_owned(), |name| {
            check_name(name).map(|()| name.to_owned()).map_err(|_| names_allowed())
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::training::Spec;
    use crate::{ComparisonSpec, EvaluationSpec};

    #[test]
    fn texts_are_bounded() {
        let base = |bytes: usize| {
            let text = format!(r#"{{"base": "{}"}}"#, "x".repeat(bytes));
            EvaluationSpec::from_json(&text).map(|spec| spec.training.base.unwrap().len())
        };
        assert_eq!((base(0), base(1024)), (Ok(0), Ok(1024)));
        assert_eq!(base(1025).unwrap_err().allowed, "a text of at most 1024 bytes");
        let error = EvaluationSpec::from_json(r#"{"base": 3}"#).unwrap_err().to_string();
        assert_eq!(error, "base is 3; allowed: a text");
    }

    /// Which of the two values was meant cannot be known.
    #[test]
    fn a_key_that_is_there_twice_is_refused_by_name() {
        for (text, key) in [
            (r#"{"model": "tiny", "seed": 1, "model": "wrn-40-2"}"#, "model"),
            (r#"{"lr_schedule": {"steps": [1], "factor": 0.1, "factor": 0.2}}"#, "factor"),
        ] {
            let error = EvaluationSpec::from_json(text).unwrap_err();
            assert!(error.value.contains(&format!("the key {key:?} is there twice")), "{error}");
        }
    }

    /// What is null is as if it were left out.
    #[test]
    fn null_is_the_default() {
        let fields =
            "name dataset model epochs batch_size lr lr_schedule base seed device preset schedule train_size";
        let nulls: Vec<String> = fields.split(' ').map(|field| format!("{field:?}: null")).collect();
        let spec = EvaluationSpec::from_json(&format!("{{{}}}", nulls.join(", "))).unwrap();
        assert_eq!(spec, EvaluationSpec::from_json("{}").unwrap());
        assert_eq!((spec.name(), spec.training.dataset.as_str()), ("evaluation", "shapes"));
    }

    #[test]
    fn a_truth_is_false_unless_it_is_said() {
        let again = |text: &str| ComparisonSpec::from_json(text).unwrap().again;
        assert_eq!([r#"{}"#, r#"{"again": false}"#, r#"{"again": true}"#].map(again), [false, false, true]);
    }
}
