//! Where a schedule comes from.

use std::collections::BTreeMap;
use std::fmt;

use pba_types::Sound;
use serde::de::{DeserializeOwned, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// Most fields of a schedule's provenance: many more than those that have a meaning.
pub const PROVENANCE_FIELDS_MAX: usize = 64;

/// Where a schedule comes from. Nothing here affects pixels or the digest.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Provenance {
    /// What it was learned on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// The model of the search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Members of the search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub population: Option<u32>,
    /// Seed of the search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Validation accuracy of the winner, 0..1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// When, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Publication, file or program it was taken from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Anything else that its author wanted to keep.
    #[serde(flatten)]
    pub other: BTreeMap<String, Json>,
}

/// A JSON value as its author wrote it, to the digit. It takes as much memory as its text, where a value that was
/// read would take up to 40 times as much.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl PartialEq for Json {
    fn eq(&self, other: &Json) -> bool {
        self.0.get() == other.0.get()
    }
}

/// Reads an object in which no key is there twice at any depth.
impl<'de> Deserialize<'de> for Provenance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Provenance, D::Error> {
        let mut other = deserializer.deserialize_map(Fields)?;
        Ok(Provenance {
            dataset: take(&mut other, "dataset")?,
            model: take(&mut other, "model")?,
            population: take(&mut other, "population")?,
            seed: take(&mut other, "seed")?,
            score: take(&mut other, "score")?,
            created: take(&mut other, "created")?,
            source: take(&mut other, "source")?,
            other,
        })
    }
}

/// A field that has a meaning, if it is there.
fn take<T: DeserializeOwned, E: Error>(
    fields: &mut BTreeMap<String, Json>,
    name: &str,
) -> Result<Option<T>, E> {
    let Some(Json(text)) = fields.remove(name) else { return Ok(None) };
    serde_json::from_str(text.get()).map_err(|error| E::custom(format_args!("{name} of provenance: {error}")))
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = BTreeMap<String, Json>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BTreeMap<String, Json>, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let text: Box<RawValue> = map.next_value()?;
            let sound = serde_json::from_str::<Sound>(text.get());
            sound.map_err(|error| A::Error::custom(format_args!("{name:?} of provenance: {error}")))?;
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format_args!("{name:?} is there twice in provenance")));
            }
            fields.insert(name, Json(text));
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_meaning_is_kept_as_it_was_written() {
        let text = r#"{"model":"tiny","seed":7,"a":{"b":[1.50,  1e3, "\u00e9"]},"b":null}"#;
        let provenance: Provenance = serde_json::from_str(text).unwrap();
        assert_eq!((provenance.model.as_deref(), provenance.seed), (Some("tiny"), Some(7)));
        assert_eq!(serde_json::to_string(&provenance).unwrap(), text);
        // As a value, too, where digits may change.
        let value = serde_json::to_value(&provenance).unwrap();
        assert_eq!(value["a"]["b"], serde_json::json!([1.5, 1000.0, "é"]));
        let again: Provenance = serde_json::from_value(value).unwrap();
        assert_eq!(again.other.len(), 2);
    }

    #[track_caller]
    fn refuse(text: &str, says: &str) {
        let error = serde_json::from_str::<Provenance>(text).unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused_by_name() {
        refuse(r#"{"seed":1,"seed":2}"#, "\"seed\" is there twice in provenance");
        refuse(r#"{"z":1,"a":0,"z":1}"#, "\"z\" is there twice in provenance");
        refuse(r#"{"a":[{"b":1,"c":{"d":1,"d":1}}]}"#, "\"a\" of provenance: the key \"d\" is there twice");
        refuse(r#"{"seed":-1}"#, "seed of provenance: invalid value");
        refuse(r#"{"a":1e999}"#, "number out of range");
        refuse(r#"{"a":"\ud800"}"#, "\"a\" of provenance");
        refuse(&format!(r#"{{"a":{}1{}}}"#, "[".repeat(200), "]".repeat(200)), "recursion limit");
        refuse("[]", "expected an object");
    }
}
