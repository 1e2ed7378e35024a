//! The journal of a job: whatever becomes of its bytes, what is read and replayed is a beginning of what was
//! written.

use pba_search::journal::{Kept, Replay, kept, line, read, replay, replay_to};
use pba_search::toy::ToyTrainer;
use pba_search::{
    Comparison, Evaluated, Evaluation, EvaluationEvent, EvaluationSpec, Event, Run, Search, SearchSpec, Spec,
    run,
};

use crate::fuzz::{Target, damaged, dice};

pub(super) const TARGET: Target = Target {
    name: "journal",
    check,
    mend,
    seeds,
    words: &[
        b"{\"event\":\"",
        b"started",
        b"scored",
        b"exploit",
        b"checkpoint",
        b"done",
        b"evaluating",
        b"trained",
        b"evaluated",
        b"comparing",
        b"tuned",
        b"compared",
        b"finished",
        b",\"seq\":",
        b",\"xxh3\":\"",
        b"\"epoch\":",
        b"null",
        b"4294967295",
        b"1e308",
        b"\"}\n",
        b"18446744073709551615",
    ],
    bytes_max: 16 << 10,
    mutations: 450,
};

fn check(bytes: &[u8]) {
    let Kept { text, ends, .. } = read(bytes);
    assert_eq!(text.lines().count(), ends.len(), "a line for each event");
    assert!(ends.is_sorted() && ends.last().is_none_or(|&end| end <= bytes.len()));
    replayed::<Search>(&text);
    replayed::<Evaluation>(&text);
    replayed::<Comparison>(&text);
    // As this version would have written it; a line of an older version has no checksum, and may end in white space.
    let objects = text.split_terminator('\n').all(|line| line.ends_with('}') && line.starts_with('{'));
    if objects && !text.is_empty() {
        let file = sealed(&text);
        let whole = read(file.as_bytes());
        assert_eq!(
            (&whole.text, whole.ends.len(), &whole.damage),
            (&text, ends.len(), &None),
            "read as it was written"
        );
        let mut dice = dice(bytes);
        for _ in 0..8 {
            let damaged = read(&damaged(file.as_bytes(), &mut dice));
            assert!(text.starts_with(&damaged.text), "not a beginning of what was written");
            assert!(whole.ends.starts_with(&damaged.ends));
        }
    }
}

/// Replays a journal, and beginnings of it, which are where the whole once was.
fn replayed<R: Run + PartialEq + std::fmt::Debug>(text: &str) {
    let Ok(Some(Replay { run, bytes, events, .. })) = replay::<R>(text) else { return };
    assert!(bytes <= text.len() && text[..bytes].lines().count() == events);
    let again = replay::<R>(&text[..bytes]).expect("a beginning of it").expect("it has begun");
    assert_eq!((&again.run, again.events), (&run, events), "replayed up to where it resumes");
    for epoch in [0, run.epoch() / 2] {
        let Ok(Some(before)) = replay_to::<R>(text, epoch) else {
            panic!("its beginning is a beginning of it")
        };
        let prefix = replay::<R>(&text[..before.bytes]).expect("a beginning of it").expect("it has begun");
        assert_eq!((&prefix.run, prefix.events), (&before.run, before.events), "up to epoch {epoch}");
        assert!(before.events <= events);
    }
}

/// The lines of a journal with their numbers and checksums.
fn sealed(text: &str) -> String {
    text.lines().enumerate().map(|(at, line)| kept(line, at + 1)).collect()
}

/// Gives each line that was sealed its number and checksum.
fn mend(bytes: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut mended = String::new();
    for (at, line) in text.split_inclusive('\n').enumerate() {
        match line.strip_suffix("\"}\n").and_then(|line| line.rsplit_once(",\"seq\":")) {
            Some((event, end)) if end.contains("xxh3") => mended += &kept(&format!("{event}}}"), at + 1),
            _ => mended += line,
        }
    }
    *bytes = mended.into_bytes();
}

fn seeds() -> Vec<Vec<u8>> {
    let mut journals = Vec::new();
    for spec in [
        r#"{"ops": ["Rotate"], "population": 2, "epochs": 4, "perturbation_interval": 2}"#,
        r#"{"ops": ["Rotate", "Cutout"], "population": 4, "epochs": 6, "seed": 3}"#,
    ] {
        let spec = SearchSpec::from_json(spec).expect("a spec");
        let mut text =
            line(&Event::Started { spec: Box::new(spec.clone()), dataset_digest: "toy".to_owned() });
        let mut add = |event: &Event| {
            text.push_str(&line(event));
            Ok(())
        };
        run(&mut Search::new(spec.clone()), &mut ToyTrainer::new(&spec), &mut add).expect("a toy");
        journals.push(text);
    }
    let spec = EvaluationSpec::from_json(r#"{"epochs": 2}"#).expect("a spec");
    let end = Evaluated {
        epoch: 2,
        split: "test".to_owned(),
        images: 10,
        test_error: Some(0.3),
        train_loss: Some(1.1),
    };
    let events = [
        EvaluationEvent::Evaluating {
            spec: Box::new(spec),
            schedule_digest: None,
            dataset_digest: "d".to_owned(),
        },
        EvaluationEvent::Trained { epoch: 1, train_loss: Some(1.234567890123) },
        EvaluationEvent::Trained { epoch: 2, train_loss: None },
        EvaluationEvent::Evaluated(end),
    ];
    journals.push(events.iter().map(line).collect());
    let compared = concat!(
        r#"{"event":"comparing","spec":{"arms":["none","cutout:8"],"seeds":2,"epochs":1},"schedule_digests":[null,null],"#,
        r#""dataset_digest":"d"}"#,
        "\n",
        r#"{"event":"scored","round":0,"split":"test","images":10,"errors":[0.5,0.25]}"#,
        "\n",
    );
    journals.push(compared.to_owned());
    let old = journals[0].clone();
    let mut seeds: Vec<Vec<u8>> = journals.iter().map(|text| sealed(text).into_bytes()).collect();
    seeds.push(old.into_bytes());
    seeds
}
