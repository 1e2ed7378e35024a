//! The whole search on a trainer whose optimum is known.

use pba_schedules::{Op, Policy, Schedule};
use pba_search::journal::{Replay, line, replay};
use pba_search::toy::ToyTrainer;
use pba_search::{Event, Run, Search, SearchSpec, Spec, quantile_count, run};

fn spec(text: &str) -> SearchSpec {
    SearchSpec::from_json(text).unwrap()
}

/// Runs to the end and returns the trainer, the journal and the schedule.
fn complete(spec: &SearchSpec) -> (ToyTrainer, String, Schedule) {
    let mut trainer = ToyTrainer::new(spec);
    let started = Event::Started { spec: Box::new(spec.clone()), dataset_digest: "toy".to_owned() };
    let mut text = line(&started);
    let schedule = continued(Search::new(spec.clone()), &mut trainer, &mut text);
    (trainer, text, schedule)
}

fn continued(mut search: Search, trainer: &mut ToyTrainer, text: &mut String) -> Schedule {
    run(&mut search, trainer, |event| {
        text.push_str(&line(event));
        Ok(())
    })
    .unwrap()
}

fn last_policy(schedule: &Schedule) -> &Policy {
    schedule.at_search_epoch(schedule.epochs() - 1)
}

#[test]
fn finds_the_optimum() {
    for seed in 0..5 {
        let spec = spec(&format!(
            r#"{{"ops": ["Rotate", "Cutout"], "population": 16, "epochs": 300, "seed": {seed}}}"#
        ));
        let (trainer, _, schedule) = complete(&spec);
        let start = trainer.quality(&schedule.segments()[0].policy);
        let end = trainer.quality(last_policy(&schedule));
        assert_eq!(schedule.segments()[0].policy, Policy::zero(&[Op::Rotate, Op::Cutout]).unwrap());
        assert!(start < 0.4 && end > 0.8, "seed {seed}: from {start:.2} to {end:.2}");
        let best = trainer.weights.iter().copied().fold(f64::MIN, f64::max);
        assert_eq!(schedule.provenance.score, Some(best), "the winner's lineage is the schedule");
    }
}

#[test]
fn exploits_happen_between_generations_only() {
    // (population, epochs, interval, generations): intervals that divide the epochs and do not.
    for (population, epochs, interval, generations) in
        [(2, 9, 3, 3), (5, 10, 3, 4), (7, 1, 3, 1), (3, 5, 5, 1), (16, 11, 1, 11), (4, 7, 100, 1)]
    {
        let spec = spec(&format!(
            r#"{{"population": {population}, "epochs": {epochs}, "perturbation_interval": {interval}}}"#
        ));
        let (trainer, text, schedule) = complete(&spec);
        let events: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let scored: Vec<u32> = events
            .iter()
            .filter_map(|event| match event {
                Event::Scored { epoch, .. } => Some(*epoch),
                _ => None,
            })
            .collect();
        let expected: Vec<u32> = (1..=generations).map(|n| (n * interval).min(epochs)).collect();
        assert_eq!(scored, expected);
        let exploits = events.iter().filter(|event| matches!(event, Event::Exploit(_))).count();
        assert_eq!(exploits, quantile_count(population, 0.25) * (generations as usize - 1));
        assert_eq!((trainer.epochs_trained, schedule.epochs()), (epochs, epochs));
        assert_eq!(Some(&epochs), scored.last());
    }
}

#[test]
fn resumes_from_every_prefix() {
    for text in [
        r#"{"ops": ["Rotate"], "population": 5, "epochs": 10, "seed": 3}"#,
        r#"{"ops": ["Rotate", "Color"], "population": 8, "epochs": 8, "perturbation_interval": 2}"#,
    ] {
        let spec = spec(text);
        let (trainer, journal, schedule) = complete(&spec);
        let mut ends: Vec<usize> = journal.match_indices('\n').map(|(at, _)| at + 1).collect();
        // Torn lines: cut in the middle of each line, and just before its line feed.
        ends.extend(ends.clone().iter().flat_map(|&end| [end - 1, end - 20]));
        for end in ends {
            let Some(Replay { run: search, bytes, .. }) = replay::<Search>(&journal[..end]).unwrap() else {
                assert!(end < journal.find('\n').unwrap() + 1, "only an empty journal is no search");
                continue;
            };
            let at = search.epoch();
            let mut again = journal[..bytes].to_owned();
            let mut resumed = ToyTrainer { epochs_trained: 0, ..trainer.clone() };
            let learned = continued(search, &mut resumed, &mut again);
            assert_eq!(learned.digest(), schedule.digest());
            assert_eq!(again, journal, "an interrupted search leaves the same journal");
            assert_eq!(resumed.epochs_trained, spec.training.epochs - at, "no saved epoch is trained twice");
        }
    }
}

