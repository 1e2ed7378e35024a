//! A comparison: what is trained when, and what came of it.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use pba_specs::protocol::JobKind;
use pba_specs::{Arm, Candidate, ComparisonResults, ComparisonSpec, Run, SpecError, Tuning};

use crate::recommend::stream_command;
use crate::report::{self, Outcome};
use crate::statistics::mean;

/// What a round's runs are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// To choose the setting of the tuned arm, by validation images.
    Tuning,
    /// To compare the arms, by the images of the spec's score.
    Comparing,
}

/// One model that is trained from scratch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunKey {
    /// Position of its arm: in the spec, or of the candidate while one is tuned.
    pub arm: usize,
    /// Position of its seed, from 0.
    pub seed: u32,
}

/// Runs that are trained side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// What for.
    pub stage: Stage,
    /// The runs.
    pub runs: Vec<RunKey>,
}

/// The rounds of a comparison in their order: one seed after another, so that whenever it is looked at,
/// the arms have been trained with about the same seeds.
fn rounds(spec: &ComparisonSpec) -> Vec<Round> {
    let stage = |stage, arms: usize, seeds: Range<u32>| {
        let runs: Vec<RunKey> =
            seeds.flat_map(|seed| (0..arms).map(move |arm| RunKey { arm, seed })).collect();
        let rounds = runs.chunks(spec.at_once as usize).map(|runs| Round { stage, runs: runs.to_vec() });
        rounds.collect::<Vec<_>>()
    };
    let tuned = if spec.tunes() { Arm::candidates().len() } else { 0 };
    // The tuning has seeds of its own: what was chosen by a seed would have an advantage with it.
    let mut rounds = stage(Stage::Tuning, tuned, spec.seeds..spec.seeds + spec.tuning_seeds);
    rounds.extend(stage(Stage::Comparing, spec.arms.len(), 0..spec.seeds));
    rounds
}

/// What happens in a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ComparisonEvent {
    /// The comparison began.
    Comparing {
        /// What it was asked to do, with every default filled in.
        spec: Box<ComparisonSpec>,
        /// Digest of each arm's schedule; null where it has none.
        schedule_digests: Vec<Option<String>>,
        /// Digest of the dataset's content.
        dataset_digest: String,
    },
    /// The runs of a round were trained and scored.
    Scored {
        /// The round, from 0.
        round: u32,
        /// The split of the scored images.
        split: String,
        /// How many they are.
        images: usize,
        /// Share of them that each run gets wrong; null where it diverged.
        errors: Vec<Option<f64>>,
    },
    /// The setting of the tuned arm was chosen.
    Tuned(Tuning),
    /// The comparison ended.
    Compared,
}

/// Where a comparison stands: a fold of its [`ComparisonEvent`]s.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    spec: ComparisonSpec,
    /// Digest of each arm's schedule.
    pub schedule_digests: Vec<Option<String>>,
    rounds: Vec<Round>,
    /// Errors of the runs of each scored round.
    errors: Vec<Vec<Option<f64>>>,
    /// Split and number of the images that the arms are scored with, once they are.
    scored: Option<(String, usize)>,
    tuning: Option<Tuning>,
    is_complete: bool,
}

impl Comparison {
    /// The round that is to be trained, with its number; none when all are scored.
    pub fn current(&self) -> Option<(u32, &Round)> {
        self.rounds.get(self.errors.len()).map(|round| (self.errors.len() as u32, round))
    }

    /// Rounds that are trained and scored, and the models in them.
    pub fn trained_models(&self) -> (u32, u32) {
        (self.errors.len() as u32, self.errors.iter().map(|errors| errors.len() as u32).sum())
    }

    /// The arm of a run: of the tuned one, the chosen setting.
    ///
    /// # Panics
    /// When the tuned arm is to be compared before it is chosen.
    pub fn arm(&self, stage: Stage, run: RunKey) -> Arm {
        match stage {
            Stage::Tuning => Arm::candidates()[run.arm].clone(),
            Stage::Comparing if self.spec.arms[run.arm] == Arm::Tuned => {
                let chosen = &self.tuning.as_ref().expect("tuning comes first").chosen;
                chosen.parse().expect("a candidate is an arm")
            }
            Stage::Comparing => self.spec.arms[run.arm].clone(),
        }
    }

