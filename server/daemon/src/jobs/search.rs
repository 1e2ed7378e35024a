//! Searches: jobs that learn a schedule of the same name.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use pba_schedules::Schedule;
use pba_search::{Event, Run, Search, SearchSpec};
use pba_wire::jobs::JobState;
use pba_wire::searches::{MemberAnswer, SearchAnswer, SearchList, SearchStanding};
use serde_json::{Map, Value};

use crate::catalog::schedules::Registry;
use crate::error::Error;
use crate::jobs::kind::{About, JobKind, News};
use crate::metrics::Metrics;

impl JobKind for Search {
    const NAMED: &'static str = "a search or a schedule";
    type Standing = SearchStanding;
    type Answer = SearchAnswer;
    type List = SearchList;

    fn is_taken(name: &str, registry: &Registry) -> bool {
        registry.get(name).is_ok()
    }

    fn fill_in(
        _fields: &mut Map<String, Value>,
        _spec: &SearchSpec,
        _registry: &Registry,
    ) -> Result<Option<Arc<Schedule>>, Error> {
        Ok(None)
    }

    fn standing(search: Option<&Search>, about: &About<'_, Search>) -> SearchStanding {
        let epoch = search.map_or(0, Run::epoch);
        SearchStanding {
            state: about.state,
            epoch,
            epochs: about.spec.training.epochs,
            best_accuracy: search
                .filter(|_| epoch > 0)
                .and_then(|search| number(search.population().best().score)),
            seconds: about.seconds,
            error: about.error.map(str::to_owned),
            schedule: (about.state == JobState::Done).then(|| about.id.to_owned()),
        }
    }

    fn answer(search: Option<&Search>, about: &About<'_, Search>) -> SearchAnswer {
        let members = search.map_or(&[][..], |search| search.population().members());
        let member = |member: &pba_search::Member| MemberAnswer {
            id: member.id,
            score: number(member.score),
            age: member.age,
            parent: member.parent,
        };
        SearchAnswer {
            id: about.id.to_owned(),
            standing: Self::standing(search, about),
            dataset: about.spec.training.dataset.clone(),
            model: about.spec.training.model.to_string(),
            population: about.spec.population,
            members: members.iter().map(member).collect(),
            progress: about.progress.cloned(),
            spec: about.spec.clone(),
        }
    }

    /// Registers the learned schedule.
    fn finish(search: Option<Search>, registry: &Registry, program: &Path) -> anyhow::Result<()> {
        let learned = search.and_then(|search| search.schedule().cloned());
        let none =
            || format!("the trainer ended without a schedule; is {} a pba-trainer?", program.display());
        let put = |schedule| registry.put(schedule).map_err(|error| anyhow::anyhow!("{}", error.detail));
        learned.with_context(none).and_then(put).context("cannot register the schedule")?;
        Ok(())
    }

    fn count(metrics: &Metrics, news: News<'_, Search>) {
        match news {
            News::Event(Event::Scored { epoch, .. }, search) => {
                metrics.search_epoch.set((*epoch).into());
                metrics.search_best_accuracy.set(number(search.population().best().score).unwrap_or(0.0));
            }
            News::Event(Event::Exploit(_), _) => metrics.search_exploits.inc(),
            News::Event(..) => {}
            News::Progress(progress, images) => {
                metrics.gpu_memory_used_bytes.set(progress.gpu_memory_used_bytes.unwrap_or(0) as i64);
                metrics.search_images_trained.inc_by(images);
            }
            News::Restart => metrics.search_restarts.inc(),
            News::Jobs(state, count) => {
                metrics.searches.with_label_values(&[state.name()]).set(count as i64);
            }
        }
    }
}

/// A score in JSON: null for a member that diverged or was not scored.
fn number(score: Option<f64>) -> Option<f64> {
    score.filter(|score| score.is_finite())
}
