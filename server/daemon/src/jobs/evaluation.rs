//! Evaluations: jobs that train one model from scratch, with or without a schedule, and test it.

use std::path::Path;
use std::sync::Arc;

use pba_schedules::Schedule;
use pba_search::{Evaluation, EvaluationSpec, Run};
use pba_wire::evaluations::{EvaluationAnswer, EvaluationList, EvaluationStanding};
use serde_json::{Map, Value};

use crate::catalog::schedules::Registry;
use crate::error::Error;
use crate::jobs::kind::{About, JobKind};

impl JobKind for Evaluation {
    const NAMED: &'static str = "an evaluation";
    type Standing = EvaluationStanding;
    type Answer = EvaluationAnswer;
    type List = EvaluationList;

    fn is_taken(_name: &str, _registry: &Registry) -> bool {
        false
    }

    /// A request may name a schedule by its digest; answers use its name.
    fn fill_in(
        fields: &mut Map<String, Value>,
        spec: &EvaluationSpec,
        registry: &Registry,
    ) -> Result<Option<Arc<Schedule>>, Error> {
        if spec.schedule == EvaluationSpec::NO_SCHEDULE {
            return Ok(None);
        }
        let schedule = registry.get(&spec.schedule);
        let schedule = schedule.map_err(|error| error.or_one_of(&[EvaluationSpec::NO_SCHEDULE]))?;
        fields.insert("schedule".to_owned(), schedule.name().into());
        Ok(Some(schedule))
    }

    fn standing(evaluation: Option<&Evaluation>, about: &About<'_, Evaluation>) -> EvaluationStanding {
        let outcome = evaluation.and_then(Evaluation::outcome);
        EvaluationStanding {
            state: about.state,
            epoch: evaluation.map_or(0, Run::epoch),
            epochs: about.spec.training.epochs,
            test_error: outcome.and_then(|outcome| outcome.test_error),
            train_loss: evaluation.and_then(Evaluation::train_loss),
            images: outcome.map(|outcome| outcome.images),
            split: outcome.map(|outcome| outcome.split.clone()),
            seconds: about.seconds,
            error: about.error.map(str::to_owned),
        }
    }

    fn answer(evaluation: Option<&Evaluation>, about: &About<'_, Evaluation>) -> EvaluationAnswer {
        EvaluationAnswer {
            id: about.id.to_owned(),
            standing: Self::standing(evaluation, about),
            dataset: about.spec.training.dataset.clone(),
            model: about.spec.training.model.to_string(),
            schedule: about.spec.schedule.clone(),
            ablation: about.spec.ablation,
            progress: about.progress.cloned(),
            spec: about.spec.clone(),
        }
    }

    fn finish(evaluation: Option<Evaluation>, _registry: &Registry, program: &Path) -> anyhow::Result<()> {
        let is_tested = evaluation.is_some_and(|evaluation| evaluation.outcome().is_some());
        let program = program.display();
        anyhow::ensure!(is_tested, "the trainer ended without a test error; is {program} a pba-trainer?");
        Ok(())
    }
}