    /// What the tuning chose, if that is to be decided now.
    pub fn choose(&self) -> Option<Tuning> {
        let is_tuned = self.rounds[..self.errors.len()].iter().any(|round| round.stage == Stage::Tuning);
        let is_going_on = self.current().is_some_and(|(_, round)| round.stage == Stage::Tuning);
        if !is_tuned || is_going_on || self.tuning.is_some() {
            return None;
        }
        let candidates: Vec<Candidate> = (0..)
            .zip(Arm::candidates())
            .map(|(position, arm)| {
                let errors: Option<Vec<f64>> = self
                    .outcomes(Stage::Tuning)
                    .filter(|run| run.arm == position)
                    .map(|run| run.error)
                    .collect();
                Candidate { arm: arm.to_string(), mean: errors.as_deref().and_then(mean) }
            })
            .collect();
        let worth = |candidate: &Candidate| candidate.mean.unwrap_or(f64::INFINITY);
        // Of equal ones the first, which is the weakest.
        let chosen = candidates.iter().min_by(|one, other| worth(one).total_cmp(&worth(other)));
        Some(Tuning {
            chosen: chosen.expect("there are candidates").arm.clone(),
            candidates: candidates.clone(),
            seeds: self.spec.tuning_seeds,
            images: self.spec.val_size.unwrap_or(0),
        })
    }

    /// The scored runs of a stage.
    fn outcomes(&self, stage: Stage) -> impl Iterator<Item = Outcome> + '_ {
        let rounds = self.rounds.iter().zip(&self.errors).filter(move |(round, _)| round.stage == stage);
        rounds.flat_map(|(round, errors)| {
            let outcome = |(run, error): (&RunKey, &Option<f64>)| Outcome {
                arm: run.arm,
                seed: run.seed,
                error: *error,
            };
            round.runs.iter().zip(errors).map(outcome)
        })
    }

    /// The report, as far as it goes.
    pub fn report(&self) -> ComparisonResults {
        let scored: Vec<Outcome> = self.outcomes(Stage::Comparing).collect();
        let images = self.scored.as_ref().map(|(_, images)| *images);
        let mut results = report::report(&self.spec, &self.schedule_digests, &scored, images);
        results.runs_done = self.trained_models().1;
        if let Some((split, images)) = &self.scored {
            (results.split, results.images) = (Some(split.clone()), Some(*images));
        }
        results.tuning = self.tuning.clone();
        let chosen = results.tuning.as_ref().map(|tuning| tuning.chosen.as_str());
        let arm = results.recommended.as_ref().map(|arm| arm.parse().expect("it is one of the arms"));
        results.stream_command = arm.map(|arm| stream_command(&self.spec, &arm, chosen));
        results
    }
}