/// A search that is asked to end has the events of one that is not, up to the generation; its schedule is the
/// best member's so far; and it resumes like any other.
#[test]
fn ends_with_a_generation_when_asked() {
    let spec = spec(r#"{"ops": ["Rotate"], "population": 8, "epochs": 12, "seed": 3}"#);
    let (_, whole, _) = complete(&spec);
    let mut trainer = ToyTrainer { finish_after: Some(6), ..ToyTrainer::new(&spec) };
    let started = Event::Started { spec: Box::new(spec.clone()), dataset_digest: "toy".to_owned() };
    let mut journal = line(&started);
    let schedule = continued(Search::new(spec.clone()), &mut trainer, &mut journal);
    assert_eq!((schedule.epochs(), trainer.epochs_trained), (6, 6));
    let until = whole.find("{\"event\":\"scored\",\"epoch\":6").unwrap();
    let until = until + whole[until..].find('\n').unwrap() + 1;
    assert_eq!(journal[..until], whole[..until]);
    let events: Vec<Event> =
        journal[until..].lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [Event::Finished { epoch: 6 }, Event::Checkpoint { epoch: 6 }, Event::Done(done)] = &events[..]
    else {
        panic!("{events:?}");
    };
    let best = trainer.weights.iter().copied().fold(f64::MIN, f64::max);
    assert_eq!(done.score, Some(best));
    assert_eq!(done.digest, schedule.digest().to_string());
    for end in journal.match_indices('\n').map(|(at, _)| at + 1) {
        let Replay { run: search, bytes, .. } = replay::<Search>(&journal[..end]).unwrap().unwrap();
        let mut again = journal[..bytes].to_owned();
        continued(search, &mut trainer.clone(), &mut again);
        assert_eq!(again, journal);
    }
    // Asked with the last generation, it ends as it would have.
    let mut trainer = ToyTrainer { finish_after: Some(12), ..ToyTrainer::new(&spec) };
    let mut journal = line(&started);
    continued(Search::new(spec), &mut trainer, &mut journal);
    assert_eq!(journal, whole);
}

#[test]
fn journals_that_cannot_be_are_refused() {
    let (_, journal, _) = complete(&spec(r#"{"ops": ["Rotate"], "population": 4, "epochs": 6}"#));
    let lines: Vec<&str> = journal.split_inclusive('\n').collect();
    let refused = |text: &str| replay::<Search>(text).unwrap_err().to_string();
    assert!(refused(&lines[1..].concat()).contains("line 1 of the journal: a search begins"));
    assert!(refused(&format!("{}x\n", lines[0])).contains("line 2"));
    assert!(refused(&[lines[0], lines[0]].concat()).contains("starts once"));
    assert!(refused(&[lines[0], lines[1], lines[1]].concat()).contains("scores of epoch 3 after epoch 3"));
    assert!(refused(&[lines[0], lines[3]].concat()).contains("a checkpoint of epoch 3 after epoch 0"));
    let finished = |epoch| line(&Event::Finished { epoch });
    assert!(refused(&[lines[0], lines[1], &finished(2)].concat()).contains("asked to end after epoch 2"));
    assert!(refused(&format!("{journal}{}", finished(6))).contains("asked to end after epoch 6"));
    assert_eq!(replay::<Search>("").unwrap(), None);
}

#[test]
fn a_score_that_is_not_a_number_is_null() {
    let event = Event::scored(3, &[f64::NAN, 0.5]);
    assert_eq!(line(&event), "{\"event\":\"scored\",\"epoch\":3,\"scores\":[null,0.5]}\n");
    assert_eq!(serde_json::from_str::<Event>(&line(&event)).unwrap(), event);
}
