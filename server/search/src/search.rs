//! The search itself.

use std::ops::Range;

use pba_schedules::formats::json;
use pba_schedules::{Policy, Provenance, Schedule};

use crate::event::{Done, Event, Exploit};
use crate::population::{Member, Population};
use pba_specs::protocol::JobKind;
use pba_specs::{ComparisonSpec, MemberResults, Run, SearchResults, SearchSpec};

/// Trains the members of a population.
///
/// A trainer must be deterministic: the same calls give the same scores. Members are named by
/// their position, from 0.
///
/// # Errors
/// Every call fails when the device does, and may fail when the trainer is told to stop.
pub trait Trainer {
    /// Why a call failed.
    type Error;

    /// Loads the weights of all members as they were saved after `epoch` epochs; after 0 epochs,
    /// makes initial weights.
    ///
    /// # Errors
    /// When there is no such checkpoint.
    fn restore(&mut self, epoch: u32) -> Result<(), Self::Error>;

    /// Trains every member through `epochs` (0-based), each with its own policy.
    fn train(&mut self, policies: &[&Policy], epochs: Range<u32>) -> Result<(), Self::Error>;

    /// Validation accuracy of every member, 0..1; NaN for one that diverged.
    fn evaluate(&mut self) -> Result<Vec<f64>, Self::Error>;

    /// Gives `to` the weights, optimiser state and statistics of `from`.
    fn copy(&mut self, from: u32, to: u32) -> Result<(), Self::Error>;

    /// Takes the weights of all members after `epoch` epochs, to save them beside the training; after the
    /// last epoch they are on disk when this returns. What [`Trainer::restore`] finds may be older.
    ///
    /// # Errors
    /// When these or earlier ones cannot be written, for example because the disk is full.
    fn save(&mut self, epoch: u32) -> Result<(), Self::Error>;

    /// Whether the search was asked to end with the generation that was just trained.
    fn is_asked_to_finish(&mut self) -> bool {
        false
    }
}

/// Where a search stands: a fold of its [`Event`]s.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    spec: SearchSpec,
    /// The members as they stand.
    pub population: Population,
    /// Epochs trained and scored.
    epoch: u32,
    /// Whether it was asked to end here, before all its epochs are trained.
    is_finished: bool,
    /// The schedule, once the search is done.
    pub schedule: Option<Schedule>,
}

/// Runs a search to its end, from wherever it stands, and returns the schedule it learned.
///
/// `record` is given every event when it has happened. A search whose recorder or trainer fails
/// stands at the last [`Event::Checkpoint`] whose members were saved.
///
/// # Errors
/// The trainer's or the recorder's.
pub fn run<T: Trainer>(
    search: &mut Search,
    trainer: &mut T,
    mut record: impl FnMut(&Event) -> Result<(), T::Error>,
) -> Result<Schedule, T::Error> {
    if let Some(schedule) = &search.schedule {
        return Ok(schedule.clone());
    }
    let mut happened = |search: &mut Search, event: Event| {
        search.apply(&event).expect("what the search decided can happen");
        record(&event)
    };
    trainer.restore(search.epoch)?;
    while let Some(generation) = search.next_generation() {
        let epoch = generation.end;
        let policies: Vec<&Policy> = search.population.members.iter().map(|member| &member.policy).collect();
        trainer.train(&policies, generation)?;
        let scores = trainer.evaluate()?;
        happened(search, Event::scored(epoch, &scores))?;
        if search.next_generation().is_some() && trainer.is_asked_to_finish() {
            happened(search, Event::Finished { epoch })?;
        }
        for exploit in search.exploits() {
            trainer.copy(exploit.clone, exploit.target)?;
            happened(search, Event::Exploit(exploit))?;
        }
        happened(search, Event::Checkpoint { epoch })?;
        trainer.save(epoch)?;
    }
    let done = search.outcome();
    happened(search, Event::Done(done))?;
    Ok(search.schedule.clone().expect("a search that is done has a schedule"))
}

impl Search {
    /// A search at its start.
    pub fn new(spec: SearchSpec) -> Search {
        let population = Population::new(spec.population, &spec.ops);
        Search { spec, population, epoch: 0, is_finished: false, schedule: None }
    }

    /// The best validation accuracy in the population, once it has been scored.
    pub fn best_accuracy(&self) -> Option<f64> {
        finite(self.population.best().score)
    }

    /// The epochs to train before the next scores; the last generation may be shorter. None after it, and
    /// when the search was asked to end.
    pub fn next_generation(&self) -> Option<Range<u32>> {
        if self.is_finished {
            return None;
        }
        let end = self.epoch.saturating_add(self.spec.perturbation_interval).min(self.spec.training.epochs);
        (self.epoch < end).then_some(self.epoch..end)
    }