impl Run for Comparison {
    const JOB: &'static JobKind = &JobKind {
        name: "comparison",
        one: "a comparison",
        plural: "comparisons",
        command: "compare",
        result: "a report",
        learns: false,
    };
    type Spec = ComparisonSpec;
    type Event = ComparisonEvent;

    fn begin(event: &ComparisonEvent) -> Option<(Comparison, &str)> {
        let ComparisonEvent::Comparing { spec, schedule_digests, dataset_digest } = event else {
            return None;
        };
        let comparison = Comparison {
            spec: (**spec).clone(),
            schedule_digests: schedule_digests.clone(),
            rounds: rounds(spec),
            errors: Vec::new(),
            scored: None,
            tuning: None,
            is_complete: false,
        };
        Some((comparison, dataset_digest))
    }

    fn apply(&mut self, event: &ComparisonEvent) -> Result<(), String> {
        if self.choose().is_some() && !matches!(event, ComparisonEvent::Tuned(_)) {
            return Err("nothing was chosen after the tuning".to_owned());
        }
        match event {
            ComparisonEvent::Comparing { .. } => return Err("a comparison starts once".to_owned()),
            ComparisonEvent::Scored { round: number, split, images, errors } => {
                let current =
                    self.current().filter(|(at, round)| at == number && round.runs.len() == errors.len());
                let Some((_, round)) = current else {
                    return Err(format!("scores of round {number} after {} rounds", self.errors.len()));
                };
                if errors.iter().flatten().any(|error| !(0.0..=1.0).contains(error)) {
                    return Err(format!("scores of round {number} that are no shares: {errors:?}"));
                }
                if round.stage == Stage::Comparing {
                    self.scored = Some((split.clone(), *images));
                }
                self.errors.push(errors.clone());
            }
            ComparisonEvent::Tuned(tuning) => {
                if self.choose().as_ref() != Some(tuning) {
                    return Err(format!("{} is not what the scores choose", tuning.chosen));
                }
                self.tuning = Some(tuning.clone());
            }
            ComparisonEvent::Compared => {
                if self.current().is_some() {
                    return Err(format!(
                        "compared after {} rounds of {}",
                        self.errors.len(),
                        self.rounds.len()
                    ));
                }
                self.is_complete = true;
            }
        }
        Ok(())
    }

    /// Always: what the journal tells of are rounds, and each begins with new models.
    fn begins_anew(&self) -> bool {
        true
    }

    fn spec(&self) -> &ComparisonSpec {
        &self.spec
    }

    fn epoch(&self) -> u32 {
        self.errors.len() as u32 * self.spec.training.epochs
    }

    fn is_complete(&self) -> bool {
        self.is_complete
    }

    fn excludes(
        run: Option<&Comparison>,
        spec: &ComparisonSpec,
        is_over: bool,
        asked: &ComparisonSpec,
        same_data: bool,
    ) -> Option<SpecError> {
        // One that ended before it looked at the test split has left it closed.
        let opened = !is_over || run.is_some_and(|run| run.scored.is_some());
        asked.conflict(spec, same_data).filter(|_| opened)
    }

    fn comparison(spec: &ComparisonSpec) -> Option<ComparisonSpec> {
        Some(spec.clone())
    }

    fn results(run: Option<&Comparison>, spec: &ComparisonSpec, _is_done: bool) -> ComparisonResults {
        run.map_or_else(|| report::report(spec, &vec![None; spec.arms.len()], &[], None), Comparison::report)
    }

    /// The command that streams the recommended arm names its schedule.
    fn withhold(results: &mut ComparisonResults, changed: &[&str]) {
        let arm = results.recommended.as_ref().and_then(|arm| arm.parse().ok());
        if let Some(Arm::Schedule { name, .. }) = arm
            && changed.contains(&name.as_str())
        {
            results.stream_command = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use pba_specs::{Score, Spec};

    use super::*;
    use pba_specs::journal::{line, replay};

    fn spec(text: &str) -> ComparisonSpec {
        ComparisonSpec::from_json(text).unwrap()
    }

    #[test]
    fn a_command_is_withheld_if_it_names_another_schedule_by_now() {
        let shown = |recommended: &str, changed: &[&str]| {
            let mut results = Comparison::results(None, &spec(r#"{"arms": ["none", "mine"]}"#), true);
            results.recommended = Some(recommended.to_owned());
            results.stream_command = Some("pba stream".to_owned());
            Comparison::withhold(&mut results, changed);
            results.stream_command.is_some()
        };
        assert!(shown("none", &["mine"]) && shown("mine", &["other"]) && shown("mine", &[]));
        assert!(!shown("mine", &["other", "mine"]) && !shown("mine@shuffled", &["mine"]));
    }

    #[test]
    fn every_arm_is_trained_with_every_seed_once() {
        let spec = spec(r#"{"arms": ["none", "a", "b"], "seeds": 5, "at_once": 4, "epochs": 7}"#);
        let rounds = rounds(&spec);
        assert_eq!(rounds.iter().map(|round| round.runs.len()).collect::<Vec<_>>(), [4, 4, 4, 3]);
        let mut all: Vec<_> =
            rounds.iter().flat_map(|round| &round.runs).map(|run| (run.seed, run.arm)).collect();
        assert!(all.is_sorted(), "one seed after another");
        all.dedup();
        assert_eq!((all.len(), spec.runs()), (15, 15));
        assert_eq!(spec.epochs(), 4 * 7);
    }

    /// Plays a comparison to its end with the errors that `error` says, and gives its journal.
    fn play(spec: &ComparisonSpec, error: impl Fn(Stage, RunKey) -> Option<f64>) -> (Comparison, String) {
        let begun = ComparisonEvent::Comparing {
            spec: Box::new(spec.clone()),
            schedule_digests: vec![None; spec.arms.len()],
            dataset_digest: "77".to_owned(),
        };
        let (mut comparison, _) = Comparison::begin(&begun).unwrap();
        let mut journal = line(&begun);
        let mut happened = |comparison: &mut Comparison, event: ComparisonEvent| {
            comparison.apply(&event).unwrap();
            journal += &line(&event);
        };
        while let Some((number, round)) = comparison.current() {
            let round = round.clone();
            let errors = round.runs.iter().map(|&run| error(round.stage, run)).collect();
            let split = if round.stage == Stage::Tuning { "train" } else { "test" }.to_owned();
            happened(&mut comparison, ComparisonEvent::Scored { round: number, split, images: 100, errors });
            if let Some(tuning) = comparison.choose() {
                happened(&mut comparison, ComparisonEvent::Tuned(tuning));
            }
        }
        happened(&mut comparison, ComparisonEvent::Compared);
        (comparison, journal)
    }

    #[test]
    fn a_journal_gives_where_a_comparison_stands() {
        let spec = spec(r#"{"arms": ["none", "randaugment:tuned"], "seeds": 3, "epochs": 2, "at_once": 4}"#);
        // The seventh candidate is the best; once it is chosen, it is better than the base.
        let (comparison, journal) = play(&spec, |stage, run| match stage {
            Stage::Tuning => Some(0.5 + 0.01 * (run.arm as f64 - 6.0).abs()),
            Stage::Comparing => Some(0.6 - 0.2 * run.arm as f64 + 0.001 * f64::from(run.seed)),
        });
        let report = comparison.report();
        assert_eq!(report.tuning.as_ref().unwrap().chosen, "randaugment:2:6");
        assert_eq!((report.runs, report.runs_done, report.images), (26, 26, Some(100)));
        assert_eq!(report.recommended.as_deref(), Some("randaugment:tuned"));
        assert_eq!(comparison.epoch(), spec.epochs());

        let replayed = replay::<Comparison>(&journal).unwrap().unwrap();
        assert_eq!(replayed.run, comparison);
        // Cut anywhere, it reads; with a line missing, it does not.
        let lines: Vec<&str> = journal.split_inclusive('\n').collect();
        for cut in 1..lines.len() {
            let part = replay::<Comparison>(&lines[..cut].concat()).unwrap().unwrap();
            assert_eq!(part.events, cut);
            let missing = [&lines[..cut], &lines[cut + 1..]].concat().concat();
            assert_eq!(replay::<Comparison>(&missing).is_ok(), cut == lines.len() - 1, "line {cut}");
        }
    }

    /// Every prefix of a journal says what is trained, and what is to be trained now.
    #[test]
    fn a_comparison_says_how_far_it_is() {
        let spec = spec(r#"{"arms": ["none", "randaugment:tuned"], "seeds": 3, "epochs": 2, "at_once": 8}"#);
        // 10 candidates with 2 seeds, then 2 arms with 3, at most 8 side by side.
        let sizes = [8, 8, 4, 6];
        let (_, journal) = play(&spec, |_, run| Some(0.1 * run.arm as f64));
        let lines: Vec<&str> = journal.split_inclusive('\n').collect();
        assert_eq!(lines.len(), 1 + sizes.len() + 2);
        for end in 1..=lines.len() {
            let text = lines[..end].concat();
            let replayed = replay::<Comparison>(&text).unwrap().unwrap();
            assert_eq!((replayed.bytes, replayed.events), (text.len(), end));
            let (run, rounds) = (&replayed.run, text.matches("\"scored\"").count());
            let models: u32 = sizes[..rounds].iter().sum();
            assert_eq!(run.trained_models(), (rounds as u32, models));
            assert_eq!((run.epoch(), run.is_complete()), (2 * rounds as u32, end == lines.len()));
            assert_eq!((run.spec(), run.begins_anew()), (&spec, true));
            assert_eq!(run.choose().is_some(), end == 4, "right after the last score of the tuning");
            let report = Comparison::results(Some(run), &spec, false);
            assert_eq!((report.runs, report.runs_done), (26, models));
            let (split, images) = if rounds == 4 { (Some("test"), Some(100)) } else { (None, None) };
            assert_eq!((report.split.as_deref(), report.images), (split, images));
            let current =
                run.current().map(|(number, round)| (number as usize, round.stage, round.runs.len()));
            let stage = if rounds < 3 { Stage::Tuning } else { Stage::Comparing };
            assert_eq!(current, sizes.get(rounds).map(|&size| (rounds, stage, size as usize)));
        }
    }

    #[test]
    fn the_tuned_arm_is_what_was_chosen() {
        let spec = spec(r#"{"arms": ["mine", "randaugment:tuned"], "seeds": 1, "epochs": 1}"#);
        let (comparison, _) = play(&spec, |_, run| Some(0.5 - 0.01 * run.arm as f64));
        let of = |stage, arm| comparison.arm(stage, RunKey { arm, seed: 0 }).to_string();
        assert_eq!(of(Stage::Tuning, 0), "randaugment:1:3");
        assert_eq!(of(Stage::Tuning, 9), "randaugment:2:20");
        assert_eq!(
            (of(Stage::Comparing, 0), of(Stage::Comparing, 1)),
            ("mine".into(), "randaugment:2:20".into())
        );
    }

    #[test]
    fn events_that_cannot_be_are_refused() {
        let spec =
            spec(r#"{"arms": ["none", "randaugment:tuned"], "seeds": 1, "epochs": 1, "tuning_seeds": 1}"#);
        let (comparison, journal) = play(&spec, |_, run| Some(0.01 * run.arm as f64));
        let events: Vec<ComparisonEvent> =
            journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let after = |count: usize| {
            let (mut comparison, _) = Comparison::begin(&events[0]).unwrap();
            events[1..count].iter().for_each(|event| comparison.apply(event).unwrap());
            comparison
        };
        let scored = |round, errors: &[f64]| ComparisonEvent::Scored {
            round,
            split: "train".to_owned(),
            images: 1,
            errors: errors.iter().map(|&error| Some(error)).collect(),
        };
        let refused = |count, event: &ComparisonEvent| after(count).apply(event).unwrap_err();
        assert!(Comparison::begin(&events[1]).is_none());
        assert_eq!(refused(1, &events[0]), "a comparison starts once");
        assert_eq!(refused(1, &scored(1, &[0.5; 10])), "scores of round 1 after 0 rounds");
        assert_eq!(refused(1, &scored(0, &[0.5; 9])), "scores of round 0 after 0 rounds");
        assert_eq!(after(1).apply(&scored(0, &[0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0])), Ok(()));
        for wrong in [-0.01, 1.01, f64::NAN] {
            let error = refused(1, &scored(0, &[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, wrong]));
            assert!(error.contains("scores of round 0 that are no shares"), "{error}");
        }
        assert_eq!(refused(1, &events[2]), "randaugment:1:3 is not what the scores choose");
        assert_eq!(refused(2, &events[3]), "nothing was chosen after the tuning");
        let ComparisonEvent::Tuned(tuning) = &events[2] else { panic!("{:?}", events[2]) };
        let other = Tuning { chosen: "randaugment:2:9".to_owned(), ..tuning.clone() };
        assert_eq!(
            refused(2, &ComparisonEvent::Tuned(other)),
            "randaugment:2:9 is not what the scores choose"
        );
        assert_eq!(refused(3, &events[2]), "randaugment:1:3 is not what the scores choose");
        assert_eq!(refused(3, &ComparisonEvent::Compared), "compared after 1 rounds of 2");
        assert_eq!(refused(5, &events[3]), "scores of round 1 after 2 rounds");
        assert_eq!(after(5), comparison);
    }

    #[test]
    fn before_it_begins_a_comparison_has_a_report_without_figures() {
        let spec = spec(r#"{"arms": ["none", "mine"], "seeds": 3}"#);
        assert_eq!(<Comparison as Run>::comparison(&spec), Some(spec.clone()));
        let results = Comparison::results(None, &spec, false);
        assert_eq!((results.runs, results.runs_done, results.arms.len()), (6, 0, 2));
        for arm in results.arms {
            assert_eq!((arm.entry.mean, arm.entry.n, arm.errors), (None, 0, vec![None; 3]));
        }
    }

    #[test]
    fn candidates_that_diverge_are_not_chosen() {
        let spec = spec(r#"{"arms": ["none", "randaugment:tuned"], "seeds": 1, "epochs": 1}"#);
        let (comparison, _) = play(&spec, |_, run| (run.arm != 0 || run.seed != 1).then_some(0.4));
        let tuning = comparison.report().tuning.unwrap();
        assert_eq!((tuning.candidates[0].mean, tuning.chosen.as_str()), (None, "randaugment:1:6"));
    }

    #[test]
    fn a_comparison_that_never_opened_the_test_split_excludes_nobody() {
        let spec = spec(r#"{"epochs": 1}"#);
        let (opened, _) = play(&spec, |_, _| Some(0.5));
        let excludes = |run, is_over| Comparison::excludes(run, &spec, is_over, &spec, false).is_some();
        assert!(excludes(Some(&opened), true) && excludes(None, false));
        assert!(!excludes(None, true), "it was cancelled while it waited");
        assert_eq!(spec.score, Score::Test);
    }
}
