//! The settings of the paper (Ho et al. 2019) by name, as the scripts of its public implementation have them.
//!
//! A preset fills in what a spec leaves out, so that one request repeats a row of the paper's tables.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::model::ModelName;

pba_types::named! {
    /// Settings of the paper.
    #[derive(Serialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Preset {
        /// CIFAR-10, all training images.
        Cifar10 = "cifar10",
        /// CIFAR-100, all training images.
        Cifar100 = "cifar100",
        /// SVHN with its extra images: all images of the training split.
        Svhn = "svhn",
        /// Reduced CIFAR-10: 4,000 training images.
        Rcifar10 = "rcifar10",
        /// Reduced SVHN: 1,000 training images.
        Rsvhn = "rsvhn",
    }
}

impl Preset {
    /// Those that the paper searched with.
    pub const OF_SEARCHES: &[Preset] = &[Preset::Rcifar10, Preset::Rsvhn];

    fn is_svhn(self) -> bool {
        matches!(self, Preset::Svhn | Preset::Rsvhn)
    }

    /// What all kinds of job share: the dataset, which images are trained on, and what happens to them.
    fn of_dataset(self) -> Map<String, Value> {
        // The paper neither crops nor flips SVHN, and cuts nothing out of the reduced set.
        let (dataset, base, train_size) = match self {
            Preset::Cifar10 => ("cifar10", "pad_crop:4,flip,cutout:16", None),
            Preset::Cifar100 => ("cifar100", "pad_crop:4,flip,cutout:8", None),
            Preset::Svhn => ("svhn", "cutout:20", None),
            Preset::Rcifar10 => ("cifar10", "pad_crop:4,flip,cutout:16", Some(4_000)),
            Preset::Rsvhn => ("svhn", "identity", Some(1_000)),
        };
        object(json!({ "dataset": dataset, "base": base, "train_size": train_size }))
    }

    /// The rates of SVHN decrease in steps, those of CIFAR, and of Shake-Shake on both, along a cosine.
    fn lr_schedule(self, model: ModelName) -> Value {
        match (self.is_svhn(), model) {
            (true, ModelName::ShakeShake { .. }) | (false, _) => json!("cosine"),
            (true, _) => json!({ "steps": [80, 120], "factor": 0.1 }),
        }
    }

    /// The fields of a search: 16 members of a WRN-40-2, whatever `model` is asked for.
    pub(crate) fn of_search(self, model: Option<ModelName>) -> Map<String, Value> {
        let (epochs, weight_decay, val_size) =
            if self.is_svhn() { (160, 5e-3, 7_325) } else { (200, 5e-4, 46_000) };
        let mut fields = object(json!({
            "model": "wrn-40-2", "epochs": epochs, "batch_size": 128, "lr": 0.1, "weight_decay": weight_decay,
            "lr_schedule": self.lr_schedule(model.unwrap_or_default()),
            "val_size": val_size, "val_split": "train",
            "population": 16, "perturbation_interval": 3, "quantile": 0.25, "resample_probability": 0.2,
        }));
        fields.extend(self.of_dataset());
        fields
    }