    /// Who copies whom now. After the last generation none does, as no member would train with the copy.
    fn exploits(&self) -> Vec<Exploit> {
        let SearchSpec { quantile, resample_probability, training, .. } = &self.spec;
        match self.next_generation() {
            None => Vec::new(),
            Some(_) => self.population.select(*quantile, *resample_probability, training.seed, self.epoch),
        }
    }

    fn outcome(&self) -> Done {
        let winner = self.population.best();
        let score = winner.score.filter(|score| !score.is_nan());
        let spec = &self.spec;
        let provenance = Provenance {
            dataset: Some(spec.training.dataset.clone()),
            model: Some(spec.training.model.to_string()),
            population: Some(spec.population),
            seed: Some(spec.training.seed),
            score,
            ..Provenance::default()
        };
        let schedule = winner.lineage.schedule(&spec.name, self.epoch, provenance);
        let schedule = schedule.expect("a lineage of a checked spec is a schedule");
        let document = serde_json::from_str(&json::write(&schedule));
        Done {
            winner: winner.id,
            score,
            digest: schedule.digest().to_string(),
            schedule: document.expect("a schedule is written as JSON"),
        }
    }
}

/// A score; none for a member that diverged or was not scored.
fn finite(score: Option<f64>) -> Option<f64> {
    score.filter(|score| score.is_finite())
}

impl Run for Search {
    const JOB: &'static JobKind = &JobKind {
        name: "search",
        one: "a search",
        plural: "searches",
        command: "search",
        result: "a schedule",
        learns: true,
    };
    type Spec = SearchSpec;
    type Event = Event;

    fn begin(event: &Event) -> Option<(Search, &str)> {
        let Event::Started { spec, dataset_digest } = event else { return None };
        Some((Search::new((**spec).clone()), dataset_digest))
    }

    fn can_resume_after(event: &Event) -> bool {
        matches!(event, Event::Started { .. } | Event::Checkpoint { .. } | Event::Done(_))
    }

    fn spec(&self) -> &SearchSpec {
        &self.spec
    }

    fn epoch(&self) -> u32 {
        self.epoch
    }

    fn is_complete(&self) -> bool {
        self.schedule.is_some()
    }

    fn schedule(&self) -> Option<&Schedule> {
        self.schedule.as_ref()
    }

    fn comparison(spec: &SearchSpec) -> Option<ComparisonSpec> {
        spec.comparison().expect("a checked spec asks for one that can be")
    }

    fn results(search: Option<&Search>, spec: &SearchSpec, is_done: bool) -> SearchResults {
        let members = search.map_or(&[][..], |search| &search.population.members);
        let member = |member: &Member| MemberResults {
            id: member.id,
            score: finite(member.score),
            age: member.age,
            parent: member.parent,
        };
        let learned = search.and_then(|search| search.schedule.as_ref());
        SearchResults {
            best_accuracy: search.and_then(Search::best_accuracy),
            schedule: is_done.then(|| spec.name.clone()),
            schedule_digest: learned.filter(|_| is_done).map(|schedule| schedule.digest().to_string()),
            population: spec.population,
            members: members.iter().map(member).collect(),
        }
    }

    fn apply(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Started { .. } => return Err("a search starts once".to_owned()),
            Event::Scored { epoch, scores } => {
                let members = self.population.members.len();
                if scores.len() != members {
                    return Err(format!("{} scores for {members} members", scores.len()));
                }
                if self.next_generation().map(|generation| generation.end) != Some(*epoch) {
                    return Err(format!("scores of epoch {epoch} after epoch {}", self.epoch));
                }
                self.population.score(scores, epoch - self.epoch);
                self.epoch = *epoch;
            }
            Event::Finished { epoch } => {
                if *epoch != self.epoch || self.next_generation().is_none() {
                    return Err(format!("asked to end after epoch {epoch}, but it stands at {}", self.epoch));
                }
                self.is_finished = true;
            }
            Event::Exploit(exploit) => {
                let members = self.spec.population;
                if exploit.epoch != self.epoch || exploit.target.max(exploit.clone) >= members {
                    return Err(format!("no such exploit after epoch {}", self.epoch));
                }
                let policy = Policy::from_hyperparameters(&self.spec.ops, &exploit.policy)
                    .map_err(|error| error.to_string())?;
                self.population.copy(exploit, policy);
            }
            Event::Checkpoint { epoch } if *epoch == self.epoch => {}
            Event::Checkpoint { epoch } => {
                return Err(format!("a checkpoint of epoch {epoch} after epoch {}", self.epoch));
            }
            Event::Done(done) => {
                let schedule = json::read(&done.schedule.to_string()).map_err(|error| error.to_string())?;
                if schedule.digest().to_string() != done.digest {
                    return Err(format!(
                        "a schedule whose digest is {}, not {}",
                        schedule.digest(),
                        done.digest
                    ));
                }
                self.schedule = Some(schedule);
            }
        }
        Ok(())
    }
}
