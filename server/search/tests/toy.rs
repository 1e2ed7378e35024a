//! The whole search on a trainer whose optimum is known.

use std::convert::Infallible;
use std::ops::Range;

use pba_schedules::{Op, Policy, Provenance, Schedule};
use pba_search::journal::{Replay, line, replay};
use pba_search::toy::ToyTrainer;
use pba_search::{Done, Event, Exploit, Run, Search, SearchSpec, Spec, Trainer, quantile_count, run};

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

/// A search goes on where its models are as the journal says: at its start, after a generation, or at its end.
#[test]
fn a_journal_leads_to_its_last_checkpoint() {
    let (_, journal, _) = complete(&spec(r#"{"ops": ["Rotate"], "population": 5, "epochs": 10, "seed": 3}"#));
    let lines: Vec<&str> = journal.split_inclusive('\n').collect();
    let (mut epoch, mut events) = (0, 0);
    for count in 1..=lines.len() {
        match serde_json::from_str(lines[count - 1]).unwrap() {
            Event::Started { .. } | Event::Done(_) => events = count,
            Event::Checkpoint { epoch: saved } => (epoch, events) = (saved, count),
            _ => {}
        }
        let replayed = replay::<Search>(&lines[..count].concat()).unwrap().unwrap();
        let bytes: usize = lines[..events].iter().map(|line| line.len()).sum();
        assert_eq!((replayed.run.epoch(), replayed.events, replayed.bytes), (epoch, events, bytes));
    }
    assert_eq!((epoch, events), (10, lines.len()));
}

/// A trainer that only does what every trainer must.
struct Plain(ToyTrainer);

impl Trainer for Plain {
    type Error = Infallible;

    fn restore(&mut self, epoch: u32) -> Result<(), Infallible> {
        self.0.restore(epoch)
    }

    fn train(&mut self, policies: &[&Policy], epochs: Range<u32>) -> Result<(), Infallible> {
        self.0.train(policies, epochs)
    }

    fn evaluate(&mut self) -> Result<Vec<f64>, Infallible> {
        self.0.evaluate()
    }

    fn copy(&mut self, from: u32, to: u32) -> Result<(), Infallible> {
        self.0.copy(from, to)
    }

    fn save(&mut self, epoch: u32) -> Result<(), Infallible> {
        self.0.save(epoch)
    }
}

#[test]
fn a_trainer_that_cannot_be_asked_trains_every_epoch() {
    let spec = spec(r#"{"ops": ["Rotate"], "population": 4, "epochs": 9}"#);
    let (_, _, schedule) = complete(&spec);
    let mut plain = Plain(ToyTrainer::new(&spec));
    assert_eq!(run(&mut Search::new(spec), &mut plain, |_| Ok(())), Ok(schedule));
    assert_eq!(plain.0.epochs_trained, 9);
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

/// What the API shows is what the journal says, after each of its events.
#[test]
fn results_follow_the_journal() {
    let spec = spec(r#"{"name": "mine", "ops": ["Rotate"], "population": 4, "epochs": 6, "seed": 2}"#);
    let (_, journal, schedule) = complete(&spec);
    let before = Search::results(None, &spec, false);
    assert_eq!((before.best_accuracy, before.population, before.members.len()), (None, 4, 0));
    let events: Vec<Event> = journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (mut search, digest) = Search::begin(&events[0]).unwrap();
    assert!(Search::begin(&events[1]).is_none());
    assert_eq!((digest, search.spec(), search.epoch(), search.best_accuracy()), ("toy", &spec, 0, None));
    let (mut trained, mut last, mut ages, mut parents) = (0, vec![None; 4], [0; 4], [None; 4]);
    for event in &events[1..] {
        assert!(!search.is_complete() && Run::schedule(&search).is_none());
        search.apply(event).unwrap();
        match event {
            Event::Scored { epoch, scores } => {
                ages = ages.map(|age| age + epoch - trained);
                (trained, last) = (*epoch, scores.clone());
            }
            Event::Exploit(exploit) => {
                ages[exploit.target as usize] = 0;
                parents[exploit.target as usize] = Some(exploit.clone);
            }
            _ => {}
        }
        let results = Search::results(Some(&search), &spec, false);
        let best = last.iter().copied().flatten().fold(f64::MIN, f64::max);
        assert_eq!((results.best_accuracy, search.best_accuracy()), (Some(best), Some(best)));
        assert_eq!((search.epoch(), results.schedule), (trained, None));
        for (id, member) in (0..).zip(results.members) {
            let expected = (id as u32, last[id], ages[id], parents[id]);
            assert_eq!((member.id, member.score, member.age, member.parent), expected);
        }
    }
    assert!(parents.iter().any(Option::is_some), "somebody copied somebody");
    assert!(search.is_complete());
    assert_eq!(Run::schedule(&search), Some(&schedule));
    let done = Search::results(Some(&search), &spec, true);
    assert_eq!(done.schedule.as_deref(), Some("mine"));
}

/// A schedule says where it comes from: the data, the model and the seed that would give it again.
#[test]
fn a_schedule_says_where_it_comes_from() {
    let spec = spec(
        r#"{"ops": ["Rotate"], "population": 4, "epochs": 6, "seed": 5, "model": "tiny", "dataset": "d"}"#,
    );
    let (trainer, _, schedule) = complete(&spec);
    let best = trainer.weights.iter().copied().fold(f64::MIN, f64::max);
    let expected = Provenance {
        dataset: Some("d".to_owned()),
        model: Some("tiny".to_owned()),
        population: Some(4),
        seed: Some(5),
        score: Some(best),
        ..Provenance::default()
    };
    assert_eq!(schedule.provenance, expected);
}

#[test]
fn a_search_may_ask_for_a_comparison() {
    assert_eq!(Search::comparison(&spec("{}")), None);
    let asking = spec(r#"{"name": "mine", "then_compare": {"seeds": 3}}"#);
    let comparison = Search::comparison(&asking).unwrap();
    assert_eq!((comparison.name.as_str(), comparison.seeds), ("mine-compared", 3));
}

/// Members that all diverged have no score; the search still ends, with the first one's policies.
#[test]
fn a_search_whose_members_all_diverge_ends() {
    let spec = spec(r#"{"ops": ["Rotate"], "population": 4, "epochs": 3}"#);
    let mut search = Search::new(spec);
    search.apply(&Event::scored(3, &[f64::NAN; 4])).unwrap();
    assert_eq!(search.best_accuracy(), None);
    let mut done = None;
    let record = |event: &Event| {
        if let Event::Done(event) = event {
            done = Some(event.clone());
        }
        Ok(())
    };
    let mut trainer = ToyTrainer::new(search.spec());
    trainer.checkpoints.insert(3, vec![f64::NAN; 4]);
    let schedule = run(&mut search, &mut trainer, record).unwrap();
    let done = done.unwrap();
    assert_eq!((done.winner, done.score, schedule.provenance.score), (0, None, None));
}

/// Each event of a journal is checked against where the search stands.
#[test]
fn events_that_cannot_be_are_refused() {
    let spec = spec(r#"{"ops": ["Rotate"], "population": 4, "epochs": 6}"#);
    let (_, journal, _) = complete(&spec);
    let events: Vec<Event> = journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let after = |count: usize| {
        let mut search = Search::begin(&events[0]).unwrap().0;
        events[1..count].iter().for_each(|event| search.apply(event).unwrap());
        search
    };
    let refused = |count, event: &Event| after(count).apply(event).unwrap_err();
    assert_eq!(refused(1, &Event::scored(3, &[0.5; 3])), "3 scores for 4 members");
    assert_eq!(refused(1, &Event::scored(6, &[0.5; 4])), "scores of epoch 6 after epoch 0");
    let Event::Exploit(exploit) = &events[2] else { panic!("{:?}", events[2]) };
    let unlike = |change: fn(&mut Exploit)| {
        let mut exploit = exploit.clone();
        change(&mut exploit);
        refused(2, &Event::Exploit(exploit))
    };
    assert_eq!(unlike(|exploit| exploit.epoch = 2), "no such exploit after epoch 3");
    assert_eq!(unlike(|exploit| exploit.target = 4), "no such exploit after epoch 3");
    assert_eq!(unlike(|exploit| exploit.clone = 4), "no such exploit after epoch 3");
    assert!(unlike(|exploit| exploit.policy = vec![11, 0, 0, 0]).contains("probability 11 of Rotate"));
    let Some(Event::Done(done)) = events.last() else { panic!("{:?}", events.last()) };
    let other = Event::Done(Done { digest: "0".repeat(64), ..done.clone() });
    let error = refused(events.len() - 1, &other);
    assert_eq!(error, format!("a schedule whose digest is {}, not {}", done.digest, "0".repeat(64)));
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