    /// The fields of an evaluation of `model`, by default a WRN-28-10, with the paper's schedule. A model without a
    /// row in the paper's tables keeps its own batch size, learning rate and weight decay.
    pub(crate) fn of_evaluation(self, model: Option<ModelName>) -> Map<String, Value> {
        let model = model.unwrap_or(ModelName::WideResNet { depth: 28, width: 10 });
        let long = matches!(model, ModelName::ShakeShake { .. } | ModelName::PyramidNet { .. });
        let epochs = match self.is_svhn() {
            true => 160,
            false if long => 1_800,
            false => 200,
        };
        let schedule = if self.is_svhn() { "svhn-pba" } else { "cifar10-pba" };
        let mut fields = object(json!({
            "model": model, "schedule": schedule, "epochs": epochs, "lr_schedule": self.lr_schedule(model),
        }));
        fields.extend(self.of_dataset());
        if let Some((lr, weight_decay)) = self.row(model) {
            let batch_size = model.defaults().batch_size;
            fields
                .extend(object(json!({ "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay })));
        }
        fields
    }

    /// The fields of a comparison: those of an evaluation, but for the schedule, as its arms say what is compared.
    pub(crate) fn of_comparison(self, model: Option<ModelName>) -> Map<String, Value> {
        let mut fields = self.of_evaluation(model);
        fields.remove("schedule");
        fields
    }

    /// Learning rate and weight decay of a row of the paper's tables.
    fn row(self, model: ModelName) -> Option<(f64, f64)> {
        let row = match (self, model.to_string().as_str()) {
            (Preset::Cifar10 | Preset::Cifar100, "wrn-28-10") => (0.1, 5e-4),
            (Preset::Cifar10, "shake-shake-26-2x32d" | "shake-shake-26-2x96d" | "shake-shake-26-2x112d") => {
                (0.01, 1e-3)
            }
            (Preset::Cifar10, "pyramidnet-272-a200-shakedrop") => (0.05, 5e-5),
            (Preset::Cifar100, "shake-shake-26-2x96d") => (0.01, 2.5e-3),
            (Preset::Cifar100, "pyramidnet-272-a200-shakedrop") => (0.025, 5e-4),
            (Preset::Svhn, "wrn-28-10") => (0.005, 1e-3),
            (Preset::Svhn, "shake-shake-26-2x96d") => (0.01, 1.5e-4),
            (Preset::Rcifar10, "wrn-28-10") => (0.05, 5e-3),
            (Preset::Rcifar10, "shake-shake-26-2x96d") => (0.025, 2.5e-3),
            (Preset::Rsvhn, "wrn-28-10") => (0.05, 0.01),
            (Preset::Rsvhn, "shake-shake-26-2x96d") => (0.025, 5e-3),
            _ => return None,
        };
        Some(row)
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => unreachable!("{other} is not an object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::{LrSchedule, Spec};
    use crate::{ComparisonSpec, EvaluationSpec, SearchSpec};

    fn evaluation(text: &str) -> EvaluationSpec {
        EvaluationSpec::from_json(text).unwrap()
    }

    /// What the rows differ in: dataset, model, epochs, batch size, learning rate, weight decay, base, images,
    /// schedule.
    #[track_caller]
    fn row(text: &str, expected: Value) {
        let spec = evaluation(text);
        let json = serde_json::to_value(&spec).unwrap();
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(json.get(field).unwrap_or(&Value::Null), value, "{field} of {text}");
        }
        let again: EvaluationSpec = serde_json::from_value(json).unwrap();
        assert_eq!(again, spec, "what is filled in reads back");
    }

    #[test]
    fn evaluations_are_rows_of_the_papers_tables() {
        let steps = json!({ "steps": [80, 120], "factor": 0.1 });
        row(
            r#"{"preset": "cifar10"}"#,
            json!({
                "preset": "cifar10", "dataset": "cifar10", "model": "wrn-28-10", "schedule": "cifar10-pba",
                "epochs": 200, "batch_size": 128, "lr": 0.1, "weight_decay": 5e-4, "lr_schedule": "cosine",
                "base": "pad_crop:4,flip,cutout:16", "train_size": null,
            }),
        );
        row(
            r#"{"preset": "cifar10", "model": "pyramidnet-272-a200-shakedrop", "schedule": "none"}"#,
            json!({ "epochs": 1800, "batch_size": 64, "lr": 0.05, "weight_decay": 5e-5, "schedule": "none" }),
        );
        row(
            r#"{"preset": "cifar100", "model": "shake-shake-26-2x96d"}"#,
            json!({ "epochs": 1800, "lr": 0.01, "weight_decay": 2.5e-3, "base": "pad_crop:4,flip,cutout:8" }),
        );
        row(
            r#"{"preset": "rcifar10", "train_size": 1000}"#,
            json!({ "lr": 0.05, "weight_decay": 5e-3, "train_size": 1000, "epochs": 200 }),
        );
        row(
            r#"{"preset": "rsvhn", "lr": 0.5, "base": null}"#,
            json!({
                "dataset": "svhn", "schedule": "svhn-pba", "lr": 0.5, "weight_decay": 0.01, "base": "identity",
                "train_size": 1000, "epochs": 160, "lr_schedule": steps,
            }),
        );
        row(
            r#"{"preset": "svhn", "model": "shake-shake-26-2x96d"}"#,
            json!({ "epochs": 160, "weight_decay": 1.5e-4, "base": "cutout:20", "lr_schedule": "cosine" }),
        );
        // No row, but the same images.
        row(
            r#"{"preset": "rsvhn", "model": "tiny"}"#,
            json!({ "train_size": 1000, "batch_size": 32, "lr": 0.1, "weight_decay": 5e-4, "lr_schedule": steps }),
        );
    }

    /// Learning rates and weight decays of the paper's tables, a line for each model and a column for each dataset.
    #[test]
    fn rates_are_those_of_the_papers_tables() {
        let columns = [Preset::Cifar10, Preset::Cifar100, Preset::Svhn, Preset::Rcifar10, Preset::Rsvhn];
        assert_eq!(columns, Preset::ALL);
        let lines = [
            (
                "wrn-28-10",
                [
                    Some((0.1, 5e-4)),
                    Some((0.1, 5e-4)),
                    Some((0.005, 1e-3)),
                    Some((0.05, 5e-3)),
                    Some((0.05, 0.01)),
                ],
            ),
            ("shake-shake-26-2x32d", [Some((0.01, 1e-3)), None, None, None, None]),
            (
                "shake-shake-26-2x96d",
                [
                    Some((0.01, 1e-3)),
                    Some((0.01, 2.5e-3)),
                    Some((0.01, 1.5e-4)),
                    Some((0.025, 2.5e-3)),
                    Some((0.025, 5e-3)),
                ],
            ),
            ("shake-shake-26-2x112d", [Some((0.01, 1e-3)), None, None, None, None]),
            ("pyramidnet-272-a200-shakedrop", [Some((0.05, 5e-5)), Some((0.025, 5e-4)), None, None, None]),
            ("wrn-40-2", [None; 5]),
        ];
        for (model, rates) in lines {
            let row = |preset: Preset| preset.row(model.parse().unwrap());
            assert_eq!(columns.map(row), rates, "{model}");
        }
    }

    #[test]
    fn searches_are_the_papers() {
        let search = |text: &str| SearchSpec::from_json(text).unwrap();
        let spec = search(r#"{"preset": "rcifar10"}"#);
        let training = &spec.training;
        assert_eq!((training.dataset.as_str(), training.model), ("cifar10", ModelName::default()));
        assert_eq!((training.epochs, training.batch_size), (200, 128));
        assert_eq!((training.lr, training.weight_decay), (0.1, 5e-4));
        assert_eq!((spec.train_size, spec.val_size), (Some(4_000), Some(46_000)));
        assert_eq!((spec.population, spec.perturbation_interval), (16, 3));
        let spec = search(r#"{"preset": "rsvhn", "model": "wrn-28-2", "val_size": 100}"#);
        let training = &spec.training;
        assert_eq!((training.model.to_string().as_str(), training.epochs), ("wrn-28-2", 160));
        assert_eq!((training.weight_decay, training.base.as_deref()), (5e-3, Some("identity")));
        assert_eq!(training.lr_schedule, LrSchedule::Steps { steps: vec![80, 120], factor: 0.1 });
        assert_eq!((spec.train_size, spec.val_size), (Some(1_000), Some(100)));
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<SearchSpec>(&json).unwrap(), spec);
    }

    #[test]
    fn comparisons_are_of_the_papers_settings_too() {
        let spec =
            ComparisonSpec::from_json(r#"{"preset": "rsvhn", "arms": ["none", "svhn-pba"], "seeds": 3}"#)
                .unwrap();
        assert_eq!((spec.training.dataset.as_str(), spec.training.epochs), ("svhn", 160));
        assert_eq!((spec.train_size, spec.training.weight_decay), (Some(1_000), 0.01));
        // One that follows a search trains as the search does.
        let search = SearchSpec::from_json(r#"{"preset": "rsvhn", "then_compare": {"seeds": 4}}"#).unwrap();
        let spec = search.comparison().unwrap().unwrap();
        assert_eq!((spec.training, spec.seeds), (search.training, 4));
    }

    #[test]
    fn other_presets_are_refused_with_the_list() {
        let search = SearchSpec::from_json(r#"{"preset": "cifar10"}"#).unwrap_err();
        assert_eq!(search.to_string(), "preset is \"cifar10\"; allowed: rcifar10, rsvhn");
        let evaluation = EvaluationSpec::from_json(r#"{"preset": "imagenet"}"#).unwrap_err();
        assert!(evaluation.to_string().contains("cifar10, cifar100, svhn, rcifar10, rsvhn"), "{evaluation}");
        let model = EvaluationSpec::from_json(r#"{"preset": "cifar10", "model": "vgg"}"#).unwrap_err();
        assert_eq!(model.field, "model");
    }
}
